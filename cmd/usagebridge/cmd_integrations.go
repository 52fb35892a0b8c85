package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

func (c *cli) integrationsCommand() *cobra.Command {
	return group("integrations", "Integrations: one vendor with one organization each",
		c.integrationsAdd(), c.integrationsList(), c.integrationsShow(),
		c.integrationsPause(), c.integrationsResume(), c.integrationsResync(), c.integrationsCredentials(),
		c.integrationsTest(), c.integrationsMapping(), c.integrationsOnboard(), c.integrationsOnboardings(), c.integrationsListRemote())
}

// newIntegration is what a person says of an integration to be added.
type newIntegration struct {
	vendor, organization      string
	dialect, apiURL, status   string
	vendorToken, partnerToken string
	oemToken                  string        // "": none
	integrationID             string        // the partner's own; "": not known
	actor                     string        // "": the person at the terminal
	overlap                   time.Duration // for which the former tokens are kept
}

func (c *cli) integrationsAdd() *cobra.Command {
	var n newIntegration
	var vendorFile, partnerFile, oemFile string
	var ifMissing bool // one that is there already is left as it is
	cmd := &cobra.Command{
		Use:   "add VENDOR/ORGANIZATION",
		Short: "Add an integration; its tokens are stored as ciphertext",
		Example: `  usagebridge integrations add acme/msp-0042 --dialect mspcentric \
    --api-url https://sub.mspcentric.app/api \
    --vendor-token-file vendor.token --partner-token-file partner.token`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if n.vendor, n.organization, err = parseIntegration(args[0]); err != nil {
				return err
			}
			var vendorErr, partnerErr, oemErr error
			n.vendorToken, vendorErr = tokenFrom("--vendor-token-file", vendorFile)
			n.partnerToken, partnerErr = tokenFrom("--partner-token-file", partnerFile)
			if oemFile != "" {
				n.oemToken, oemErr = tokenFrom("--oem-token-file", oemFile)
			}
			if err := errors.Join(vendorErr, partnerErr, oemErr); err != nil {
				return usageError{err}
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				err := a.addIntegration(ctx, n)
				if ifMissing && errors.Is(err, broker.ErrExists) {
					c.say("integration %s is there already, and was left as it is", args[0])
					return nil
				}
				if err != nil {
					return err
				}
				c.say("integration %s added, status %s", args[0], n.status)
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&ifMissing, "if-missing", false, "leave an integration that is there already as it is, and succeed: for scripts that set things up")
	flags.StringVar(&n.dialect, "dialect", string(vendorapi.MSPCentric), "the platform's variant of the API: mspcentric or gradient")
	flags.StringVar(&n.apiURL, "api-url", "", "the API's address, such as https://sub.mspcentric.app/api; /vendor-api is appended")
	flags.StringVar(&vendorFile, "vendor-token-file", "", "file with the vendor token")
	flags.StringVar(&partnerFile, "partner-token-file", "", "file with the partner token")
	flags.StringVar(&oemFile, "oem-token-file", "", "file with the organization's OEM token, with which its status can be read (default: none)")
	flags.StringVar(&n.status, "status", string(status.Inactive), "where the integration stands at the partner: inactive, mapping, pending or connected")
	return cmd
}

func tokenFrom(flag, path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%s is missing: want the path of a file with the token in it", flag)
	}
	token, err := readSecretFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return token, nil
}

