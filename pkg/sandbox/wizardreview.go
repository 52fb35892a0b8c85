package sandbox

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

type reviewBody struct {
	Accounts, Services tally
	AccountRows        []reviewRow
	ServiceRows        []reviewRow
	Excluded           []string // accounts and services, by name
	Undecided          []string
	Accepted           bool
	Waiting            string
	// Obstacle says why the review cannot be accepted; empty: it can.
	Obstacle string
}

// reviewRow is one mapping.
type reviewRow struct{ From, ID, To string }

func showReview(_ *Sandbox, p *wizardPage, _ url.Values) {
	in := p.in
	b := in.organization.psa
	body := reviewBody{
		Accounts: in.accounts.tally(), Services: in.services.tally(),
		Accepted: in.status == Pending || in.status == Connected,
	}
	if in.status == Inactive {
		body.Waiting = in.waiting()
	}
	if err := in.obstacle(); err != nil {
		body.Obstacle = told(err)
	}
	if b != nil {
		body.list(&in.accounts, "account", &body.AccountRows, func(id string) string { return b.company(id).Name })
		body.list(&in.services, "service", &body.ServiceRows, func(id string) string { return b.service(id).Name })
	}
	p.Body = body
}

func (body *reviewBody) list(c *catalog, kind string, rows *[]reviewRow, name func(id string) string) {
	for _, it := range c.order {
		switch {
		case len(it.targets) > 0:
			to := make([]string, len(it.targets))
			for i, id := range it.targets {
				to[i] = name(id)
			}
			*rows = append(*rows, reviewRow{it.name, it.id, strings.Join(to, " + ")})
		case it.excluded():
			body.Excluded = append(body.Excluded, kind+" "+it.name)
		default:
			body.Undecided = append(body.Undecided, kind+" "+it.name)
		}
	}
}

// obstacle says why there is nothing to accept yet.
func (in *integration) obstacle() error {
	switch {
	case in.organization.psa == nil:
		return fmt.Errorf("%w: no PSA is connected", ErrConflict)
	case in.status == Inactive:
		return in.needsAsking()
	case in.accounts.tally().Mapped == 0:
		return errors.New("no account is mapped to a company")
	case in.services.tally().Mapped == 0:
		return errors.New("no service is mapped to a service of your PSA")
	}
	return nil
}

func acceptReview(_ *Sandbox, _ *session, in *integration, _ url.Values) (outcome, error) {
	if err := in.obstacle(); err != nil {
		return outcome{}, err
	}
	if err := in.finish(); err != nil {
		return outcome{}, err
	}
	return outcome{said: "The review is accepted. " + in.vendorName() + " may report usage now.", next: "reconcile"}, nil
}
