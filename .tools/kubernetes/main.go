// Command kubernetes checks what the Helm chart renders: it reads the objects
// from standard input, decodes each of them strictly into the type that the
// cluster has for it, and holds them against the rules of this repository.
//
// It knows neither Helm nor a cluster: whether an object is taken is the affair
// of the API server, which also has defaults and admission.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(os.Stdin, os.Stdout))
}

// run says what is wrong, one line for each problem; 0 means nothing.
func run(manifests io.Reader, w io.Writer) int {
	all, problems := decode(manifests)
	problems = append(problems, all.check()...)
	for _, p := range problems {
		_, _ = fmt.Fprintln(w, p)
	}
	if len(problems) > 0 {
		return 1
	}
	_, _ = fmt.Fprintf(w, "%d objects, nothing is wrong\n", all.count)
	return 0
}
