package main

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

func (c *cli) usersCommand() *cobra.Command {
	return group("users", "People who work with the platform for an organization", c.usersAdd(), c.usersRemove())
}

// platformUser is a person as an operator names one.
type platformUser struct {
	email, first, last string
	id                 string // the vendor's own
	why                string
}

func (u *platformUser) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&u.email, "email", "", "e-mail address of the person")
	flags.StringVar(&u.id, "vendor-user-id", "", "your own id of the person")
	flags.StringVar(&u.why, "why", "", "the reason, kept in the audit log")
}

func (c *cli) usersAdd() *cobra.Command {
	var u platformUser
	cmd := &cobra.Command{
		Use:   "add VENDOR/ORGANIZATION --email ADDRESS --first-name NAME --last-name NAME --vendor-user-id ID",
		Short: "Give a person access to an organization at the platform",
		Long: `Adds a person to the organization that the platform knows by the id ORGANIZATION.
The platform answers with the organization's OEM token. Where the record has none
it is stored as ciphertext; where it has one the two must be the same.

They may differ: platforms let people into organizations by the domain of their
e-mail address, too, and that domain may be another organization's. The command
then stores nothing, says whose token it was if it is one of ours, and ends with 1.
The person may have access to that other organization by then.

The same person once more changes nothing. Needs USAGEBRIDGE_OEM_API_URL,
USAGEBRIDGE_OEM_CLIENT_ID and USAGEBRIDGE_OEM_CLIENT_SECRET_FILE.`,
		Example: `  usagebridge users add acme/msp-0042 --email ann@msp.example --first-name Ann --last-name Example --vendor-user-id u-17`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(u.check(), nameGiven("--first-name", u.first), nameGiven("--last-name", u.last)); err != nil {
				return usageError{err}
			}
			return c.withTenant(cmd.Context(), args[0], func(ctx context.Context, t *tenant) error { return c.addUser(ctx, t, &u) })
		},
	}
	u.flags(cmd)
	cmd.Flags().StringVar(&u.first, "first-name", "", "first name of the person")
	cmd.Flags().StringVar(&u.last, "last-name", "", "last name of the person")
	return cmd
}

func (c *cli) usersRemove() *cobra.Command {
	var u platformUser
	cmd := &cobra.Command{
		Use:   "remove VENDOR/ORGANIZATION --email ADDRESS --vendor-user-id ID",
		Short: "Take a person's access to an organization at the platform away",
		Long: `Removes a person from the organization whose OEM token the record has. E-mail
address and id are to be those with which the person was added. Needs
USAGEBRIDGE_OEM_API_URL, USAGEBRIDGE_OEM_CLIENT_ID and
USAGEBRIDGE_OEM_CLIENT_SECRET_FILE.`,
		Example: `  usagebridge users remove acme/msp-0042 --email ann@msp.example --vendor-user-id u-17`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := u.check(); err != nil {
				return usageError{err}
			}
			return c.withTenant(cmd.Context(), args[0], func(ctx context.Context, t *tenant) error { return c.removeUser(ctx, t, &u) })
		},
	}
	u.flags(cmd)
	return cmd
}

// check says everything that is wrong with what identifies a person.
func (u *platformUser) check() error {
	var emailErr error
	if address, err := mail.ParseAddress(u.email); u.email == "" {
		emailErr = errors.New("--email is missing: want an address such as ann@msp.example")
	} else if err != nil || address.Address != u.email {
		emailErr = fmt.Errorf("--email %q: want an address alone, such as ann@msp.example", u.email)
	}
	return errors.Join(emailErr, nameGiven("--vendor-user-id", u.id))
}

// nameGiven says what is wrong with a text that a person is known by.
func nameGiven(flag, text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return errors.New(flag + " is missing: the platform wants one")
	case strings.TrimSpace(text) != text || strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%s %q: want it without line breaks, and without blanks around it", flag, text)
	}
	return nil
}

// known is how the audit log names the person.
func (u *platformUser) known() string { return u.email + ", vendor user id " + u.id }

