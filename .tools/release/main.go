// Command release checks how releases are made, and lists what a binary is made of.
//
//	release check .goreleaser.yaml
//	release sbom BINARY [FILE]
//
// It makes no release: goreleaser does, on a machine that may publish.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "check":
		return check(args[1])
	case len(args) == 2 && args[0] == "sbom":
		return writeSBOM(args[1], stdout)
	case len(args) == 3 && args[0] == "sbom":
		file, err := os.Create(args[2])
		if err != nil {
			return err
		}
		return errors.Join(writeSBOM(args[1], file), file.Close())
	}
	return errors.New("want check FILE, or sbom BINARY [FILE]")
}
