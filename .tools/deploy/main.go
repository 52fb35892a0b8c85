// Command deploy checks what is deployed, as far as that can be done without a container engine:
// docker-compose.yml in each of its profiles, deploy/Dockerfile, .dockerignore, the targets of
// deploy/prometheus/prometheus.yml, and the unit in deploy/systemd where systemd-analyze is
// installed. It is given the directory of the repository, prints a line for each finding, and ends
// with 1 if there is one.
//
// It deliberately knows nothing of what is inside of images, and does not ask registries: whether a
// tag exists is found out by whoever pulls it.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "use: deploy DIRECTORY-OF-THE-REPOSITORY")
		os.Exit(2)
	}
	found, err := checkAll(context.Background(), os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "deploy:", err)
		os.Exit(1)
	}
	for _, f := range found {
		_, _ = fmt.Fprintln(os.Stdout, f)
	}
	if len(found) > 0 {
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(os.Stdout, "nothing is wrong with what is deployed")
}

// finding is one thing that is wrong: where, what, and what would be right.
type finding struct{ where, what string }

func (f finding) String() string { return f.where + ": " + f.what }

// findings collects what is wrong.
type findings []finding

func (f *findings) add(where, format string, args ...any) {
	*f = append(*f, finding{where, fmt.Sprintf(format, args...)})
}

func checkAll(ctx context.Context, root string) ([]finding, error) {
	var all findings
	for _, check := range []func(context.Context, string) (findings, error){
		checkComposition, checkDockerfile, checkIgnored, checkUnits,
	} {
		found, err := check(ctx, root)
		if err != nil {
			return nil, err
		}
		for _, f := range found { // the profiles share most services
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return all, nil
}