// addIntegration checks and seals what it is given, and records it.
func (a *app) addIntegration(ctx context.Context, n newIntegration) error {
	name := n.vendor + "/" + n.organization
	i := status.Integration{
		Vendor:       n.vendor,
		Organization: n.organization,
		Dialect:      n.dialect,
		APIURL:       strings.TrimRight(n.apiURL, "/"),
	}
	begun := i.Begin(status.Observation{At: time.Now().UTC(), Observed: status.Status(n.status), IntegrationID: n.integrationID, Actor: or(n.actor, operator())})
	if err := n.check(&i); err != nil {
		return err
	}
	if _, err := a.broker.Vendor(ctx, n.vendor); err != nil {
		return err
	}
	bucket, err := a.integrations(ctx)
	if err != nil {
		return err
	}
	keys, err := a.sealer(ctx)
	if err != nil {
		return err
	}
	if err := a.checkUnshared(ctx, keys, &i, n); err != nil {
		return err
	}
	if err := seal(&i, keys, n); err != nil {
		return err
	}
	err = bucket.Create(ctx, broker.IntegrationKey(n.vendor, n.organization), i)
	if errors.Is(err, broker.ErrExists) {
		return usagef("integration %s exists already; see `usagebridge integrations show %s`: %w", name, name, err)
	}
	if err != nil {
		return fmt.Errorf("add integration %s: %w", name, err)
	}
	recorded := status.Record(ctx, statusLog{a.broker}, n.vendor, n.organization, i.Since, begun)
	audited := a.audit(ctx, action{Actor: or(n.actor, operator()), Action: "integration added", Integration: name, Detail: marksOf(i.Marks), At: i.Created})
	if err := errors.Join(recorded, audited); err != nil {
		return fmt.Errorf("integration %s was added, but that is not on record: %w", name, err)
	}
	return nil
}

// marksOf names tokens by their fingerprints.
func marksOf(m status.Marks) string {
	text := "fingerprints: vendor token " + or(m.Vendor, "unknown") + ", partner token " + or(m.Partner, "unknown")
	if m.OEM != "" {
		text += ", OEM token " + m.OEM
	}
	return text
}

// check says everything that is wrong with the record and its tokens.
func (n *newIntegration) check(i *status.Integration) error {
	_, clientErr := vendorapi.New(vendorapi.Config{
		BaseURL: i.APIURL, Dialect: vendorapi.Dialect(n.dialect), Credentials: vendorapi.NewCredentials(n.vendorToken, n.partnerToken),
	})
	if err := errors.Join(i.Check(), clientErr); err != nil {
		return usagef("integration %s: %w", i.Name(), err)
	}
	return nil
}

// checkUnshared refuses the tokens of another integration: the figures of one
// organization would be accepted as those of the other, and be invoiced to it.
func (a *app) checkUnshared(ctx context.Context, keys *vault.Vault, i *status.Integration, n newIntegration) error {
	list, err := a.listIntegrations(ctx)
	if err != nil {
		return err
	}
	for at := range list {
		other := &list[at]
		if other.Name() == i.Name() || other.APIURL != i.APIURL {
			continue
		}
		vendorToken, vendorErr := keys.Open(other.VendorToken, other.Name())
		partnerToken, partnerErr := keys.Open(other.PartnerToken, other.Name())
		if vendorErr == nil && partnerErr == nil && vendorToken.Reveal() == n.vendorToken && partnerToken.Reveal() == n.partnerToken {
			return usagef("integration %s: these are the tokens of %s: every organization has a partner token of its own", i.Name(), other.Name())
		}
	}
	return nil
}

func seal(i *status.Integration, keys *vault.Vault, n newIntegration) (err error) {
	if i.VendorToken, err = keys.Seal(vault.NewSecret(n.vendorToken), i.Name()); err != nil {
		return fmt.Errorf("seal the vendor token: %w", err)
	}
	if i.PartnerToken, err = keys.Seal(vault.NewSecret(n.partnerToken), i.Name()); err != nil {
		return fmt.Errorf("seal the partner token: %w", err)
	}
	if n.oemToken != "" {
		if i.OEMToken, err = keys.Seal(vault.NewSecret(n.oemToken), i.Name()); err != nil {
			return fmt.Errorf("seal the OEM token: %w", err)
		}
		i.Marks.OEM = keys.Mark(vault.NewSecret(n.oemToken), i.Name())
	}
	i.Marks.Vendor = keys.Mark(vault.NewSecret(n.vendorToken), i.Name())
	i.Marks.Partner = keys.Mark(vault.NewSecret(n.partnerToken), i.Name())
	// Ciphertext differs each time, so its digest changes with the tokens and
	// says nothing about them.
	sum := sha256.Sum256([]byte(i.APIURL + "\n" + i.VendorToken + "\n" + i.PartnerToken))
	i.Credentials = hex.EncodeToString(sum[:8])
	return nil
}

