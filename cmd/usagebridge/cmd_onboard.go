package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// onboardFlags is what a person says of an organization to be onboarded.
type onboardFlags struct {
	asked

	kind                             string
	vendorFile, oemFile, partnerFile string
	given                            []string // LABEL=@FILE
	timeout                          time.Duration
	status                           bool
}

func (c *cli) integrationsOnboard() *cobra.Command {
	var o onboardFlags
	cmd := &cobra.Command{
		Use:   "onboard --vendor NAME --vendor-organization-id ID …",
		Short: "Have an organization and its integration made at the platform, and recorded here",
		Long: `Brings an organization to the platform through its OEM-API, in five steps: the
organization is made with its first user, the platform's vendor is found, the two are
integrated, the integration is recorded here as by "usagebridge integrations add", and
a link is made that lets the user in, once, to connect a PSA and map. The link alone
goes to stdout; it is kept nowhere. The integration's name here is
VENDOR/VENDOR-ORGANIZATION-ID.

Each step is on record before the next one begins. After an error, a crash or an
interruption the same command goes on where it stopped, and makes nothing twice; so
does a worker, after a minute, but for the link. Run again when all is done it gives a
new link and does nothing else. What is on record can be left out then; values that the
platform may have been told of cannot be changed on the way.

The platform shows two secrets once: the organization's OEM token and, for the kind
external, the integration's partner key. Both are sealed the moment they come. Where
the organization exists already, --adopt adds the user to it and learns its token, or
--oem-token-file brings it. Where the partner key was lost with its answer, bring it
with --partner-token-file if the platform's page or its support can tell it, or have
the integration removed there and run the command again.

Without --vendor-token-file the token is that of another integration of the vendor.
Needs USAGEBRIDGE_OEM_CLIENT_ID and USAGEBRIDGE_OEM_CLIENT_SECRET_FILE. What there is,
and how far, lists "usagebridge integrations onboardings".`,
		Example: `  usagebridge integrations onboard --vendor acme --vendor-organization-id msp-0042 --org-name 'Contoso' \
    --email ann@contoso.example --first-name Ann --last-name Ott --vendor-user-id u-17 --vendor-token-file vendor.token
  usagebridge integrations onboard --vendor acme --vendor-organization-id msp-0042 --status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.status {
				return c.showOnboarding(cmd.Context(), o.Vendor, o.Organization)
			}
			return c.onboard(cmd.Context(), &o)
		},
	}
	o.register(cmd)
	return cmd
}

// register adds the flags.
func (o *onboardFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.Vendor, "vendor", "", "the vendor, as `usagebridge init` knows it")
	flags.StringVar(&o.Organization, "vendor-organization-id", "", "the vendor's own id of the organization")
	flags.StringVar(&o.OrganizationName, "org-name", "", "the organization's name")
	flags.StringVar(&o.Email, "email", "", "e-mail address of its first user")
	flags.StringVar(&o.FirstName, "first-name", "", "first name of that user")
	flags.StringVar(&o.LastName, "last-name", "", "last name of that user")
	flags.StringVar(&o.VendorUserID, "vendor-user-id", "", "the vendor's own id of that user")
	flags.StringVar(&o.PlatformVendor, "platform-vendor", "", "the platform's id of the vendor (default: the one of the vendor's name, or the only one)")
	flags.StringVar(&o.kind, "kind", "", "external: we call the platform; credentials: it calls the vendor (default external)")
	flags.StringArrayVar(&o.given, "credential", nil, "of the kind credentials: a label of the vendor's template and the file with its value, 'LABEL=@FILE'; repeatable")
	flags.StringVar(&o.vendorFile, "vendor-token-file", "", "file with the vendor token")
	flags.StringVar(&o.oemFile, "oem-token-file", "", "file with the OEM token of an organization that the platform has")
	flags.StringVar(&o.partnerFile, "partner-token-file", "", "file with the partner key of an integration that the platform has")
	flags.BoolVar(&o.adopt, "adopt", false, "take what the platform has: add the user to the organization of that id; of the kind credentials, leave an integration as it is")
	flags.StringVar(&o.APIURL, "api-url", "", "the platform's address (default: USAGEBRIDGE_OEM_API_URL)")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "how long to try again what passes, and to wait for who else is at it")
	flags.BoolVar(&o.status, "status", false, "say how far it is, and do nothing")
}

// flagOf names the flag of a field.
var flagOf = map[onboarding.Field]string{
	onboarding.FieldVendor: "--vendor", onboarding.FieldOrganization: "--vendor-organization-id", onboarding.FieldOrganizationName: "--org-name",
	onboarding.FieldEmail: "--email", onboarding.FieldFirstName: "--first-name", onboarding.FieldLastName: "--last-name",
	onboarding.FieldVendorUserID: "--vendor-user-id", onboarding.FieldPlatformVendor: "--platform-vendor", onboarding.FieldKind: "--kind",
	onboarding.FieldAPIURL: "--api-url", fieldLabels: "--credential",
}

// inFlags puts what is wrong with fields into the words of the command.
func inFlags(err error) error {
	if differ, ok := errors.AsType[*onboarding.DifferError](err); ok {
		texts := make([]string, len(differ.Differences))
		for i, d := range differ.Differences {
			texts[i] = fmt.Sprintf("%s is %q, recorded is %q", flagOf[d.Field], d.Given, d.Recorded)
		}
		return usagef("the onboarding of %s has begun with other values, and goes on with those: %s", differ.Name, strings.Join(texts, "; "))
	}
	var usage usageError
	if !errors.As(err, &usage) {
		return err
	}
	var all []error
	for _, e := range joined(usage.error) {
		if f, ok := errors.AsType[fieldError](e); ok && f.field != "" {
			e = errors.New(flagOf[f.field] + " " + f.what)
		}
		all = append(all, e)
	}
	return usageError{errors.Join(all...)}
}

// joined lists the errors that were joined to one.
func joined(err error) []error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		return several.Unwrap()
	}
	return []error{err}
}

// read takes in the files that the flags name. Whatever is wrong is said at once.
// What is known need not be said again.
func (o *onboardFlags) read(c *Config, known bool) error {
	o.source, o.actor, o.Kind = askedByCommand, operator(), onboarding.Kind(o.kind)
	o.APIURL = strings.TrimRight(or(o.APIURL, c.OEMAPIURL), "/")
	var errs []error
	for _, f := range []struct {
		flag, path string
		to         *vault.Secret
	}{
		{"--vendor-token-file", o.vendorFile, &o.vendorToken},
		{"--oem-token-file", o.oemFile, &o.oemToken},
		{"--partner-token-file", o.partnerFile, &o.partnerToken},
	} {
		if f.path == "" {
			continue
		}
		token, err := tokenFrom(f.flag, f.path)
		if err != nil {
			errs = append(errs, err)
		}
		*f.to = vault.NewSecret(token)
	}
	o.credentials = map[string]vault.Secret{}
	for at, text := range o.given {
		label, source, _ := strings.Cut(text, "=")
		path, isFile := strings.CutPrefix(source, "@")
		if strings.TrimSpace(label) == "" || !isFile {
			// The text may be the value itself: it is not repeated.
			errs = append(errs, fmt.Errorf("--credential number %d: want 'LABEL=@FILE', the file with the value in it", at+1))
			continue
		}
		if _, twice := o.credentials[label]; twice {
			errs = append(errs, fmt.Errorf("--credential %q is given twice", label))
		}
		value, err := tokenFrom("--credential "+label, path)
		if err != nil {
			errs = append(errs, err)
		}
		o.credentials[label] = vault.NewSecret(or(value, "unread"))
	}
	if o.timeout < 0 {
		errs = append(errs, fmt.Errorf("--timeout %v: want 0 or more", o.timeout))
	}
	if err := o.check(known); err != nil {
		var usage usageError
		errors.As(inFlags(usageError{err}), &usage)
		errs = append(errs, joined(usage.error)...)
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

// onboard records what is asked for, and drives it until there is a link.
func (c *cli) onboard(ctx context.Context, flags *onboardFlags) error {
	return c.withApp(ctx, func(ctx context.Context, a *app) error {
		bucket, err := a.onboardings(ctx)
		if err != nil {
			return err
		}
		_, _, unknown := bucket.Get(ctx, broker.IntegrationKey(flags.Vendor, flags.Organization))
		if err := flags.read(&a.config, unknown == nil); err != nil {
			return err
		}
		// Before anything is recorded: whether the platform can be called at all.
		if _, err := a.onboardingAt(flags.APIURL, nil); err != nil {
			return err
		}
		o, err := a.onboarder(ctx)
		if err != nil {
			return err
		}
		defer o.close()
		record, err := o.ask(ctx, &flags.asked)
		if err != nil {
			return inFlags(err)
		}
		name := record.Name()
		if record.Registered() {
			c.say("the onboarding of %s is done since %s; a new link:", name, record.At(onboarding.StepRegistered).Done.Format(time.RFC3339))
		}
		moved, err := o.drive(ctx, flags.Vendor, flags.Organization, driving{
			actor: flags.actor, timeout: flags.timeout, link: true,
			moved: c.sayMoved,
			waiting: func(err error, wait time.Duration) {
				c.say("%s: %v; trying again in %s", name, err, wait.Round(time.Millisecond))
			},
		})
		if err != nil {
			return fmt.Errorf("onboarding of %s: %w", name, onboardAdvice(err))
		}
		if c.json {
			view := onboardingViewOf(&moved.Record, time.Now())
			view.MagicLink = moved.Link.Reveal()
			return c.printJSON(view)
		}
		_, err = fmt.Fprintln(c.stdout, moved.Link.Reveal())
		return err
	})
}

// sayMoved tells of an action that was done.
func (c *cli) sayMoved(m onboarding.Moved) {
	r := &m.Record
	switch m.Action {
	case onboarding.ActionCreateOrganization, onboarding.ActionAddUser:
		if r.At(m.Step).Done.IsZero() {
			c.say("organization: it is there, most likely from the attempt before; the user is added to it")
			return
		}
		c.say("organization: %s, its OEM token is stored", map[onboarding.Action]string{
			onboarding.ActionCreateOrganization: "made", onboarding.ActionAddUser: "the user is added",
		}[m.Action])
	case onboarding.ActionListVendors:
		c.say("vendor: %s (%s) at the platform", printable(r.PlatformVendorID), printable(r.PlatformVendorName))
	case onboarding.ActionListIntegrations:
		if r.At(m.Step).Done.IsZero() {
			c.say("integration: the platform lists none; it is made")
			return
		}
		c.say("integration: %s, which the platform has", printable(r.IntegrationID))
	case onboarding.ActionCreateIntegration:
		c.say("integration: %s made%s", printable(r.IntegrationID), map[bool]string{true: ", its partner key is stored"}[r.Kind == onboarding.External])
	case onboarding.ActionRegister:
		if !r.Recorded {
			c.say("registered: nothing to record, because the platform calls the vendor")
			return
		}
		c.say("registered: integration %s is recorded", printable(r.Name()))
	case onboarding.ActionOpenSession:
		c.say("session: send %s to this link, with which anybody gets in as %s:", printable(r.Email), printable(r.VendorUserID))
	case onboarding.ActionTakeGiven:
	}
}

// onboardAdvice adds what a person can do about it.
func onboardAdvice(err error) error {
	why, ok := errors.AsType[*onboarding.Error](err)
	if !ok {
		return err
	}
	again := "run the same command again"
	ways := map[onboarding.Problem]string{
		onboarding.ProblemOrganizationExists: "if it is the one that is meant, " + again + " with --adopt, which adds the user to it by its vendor-organization-id, or with --oem-token-file",
		onboarding.ProblemNoOrganization:     "correct --vendor-organization-id or --org-name, and leave out --adopt to have one made",
		onboarding.ProblemUserTaken:          "the platform keeps the user apart by --vendor-user-id and --email: look them up there, or bring the OEM token with --oem-token-file",
		onboarding.ProblemVendor:             "name the vendor with --platform-vendor, the kind with --kind and each label with --credential, and " + again,
		onboarding.ProblemLost: again + " with --partner-token-file, if the platform's page or its support can tell the key; " +
			"or have the integration removed at the platform and " + again,
		onboarding.ProblemNotListed:    again + " without --partner-token-file",
		onboarding.ProblemRejected:     "correct what the platform refuses, and " + again,
		onboarding.ProblemUnauthorized: fmt.Sprintf("compare %[1]s_OEM_CLIENT_ID and the file of %[1]s_OEM_CLIENT_SECRET_FILE with what the platform gave the vendor", envPrefix),
		onboarding.ProblemForbidden:    "it may be out of date, or another client's: " + again + " with --oem-token-file",
		onboarding.ProblemNotFound:     fmt.Sprintf("is %s_OEM_API_URL, or --api-url, the API address of the platform, the part above /oem-api?", envPrefix),
		onboarding.ProblemSealed:       fmt.Sprintf("is %s_MASTER_KEYSET the keyset with which it was begun?", envPrefix),
		onboarding.ProblemPassing:      again + ": it goes on where it stopped",
		onboarding.ProblemUnreadable:   again + ": it finds out what the platform has made of it",
	}
	lead := map[onboarding.Problem]string{
		onboarding.ProblemUnauthorized: "the platform does not let this client in: ",
		onboarding.ProblemForbidden:    "the platform refuses the OEM token of this organization: ",
	}[why.Problem]
	if why.Problem == onboarding.ProblemLost && strings.Contains(why.Message, "credentials nobody") {
		ways[why.Problem] = again + " with --adopt to take it as it is, or have it removed at the platform"
	}
	err = fmt.Errorf("%s%w", lead, err)
	if way := ways[why.Problem]; way != "" {
		err = fmt.Errorf("%w\n→ %s", err, way)
	}
	if why.Problem.Stops() || why.Problem == onboarding.ProblemUnauthorized || why.Problem == onboarding.ProblemForbidden {
		return usageError{err}
	}
	return err
}

func (c *cli) integrationsOnboardings() *cobra.Command {
	var vendor string
	cmd := &cobra.Command{
		Use:   "onboardings [VENDOR/ORGANIZATION]",
		Short: "List organizations that are being brought to the platform, or were",
		Long: `Lists onboardings by "integrations onboard", the API or events: at which step each is
and where it stands. open: it goes on by itself. running: somebody is at it now.
stopped: a person has to do something, which the error says. lost: the platform has
the integration, and its partner key went with an answer that was lost. done: the
integration stands; "integrations onboard" gives further links.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.listOnboardings(cmd.Context(), vendor)
			}
			vendor, organization, err := parseIntegration(args[0])
			if err != nil {
				return err
			}
			return c.showOnboarding(cmd.Context(), vendor, organization)
		},
	}
	cmd.Flags().StringVar(&vendor, "vendor", "", "only those of this vendor")
	return cmd
}

