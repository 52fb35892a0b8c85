package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// instruction is one of a Dockerfile.
type instruction struct {
	name  string // in lower case
	line  int
	flags []string
	words []string
	exec  bool // as a JSON array: no shell
}

// stage is one FROM with what follows.
type stage struct {
	from, name string
	body       []instruction
}

// stages parses a Dockerfile and puts the defaults of the ARGs before the first FROM into the FROMs.
func stages(text []byte) ([]stage, error) {
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var all []stage
	var defaults []string
	for _, node := range parsed.AST.Children {
		i := instruction{name: strings.ToLower(node.Value), line: node.StartLine, flags: node.Flags, exec: node.Attributes["json"]}
		for n := node.Next; n != nil; n = n.Next {
			i.words = append(i.words, n.Value)
			if len(n.Children) > 0 { // HEALTHCHECK: CMD, and then what
				i.words = append(i.words, n.Children[0].Value)
			}
		}
		switch {
		case i.name == "from":
			from := strings.NewReplacer(defaults...).Replace(i.words[0])
			s := stage{from: from}
			if len(i.words) == 3 {
				s.name = i.words[2]
			}
			all = append(all, s)
		case len(all) > 0:
			all[len(all)-1].body = append(all[len(all)-1].body, i)
		case i.name == "arg":
			if name, value, ok := strings.Cut(i.words[0], "="); ok {
				defaults = append(defaults, "${"+name+"}", value, "$"+name, value)
			}
		}
	}
	return all, nil
}

func checkDockerfile(_ context.Context, root string) (findings, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile"))
	if err != nil {
		return nil, err
	}
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return nil, err
	}
	return judgeDockerfile(text, string(module), string(makefile))
}

