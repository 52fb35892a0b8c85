package main_test

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// The import policy of the repository, as a test so that it fails for everybody who has Go.
// Changing a table below is changing the design.

const modulePath = "github.com/usagebridge/usagebridge"

// ours lists for every package the packages of this module that its program files may import.
// A package missing here may not exist; a package listed here need not exist yet.
// cmd is the composition root: it may import everything, and nothing may import it.
var ours = map[string][]string{
	"schemas": {},

	"pkg/event":             {"schemas"},
	"pkg/event/eventtest":   {"pkg/event", "schemas"},
	"pkg/ledger":            {},
	"pkg/ledger/ledgertest": {"pkg/ledger"},
	"pkg/delivery":          {"pkg/ledger"},
	"pkg/publisher":         {"pkg/event"},
	"pkg/worker":            {"pkg/delivery", "pkg/event", "pkg/ledger"},
	"pkg/broker":            {"pkg/event", "pkg/ledger"},
	"pkg/broker/natstest":   {},
	"pkg/console":           {"pkg/event", "pkg/publisher"},
	"pkg/vendorapi":         {},
	"pkg/oemapi":            {},
	"pkg/statement":         {},
	"pkg/vault":             {},
	"pkg/vault/transit":     {},
	"pkg/sandbox":           {},

	"consumers/usage":      {"pkg/event", "pkg/ledger"},
	"consumers/catalog":    {"pkg/event", "pkg/ledger"},
	"consumers/status":     {"pkg/delivery", "pkg/ledger"},
	"consumers/deadletter": {"pkg/event", "pkg/ledger"},
	"consumers/onboarding": {"pkg/vault"},

	"deploy/grafana":    {},
	"deploy/prometheus": {},
}

// oursInTests is what every test may import besides its own package and what that package may:
// the partner played, a real broker, and the shared suites with their fixtures.
var oursInTests = []string{"pkg/broker", "pkg/broker/natstest", "pkg/event/eventtest", "pkg/ledger/ledgertest", "pkg/sandbox"}

// oursInTestsOf is what the tests of a package may import beyond that. The schemas' examples are
// judged by the decoder that is built on them.
var oursInTestsOf = map[string][]string{"schemas": {"pkg/event"}}

// theirs lists the packages that may know a technology in their program files; cmd may know all.
// The longest path that fits decides. What fits none is free, and tests are free.
var theirs = map[string][]string{
	"net/http":                    {"deploy/grafana", "pkg/broker/natstest", "pkg/console", "pkg/oemapi", "pkg/sandbox", "pkg/vault/transit", "pkg/vendorapi"},
	"github.com/nats-io":          {"pkg/broker", "pkg/broker/natstest"},
	"github.com/nats-io/nats.go":  {"pkg/broker", "pkg/publisher"},
	"github.com/synadia-io":       {"pkg/broker"},
	"github.com/cenkalti/backoff": {"pkg/broker", "pkg/delivery", "pkg/publisher", "pkg/worker"},
	"github.com/prometheus":       {"consumers/status", "pkg/broker", "pkg/console", "pkg/delivery", "pkg/worker"},
	"github.com/sony/gobreaker":   {"pkg/delivery"},
	"github.com/grafana":          {"deploy/grafana"},
	"github.com/go-logr":          {},
	"github.com/kelseyhightower":  {},
	"github.com/spf13":            {},
	// Who makes or passes on traces knows the API; how they are exported knows cmd alone.
	"go.opentelemetry.io/otel":           {"pkg/console", "pkg/publisher", "pkg/worker"},
	"go.opentelemetry.io/otel/exporters": {},
	"go.opentelemetry.io/otel/sdk":       {},
}

// maxAverageImports is the mark for packages of this module imported per package, cmd apart.
const maxAverageImports = 2.0

// topLevel is what the repository shows at its top, besides names that start with a dot and
// the build products that .gitignore names.
var topLevel = []string{
	"cmd", "consumers", "deploy", "pkg", "schemas",
	"CHANGELOG.md", "LICENSE", "Makefile", "README.md", "docker-compose.yml", "go.mod", "go.sum",
}

// emptyNames hold whatever found no better place; vendor is also special to Go, which
// silently skips the tests below it.
var emptyNames = []string{
	"common", "helper", "helpers", "internal", "models", "types", "util", "utils", "vendor",
}

func TestTheRepositoryKeepsTheImportPolicy(t *testing.T) {
	problems, err := policyProblems(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Error(problem)
	}
}

