package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// action is what an operator does, as the audit log has it.
type action struct {
	Actor       string    `json:"actor"`
	Action      string    `json:"action"`
	Vendor      string    `json:"vendor,omitempty"`      // of what concerns no single integration
	Integration string    `json:"integration,omitempty"` // vendor/organization
	Object      string    `json:"object,omitempty"`      // what it was done to: a dead letter, a replay, a backfill
	Objects     []string  `json:"objects,omitempty"`     // if they are several
	Why         string    `json:"why,omitempty"`
	Detail      string    `json:"detail,omitempty"` // never a secret: fingerprints at most
	At          time.Time `json:"at"`
}

func (c *cli) integrationsPause() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "pause VENDOR/ORGANIZATION --why TEXT",
		Short: "Send nothing for an integration; its figures are kept",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return usagef("--why is missing: whoever is on call next will want to know")
			}
			return c.setPaused(cmd.Context(), args[0], true, why)
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

func (c *cli) integrationsResume() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "resume VENDOR/ORGANIZATION",
		Short: "Send again for an integration that was paused",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.setPaused(cmd.Context(), args[0], false, why)
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

func (c *cli) setPaused(ctx context.Context, name string, paused bool, why string) error {
	word, input := "resumed", status.ResumedByOperator
	if paused {
		word, input = "paused", status.PausedByOperator
	}
	return c.act(ctx, name, word, why, func(_ *app, i *status.Integration) (status.Input, string, error) {
		if i.Paused == paused {
			return "", "", errNothingToDo
		}
		return input, "", nil
	})
}

func (c *cli) integrationsResync() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "resync VENDOR/ORGANIZATION --why TEXT",
		Short: "Send everything again: accounts, services, and then every current figure",
		Long: `Takes it that the partner has lost everything it ever accepted for the
integration. Accounts and services are posted again, the partner is told that they
can be mapped if its status asks for that, and then every current figure is sent
once more, under the usual limits. A hold for bad credentials or an anomaly is
lifted: the first answer will tell. Nothing older is ever sent, and what the
partner has already stays as it is.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return usagef("--why is missing: whoever is on call next will want to know")
			}
			return c.act(cmd.Context(), args[0], "resync begun", why, func(*app, *status.Integration) (status.Input, string, error) {
				return status.Resynced, "", nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

func (c *cli) integrationsCredentials() *cobra.Command {
	var vendorFile, partnerFile, oemFile, apiURL, why string
	var overlap time.Duration
	set := &cobra.Command{
		Use:   "set VENDOR/ORGANIZATION",
		Short: "Replace tokens or address; lifts the hold for bad credentials",
		Long: `Replaces the tokens of an integration, and its API address if --api-url is given.
Workers take the new ones at once. Both tokens are to be given: what is stored
cannot be read back by a command. With another partner token or another address
everything is sent again, as by resync: what is there may be new and empty.

The former ones stay, sealed, for the time of --overlap: while the partner refuses
the new ones with 401 but takes the former ones, calls go with these, and the new
ones are tried once a minute. If the former ones have leaked, give --overlap 0.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var oemErr error
			n := newIntegration{apiURL: apiURL, overlap: overlap}
			vendorToken, vendorErr := tokenFrom("--vendor-token-file", vendorFile)
			partnerToken, partnerErr := tokenFrom("--partner-token-file", partnerFile)
			if oemFile != "" {
				n.oemToken, oemErr = tokenFrom("--oem-token-file", oemFile)
			}
			if overlap < 0 || overlap > maxOverlap {
				oemErr = errors.Join(oemErr, fmt.Errorf("--overlap %v: want 0 to %v", overlap, maxOverlap))
			}
			if err := errors.Join(vendorErr, partnerErr, oemErr); err != nil {
				return usageError{err}
			}
			n.vendorToken, n.partnerToken = vendorToken, partnerToken
			return c.act(cmd.Context(), args[0], "credentials set", why, func(a *app, i *status.Integration) (status.Input, string, error) {
				return a.setCredentials(cmd.Context(), i, n)
			})
		},
	}
	flags := set.Flags()
	flags.StringVar(&vendorFile, "vendor-token-file", "", "file with the vendor token")
	flags.StringVar(&partnerFile, "partner-token-file", "", "file with the partner token")
	flags.StringVar(&oemFile, "oem-token-file", "", "file with the organization's OEM token, with which its status can be polled (default: as it is)")
	flags.DurationVar(&overlap, "overlap", 24*time.Hour, "how long the former tokens are used if the partner refuses the new ones; 0: not at all, and they are not kept")
	flags.StringVar(&apiURL, "api-url", "", "the API's new address (default: as it is)")
	flags.StringVar(&why, "why", "", "the reason, kept in the audit log")
	cmd := group("credentials", "Tokens and address of an integration, and its credentials at the platform", set, c.credentialsUpdate())
	cmd.Long = `Two things are called credentials. "set" replaces the tokens with which usagebridge
calls the platform; they are stored here, as ciphertext, and the platform is not
called. "update" replaces the credentials with which the platform calls the vendor;
the platform keeps them, and they are not stored here.`
	return cmd
}

