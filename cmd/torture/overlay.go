//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// edit replaces a snippet of a source file, for one build and without touching
// the file. The snippet must be there exactly once, so that no edit can come
// to do nothing without a word.
type edit struct {
	file     string // absolute, or below the module's directory
	old, new string
}

// overlay writes the edited copies into dir and gives the flag by which go
// build takes them instead of the files.
func overlay(ctx context.Context, dir string, edits ...edit) (flag string, err error) {
	root, err := goEnv(ctx, "GOMOD")
	if err != nil {
		return "", err
	}
	texts := map[string]string{}
	for _, e := range edits {
		path := e.file
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(root), path)
		}
		if texts[path] == "" {
			text, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("edit a source: %w", err)
			}
			texts[path] = string(text)
		}
		if n := strings.Count(texts[path], e.old); n != 1 {
			return "", fmt.Errorf("edit %s: the snippet is there %d times, want once:\n%s", e.file, n, e.old)
		}
		texts[path] = strings.Replace(texts[path], e.old, e.new, 1)
	}
	replace := map[string]string{}
	for path, text := range texts {
		replace[path] = filepath.Join(dir, fmt.Sprintf("overlay-%d-%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("edit a source: %w", err)
		}
	}
	table, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("edit a source: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, table, 0o600); err != nil {
		return "", fmt.Errorf("edit a source: %w", err)
	}
	return "-overlay=" + path, nil
}

func goEnv(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", name).Output() //nolint:gosec // a name of ours
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// The environment of a worker whose wall clock jumps. Its monotonic clock
// goes on as it did, as when a person sets the time.
const (
	clockAt = "TORTURE_CLOCK_AT" // when, nanoseconds since 1970 UTC
	clockBy = "TORTURE_CLOCK_BY" // by how much, nanoseconds
)

// clockEdits make the standard library's clock one that jumps.
func clockEdits(goroot string) []edit {
	file := filepath.Join(goroot, "src", "time", "time.go")
	return []edit{
		{file, "import (\n", "import (\n\t\"syscall\"\n"},
		{file, "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", `// tortureEnv is a number of the environment, 0 if there is none.
func tortureEnv(name string) int64 {
	text, _ := syscall.Getenv(name)
	n, _ := atoi(text)
	return int64(n)
}

var tortureAt, tortureBy = tortureEnv("` + clockAt + `"), tortureEnv("` + clockBy + `")

func Now() Time {
	sec, nsec, mono := runtimeNow()
	if wall := sec*1e9 + int64(nsec); tortureAt != 0 && wall >= tortureAt {
		sec, nsec = (wall+tortureBy)/1e9, int32((wall+tortureBy)%1e9)
	}
`},
	}
}