func TestTheImportPolicyCanFail(t *testing.T) {
	const good = "// Package ledger folds.\npackage ledger\n"
	tests := []struct {
		name, file, source, want string
	}{
		{"a package imports upwards", "pkg/ledger/a.go",
			good + `import "` + modulePath + `/pkg/event"`,
			"pkg/ledger/a.go imports pkg/event; the policy allows pkg/ledger nothing of ours"},
		{"a package imports a consumer", "pkg/broker/a.go",
			"// Package broker x.\npackage broker\n" + `import "` + modulePath + `/consumers/usage"`,
			"pkg/broker/a.go imports consumers/usage; the policy allows pkg/broker only pkg/event, pkg/ledger"},
		{"a consumer imports a consumer", "consumers/usage/a.go",
			"// Package usage x.\npackage usage\n" + `import "` + modulePath + `/consumers/catalog"`,
			"consumers/usage/a.go imports consumers/catalog; the policy allows consumers/usage only pkg/event, pkg/ledger"},
		{"a test imports what no test may", "pkg/ledger/a_test.go",
			"package ledger_test\n" + `import "` + modulePath + `/pkg/vault"`,
			"pkg/ledger/a_test.go imports pkg/vault; the policy allows tests of pkg/ledger only " +
				"pkg/broker, pkg/broker/natstest, pkg/event/eventtest, pkg/ledger, pkg/ledger/ledgertest, pkg/sandbox"},
		{"a package knows HTTP", "pkg/ledger/a.go", good + `import "net/http/cookiejar"`,
			"pkg/ledger/a.go imports net/http/cookiejar; the policy allows net/http only in " +
				"deploy/grafana, pkg/broker/natstest, pkg/console, pkg/oemapi, pkg/sandbox, pkg/vault/transit, pkg/vendorapi, cmd"},
		{"the publisher embeds a server", "pkg/publisher/a.go",
			"// Package publisher x.\npackage publisher\n" + `import "github.com/nats-io/nats-server/v2/server"`,
			"pkg/publisher/a.go imports github.com/nats-io/nats-server/v2/server; the policy allows github.com/nats-io only in pkg/broker, pkg/broker/natstest, cmd"},
		{"a package reads the environment", "pkg/broker/a.go",
			"// Package broker x.\npackage broker\n" + `import "github.com/kelseyhightower/envconfig"`,
			"pkg/broker/a.go imports github.com/kelseyhightower/envconfig; the policy allows github.com/kelseyhightower only in cmd"},
		{"a package is not in the policy", "pkg/cache/a.go", "// Package cache x.\npackage cache\n",
			"pkg/cache is not in the import policy; add it to the table with what it may import, or put the code where it belongs"},
		{"a package has a name that says nothing", "cmd/usagebridge/internal/a.go", "// Package flags x.\npackage flags\n",
			`cmd/usagebridge/internal has the path element "internal", which says nothing; name it after what it provides`},
		{"a package has no comment", "pkg/ledger/a.go", "package ledger\n",
			`pkg/ledger has no package comment; one of its files must begin "// Package ledger "`},
		{"a name at the top is not on the list", "scripts/a.txt", "",
			"the top level holds scripts; it may hold only cmd, consumers, deploy, pkg, schemas, " +
				"CHANGELOG.md, LICENSE, Makefile, README.md, docker-compose.yml, go.mod, go.sum, dotfiles and what .gitignore names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := policyProblems(fstest.MapFS{tt.file: {Data: []byte(tt.source)}})
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{tt.want}; !slices.Equal(got, want) {
				t.Errorf("got problems %q\nwant %q", got, want)
			}
		})
	}
}

func TestTheImportPolicyCountsImportsPerPackage(t *testing.T) {
	packages := map[string]*goPackage{
		"pkg/event":       {imports: map[string]bool{}},
		"pkg/worker":      {imports: map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true}},
		"cmd/usagebridge": {imports: map[string]bool{"a": true, "b": true, "c": true}},
	}
	got := averageProblems(packages)
	want := []string{"packages import 2.5 others of ours on average (5 imports in 2 packages, cmd apart), want at most 2.0"}
	if !slices.Equal(got, want) {
		t.Errorf("got problems %q\nwant %q", got, want)
	}
}

func TestTheTopLevelMayHoldBuildProducts(t *testing.T) {
	tree := fstest.MapFS{
		".gitignore": {Data: []byte("/bin/\n# profiles\n*.prof\n")}, ".golangci.yml": {},
		"bin/usagebridge": {}, "cpu.prof": {}, "pkg/README.md": {},
	}
	if got, err := policyProblems(tree); err != nil || len(got) != 0 {
		t.Errorf("got problems %q and error %v, want none", got, err)
	}
}

// goPackage is what the policy needs to know of one directory of Go files.
type goPackage struct {
	name    string          // of the program files; empty if there are only tests
	comment bool            // one program file has the package comment
	imports map[string]bool // of this module, by program files
}

// policyProblems says everything in which the tree at root breaks the policy.
func policyProblems(root fs.FS) ([]string, error) {
	problems, err := topLevelProblems(root)
	if err != nil {
		return nil, err
	}
	packages := map[string]*goPackage{}
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && isHiddenFromGo(entry.Name()):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		found, err := fileProblems(root, name, packages)
		problems = append(problems, found...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the Go files of the repository: %w", err)
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		problems = append(problems, packageProblems(dir, packages[dir])...)
	}
	return append(problems, averageProblems(packages)...), nil
}

func isHiddenFromGo(dir string) bool {
	return dir == "testdata" || strings.HasPrefix(dir, ".") || strings.HasPrefix(dir, "_")
}