var (
	goDirective = regexp.MustCompile(`(?m)^go (\d+\.\d+)`)
	buildFlags  = regexp.MustCompile(`(?m)^BUILD := (\S+) \$\(GO\) (.+)$`)
	numeric     = regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`)
	owned       = regexp.MustCompile(`^--chown=[1-9]\d*:[1-9]\d*$`)
)

func judgeDockerfile(text []byte, module, makefile string) (findings, error) {
	all, err := stages(text)
	if err != nil {
		return nil, fmt.Errorf("deploy/Dockerfile: %w", err)
	}
	if len(all) < 2 {
		return findings{{"deploy/Dockerfile", "it has one stage: want one that builds, and one without what builds"}}, nil
	}
	var found findings
	var names []string
	for _, s := range all {
		judgeBase(&found, s.from, names, module)
		names = append(names, s.name)
		for _, i := range s.body {
			judgeInstruction(&found, i)
		}
	}
	judgeBuild(&found, all, makefile)
	judgeFinal(&found, all[len(all)-1])
	return found, nil
}

// judgeBase: of a version, and Go's is that of the module.
func judgeBase(found *findings, from string, stages []string, module string) {
	if slices.Contains(stages, from) || from == "scratch" {
		return
	}
	name, version, ok := strings.Cut(from, ":")
	switch {
	case !ok || version == "latest" || version == "":
		found.add("deploy/Dockerfile", "FROM %s: want a tag, and not latest", from)
	case name == "golang":
		if m := goDirective.FindStringSubmatch(module); len(m) != 2 || !regexp.MustCompile(`^`+regexp.QuoteMeta(m[1])+`\.\d+-`).MatchString(version) {
			found.add("deploy/Dockerfile", "FROM %s: want the whole version of Go %s, and the distribution", from, m)
		}
	}
}

func judgeInstruction(found *findings, i instruction) {
	where := fmt.Sprintf("deploy/Dockerfile:%d", i.line)
	switch i.name {
	case "add":
		found.add(where, "ADD fetches and unpacks: want COPY")
	case "entrypoint", "cmd":
		if !i.exec {
			found.add(where, "%s needs a shell, which then gets the signals: want a JSON array", strings.ToUpper(i.name))
		}
	case "copy":
		for _, f := range i.flags {
			if strings.HasPrefix(f, "--chown=") && !owned.MatchString(f) {
				found.add(where, "%s: want numbers that are not 0, since the base may know no names", f)
			}
		}
	case "arg", "env":
		for at, w := range i.words {
			secret := regexp.MustCompile(`(?i)(token|secret|password|seed)`).MatchString(w)
			if secret && (i.name == "arg" || at%3 == 0) {
				found.add(where, "%s %s: whoever has the image has its secrets, too", strings.ToUpper(i.name), w)
			}
		}
	}
}

// judgeBuild: the binary is built as `make build` does.
func judgeBuild(found *findings, all []stage, makefile string) {
	flags := buildFlags.FindStringSubmatch(makefile)
	if flags == nil {
		found.add("Makefile", "no line BUILD := … $(GO) … was found")
		return
	}
	for _, s := range all {
		for _, i := range s.body {
			command := strings.Join(i.words, " ")
			if i.name != "run" || !strings.Contains(command, "./cmd/usagebridge") {
				continue
			}
			for _, want := range append([]string{flags[1], "-buildvcs=true"}, strings.Fields(flags[2])...) {
				if !strings.Contains(command, want) {
					found.add(fmt.Sprintf("deploy/Dockerfile:%d", i.line), "the build has no %s, which `make build` has or the version needs", want)
				}
			}
			return
		}
	}
	found.add("deploy/Dockerfile", "nothing builds ./cmd/usagebridge")
}

// judgeFinal: what is shipped runs as nobody in particular, and says how it is.
func judgeFinal(found *findings, s stage) {
	last := map[string]instruction{}
	for _, i := range s.body {
		last[i.name] = i
		if i.name == "run" {
			found.add(fmt.Sprintf("deploy/Dockerfile:%d", i.line), "RUN in the last stage needs a shell in the image: want it in a stage before")
		}
	}
	for name, right := range map[string]func(instruction) bool{
		"user":        func(i instruction) bool { return len(i.words) == 1 && numeric.MatchString(i.words[0]) },
		"healthcheck": func(i instruction) bool { return len(i.words) > 1 && i.words[0] == "CMD" && i.exec },
		"entrypoint":  func(i instruction) bool { return len(i.words) > 0 },
		"label": func(i instruction) bool {
			return strings.Contains(strings.Join(i.words, " "), "org.opencontainers.image.licenses")
		},
	} {
		if i, there := last[name]; !there || !right(i) {
			found.add("deploy/Dockerfile", "the last stage has %s %v: want USER of two numbers that are not 0, HEALTHCHECK CMD [\"…\"], ENTRYPOINT, LABEL with the licence", strings.ToUpper(name), i.words)
		}
	}
}

// checkIgnored: without a tracked file the version of the image would be that of a modified
// checkout, and without .git there would be none.
func checkIgnored(ctx context.Context, root string) (findings, error) {
	file, err := os.Open(filepath.Join(root, ".dockerignore"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf(".dockerignore: %w", err)
	}
	out, err := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	return judgeIgnored(patterns, append(strings.Split(strings.TrimRight(string(out), "\x00"), "\x00"), ".git/HEAD"))
}

// unwanted is what must not get into a build: secrets that somebody keeps in the checkout, and what
// is large.
var unwanted = []string{
	"bin/usagebridge", "dist/x.tar.gz", "master-keyset.json", "deploy/master-keyset.json", "statement-key.pem",
	"worker.nk", "secrets/operator.nk", "vendor.token", "a/partner.token", "store.tar", "secrets/ca.key",
}

func judgeIgnored(patterns, tracked []string) (findings, error) {
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf(".dockerignore: %w", err)
	}
	var found findings
	for _, list := range []struct {
		paths []string
		want  bool
		what  string
	}{
		{tracked, false, "%s is tracked and left out: the version would be that of a modified checkout"},
		{unwanted, true, "%s would get into the build"},
	} {
		for _, path := range list.paths {
			out, err := matcher.MatchesOrParentMatches(path)
			if err != nil {
				return nil, fmt.Errorf(".dockerignore: %w", err)
			}
			if out != list.want {
				found.add(".dockerignore", list.what, path)
			}
		}
	}
	return found, nil
}
