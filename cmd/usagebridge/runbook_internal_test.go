package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A person on call types what the documents say. A command that does not exist costs minutes then.
func TestTheDocumentsNameOnlyCommandsAndFlagsThatExist(t *testing.T) {
	for _, document := range []struct {
		path         string
		typed, named int // how many commands it has at least, in blocks and in the text
	}{
		{"../../deploy/runbook.md", 50, 20},
		{"../../deploy/secrets.md", 10, 10},
	} {
		text, err := os.ReadFile(document.path)
		if err != nil {
			t.Fatal(err)
		}
		typed, named := commandLines(string(text))
		if len(typed) < document.typed || len(named) < document.named {
			t.Fatalf("%s: found %d commands in blocks and %d in the text: they are not read as they should be", document.path, len(typed), len(named))
		}
		for _, line := range slices.Concat(typed, named) {
			if err := takes(line); err != nil && (!slices.Contains(named, line) || !isName(line)) {
				t.Errorf("%s says %q: %v", document.path, line, err)
			}
		}
	}
}

func TestTheDocumentOfSecretsStaysShort(t *testing.T) {
	text, err := os.ReadFile("../../deploy/secrets.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines > 150 {
		t.Errorf("it has %d lines, want at most 150: who has lost a key reads no more", lines)
	}
}

func TestACommandThatDoesNotExistIsFoundInADocument(t *testing.T) {
	text := "Say `usagebridge vendors resume acme\n  --why TEXT`, or `USAGEBRIDGE_LISTEN`, or\n" +
		"`printf x | usagebridge publish - --integration acme/msp-1`.\n" +
		"```sh\nusagebridge init --vendor acme \\\n  --max-bytes N   # in bytes\nusagebridge dlq list --each\nusagebridge audit ls --why \"a b\"\n" +
		"usagebridge vendors show\nnats stream ls\n```\n"
	wantTyped := []string{
		"usagebridge init --vendor acme --max-bytes N", "usagebridge dlq list --each", `usagebridge audit ls --why "a b"`, "usagebridge vendors show",
	}
	wantNamed := []string{"usagebridge vendors resume acme --why TEXT", "usagebridge publish - --integration acme/msp-1"}
	typed, named := commandLines(text)
	if !slices.Equal(typed, wantTyped) || !slices.Equal(named, wantNamed) {
		t.Fatalf("got commands %q and %q\nwant %q and %q", typed, named, wantTyped, wantNamed)
	}
	for at, bad := range []bool{false, true, true, true, false, false} {
		line := slices.Concat(typed, named)[at]
		if err := takes(line); (err != nil) != bad {
			t.Errorf("%q: got error %v, want one: %t", line, err, bad)
		}
	}
}

var (
	shellBlock   = regexp.MustCompile("(?s)```sh\n(.*?)```")
	codeBlock    = regexp.MustCompile("(?s)```.*?```")
	codeSpan     = regexp.MustCompile("`(?:[^`]*[|] )?(usagebridge [^`]*)`")
	shellComment = regexp.MustCompile(`\s+#.*`)
	quotedWord   = regexp.MustCompile(`"[^"]*"|\S+`)
)

// commandLines are the commands of this program in a Markdown document: those that are typed, from
// its shell blocks, and those that its text names.
func commandLines(text string) (typed, named []string) {
	for _, block := range shellBlock.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", "")) {
			if strings.HasPrefix(line, "usagebridge ") {
				typed = append(typed, onOneLine(shellComment.ReplaceAllString(line, "")))
			}
		}
	}
	for _, span := range codeSpan.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		named = append(named, onOneLine(span[1]))
	}
	return typed, named
}

func onOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// isName says whether a sentence speaks of a command without saying what to give it.
func isName(line string) bool {
	cmd, rest, err := (&cli{}).root().Find(strings.Fields(line)[1:])
	return err == nil && len(rest) == 0 && cmd.HasParent()
}

// takes says whether the program would take the arguments of a command line. An N in it stands
// for any number.
func takes(line string) error {
	args := quotedWord.FindAllString(line, -1)[1:]
	for at, arg := range args {
		args[at] = strings.Trim(arg, `"`)
		if arg == "N" {
			args[at] = "1"
		}
	}
	cmd, rest, err := (&cli{}).root().Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	left := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(left) > 0 {
		return fmt.Errorf("%s has no command %s", cmd.CommandPath(), left[0])
	}
	return errors.Join(cmd.ValidateArgs(left), cmd.ValidateRequiredFlags())
}
