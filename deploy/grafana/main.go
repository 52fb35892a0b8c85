// Command grafana writes the Grafana boards of usagebridge, each as a file of
// its own beside this source, and asks a Prometheus what their queries find:
//
//	go run ./deploy/grafana -write deploy/grafana
//	go run ./deploy/grafana -ask http://127.0.0.1:9090 -draw /tmp
//
// A board is there to answer questions: every panel says which, what is normal,
// and where to look next. What a board shows is in board.go, how Grafana wants
// it written in panel.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

//go:generate go run . -write .

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "grafana:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("grafana", flag.ContinueOnError)
	dir := flags.String("write", "", "write the boards into this directory")
	server := flags.String("ask", os.Getenv("PROMETHEUS_URL"), "run every query against the Prometheus at this URL, and count what finds data (PROMETHEUS_URL)")
	vendor := flags.String("vendor", "", "with -ask: the vendor of the board of one integration; empty: of any that is behind")
	organization := flags.String("organization", "", "with -ask: its organization")
	span := flags.Duration("range", 6*time.Hour, "with -ask: the time range that a board shows")
	strict := flags.Bool("strict", false, "with -ask: every query must find data, also where no data is good news")
	draw := flags.String("draw", "", "with -ask: write what was found as a page for each board into this directory, for when there is no Grafana")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case *span < time.Minute:
		return fmt.Errorf("-range %v: want a minute at least, such as 6h", *span)
	case flags.NArg() > 0:
		return fmt.Errorf("argument %q is not understood; want flags only", flags.Arg(0))
	case *dir != "":
		return write(*dir)
	case *server != "":
		return ask(ctx, out, question{server: *server, vendor: *vendor, organization: *organization, span: *span, strict: *strict, draw: *draw})
	}
	return errors.New("nothing to do; want -write DIRECTORY or -ask URL")
}

// write writes every board into the directory. Grafana reads them as a user of
// its own: they are no secret.
func write(dir string) error {
	for _, b := range boards() {
		text, err := b.json()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, b.file()), text, 0o644); err != nil { //nolint:gosec // readable by Grafana's user
			return fmt.Errorf("write the board %q: %w", b.title, err)
		}
	}
	return nil
}
