package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goreleaser/goreleaser/v2/pkg/config"
)

// check decodes the file as goreleaser does, where a field that it does not
// know is an error, and sees that nothing in it makes a build depend on when and
// where it is made.
func check(path string) error {
	project, err := config.Load(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var errs []error
	complain := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("%s: "+format, append([]any{path}, args...)...))
		}
	}
	complain(project.Version != 2, "version %d: want 2", project.Version)
	complain(len(project.Builds) == 0, "nothing is built")
	for _, build := range project.Builds {
		for _, problem := range checkBuild(&build) {
			complain(true, "build %s: %s", build.ID, problem)
		}
	}
	complain(len(project.Archives) == 0, "want archives")
	for _, archive := range project.Archives {
		complain(archive.BuildsInfo.MTime == "", "archive %s: builds_info.mtime: want the time of the commit", archive.ID)
		for _, file := range archive.Files {
			complain(file.Info.MTime == "", "archive %s: %s: info.mtime: want the time of the commit", archive.ID, file.Source)
		}
	}
	complain(project.Checksum.NameTemplate == "" || project.Checksum.Algorithm != "sha256", "checksum: want a name, and sha256")
	complain(len(project.SBOMs) == 0, "want sboms")
	complain(len(project.Signs)+len(project.DockerSigns) > 0, "signs: the releaser signs, not the file: it would name a key that others do not have")
	for _, publisher := range project.Publishers {
		complain(strings.Contains(publisher.Cmd, ":latest"), "publisher %s: want no tag latest", publisher.Name)
	}
	return errors.Join(errs...)
}

func checkBuild(build *config.Build) []string {
	var found []string
	if !slices.Contains(build.Env, "CGO_ENABLED=0") {
		found = append(found, "env: want CGO_ENABLED=0: the image has no C library")
	}
	for _, flag := range []string{"-trimpath", "-buildvcs=true"} {
		if !slices.Contains(build.Flags, flag) {
			found = append(found, "flags: want "+flag)
		}
	}
	if len(build.Ldflags) == 0 {
		found = append(found, `ldflags: want [""]: by default they hold the time of the build`)
	}
	for _, flags := range build.Ldflags {
		if flags != "" {
			found = append(found, fmt.Sprintf("ldflags %q: want none, as in the Makefile: the version comes from the checkout", flags))
		}
	}
	if build.ModTimestamp == "" {
		found = append(found, "mod_timestamp: want the time of the commit")
	}
	return found
}