// setCredentials checks and seals new credentials, and says whether they lead
// to the same integration at the partner.
func (a *app) setCredentials(ctx context.Context, i *status.Integration, n newIntegration) (status.Input, string, error) {
	keys, err := a.sealer(ctx)
	if err != nil {
		return "", "", err
	}
	before, address := i.Marks, or(n.apiURL, i.APIURL)
	input := status.CredentialsReplaced
	if elsewhere(keys, i.Name(), i.PartnerToken, n.partnerToken) || address != i.APIURL || i.Previous.Strayed() {
		input = status.CredentialsRenewed
	}
	n.dialect, n.apiURL = i.Dialect, address
	n.keepPrevious(keys, i)
	i.APIURL = address
	if err := n.check(i); err != nil {
		return "", "", err
	}
	if err := a.checkUnshared(ctx, keys, i, n); err != nil {
		return "", "", err
	}
	err = seal(i, keys, n)
	detail := marksOf(i.Marks) + "; before: " + marksOf(before)
	if p := i.Previous; p != nil {
		detail += "; kept until " + p.Until.Format(time.RFC3339)
	}
	return input, detail, err
}

// maxOverlap bounds how long former tokens are kept.
const maxOverlap = 30 * 24 * time.Hour

// elsewhere says whether a partner token differs from the one that is sealed.
func elsewhere(keys *vault.Vault, name, sealed, token string) bool {
	former, err := keys.Open(sealed, name)
	return err != nil || former.Reveal() != token
}

// keepPrevious keeps the former credentials of the record for the overlap,
// unless they are the same.
func (n *newIntegration) keepPrevious(keys *vault.Vault, i *status.Integration) {
	if !i.KeepPrevious(time.Now().UTC(), n.overlap) {
		return
	}
	p := i.Previous
	vendorToken, err := keys.Open(p.VendorToken, i.Name())
	p.Elsewhere = p.APIURL != n.apiURL || elsewhere(keys, i.Name(), p.PartnerToken, n.partnerToken)
	if same := err == nil && vendorToken.Reveal() == n.vendorToken && !p.Elsewhere; same || err != nil {
		i.Previous = nil
	}
}

var errNothingToDo = errors.New("nothing to do")

// act changes an integration in the name of the person at the terminal, and
// puts it on record: in the status log what it did, in the audit log who and
// why. choose says what is done, and may change what the machine knows nothing
// of, such as tokens.
func (c *cli) act(ctx context.Context, name, what, why string, choose func(*app, *status.Integration) (in status.Input, detail string, err error)) error {
	vendor, organization, err := parseIntegration(name)
	if err != nil {
		return err
	}
	return c.withApp(ctx, func(ctx context.Context, a *app) error {
		bucket, err := a.integrations(ctx)
		if err != nil {
			return err
		}
		now, actor := time.Now().UTC(), operator()
		detail := ""
		var transition status.Transition
		_, err = bucket.Update(ctx, broker.IntegrationKey(vendor, organization), func(i *status.Integration) (err error) {
			var in status.Input
			if in, detail, err = choose(a, i); err == nil {
				transition, _ = i.Take(in, status.Observation{At: now, Actor: actor, Message: why})
			}
			return err
		})
		switch {
		case errors.Is(err, errNothingToDo):
			c.say("integration %s is %s already", name, what)
			return nil
		case errors.Is(err, broker.ErrNotFound):
			return usagef("integration %s is unknown; `usagebridge integrations ls` lists the known ones", name)
		case err != nil:
			return fmt.Errorf("integration %s: %w", name, err)
		}
		if transition.Recorded() {
			err = status.Record(ctx, statusLog{a.broker}, vendor, organization, now, transition)
		}
		if err == nil {
			err = a.audit(ctx, action{Actor: actor, Action: what, Integration: name, Why: why, Detail: detail, At: now})
		}
		if err != nil {
			return fmt.Errorf("integration %s was %s, but that is not on record: %w", name, what, err)
		}
		c.say("integration %s: %s", name, what)
		return nil
	})
}

// audit appends an operator's action to the audit log.
func (a *app) audit(ctx context.Context, done action) error {
	return a.auditOnce(ctx, done, uuid.NewString())
}

// auditOnce is audit for an action that may be told twice: one of an id that was
// there within the last minutes is a repeat.
func (a *app) auditOnce(ctx context.Context, done action, id string) error {
	body, err := json.Marshal(done)
	if err != nil {
		return fmt.Errorf("encode action: %w", err)
	}
	return a.broker.Append(ctx, "audit.v1."+event.Escape(done.Actor), nil, body, id)
}

// operator names the person at the terminal.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "operator"
}