// onboardingView is an onboarding as people and programs may see it.
type onboardingView struct {
	Onboarding     string             `json:"onboarding"`
	State          onboarding.State   `json:"state"`
	Step           onboarding.Step    `json:"step"`
	Since          time.Time          `json:"since"` // of the step before, or of the beginning
	Attempts       int                `json:"attempts,omitempty"`
	Problem        onboarding.Problem `json:"problem,omitempty"`
	Error          string             `json:"error,omitempty"`
	Failed         *time.Time         `json:"failed,omitempty"`
	Source         string             `json:"source"`
	Actor          string             `json:"actor"`
	Created        time.Time          `json:"created"`
	PlatformVendor string             `json:"platform_vendor,omitempty"`
	IntegrationID  string             `json:"integration_id,omitempty"`
	MagicLink      string             `json:"magic_link,omitempty"` // when one was made just now
}

func onboardingViewOf(r *onboarding.Record, now time.Time) onboardingView {
	v := onboardingView{
		Onboarding: r.Name(), State: r.State(now), Step: r.Current(), Since: r.Created, Attempts: r.At(r.Current()).Attempts,
		Problem: r.Problem, Error: r.Message, Source: r.Source, Actor: r.Actor, Created: r.Created,
		PlatformVendor: r.PlatformVendorID, IntegrationID: r.IntegrationID,
	}
	for _, s := range onboarding.Steps() {
		if p := r.At(s); p.Done.After(v.Since) && (s != onboarding.StepSession) {
			v.Since = p.Done
		}
	}
	if !r.Failed.IsZero() {
		v.Failed = &r.Failed
	}
	return v
}

