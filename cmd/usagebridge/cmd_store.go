package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

func (c *cli) storeCommand() *cobra.Command {
	return group("store", "The whole store as one file: to move it, or to keep a copy", c.storeExport(), c.storeImport())
}

func (c *cli) storeExport() *cobra.Command {
	output := "-"
	cmd := &cobra.Command{
		Use:   "export [--output FILE|-]",
		Short: "Write the whole store into one file",
		Long: `Writes every stream and bucket: events, ledger, integrations, dead letters, logs,
with the sequence and the time of every message and with what has been folded of
the log. Events keep their place, on which depends what is newest.

The store must stand still: no worker may run, and if anything is published
meanwhile, the export fails, says where, and is to be repeated. Leases are left
out.

The tokens of integrations are in it as they are in the store, sealed: without
the master keyset (USAGEBRIDGE_MASTER_KEYSET, by default master-keyset.json in
the store directory) they are lost, so take that along, by another way. All else
is readable, even if the store is encrypted: the file is for its owner alone
(mode 0600), and belongs where the store may be.`,
		Example: `  usagebridge store export --output store.tar
  usagebridge store export | age -r age1… > store.tar.age`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return usagef("--output is empty: want the name of a file, or - for stdout")
			}
			if output == "-" && isTerminal(c.stdout) {
				return usagef("stdout is a terminal, and an export is no text: want --output FILE, or a pipe")
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error { return c.exportStore(ctx, a, output) })
		},
	}
	cmd.Flags().StringVar(&output, "output", output, "write to this file, which appears once it is complete; -: to stdout")
	return cmd
}

func (c *cli) exportStore(ctx context.Context, a *app, output string) error {
	var m broker.Manifest
	write := func(w io.Writer) (err error) {
		m, err = a.broker.Export(ctx, w, func(name string, messages, _ uint64) { c.say("%s: %d messages", name, messages) })
		return err
	}
	var err error
	if output == "-" {
		err = write(c.stdout)
	} else {
		err = writeWhole("--output", output, write)
	}
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("%d streams", len(m.Streams))
	if err := a.audit(ctx, action{Actor: operator(), Action: "store exported", Detail: detail, At: time.Now().UTC()}); err != nil {
		return fmt.Errorf("the store was exported, but that is not on record: %w", err)
	}
	c.say("%s exported. The master keyset is not in it, and without it the tokens of integrations cannot be opened: take it along.",
		plural(len(m.Streams), "stream", "streams"))
	return nil
}

func (c *cli) storeImport() *cobra.Command {
	var config broker.ImportConfig
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Put an exported store into an empty one, such as a new cluster",
		Long: `Reads the file to its end first: what is cut off or altered is refused before
anything is written. Then every stream is made with its messages in their places,
on a cluster with three replicas. The store must have none of the streams.

If it is broken off, what was imported is complete, stream by stream: run it
again with --resume for the rest. That passes over streams that are exactly as
the file has them, makes anew what was left empty, and refuses anything else. Let
publishers wait until all is done.

Start workers when it is done, with the master keyset of the old store in
USAGEBRIDGE_MASTER_KEYSET, and never again one on the old store: both would send.`,
		Example: `  USAGEBRIDGE_NATS_URL=tls://n1.example,tls://n2.example usagebridge store import store.tar`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			environment, err := loadConfig()
			if err != nil {
				return err
			}
			file, err := os.Open(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				return usagef("file %q does not exist", args[0])
			}
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
				return usagef("%q is not a regular file: it is read twice", args[0])
			}
			// Before there is a new embedded store for a file that is of no use.
			if _, err := broker.ReadManifest(file); err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				return err
			}
			return c.withNewApp(cmd.Context(), environment, func(ctx context.Context, a *app) error {
				return c.importStore(ctx, a, file, config)
			})
		},
	}
	cmd.Flags().IntVar(&config.Replicas, "replicas", 0, "copies of every stream, 1 or 3 (default: 3 on a cluster, else 1)")
	cmd.Flags().BoolVar(&config.Resume, "resume", false, "go on with an import that was broken off")
	return cmd
}

// importedStream is a stream as import tells of it.
type importedStream struct {
	Name     string `json:"name"`
	Messages uint64 `json:"messages"`
	Last     uint64 `json:"last_sequence"`
	Was      string `json:"was"` // imported, or there already
}

func (c *cli) importStore(ctx context.Context, a *app, file io.ReadSeeker, config broker.ImportConfig) error {
	var done []importedStream
	config.Told = func(s broker.ExportedStream, there bool) {
		was := "imported"
		if there {
			was = "there already"
		}
		done = append(done, importedStream{Name: s.Name, Messages: s.Messages, Last: s.Last, Was: was})
		c.say("%s: %d messages", s.Name, s.Messages)
	}
	m, err := a.broker.Import(ctx, file, config)
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("%d streams, exported %s", len(m.Streams), m.Created.Format(time.RFC3339))
	if err := a.audit(ctx, action{Actor: operator(), Action: "store imported", Detail: detail, At: time.Now().UTC()}); err != nil {
		return fmt.Errorf("the store was imported, but that is not on record: %w", err)
	}
	c.say("Imported. Workers need the master keyset of the old store (%s_MASTER_KEYSET), and none may run on the old one.", envPrefix)
	if c.json {
		return c.printJSON(done)
	}
	rows := make([][]string, 0, len(done))
	for _, s := range done {
		rows = append(rows, []string{s.Name, fmt.Sprint(s.Messages), fmt.Sprint(s.Last), s.Was})
	}
	return c.table([]string{"STREAM", "MESSAGES", "LAST", ""}, rows)
}
