package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
)

const configuration = "../../.goreleaser.yaml"

func TestTheConfigurationOfReleasesIsRight(t *testing.T) {
	if err := check(configuration); err != nil {
		t.Error(err)
	}
}

func TestOneThingThatIsWrongInTheConfigurationIsFound(t *testing.T) {
	text, err := os.ReadFile(configuration)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, broken, want string }{
		{"mod_timestamp:", "mod_time:", "field mod_time not found"},
		{"version: 2", "version: 3", "want 2"},
		{"CGO_ENABLED=0", "CGO_ENABLED=1", "want CGO_ENABLED=0"},
		{"-trimpath, ", "", "want -trimpath"},
		{", -buildvcs=true", "", "want -buildvcs=true"},
		{`ldflags: [""]`, `ldflags: []`, `want [""]`},
		{`ldflags: [""]`, `ldflags: ["-X main.date={{ .Date }}"]`, "want none, as in the Makefile"},
		{`    mod_timestamp: "{{ .CommitTimestamp }}"`, "", "mod_timestamp: want"},
		{`mode: 0755, mtime: "{{ .CommitDate }}"`, `mode: 0755`, "builds_info.mtime"},
		{`mode: 0644, mtime: "{{ .CommitDate }}"`, `mode: 0644`, "LICENSE: info.mtime"},
		{"algorithm: sha256", "algorithm: md5", "checksum: want"},
		{"\nsboms:\n", "\nsigns: [{cmd: gpg}]\nsboms:\n", "the releaser signs"},
		{"usagebridge:{{ .Version }}", "usagebridge:latest", "want no tag latest"},
	} {
		broken := strings.Replace(string(text), test.old, test.broken, 1)
		if broken == string(text) {
			t.Errorf("%q is not in %s", test.old, configuration)
			continue
		}
		path := filepath.Join(t.TempDir(), "goreleaser.yaml")
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := check(path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("with %q for %q: got %v, want an error with %q", test.broken, test.old, err, test.want)
		}
	}
}

func TestAListNamesTheProgramTheLanguageAndEveryModule(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Path: "example.com/a/cmd/a",
		Main: debug.Module{Path: "example.com/a", Version: "v1.2.3"},
		Deps: []*debug.Module{
			{Path: "example.com/Big", Version: "v2.0.0+incompatible", Sum: "h1:abc="},
			{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/new", Version: "v1.1.0"}},
		},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "f00"}},
	}
	bom := bill(info, [32]byte{1, 2, 3})
	var got []string
	for _, c := range *bom.Components {
		got = append(got, c.PackageURL)
	}
	want := []string{"pkg:golang/std@1.26.8", "pkg:golang/example.com/big@v2.0.0%2Bincompatible", "pkg:golang/example.com/new@v1.1.0"}
	if !slices.Equal(got, want) {
		t.Errorf("components: got %q, want %q", got, want)
	}
	program := bom.Metadata.Component
	if program.PackageURL != "pkg:golang/example.com/a@v1.2.3" || program.Type != cyclonedx.ComponentTypeApplication {
		t.Errorf("program: got %s, a %s; want pkg:golang/example.com/a@v1.2.3, an application", program.PackageURL, program.Type)
	}
	if revision := (*program.Properties)[2]; revision.Name != "go:build:vcs.revision" || revision.Value != "f00" {
		t.Errorf("third property: got %v, want the revision f00", revision)
	}
	if refs := *(*bom.Dependencies)[0].Dependencies; len(refs) != len(want) || !slices.IsSorted(refs) {
		t.Errorf("dependencies: got %q, want the three components in order", refs)
	}
	if sum := (*(*bom.Components)[1].Properties)[0]; sum.Value != "h1:abc=" {
		t.Errorf("sum: got %v, want h1:abc=", sum)
	}
}

func TestTheSameBinaryGivesTheSameList(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first bytes.Buffer
	if err := run([]string{"sbom", binary}, &first); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "list.json")
	if err := run([]string{"sbom", binary, path}, nil); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(first.Bytes(), second) {
		t.Errorf("second list: got %v and %d bytes, want the same %d bytes", err, len(second), first.Len())
	}
	var bom struct {
		SpecVersion string
		Components  []struct{ Name string }
	}
	if err := json.Unmarshal(second, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.SpecVersion != "1.6" || len(bom.Components) < 3 || bom.Components[0].Name != "std" {
		t.Errorf("list: got version %s and %v, want 1.6 and std before the modules", bom.SpecVersion, bom.Components)
	}
}

func TestWhatIsNoBinaryAndWrongUseAreRefused(t *testing.T) {
	for _, args := range [][]string{{"sbom", "main.go"}, {"sbom", "nowhere"}, {"check", "nowhere"}, {"sign"}, nil} {
		if err := run(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: got no error, want one", args)
		}
	}
}
