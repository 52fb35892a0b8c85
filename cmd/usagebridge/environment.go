package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"github.com/usagebridge/usagebridge/pkg/vault"
)

// parse fills the configuration from the environment, one variable after the
// other: envconfig ends with the first value that it cannot read. It gives the
// names of those that stay empty because of that, and what is wrong with them.
//
// Each field is processed as a struct of its own that is named as the variable.
// With the tag of the Config, envconfig would also take a variable without our
// prefix, and NATS_URL or LOG_LEVEL belong to other programs.
func (c *Config) parse() (unread []string, errs []error) {
	value := reflect.ValueOf(c).Elem()
	for i := range value.NumField() {
		field := value.Type().Field(i)
		name := field.Tag.Get("envconfig")
		one := reflect.New(reflect.StructOf([]reflect.StructField{{
			Name: name, Type: field.Type,
			Tag: reflect.StructTag(fmt.Sprintf("default:%q", field.Tag.Get("default"))),
		}}))
		if err := envconfig.Process(envPrefix, one.Interface()); err != nil {
			unread, errs = append(unread, name), append(errs, unreadable(err))
			continue
		}
		value.Field(i).Set(one.Elem().Field(0))
	}
	return unread, errs
}

// unreadable says what envconfig could not read, and what it would read.
func unreadable(err error) error {
	parse, ok := errors.AsType[*envconfig.ParseError](err)
	if !ok {
		return fmt.Errorf("environment: %w", err)
	}
	return fmt.Errorf("%s: %q is no %s", parse.KeyName, cut(parse.Value, 40), plainType(parse.TypeName))
}

// withoutEchoes leaves out the errors about variables that could not be read:
// what is wrong with those is said, and the value that was judged is not theirs.
func withoutEchoes(errs []error, unread []string) []error {
	return slices.DeleteFunc(errs, func(err error) bool {
		return slices.ContainsFunc(unread, func(name string) bool { return strings.Contains(err.Error(), name) })
	})
}

// files are those that the configuration names, apart from the master keyset.
func (c *Config) files() []fileFacts {
	var list []fileFacts
	for _, s := range c.settings() {
		if s.Source == fromEnvironment && s.Value != "" && strings.HasPrefix(s.Desc, "Path of ") {
			list = append(list, lookAtFile(s.Name, s.Value))
		}
	}
	return list
}

// checkFiles lists everything that keeps a worker from reading the files that
// the configuration names. Whether what they hold is right is the affair of
// whoever uses them.
func (c *Config) checkFiles() []error {
	files := c.files()
	if keyset := vault.ParseSource(c.MasterKeyset); keyset.File != "" {
		files = append(files, lookAtFile(vault.EnvMasterKeyset, keyset.File))
	}
	var errs []error
	for n := range files {
		f := &files[n]
		switch {
		case errors.Is(f.err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("%s: file %q does not exist", f.variable, f.path))
		case f.err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", f.variable, f.err))
		case f.empty:
			errs = append(errs, fmt.Errorf("%s: file %q is empty", f.variable, f.path))
		}
	}
	return errs
}

// unknownVariable begins with our prefix and means nothing to this version.
type unknownVariable struct {
	name    string
	nearest string // the known one that is probably meant; empty: none is like it
}

// unknownVariables lists those of the environment, by name. They are no error:
// another version, or whatever runs beside this program, may know them.
func unknownVariables() []unknownVariable {
	var known []string
	for _, s := range (&Config{}).settings() {
		known = append(known, s.Name)
	}
	var list []unknownVariable
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, envPrefix+"_") && !slices.Contains(known, name) {
			list = append(list, unknownVariable{name: name, nearest: nearest(name, known)})
		}
	}
	slices.SortFunc(list, func(a, b unknownVariable) int { return strings.Compare(a.name, b.name) })
	return list
}

// nearest is the name that takes the fewest changes to become, if these are few
// enough for a slip. All begin with the same prefix, which does not count.
func nearest(name string, known []string) string {
	best, changes := "", max(2, (len(name)-len(envPrefix)-1)/4)
	for _, candidate := range known {
		if n := distance(name, candidate); n <= changes && (best == "" || n < changes) {
			best, changes = candidate, n
		}
	}
	return best
}

// distance counts the changes that make one text the other: a byte added, left
// out or replaced, or two neighbours exchanged.
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(replaced, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
