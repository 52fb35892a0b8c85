package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// exposure is the worst that `systemd-analyze security` may say of a unit, times ten.
const exposure = "15"

var executable = regexp.MustCompile(`(?m)^(Exec\w+=)/usr/local/bin/\S+`)

// checkUnits asks systemd-analyze, where it is installed.
func checkUnits(ctx context.Context, root string) (findings, error) {
	tool, err := exec.LookPath("systemd-analyze")
	if errors.Is(err, exec.ErrNotFound) {
		fmt.Fprintln(os.Stderr, "systemd-analyze is missing: the units of deploy/systemd are not checked")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	units, err := filepath.Glob(filepath.Join(root, "deploy", "systemd", "*.service"))
	if err != nil {
		return nil, err
	}
	if len(units) == 0 {
		return nil, errors.New("deploy/systemd has no unit")
	}
	dir, err := os.MkdirTemp("", "units-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var found findings
	for _, unit := range units {
		// A program that is not installed here is no mistake of the unit.
		text, err := os.ReadFile(unit)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(path, executable.ReplaceAll(text, []byte("${1}/bin/true")), 0o600); err != nil {
			return nil, err
		}
		for _, args := range [][]string{
			{"verify", "--man=no", path},
			{"security", "--offline=true", "--threshold=" + exposure, path},
		} {
			out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput() //nolint:gosec // the path is ours
			said := strings.TrimSpace(string(out))
			if err != nil || args[0] == "verify" && strings.Contains(said, filepath.Base(unit)+":") {
				found.add("deploy/systemd/"+filepath.Base(unit), "systemd-analyze %s: %v\n%s", args[0], err, said)
			}
		}
	}
	return found, nil
}
