package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// openEditor lets a person change a text, and says in which file it is. The
// editor talks on stderr: stdout is for data.
func (c *cli) openEditor(ctx context.Context, text []byte) (edited []byte, path string, err error) {
	file, err := os.CreateTemp("", "usagebridge-*.json")
	if err != nil {
		return nil, "", fmt.Errorf("make a file for the editor: %w", err)
	}
	path = file.Name()
	if _, err = file.Write(text); err == nil {
		err = file.Close()
	}
	if err != nil {
		return nil, path, fmt.Errorf("write the file for the editor: %w", err)
	}
	editor := strings.Fields(or(os.Getenv("VISUAL"), or(os.Getenv("EDITOR"), "vi")))
	if len(editor) == 0 {
		editor = []string{"vi"}
	}
	cmd := exec.CommandContext(ctx, editor[0], append(editor[1:], path)...) //nolint:gosec // it is the person's own editor
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stderr, c.stderr
	if err := cmd.Run(); err != nil {
		_ = os.Remove(path)
		return nil, path, fmt.Errorf("nothing replayed: the editor %s: %w", editor[0], err)
	}
	if edited, err = os.ReadFile(path); err != nil {
		return nil, path, fmt.Errorf("nothing replayed: read what the editor wrote: %w", err)
	}
	return edited, path, nil
}

// prettyDocument indents JSON, and leaves everything else as it is.
func prettyDocument(text []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, text, "", "  ") == nil {
		text = b.Bytes()
	}
	return strings.TrimRight(string(text), "\n")
}

const (
	// maxDiff bounds the lines shown of one edit, maxCompared the work for
	// finding them: beyond, all of the old and all of the new is different.
	maxDiff     = 40
	maxCompared = 1 << 20
)

// diffDocuments lists the lines in which two documents differ: "- " what was,
// "+ " what is. It is empty without an edit.
func diffDocuments(before, after []byte) []string {
	if after == nil {
		return nil
	}
	var old []string
	if before != nil {
		old = strings.Split(prettyDocument(before), "\n")
	}
	lines := diffLines(old, strings.Split(prettyDocument(after), "\n"))
	for i, line := range lines {
		lines[i] = printable(line)
	}
	if len(lines) > maxDiff {
		lines = append(lines[:maxDiff:maxDiff], fmt.Sprintf("… and %d more lines", len(lines)-maxDiff))
	}
	return lines
}

// diffLines keeps a longest common subsequence and lists the rest in order.
func diffLines(a, b []string) []string {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	common := func(int, int) int { return 0 }
	if len(a)*len(b) <= maxCompared {
		common = commonLines(a, b)
	}
	var lines []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common(i+1, j) >= common(i, j+1):
			lines = append(lines, "- "+a[i])
			i++
		default:
			lines = append(lines, "+ "+b[j])
			j++
		}
	}
	return lines
}

// commonLines gives the length of the longest common subsequence of a from i
// on and b from j on.
func commonLines(a, b []string) func(i, j int) int {
	width := len(b) + 1
	table := slices.Repeat([]int{0}, (len(a)+1)*width)
	for i, old := range slices.Backward(a) {
		for j, line := range slices.Backward(b) {
			if old == line {
				table[i*width+j] = table[(i+1)*width+j+1] + 1
			} else {
				table[i*width+j] = max(table[(i+1)*width+j], table[i*width+j+1])
			}
		}
	}
	return func(i, j int) int { return table[i*width+j] }
}