func (c *cli) addUser(ctx context.Context, t *tenant, u *platformUser) error {
	name := t.integration.Name()
	person := oemapi.Person{Email: u.email, FirstName: u.first, LastName: u.last, VendorUserID: u.id}
	answer, _, err := t.client.AddUser(ctx, person, t.integration.Organization)
	done := action{Action: "user added", Why: u.why, Detail: u.known()}
	if err != nil {
		c.sayUnknown(err)
		return t.record(ctx, done, t.notAdded(err))
	}
	// The platform has the person now: an interrupt must not lose its answer.
	ctx, cancel := after(ctx)
	defer cancel()
	kept, err := t.keep(ctx, answer.Token)
	wrong, isWrong := errors.AsType[*strangeTokenError](err)
	switch {
	case isWrong:
		done.Action = "user added elsewhere"
		done.Detail += "; " + wrong.what + "; nothing was stored"
		err = fmt.Errorf("integration %s: %s was added, but %w", name, printable(u.email), wrong.tell(u, name))
	case err != nil:
		done.Detail += "; its OEM token was not stored"
		err = fmt.Errorf("integration %s: %s was added, but the organization's OEM token was not stored: %w\n→ the same command again asks for it again", name, printable(u.email), err)
	case kept:
		done.Detail += "; the organization's OEM token was stored, fingerprint " + t.vault.Mark(vault.NewSecret(answer.Token.Reveal()), name)
	}
	if auditErr := t.record(ctx, done, nil); err != nil || auditErr != nil {
		return errors.Join(err, auditErr)
	}
	c.sayAdded(t, u, kept)
	return nil
}

// notAdded says why the platform did not add a person, and the way out.
func (t *tenant) notAdded(err error) error {
	return fmt.Errorf("integration %s: %w", t.integration.Name(), advise(err, map[oemapi.Class]string{
		oemapi.Forbidden: "the platform does not let this client add people to the organization: ask the platform whose organization it is",
		oemapi.NotFound: fmt.Sprintf("has the platform an organization with the id %s? `usagebridge integrations onboard` makes one; is %s_OEM_API_URL right?",
			printable(t.integration.Organization), envPrefix),
		oemapi.Exists: "the vendor user id is there with another address, or the address belongs to somebody of another organization: " +
			"look for both in the audit log (`usagebridge audit ls --action user --json`), and use the id and the address of one person",
	}))
}

func (c *cli) sayAdded(t *tenant, u *platformUser, kept bool) {
	name := t.integration.Name()
	c.say("integration %s: user %s added", name, printable(u.email))
	if !kept {
		return
	}
	c.say("integration %s: the OEM token of its organization was stored", name)
	if t.integration.IntegrationID == "" {
		c.say("note: the record has no integration id of the platform that could prove whose token it is; compare with `usagebridge integrations list-remote %s`", t.integration.Vendor)
	}
}

// sayUnknown tells that a failure leaves open whether something was done, even
// if it is an interrupt, of which nothing else would tell.
func (c *cli) sayUnknown(err error) {
	if failure, ok := errors.AsType[*oemapi.Error](err); ok && failure.Unknown() {
		c.say("it is not known whether the platform has done it; the same command once more is safe")
	}
}

func (c *cli) removeUser(ctx context.Context, t *tenant, u *platformUser) error {
	if err := t.needToken(); err != nil {
		return err
	}
	name := t.integration.Name()
	_, err := t.client.RemoveUser(ctx, t.token, u.id, u.email)
	if err != nil {
		c.sayUnknown(err)
		err = fmt.Errorf("integration %s: %w", name, advise(err, map[oemapi.Class]string{
			oemapi.NotFound: "the organization has nobody with this id and this address: was the person removed already, or added with others " +
				"(`usagebridge audit ls --object " + shellWord(name) + " --action user --json`)?",
		}))
	}
	if err := t.record(ctx, action{Action: "user removed", Why: u.why, Detail: u.known()}, err); err != nil {
		return err
	}
	c.say("integration %s: user %s removed", name, printable(u.email))
	return nil
}

// strangeTokenError is an OEM token that is not the organization's, or cannot be
// shown to be.
type strangeTokenError struct {
	what string // for the audit log
	// owner is the integration of ours whose organization it belongs to, if it is one.
	owner string
	// renewed: it lists our own integration, so the organization has two.
	renewed bool
}

