package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// remoteCredentials is what an operator says of credentials at the platform.
type remoteCredentials struct {
	values        map[string]oemapi.Secret // by label
	integrationID string                   // the platform's; "": that of the record, or the only one
	why           string
}

func (c *cli) credentialsUpdate() *cobra.Command {
	var r remoteCredentials
	var given []string
	cmd := &cobra.Command{
		Use:   "update VENDOR/ORGANIZATION --credential 'LABEL=@FILE' …",
		Short: "Replace credentials that the platform keeps for an integration",
		Long: `Gives the platform other credentials of an integration: those with which it calls
the vendor, by the labels of the vendor's template (usagebridge vendors template).
Nothing of it is stored here. The tokens with which usagebridge itself calls the
platform are replaced by "usagebridge integrations credentials set".

A value comes from a file, or for one label from standard input ('LABEL=-'): on
the command line everybody on the machine could read it. A label may hold blanks
but no "=". Labels that are not given keep their values. Nothing is sent unless the
vendor's template has every label that is given.

The integration is that whose id is on record; if none is, the only one that the
platform lists for the organization, or that of --integration-id. Needs the
organization's OEM token on record, USAGEBRIDGE_OEM_API_URL,
USAGEBRIDGE_OEM_CLIENT_ID and USAGEBRIDGE_OEM_CLIENT_SECRET_FILE.`,
		Example: `  usagebridge integrations credentials update acme/msp-0042 --credential 'API key=@api.key' --credential 'Tenant ID=@tenant'
  pass show acme | usagebridge integrations credentials update acme/msp-0042 --credential 'API key=-'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.values, err = readCredentials(given, c.stdin); err != nil {
				return usageError{err}
			}
			return c.withTenant(cmd.Context(), args[0], func(ctx context.Context, t *tenant) error { return c.updateCredentials(ctx, t, &r) })
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&given, "credential", nil, "a label of the vendor's template, and the file with its value: 'LABEL=@FILE', or 'LABEL=-' for standard input; repeatable")
	flags.StringVar(&r.integrationID, "integration-id", "", "the platform's id of the integration, if none is on record and it lists several")
	flags.StringVar(&r.why, "why", "", "the reason, kept in the audit log")
	return cmd
}

// maxCredentialBytes bounds what is read from standard input: more is no secret
// but the wrong file.
const maxCredentialBytes = 64 << 10

// readCredentials reads the values of LABEL=@FILE and LABEL=-. What has another
// form may be a value itself, and no part of it is in an error.
func readCredentials(given []string, stdin io.Reader) (map[string]oemapi.Secret, error) {
	if len(given) == 0 {
		return nil, errors.New("--credential is missing: want 'LABEL=@FILE' for each label that changes")
	}
	values := map[string]oemapi.Secret{}
	var errs []error
	fromStdin := ""
	for at, text := range given {
		label, source, _ := strings.Cut(text, "=")
		path, isFile := strings.CutPrefix(source, "@")
		_, twice := values[label]
		var err error
		switch {
		case strings.TrimSpace(label) == "" || source != "-" && (!isFile || path == ""):
			errs = append(errs, fmt.Errorf("--credential number %d: want 'LABEL=@FILE', or 'LABEL=-' for standard input; "+
				"if a value was given here, it is in the history of your shell and others may have read it: replace it", at+1))
			continue
		case twice:
			err = errors.New("is given twice")
		case isFile:
			values[label], err = readCredentialFile(path)
		case fromStdin != "":
			err = fmt.Errorf("standard input is for %q already", fromStdin)
		default:
			fromStdin = label
			values[label], err = readCredentialFrom(stdin)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--credential %q: %w", label, err))
		}
	}
	return values, errors.Join(errs...)
}

func readCredentialFile(path string) (oemapi.Secret, error) {
	text, err := readSecretFile(path)
	return oemapi.NewSecret(text), err
}

// readCredentialFrom reads one value, without the line end behind it.
func readCredentialFrom(stdin io.Reader) (oemapi.Secret, error) {
	data, err := io.ReadAll(io.LimitReader(stdin, maxCredentialBytes+1))
	if err != nil {
		return oemapi.Secret{}, fmt.Errorf("read standard input: %w", err)
	}
	if len(data) > maxCredentialBytes {
		return oemapi.Secret{}, fmt.Errorf("standard input is longer than %d KiB", maxCredentialBytes>>10)
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(data) == 0 {
		return oemapi.Secret{}, errors.New("standard input is empty")
	}
	return oemapi.NewSecret(string(data)), nil
}

func (c *cli) updateCredentials(ctx context.Context, t *tenant, r *remoteCredentials) error {
	if err := t.needToken(); err != nil {
		return err
	}
	name := t.integration.Name()
	there, err := t.integrationThere(ctx, r.integrationID)
	if err != nil {
		return err
	}
	kept, err := t.checkLabels(ctx, there, slices.Sorted(maps.Keys(r.values)))
	if err != nil {
		return err
	}
	_, _, err = t.client.UpdateCredentials(ctx, t.token, there.ID, r.values)
	if err != nil {
		c.sayUnknown(err)
		err = fmt.Errorf("integration %s: %w", name, advise(err, map[oemapi.Class]string{
			oemapi.NotFound: "the platform lists the integration, but does not know it: try again, and ask the platform if it stays so",
			oemapi.Exists:   "the platform says that it has this already: compare with what another person is doing there",
		}))
	}
	labels := quoteAll(slices.Sorted(maps.Keys(r.values)))
	err = t.record(ctx, action{
		Action: "platform credentials updated", Object: there.ID, Why: r.why, Detail: "labels " + labels,
	}, err)
	if err != nil {
		return err
	}
	c.say("integration %s: the platform has new credentials of its integration %s: %s", name, printable(there.ID), labels)
	if len(kept) > 0 {
		c.say("not given, and left as they are: %s", quoteAll(kept))
	}
	return nil
}

// integrationThere finds the integration in the platform's list.
func (t *tenant) integrationThere(ctx context.Context, chosen string) (there oemapi.Integration, err error) {
	name, known := t.integration.Name(), t.integration.IntegrationID
	if chosen != "" && known != "" && chosen != known {
		return there, usagef("integration %s: --integration-id %q: the record says %s; leave the flag out", name, chosen, printable(known))
	}
	list, _, err := t.client.Integrations(ctx, t.token)
	if err != nil {
		return there, fmt.Errorf("integration %s: %w", name, advise(err, nil))
	}
	there, ok := which(list, or(chosen, known))
	switch {
	case len(list) == 0:
		return there, fmt.Errorf("integration %s: the platform lists no integration for the organization", name)
	case !ok && chosen+known != "":
		return there, fmt.Errorf("integration %s: the platform does not list the id %s for the organization, only: %s\n→ `usagebridge integrations list-remote %s` compares both sides",
			name, printable(or(chosen, known)), describeListed(list), t.integration.Vendor)
	case !ok:
		return there, usagef("integration %s: no id of the platform is on record, and the platform lists several: choose one with --integration-id: %s", name, describeListed(list))
	}
	return there, t.checkUnclaimed(ctx, there)
}

// checkUnclaimed refuses an integration of the platform that is another one of
// ours: its credentials would be replaced by those of the wrong vendor.
func (t *tenant) checkUnclaimed(ctx context.Context, there oemapi.Integration) error {
	list, err := t.app.listIntegrations(ctx)
	if err != nil {
		return err
	}
	other := slices.IndexFunc(list, func(i status.Integration) bool {
		return i.IntegrationID == there.ID && i.Name() != t.integration.Name() && i.Dialect == string(vendorapi.MSPCentric)
	})
	if other >= 0 {
		return usagef("integration %s: the platform's integration %s is that of %s on record; nothing was sent", t.integration.Name(), printable(there.ID), list[other].Name())
	}
	return nil
}

// checkLabels refuses labels that the vendor's template does not have, and
// returns those of it that are not given.
func (t *tenant) checkLabels(ctx context.Context, there oemapi.Integration, given []string) (kept []string, err error) {
	name := t.integration.Name()
	vendors, _, err := t.client.Vendors(ctx)
	if err != nil {
		return nil, fmt.Errorf("integration %s: %w", name, advise(err, nil))
	}
	at := slices.IndexFunc(vendors, func(v oemapi.Vendor) bool { return v.ID == there.VendorID })
	if at < 0 && there.VendorID == "" && len(vendors) == 1 {
		at = 0 // an answer that does not tell can mean no other
	}
	if at < 0 {
		return nil, fmt.Errorf("integration %s: the labels cannot be checked, and nothing was sent: the integration %s is of the platform's vendor %s, "+
			"which it does not list; see `usagebridge vendors template`", name, printable(there.ID), or(printable(there.VendorID), "(not told)"))
	}
	v := &vendors[at]
	without := func(list, others []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(label string) bool { return slices.Contains(others, label) })
	}
	unknown, kept := without(given, v.Labels), without(v.Labels, given)
	if len(unknown) > 0 {
		return nil, usagef("integration %s: nothing was sent: the template of the platform's vendor %s (%s) does not have %s; of its labels these are not given: %s",
			name, printable(v.ID), printable(v.Name), quoteAll(unknown), or(quoteAll(kept), "none"))
	}
	return kept, nil
}