func (c *cli) showOnboarding(ctx context.Context, vendor, organization string) error {
	if vendor == "" || organization == "" {
		return usagef("--vendor and --vendor-organization-id: want both, to know which onboarding is meant")
	}
	return c.withApp(ctx, func(ctx context.Context, a *app) error {
		bucket, err := a.onboardings(ctx)
		if err != nil {
			return err
		}
		r, _, err := bucket.Get(ctx, broker.IntegrationKey(vendor, organization))
		if errors.Is(err, broker.ErrNotFound) {
			return usagef("there is no onboarding of %s/%s; `usagebridge integrations onboardings` lists those there are", vendor, organization)
		}
		if err != nil {
			return err
		}
		return c.tellOnboardings([]onboarding.Record{r}, true)
	})
}

func (c *cli) listOnboardings(ctx context.Context, vendor string) error {
	return c.withApp(ctx, func(ctx context.Context, a *app) error {
		bucket, err := a.onboardings(ctx)
		if err != nil {
			return err
		}
		all, err := bucket.All(ctx)
		if err != nil {
			return err
		}
		list := make([]onboarding.Record, 0, len(all))
		for _, r := range all {
			if vendor == "" || r.Vendor == vendor {
				list = append(list, r)
			}
		}
		slices.SortFunc(list, func(a, b onboarding.Record) int { return strings.Compare(a.Name(), b.Name()) })
		return c.tellOnboardings(list, false)
	})
}

func (c *cli) tellOnboardings(list []onboarding.Record, one bool) error {
	now := time.Now()
	views := make([]onboardingView, len(list))
	for i := range list {
		views[i] = onboardingViewOf(&list[i], now)
	}
	switch {
	case c.json && one:
		return c.printJSON(views[0])
	case c.json:
		return c.printJSON(views)
	case len(views) == 0:
		c.say("no onboardings")
		return nil
	}
	rows := make([][]string, len(views))
	for i, v := range views {
		message := cut(v.Error, 120)
		if one {
			message = v.Error
		}
		rows[i] = []string{printable(v.Onboarding), string(v.Step), string(v.State), ago(v.Since, now), or(printable(message), "-")}
	}
	return c.table([]string{"ONBOARDING", "STEP", "STATE", "SINCE", "ERROR"}, rows)
}