func (s *strangeTokenError) Error() string { return s.what }

// tell says what happened, and the way out.
func (s *strangeTokenError) tell(u *platformUser, name string) error {
	const nothing = "Nothing was stored."
	switch {
	case s.owner != "":
		return fmt.Errorf("%w. %s\n→ most likely the domain of the address belongs to that organization, whose data the person can see from now on. "+
			"If that is not meant: `usagebridge users remove %s --email %s --vendor-user-id %s`, then add the person with an address of %s",
			s, nothing, shellWord(s.owner), shellWord(u.email), shellWord(u.id), name)
	case s.renewed:
		return fmt.Errorf("%w. %s\n→ have the platform confirm that it gave the organization a new token, then store it by "+
			"`usagebridge integrations credentials set %s --oem-token-file …`", s, nothing, shellWord(name))
	}
	return fmt.Errorf("%w. %s\n→ most likely the domain of the address belongs to another organization, whose data the person can see from now on: "+
		"ask the platform to take %s (vendor user id %s) out of it. If instead the platform gave %s a new token, store it by "+
		"`usagebridge integrations credentials set %s --oem-token-file …`", s, nothing, printable(u.email), printable(u.id), name, shellWord(name))
}

// keep stores the token that the platform answered, unless the record has it,
// and says whether it did. A token that is not the organization's, as far as our
// records and the platform's list can tell, is refused as a [strangeTokenError].
func (t *tenant) keep(ctx context.Context, answered oemapi.Secret) (stored bool, err error) {
	if err := t.checkOwner(ctx, answered); err != nil {
		return false, err
	}
	own := t.token.Reveal()
	if own == answered.Reveal() {
		return false, nil
	}
	id := printable(t.integration.IntegrationID)
	ours, err := t.listsUs(ctx, answered)
	switch {
	case own != "" && err == nil && ours && id != "":
		return false, &strangeTokenError{what: "the platform answered another OEM token than the one on record, and one that lists our integration " + id, renewed: true}
	case own != "": // whatever else it is
		return false, &strangeTokenError{what: "the platform answered another OEM token than the one on record"}
	case err != nil:
		return false, err
	case !ours:
		return false, &strangeTokenError{what: "the platform answered the OEM token of an organization that does not list our integration " + id}
	}
	return true, t.storeOEMToken(ctx, answered)
}

// listsUs says whether the organization of the token lists the integration
// whose id is on record. Without an id nothing speaks against it.
func (t *tenant) listsUs(ctx context.Context, token oemapi.Secret) (bool, error) {
	id := t.integration.IntegrationID
	if id == "" {
		return true, nil
	}
	list, _, err := t.client.Integrations(ctx, token)
	if err != nil {
		return false, advise(err, nil)
	}
	return slices.ContainsFunc(list, func(i oemapi.Integration) bool { return i.ID == id }), nil
}

// checkOwner holds a token against those of all our other integrations: the same
// organization has one token, and two organizations have two. Whose the token is
// says more than whose it is not.
func (t *tenant) checkOwner(ctx context.Context, answered oemapi.Secret) error {
	list, err := t.app.listIntegrations(ctx)
	if err != nil {
		return err
	}
	var unlike error // an integration with the organization that has another token
	for at := range list {
		other := &list[at]
		if other.Name() == t.integration.Name() || other.Dialect != string(vendorapi.MSPCentric) {
			continue
		}
		token, err := openOEMToken(t.vault, other)
		if err != nil || token.Reveal() == "" {
			continue // what cannot be opened cannot be compared
		}
		same, sibling := token.Reveal() == answered.Reveal(), other.Organization == t.integration.Organization
		switch {
		case same && !sibling:
			return &strangeTokenError{what: "the platform answered the OEM token of " + other.Name(), owner: other.Name()}
		case !same && sibling && t.token.Reveal() == "": // our own, if there is one, counts for more
			unlike = &strangeTokenError{what: "the platform answered another OEM token than that of " + other.Name() + ", which is of the same organization"}
		}
	}
	return unlike
}
