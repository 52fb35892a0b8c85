package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM lists the modules that are linked into a binary, as Go has written
// them there: not what go.mod names, of which much is for tests and tools.
// The same binary gives the same list.
func writeSBOM(binary string, w io.Writer) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	encoder := cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	return encoder.EncodeVersion(bill(info, sha256.Sum256(data)), cyclonedx.SpecVersion1_6)
}

func bill(info *debug.BuildInfo, sum [sha256.Size]byte) *cyclonedx.BOM {
	digest := hex.EncodeToString(sum[:])
	program := component(&info.Main)
	program.Type = cyclonedx.ComponentTypeApplication
	program.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: digest}}
	program.Properties = settings(info)

	// The standard library is a component, too: it has vulnerabilities of its own.
	parts := []cyclonedx.Component{component(&debug.Module{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")})}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		parts = append(parts, component(module))
	}
	var refs []string
	for _, part := range parts {
		refs = append(refs, part.BOMRef)
	}
	slices.Sort(refs)

	bom := cyclonedx.NewBOM()
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%s-%s-8%s-8%s-%s", digest[:8], digest[8:12], digest[13:16], digest[17:20], digest[20:32])
	bom.Metadata = &cyclonedx.Metadata{Component: &program}
	bom.Components = &parts
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}
	return bom
}

func component(module *debug.Module) cyclonedx.Component {
	url := "pkg:golang/" + strings.ToLower(module.Path)
	if module.Version != "" && module.Version != "(devel)" {
		url += "@" + strings.ReplaceAll(module.Version, "+", "%2B")
	}
	c := cyclonedx.Component{
		BOMRef: url, PackageURL: url, Type: cyclonedx.ComponentTypeLibrary,
		Name: module.Path, Version: module.Version, Scope: cyclonedx.ScopeRequired,
	}
	if module.Sum != "" {
		c.Properties = &[]cyclonedx.Property{{Name: "go:sum", Value: module.Sum}} // of the module's files, by Go's own reckoning
	}
	return c
}

// settings are those of the build by which it can be made again.
func settings(info *debug.BuildInfo) *[]cyclonedx.Property {
	list := []cyclonedx.Property{{Name: "go:package", Value: info.Path}, {Name: "go:version", Value: info.GoVersion}}
	for _, s := range info.Settings {
		list = append(list, cyclonedx.Property{Name: "go:build:" + s.Key, Value: s.Value})
	}
	return &list
}
