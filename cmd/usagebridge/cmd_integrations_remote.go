package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// agreement is what the comparison of both sides' records has shown.
type agreement string

const (
	remoteSame     agreement = "same"
	remoteNoStatus agreement = "no status told" // listed, but its status is not: nothing speaks against ours
	remoteDiffers  agreement = "different status"
	remoteMissing  agreement = "missing there"
	remoteUnknown  agreement = "unknown here"
	remoteUnclear  agreement = "not known which" // ours has no id, and the list leaves it open
	remoteNotAsked agreement = "not asked"       // or without a usable answer
)

func (a agreement) fine() bool { return a == remoteSame || a == remoteNoStatus }

// remoteRow is one integration as both sides see it.
type remoteRow struct {
	Integration    string        `json:"integration,omitempty"` // ours; none if it is unknown here
	Organization   string        `json:"organization"`
	PlatformID     string        `json:"platform_id,omitempty"`
	PlatformVendor string        `json:"platform_vendor_id,omitempty"`
	OurStatus      status.Status `json:"our_status,omitempty"`
	PlatformStatus status.Status `json:"platform_status,omitempty"` // as it is recorded when it is polled
	Verdict        agreement     `json:"verdict"`
	Note           string        `json:"note,omitempty"`
}

func (c *cli) integrationsListRemote() *cobra.Command {
	return &cobra.Command{
		Use:   "list-remote [VENDOR]",
		Short: "Compare our integrations with those that the platform lists",
		Long: `Asks the platform for the integrations of every organization whose OEM token is on
record, or of those of one vendor, and compares its list with ours. An organization
is asked once, whatever number of vendors it has. Nothing is changed on either side.

  same              both sides have it, in the same status
  no status told    both sides have it; the platform does not say in which status
  different status  both sides have it, in different statuses
  missing there     we have a record, the platform does not list it
  unknown here      the platform lists one for an organization of ours that is on
                    record with no vendor of ours
  not known which   no id of the platform is on record, and it lists several
  not asked         there was no usable answer; the others are asked all the same

Ends with 0 if every verdict is "same" or "no status told", with 1 if anything
differs or could not be asked. Integrations without an OEM token, and those of
platforms that have no OEM-API, are counted and not compared. Needs
USAGEBRIDGE_OEM_API_URL, USAGEBRIDGE_OEM_CLIENT_ID and
USAGEBRIDGE_OEM_CLIENT_SECRET_FILE.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withOEM(cmd.Context(), func(ctx context.Context, a *app, client *oemapi.Client) error {
				vendor := ""
				if len(args) > 0 {
					v, err := a.knownVendor(ctx, args[0])
					if err != nil {
						return err
					}
					vendor = v.Name
				}
				return c.listRemote(ctx, a, client, vendor)
			})
		},
	}
}

// remoteAtOnce is how many organizations are asked for at a time.
const remoteAtOnce = 4

func (c *cli) listRemote(ctx context.Context, a *app, client *oemapi.Client, vendor string) error {
	all, err := a.listIntegrations(ctx)
	if err != nil {
		return err
	}
	keys, err := a.vault(ctx)
	if err != nil {
		return err
	}
	sides, left := bothSides(keys, all, vendor)
	if err := askRemote(ctx, client, sides); err != nil {
		return err
	}
	rows := []remoteRow{}
	for _, s := range sides {
		rows = append(rows, s.compare(all)...)
	}
	slices.SortStableFunc(rows, func(a, b remoteRow) int {
		if ours := a.Integration != ""; ours != (b.Integration != "") { // what is unknown here comes last
			if ours {
				return -1
			}
			return 1
		}
		return strings.Compare(a.shown(), b.shown())
	})
	if left > 0 {
		c.say("not compared, because their organization has no OEM token on record or their platform no OEM-API: %s", plural(left, "integration", "integrations"))
	}
	return c.showRemote(sides, rows)
}

// sides is one organization as we have it and as the platform lists it.
type sides struct {
	token oemapi.Secret
	ours  []*status.Integration // that have this token
	list  []oemapi.Integration
	err   error // instead of a list
}

// bothSides puts together the integrations that share a token, and counts those
// that cannot be asked for.
func bothSides(keys *vault.Vault, all []status.Integration, vendor string) (list []*sides, left int) {
	byToken := map[string]*sides{}
	for at := range all {
		i := &all[at]
		if vendor != "" && i.Vendor != vendor {
			continue
		}
		if i.OEMToken == "" || i.Dialect != string(vendorapi.MSPCentric) {
			left++
			continue
		}
		token, err := openOEMToken(keys, i)
		if err != nil {
			list = append(list, &sides{ours: []*status.Integration{i}, err: err})
			continue
		}
		s := byToken[token.Reveal()]
		if s == nil {
			s = &sides{token: token}
			byToken[token.Reveal()] = s
			list = append(list, s)
		}
		s.ours = append(s.ours, i)
	}
	return list, left
}

// askRemote asks for every organization. What is wrong with one is for that one
// to tell; only an interrupt ends it.
func askRemote(ctx context.Context, client *oemapi.Client, list []*sides) error {
	var group errgroup.Group
	group.SetLimit(remoteAtOnce)
	for _, s := range list {
		if s.err != nil {
			continue
		}
		group.Go(func() error {
			s.list, _, s.err = client.Integrations(ctx, s.token)
			return nil
		})
	}
	_ = group.Wait() // each has its own error
	return ctx.Err()
}

// compare holds both sides against each other. all is every integration of
// ours: also one without a token may be the one that the platform lists.
func (s *sides) compare(all []status.Integration) []remoteRow {
	var rows []remoteRow
	claimed, withoutID := s.claims(all)
	unclear := false
	for _, i := range s.ours {
		row := remoteRow{Integration: i.Name(), Organization: i.Organization, PlatformID: i.IntegrationID, OurStatus: i.Status}
		if s.err != nil {
			row.Verdict, row.Note = remoteNotAsked, s.err.Error()
		} else if there, ok := s.find(i, claimed, withoutID, &row); ok {
			claimed[there.ID] = i
			row.hold(there)
		}
		unclear = unclear || row.Verdict == remoteUnclear
		rows = append(rows, row)
	}
	if unclear { // any of the others may be the one
		return rows
	}
	for _, there := range s.list {
		if claimed[there.ID] == nil {
			rows = append(rows, s.unknown(there, all, claimed))
		}
	}
	return rows
}

// claims are the integrations of this organization by the id that is on record
// for them, whichever vendor's, with or without a token; and how many have none.
func (s *sides) claims(all []status.Integration) (claimed map[string]*status.Integration, withoutID int) {
	claimed = map[string]*status.Integration{}
	for at := range all {
		i := &all[at]
		here := slices.ContainsFunc(s.ours, func(ours *status.Integration) bool { return ours.Organization == i.Organization })
		switch {
		case !here || i.Dialect != string(vendorapi.MSPCentric):
		case i.IntegrationID == "":
			withoutID++
		default:
			claimed[i.IntegrationID] = i
		}
	}
	return claimed, withoutID
}

// find finds ours in the list as a poll does: by its id, or as the only one when
// none is on record, and then only if no other could be meant. Without it the
// row gets its verdict.
func (s *sides) find(i *status.Integration, claimed map[string]*status.Integration, withoutID int, row *remoteRow) (oemapi.Integration, bool) {
	there, ok := which(s.list, i.IntegrationID)
	holder := claimed[there.ID]
	switch {
	case ok && (i.IntegrationID != "" || holder == nil && withoutID == 1):
		return there, true
	case ok && holder != nil:
		row.Verdict, row.Note = remoteMissing, "the only one that the platform lists is that of "+holder.Name()
	case i.IntegrationID != "" || len(s.list) == 0:
		row.Verdict, row.Note = remoteMissing, "the platform lists "+or(describeListed(s.list), "none")
	default:
		row.Verdict, row.Note = remoteUnclear, "no id of the platform is on record; it lists "+describeListed(s.list)
	}
	return oemapi.Integration{}, false
}

// hold holds the platform's word against ours. It is compared as it would be
// recorded: which word means what is the platform's to say.
func (r *remoteRow) hold(there oemapi.Integration) {
	r.PlatformID, r.PlatformVendor, r.PlatformStatus = there.ID, there.VendorID, status.Heard(there.Status)
	switch r.PlatformStatus {
	case "":
		r.Verdict = remoteNoStatus
	case r.OurStatus:
		r.Verdict = remoteSame
	default:
		r.Verdict = remoteDiffers
	}
	if r.OurStatus == status.Mapping && r.PlatformStatus == status.Pending {
		r.Note = "a person has finished mapping, or the platform uses its older words, in which pending is mapping"
	}
}

// unknown is one that no record of ours is about.
func (s *sides) unknown(there oemapi.Integration, all []status.Integration, claimed map[string]*status.Integration) remoteRow {
	row := remoteRow{
		Organization: s.ours[0].Organization, PlatformID: there.ID, PlatformVendor: there.VendorID,
		PlatformStatus: status.Heard(there.Status), Verdict: remoteUnknown,
	}
	for _, other := range s.list {
		if i := claimed[other.ID]; i != nil && there.VendorID != "" && other.VendorID == there.VendorID {
			row.Note = fmt.Sprintf("a second one of the platform's vendor %s, of which %s is the integration %s", there.VendorID, i.Name(), other.ID)
			return row
		}
	}
	if at := slices.IndexFunc(all, func(i status.Integration) bool { return i.IntegrationID == there.ID }); at >= 0 {
		row.Note = "this id is on record as " + all[at].Name() + ", which is another organization: one of them has the OEM token of the other"
		return row
	}
	row.Note = "of the platform's vendor " + or(there.VendorID, "(not told)") + "; `usagebridge integrations add` puts one on record"
	return row
}

// shown is what the row is about, for people.
func (r *remoteRow) shown() string { return or(r.Integration, "?/"+r.Organization) }

func (c *cli) showRemote(list []*sides, rows []remoteRow) error {
	counts, wrong := map[agreement]int{}, 0
	lines := make([][]string, len(rows))
	for at := range rows {
		r := &rows[at]
		counts[r.Verdict]++
		if !r.Verdict.fine() {
			wrong++
		}
		lines[at] = []string{
			printable(r.shown()), or(printable(r.PlatformID), "-"), or(string(r.OurStatus), "-"), or(string(r.PlatformStatus), "-"),
			string(r.Verdict), or(printable(r.Note), "-"),
		}
	}
	switch {
	case c.json:
		if err := c.printJSON(rows); err != nil {
			return err
		}
	case len(rows) == 0:
		c.say("no integration whose organization's OEM token is on record")
		return nil
	default:
		if err := c.table([]string{"INTEGRATION", "PLATFORM'S ID", "OURS", "THEIRS", "VERDICT", "NOTE"}, lines); err != nil {
			return err
		}
	}
	c.sayAdvice(list)
	if wrong > 0 {
		return fmt.Errorf("%d of %s differ or could not be asked: %s", wrong, plural(len(rows), "integration", "integrations"), countReasons(counts))
	}
	return nil
}

// sayAdvice tells once what can be done about each kind of failure.
func (c *cli) sayAdvice(list []*sides) {
	told := map[oemapi.Class]bool{}
	for _, s := range list {
		failure, ok := errors.AsType[*oemapi.Error](s.err)
		if !ok || told[failure.Class()] {
			continue
		}
		told[failure.Class()] = true
		if words := advice(failure); words != "" {
			c.say("%s: %s", failure.Class(), words)
		}
	}
}