// fileProblems holds the imports of one file against the policy and adds the file to packages.
func fileProblems(root fs.FS, name string, packages map[string]*goPackage) ([]string, error) {
	source, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return nil, err
	}
	dir, isTest := path.Dir(name), strings.HasSuffix(name, "_test.go")
	if packages[dir] == nil {
		packages[dir] = &goPackage{imports: map[string]bool{}}
	}
	if p := packages[dir]; !isTest {
		p.name = file.Name.Name
		// The comment of a command says what the command is, in words of its own.
		begin := "Package " + p.name + " "
		if p.name == "main" {
			begin = ""
		}
		p.comment = p.comment || file.Doc != nil && strings.HasPrefix(file.Doc.Text(), begin)
	}
	var problems []string
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		own, isOurs := strings.CutPrefix(imported, modulePath+"/")
		if isOurs && !isTest {
			packages[dir].imports[own] = true
		}
		switch {
		case isInCmd(dir):
		case isOurs:
			problems = append(problems, oursProblems(name, dir, own, isTest)...)
		case !isTest:
			problems = append(problems, theirsProblems(name, dir, imported)...)
		}
	}
	return problems, nil
}

func isInCmd(dir string) bool { return isAtOrBelow(dir, "cmd") }

func isAtOrBelow(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func oursProblems(file, dir, imported string, isTest bool) []string {
	who, allowed := dir, ours[dir]
	if isTest {
		who, allowed = "tests of "+dir, slices.Concat(allowed, oursInTests, oursInTestsOf[dir], []string{dir})
		slices.Sort(allowed)
		allowed = slices.Compact(allowed)
	}
	if slices.Contains(allowed, imported) {
		return nil
	}
	what := "nothing of ours"
	if len(allowed) > 0 {
		what = "only " + strings.Join(allowed, ", ")
	}
	return []string{fmt.Sprintf("%s imports %s; the policy allows %s %s", file, imported, who, what)}
}

func theirsProblems(file, dir, imported string) []string {
	technology := ""
	for candidate := range theirs {
		if isAtOrBelow(imported, candidate) && len(candidate) > len(technology) {
			technology = candidate
		}
	}
	if technology == "" || slices.Contains(theirs[technology], dir) {
		return nil
	}
	allowed := slices.Concat(theirs[technology], []string{"cmd"})
	return []string{fmt.Sprintf("%s imports %s; the policy allows %s only in %s",
		file, imported, technology, strings.Join(allowed, ", "))}
}

// packageProblems says what is wrong with a package apart from the imports of its files.
func packageProblems(dir string, p *goPackage) []string {
	var problems []string
	for element := range strings.SplitSeq(dir, "/") {
		if slices.Contains(emptyNames, element) {
			problems = append(problems, fmt.Sprintf(
				"%s has the path element %q, which says nothing; name it after what it provides", dir, element))
		}
	}
	if slices.Contains(emptyNames, p.name) && path.Base(dir) != p.name {
		problems = append(problems, fmt.Sprintf(
			"%s holds package %s, which says nothing; name it after what it provides", dir, p.name))
	}
	if _, listed := ours[dir]; !listed && !isInCmd(dir) {
		problems = append(problems, dir+" is not in the import policy; "+
			"add it to the table with what it may import, or put the code where it belongs")
	}
	if p.name != "" && !p.comment {
		problems = append(problems, fmt.Sprintf(
			"%s has no package comment; one of its files must begin \"// Package %s \"", dir, p.name))
	}
	return problems
}

func averageProblems(packages map[string]*goPackage) []string {
	count, imports := 0, 0
	for dir, p := range packages {
		if !isInCmd(dir) {
			count++
			imports += len(p.imports)
		}
	}
	if count == 0 || float64(imports)/float64(count) <= maxAverageImports {
		return nil
	}
	return []string{fmt.Sprintf(
		"packages import %.1f others of ours on average (%d imports in %d packages, cmd apart), want at most %.1f",
		float64(imports)/float64(count), imports, count, maxAverageImports)}
}

func topLevelProblems(root fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(root, ".")
	if err != nil {
		return nil, fmt.Errorf("list the top level of the repository: %w", err)
	}
	ignored, err := fs.ReadFile(root, ".gitignore")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read what may lie at the top level: %w", err)
	}
	var problems []string
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || slices.Contains(topLevel, name) || isIgnored(string(ignored), name) {
			continue
		}
		problems = append(problems, fmt.Sprintf(
			"the top level holds %s; it may hold only %s, dotfiles and what .gitignore names",
			name, strings.Join(topLevel, ", ")))
	}
	return problems, nil
}

// isIgnored knows the patterns our .gitignore uses: a name or glob, with slashes around it or without.
func isIgnored(gitignore, name string) bool {
	for line := range strings.Lines(gitignore) {
		if matched, err := path.Match(strings.Trim(line, "/ \r\n"), name); err == nil && matched {
			return true
		}
	}
	return false
}
