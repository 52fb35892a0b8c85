package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/statement"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// statementFormats are what a statement can be written as.
var statementFormats = []string{"csv", "json", "html"}

func (c *cli) statementCommand() *cobra.Command {
	var w statementWish
	cmd := &cobra.Command{
		Use:   "statement --integration VENDOR/ORGANIZATION",
		Short: "Put in writing what was known of an integration's usage, and what the partner accepted",
		Long: `Lists every count of an integration as of a time: its newest figure with the event
that brought it, the last value that the partner accepted, how old both are, and
where the key stands. With --out the file is signed: FILE.sig beside it covers its
every byte, and "usagebridge statement verify FILE" checks it.

As of now the ledger is asked. As of a time that has passed the log is folded
again as far as it reaches back (35 days); a row that is not certain says so.
Figures that had arrived by then count, however late they came to be folded.

A CSV has the rows alone. Texts in it that a spreadsheet would take for a formula
(they begin with = + - @ or a tab or carriage return) get a ' in front, and so do
those that begin with ' themselves. JSON and HTML have a summary, too.

With --diff the statement is compared with an earlier one and what has changed is
shown instead.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.parse(c.json, time.Now()); err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				if w.diff != "" {
					return c.diffStatements(ctx, a, &w)
				}
				return c.makeStatement(ctx, a, &w)
			})
		},
	}
	flags := cmd.Flags()
	c.integrationFlag(cmd, &w.integration, "the vendor/organization")
	flags.StringVar(&w.when, "as-of", "", "the time, such as 2026-11-30T23:59:59Z (default: now)")
	flags.StringVar(&w.format, "format", "", "csv, json or html (default: what --out ends with, else csv)")
	flags.StringVar(&w.out, "out", "", "file to write to (default: standard output)")
	flags.StringVar(&w.sig, "sig", "", "file to write the signature to (default: that of --out with .sig behind it)")
	flags.StringVar(&w.diff, "diff", "", "show what has changed since this earlier JSON statement")
	cmd.AddCommand(c.statementKeyCommand(), c.statementVerify())
	return cmd
}

// statementWish is which statement is wanted, and where.
type statementWish struct {
	integration, when, format, out, sig, diff string

	vendor, organization string
	asOf                 time.Time // zero: now
}

// parse checks everything that can be checked before anything is read.
func (w *statementWish) parse(json bool, now time.Time) error {
	if err := errors.Join(w.parseIntegration(), w.parseTime(now), w.parseOutput(json)); err != nil {
		return usageError{err}
	}
	return nil
}

func (w *statementWish) parseIntegration() (err error) {
	if w.integration == "" {
		return errors.New("--integration is missing: want vendor/organization, such as acme/msp-0042")
	}
	if w.vendor, w.organization, err = parseIntegration(w.integration); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return nil
}

func (w *statementWish) parseTime(now time.Time) error {
	if w.when == "" {
		return nil
	}
	asOf, err := time.Parse(time.RFC3339, w.when)
	if err != nil {
		return fmt.Errorf("--as-of %q: want a time of RFC 3339, such as 2026-11-30T23:59:59Z", w.when)
	}
	if asOf.After(now) {
		return fmt.Errorf("--as-of %s lies in the future: it is %s", w.when, instant(now.Truncate(time.Second)))
	}
	w.asOf = asOf.UTC()
	return nil
}

func (w *statementWish) parseOutput(json bool) error {
	var errs []error
	complain := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	complain(w.diff != "" && (w.format != "" || w.out != "" || w.sig != ""),
		"--diff shows what has changed and writes no statement: leave --format, --out and --sig out")
	complain(json && w.format != "" && w.format != "json", "--json and --format %s contradict each other: want one of them", w.format)
	w.chooseFormat(json)
	complain(!slices.Contains(statementFormats, w.format), "--format %q: want one of %s", w.format, strings.Join(statementFormats, ", "))
	if w.out != "" && w.sig == "" {
		w.sig = w.out + ".sig"
	}
	complain(w.out != "" && filepath.Clean(w.out) == filepath.Clean(w.sig), "--out and --sig name the same file: want two")
	for _, path := range []string{w.out, w.sig} {
		info, err := os.Stat(path)
		complain(err == nil && !info.Mode().IsRegular(), "%q is there and is no regular file: want a new name, or leave --out out for standard output", path)
	}
	return errors.Join(errs...)
}

func (w *statementWish) chooseFormat(json bool) {
	ending := strings.ToLower(strings.TrimPrefix(filepath.Ext(w.out), "."))
	switch {
	case w.format != "":
	case json:
		w.format = "json"
	case slices.Contains(statementFormats, ending):
		w.format = ending
	default:
		w.format = "csv"
	}
}

// makeStatement writes a statement and its signature.
func (c *cli) makeStatement(ctx context.Context, a *app, w *statementWish) error {
	var key *statement.Key
	if w.sig != "" { // before anything is written that it could not sign
		var err error
		if key, err = a.config.openStatementKey(); err != nil {
			return err
		}
	}
	s, err := a.statementOf(ctx, w.vendor, w.organization, w.asOf)
	if err != nil {
		return err
	}
	write := map[string]func() ([]byte, error){"csv": s.CSV, "json": s.JSON, "html": s.HTML}
	document, err := write[w.format]()
	if err != nil {
		return err
	}
	if w.out == "" {
		_, err = c.stdout.Write(document)
	} else {
		err = writeWhole("--out", w.out, writing(document))
	}
	if err == nil && key != nil {
		err = writeWhole("--sig", w.sig, writing(key.Sign(s, document)))
	}
	if err != nil {
		return err
	}
	c.tellOfStatement(s, w, key)
	return nil
}

func (c *cli) tellOfStatement(s *statement.Statement, w *statementWish, key *statement.Key) {
	c.say("%s as of %s: %s, %d differ", printable(s.Name()), instant(s.AsOf), plural(s.Keys, "key", "keys"), s.Differing)
	for _, note := range s.Notes {
		c.say("note: %s", printable(note))
	}
	if s.Incomplete > 0 {
		c.say("note: %s not certain", plural(s.Incomplete, "row is", "rows are"))
	}
	if key == nil {
		c.say("it is not signed: a signature is made with --out FILE or --sig FILE")
		return
	}
	c.say("signed with key %s: %s", key.ID(), printable(w.sig))
}

// statementKeyPath is where the private key lies, and whether it may be made.
func (c *Config) statementKeyPath() (path string, create bool) {
	if c.StatementKeyFile != "" {
		return c.StatementKeyFile, false
	}
	return filepath.Join(c.StoreDir, "statement-key.pem"), true
}

// openStatementKey opens the private key, and makes it on first use.
func (c *Config) openStatementKey() (*statement.Key, error) {
	path, create := c.statementKeyPath()
	key, err := statement.OpenKey(path, create, vault.Exposed)
	if err != nil {
		return nil, usageError{err}
	}
	return key, nil
}

// ownStatementKey is the public key of this store. It makes none: nothing can
// have been signed with a new one.
func (c *Config) ownStatementKey() (ed25519.PublicKey, error) {
	path, _ := c.statementKeyPath()
	key, err := statement.OpenKey(path, false, vault.Exposed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("statement key %q does not exist, so nothing was signed here: give the signer's public key with --key", path)
	}
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

// loadStatementConfig is the configuration of commands that need the store
// directory and no server: that of dev, when dev is what runs.
func loadStatementConfig() (Config, error) {
	config, err := loadConfig()
	if err != nil || config.NATSURL != "" {
		return config, err
	}
	_, _, err = config.adoptRunning()
	return config, err
}

func (c *cli) statementKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Show the public key that statements are verified with",
		Long: `Writes the public half of the key that signs statements, to hand to whoever is to
verify them, and its id. The key is made on first use.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, err := loadStatementConfig()
			if err != nil {
				return err
			}
			if err := config.checkWorld(); err != nil {
				return err
			}
			key, err := config.openStatementKey()
			if err != nil {
				return err
			}
			public, err := key.PublicPEM()
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"key": key.ID(), "public_key": string(public)})
			}
			c.say("key %s", key.ID())
			_, err = c.stdout.Write(public)
			return err
		},
	}
}