func (c *cli) integrationsList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List integrations with their status",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				list, err := a.listIntegrations(ctx)
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(views(list))
				}
				rows := make([][]string, 0, len(list))
				for _, i := range list {
					rows = append(rows, []string{printable(i.Name()), string(i.Status), ago(i.Since, time.Now()), gates(&i), i.Dialect, i.APIURL})
				}
				return c.table([]string{"INTEGRATION", "STATUS", "SINCE", "GATES", "DIALECT", "API"}, rows)
			})
		},
	}
}

func (a *app) listIntegrations(ctx context.Context) ([]status.Integration, error) {
	bucket, err := a.integrations(ctx)
	if err != nil {
		return nil, err
	}
	all, err := bucket.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("list integrations: %w", err)
	}
	list := make([]status.Integration, 0, len(all))
	for _, i := range all {
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b status.Integration) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// gates lists what keeps the integration from being sent to. To one that nobody
// has added nothing is sent.
func gates(i *status.Integration) string {
	if i == nil {
		return string(gateOf(nil))
	}
	closed := i.Gates()
	if len(closed) == 0 {
		return "open"
	}
	words := make([]string, len(closed))
	for at, reason := range closed {
		words[at] = string(reason)
	}
	return strings.Join(words, ",")
}

// integrationView is an integration as people and programs may see it: without
// the sealed tokens.
type integrationView struct {
	Integration string        `json:"integration"`
	Dialect     string        `json:"dialect"`
	APIURL      string        `json:"api_url"`
	Status      status.Status `json:"status"`
	Since       time.Time     `json:"since"`
	Cause       string        `json:"cause"`
	Gates       string        `json:"gates"`
	HoldSince   *time.Time    `json:"hold_since,omitempty"`
	HoldMessage string        `json:"hold_message,omitempty"`
	Tokens      tokensView    `json:"tokens"`
	Former      *formerView   `json:"former_tokens,omitempty"`
	Created     time.Time     `json:"created"`
}

// tokensView is fingerprints of tokens.
type tokensView struct {
	Marks status.Marks `json:"fingerprints"`
	InUse bool         `json:"in_use"`
}

// formerView is tokens that may be used until their overlap ends.
type formerView struct {
	tokensView

	Until time.Time `json:"until"`
}

func view(i *status.Integration) integrationView {
	v := integrationView{
		Integration: i.Name(), Dialect: i.Dialect, APIURL: i.APIURL, Status: i.Status, Since: i.Since, Cause: i.Cause,
		Gates: gates(i), HoldMessage: i.HoldMessage, Created: i.Created, Tokens: tokensView{Marks: i.Marks, InUse: true},
	}
	if p := i.Previous; p != nil {
		v.Tokens.InUse = p.Used.IsZero()
		v.Former = &formerView{tokensView: tokensView{Marks: p.Marks, InUse: !p.Used.IsZero()}, Until: p.Until}
	}
	if i.Hold != "" {
		v.HoldSince = &i.HoldSince
	}
	return v
}

func views(list []status.Integration) []integrationView {
	shown := make([]integrationView, len(list))
	for at := range list {
		shown[at] = view(&list[at])
	}
	return shown
}

// withIntegration is withApp for a command about one integration.
func (c *cli) withIntegration(ctx context.Context, name string, do func(ctx context.Context, a *app, vendor, organization string) error) error {
	vendor, organization, err := parseIntegration(name)
	if err != nil {
		return err
	}
	return c.withApp(ctx, func(ctx context.Context, a *app) error { return do(ctx, a, vendor, organization) })
}

// integration reads one record; a missing one is an error that a person
// understands.
func (a *app) integration(ctx context.Context, vendor, organization string) (*status.Integration, error) {
	bucket, err := a.integrations(ctx)
	if err != nil {
		return nil, err
	}
	i, _, err := bucket.Get(ctx, broker.IntegrationKey(vendor, organization))
	if errors.Is(err, broker.ErrNotFound) {
		return nil, fmt.Errorf("integration %s/%s is unknown; `usagebridge integrations ls` lists the known ones: %w", vendor, organization, err)
	}
	if err != nil {
		return nil, err
	}
	return &i, nil
}