// verification is what came of verifying a file.
type verification struct {
	File         string    `json:"file"`
	Valid        bool      `json:"valid"`
	Problem      string    `json:"problem,omitempty"`
	Key          string    `json:"key,omitempty"` // id
	TrustedFrom  string    `json:"trusted_from"`  // where the public key was taken from
	Vendor       string    `json:"vendor,omitempty"`
	Organization string    `json:"organization,omitempty"`
	AsOf         time.Time `json:"as_of,omitzero"`
	SHA256       string    `json:"sha256,omitempty"`
}

func (c *cli) statementVerify() *cobra.Command {
	var sig, keyFile string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check that a statement is exactly as it was signed",
		Long: `Checks the signature of a statement, and says by which key it was made, for which
integration and as of when. With --key no server and no store is needed. Without it
this store's own key is trusted. Exit code 1: not valid.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return c.verifyStatement(args[0], or(sig, args[0]+".sig"), keyFile)
		},
	}
	cmd.Flags().StringVar(&sig, "sig", "", "file with the signature (default: FILE with .sig behind it)")
	cmd.Flags().StringVar(&keyFile, "key", "", "file with the signer's public key, as `statement key` writes it (default: this store's own)")
	return cmd
}

func (c *cli) verifyStatement(path, sigPath, keyFile string) error {
	document, documentErr := os.ReadFile(path)
	signature, signatureErr := os.ReadFile(sigPath)
	key, from, keyErr := trustedKey(keyFile)
	if err := errors.Join(documentErr, signatureErr, keyErr); err != nil {
		return usageError{err}
	}
	v := verification{File: path, TrustedFrom: from}
	signed, err := statement.Verify(key, document, signature)
	if err == nil {
		v.Valid, v.Key, v.Vendor, v.Organization, v.AsOf = true, signed.KeyID, signed.Vendor, signed.Organization, signed.AsOf
		v.SHA256 = fmt.Sprintf("%x", signed.SHA256)
	} else {
		v.Problem = err.Error()
	}
	var shown error
	switch {
	case c.json:
		shown = c.printJSON(v)
	case v.Valid:
		_, shown = fmt.Fprintf(c.stdout, "%s is valid: signed with key %s (%s) for %s as of %s\n",
			printable(path), v.Key, printable(from), printable(v.Vendor+"/"+v.Organization), instant(v.AsOf))
	}
	if err != nil {
		return fmt.Errorf("%s is %w", path, err)
	}
	return shown
}

// trustedKey is the public key to verify with, and where it comes from.
func trustedKey(path string) (key ed25519.PublicKey, from string, err error) {
	if path == "" {
		config, err := loadStatementConfig()
		if err != nil {
			return nil, "", err
		}
		key, err = config.ownStatementKey()
		return key, "this store's own", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	if key, err = statement.ParsePublicKey(data); err != nil {
		return nil, "", fmt.Errorf("--key %q %w", path, err)
	}
	return key, "of " + path, nil
}

// statementDiff is a comparison, with what is known of the earlier statement.
type statementDiff struct {
	*statement.Comparison

	Signature string `json:"earlier_signature"` // valid, not_valid, unverified or none
}

// diffStatements shows what has changed since an earlier statement.
func (c *cli) diffStatements(ctx context.Context, a *app, w *statementWish) error {
	document, err := os.ReadFile(w.diff)
	if err != nil {
		return usagef("--diff: %w", err)
	}
	earlier, err := statement.Parse(document)
	if err != nil {
		return usagef("--diff %q cannot be compared with: %w", w.diff, err)
	}
	verdict := c.judgeEarlier(a, w.diff, document)
	later, err := a.statementOf(ctx, w.vendor, w.organization, w.asOf)
	if err != nil {
		return err
	}
	compared, err := statement.Compare(earlier, later)
	if err != nil {
		return usagef("--diff %q: %w", w.diff, err)
	}
	if c.json {
		return c.printJSON(statementDiff{Comparison: compared, Signature: verdict})
	}
	return c.showDiff(compared)
}

// judgeEarlier says what the signature beside an earlier statement is worth.
func (c *cli) judgeEarlier(a *app, path string, document []byte) string {
	signature, err := os.ReadFile(path + ".sig")
	if errors.Is(err, fs.ErrNotExist) {
		c.say("note: there is no %s: nothing shows that the earlier statement is as it was made", printable(path+".sig"))
		return "none"
	}
	if err != nil {
		c.say("warning: the signature of the earlier statement was not verified: %v", err)
		return "unverified"
	}
	key, err := a.config.ownStatementKey()
	if err != nil {
		c.say("warning: the signature of the earlier statement was not verified: %v", err)
		return "unverified"
	}
	if _, err := statement.Verify(key, document, signature); err != nil {
		c.say("warning: the earlier statement is %v", err)
		return "not_valid"
	}
	return "valid"
}

func (c *cli) showDiff(d *statement.Comparison) error {
	rows := make([][]string, len(d.Changes))
	counts := map[string]int{}
	for i, change := range d.Changes {
		for _, what := range change.What {
			counts[what]++
		}
		what := strings.Join(change.What, ", ")
		if !change.Certain {
			what += " (not certain)"
		}
		by := "-"
		if change.EventID != "" {
			by = eventName(change.EventID, change.Source)
		}
		rows[i] = []string{
			printable(change.Account), printable(change.Service), what, fromTo(change.From, change.To), printable(by),
			fromTo(change.AcceptedFrom, change.AcceptedTo), or(printable(change.RequestID), "-"),
		}
	}
	if len(rows) > 0 {
		if err := c.table([]string{"ACCOUNT", "SERVICE", "WHAT", "UNITS", "BY EVENT", "ACCEPTED", "REQUEST"}, rows); err != nil {
			return err
		}
	}
	c.say("%s/%s from %s to %s: %s, %d the same", printable(d.Vendor), printable(d.Organization), instant(d.From), instant(d.To),
		or(countReasons(counts), "nothing changed"), d.Same)
	return nil
}

// fromTo shows two values, or one that has not changed.
func fromTo(from, to string) string {
	if from == to {
		return or(from, "-")
	}
	return or(from, "-") + " → " + or(to, "-")
}
