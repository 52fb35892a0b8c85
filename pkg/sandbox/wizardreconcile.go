package sandbox

import (
	"encoding/json"
	"errors"
	"math/big"
	"net/url"
	"slices"
)

// newestApprovals is how many of the history the page shows.
const newestApprovals = 50

type reconcileBody struct {
	NoPSA     bool
	PSA       string
	Companies []reconcileCompany
	Waiting   string
	Open      []string // values of all open deltas
	Change    string   // what approving all of them does to a month's invoice
	History   []historyRow
	More      int // older approvals, not shown
}

type reconcileCompany struct {
	ID, Name, Contract string
	Rows               []reconcileRow
}

type reconcileRow struct {
	Service, ServiceName      string
	Contract, Reported, Delta string
	New                       bool // the contract has no such line
	Up, Down                  bool
	Change                    string
	Problem                   string
	Value                     string // of the button; empty: nothing to approve
	Sources                   []reconcileSource
}

type reconcileSource struct{ Account, Service, Units string }

type historyRow struct {
	Time, By, Company, Service, From, To string
}

func showReconcile(_ *Sandbox, p *wizardPage, _ url.Values) {
	o := p.in.organization
	body := reconcileBody{NoPSA: o.psa == nil, Waiting: p.in.notReporting()}
	p.Body = &body
	for _, a := range slices.Backward(o.approvals[max(0, len(o.approvals)-newestApprovals):]) {
		body.History = append(body.History, historyRow{onPage(a.Time), a.By, a.CompanyName, a.ServiceName, a.From.String(), a.To.String()})
	}
	body.More = len(o.approvals) - len(body.History)
	if o.psa == nil {
		return
	}
	body.PSA = o.psa.Name
	deltas, err := o.deltas()
	if err != nil {
		body.Waiting = told(err)
		return
	}
	change := new(big.Rat)
	for i := range deltas {
		d := &deltas[i]
		if d.Open() {
			body.Open = append(body.Open, d.value())
			change.Add(change, d.change())
		}
		body.add(o.psa, d)
	}
	body.Change = signedMoney(o.psa.Currency, change)
	p.Waits = len(body.Open) == 0 && len(o.approvals) == 0 && !p.in.credentialsKind()
}

// notReporting says why there may be nothing to compare yet.
func (in *integration) notReporting() string {
	switch {
	case in.status == Inactive && in.waiting() != "":
		return in.waiting()
	case in.status == Inactive || in.status == Mapping:
		return "The mapping was not reviewed and accepted yet. Usage is refused until then."
	case in.status == Pending:
		return in.vendorName() + " has not reported any usage yet."
	default:
		return ""
	}
}

func (body *reconcileBody) add(b *books, d *Delta) {
	if n := len(body.Companies); n == 0 || body.Companies[n-1].ID != d.Company {
		body.Companies = append(body.Companies, reconcileCompany{ID: d.Company, Name: d.CompanyName, Contract: b.company(d.Company).Contract})
	}
	row := reconcileRow{
		Service: d.Service, ServiceName: d.ServiceName, Contract: unitsText(d.contract), New: d.Contract == nil, Problem: d.Problem,
	}
	if d.reported != nil {
		delta := new(big.Rat).Sub(d.reported, d.contract)
		row.Reported, row.Delta = unitsText(d.reported), signedText(delta)
		row.Up, row.Down = delta.Sign() > 0, delta.Sign() < 0
	}
	if d.Open() {
		row.Value, row.Change = d.value(), signedMoney(b.Currency, d.change())
	}
	for _, source := range d.Sources {
		row.Sources = append(row.Sources, reconcileSource{source.AccountName, source.ServiceName, source.Units.String()})
	}
	last := &body.Companies[len(body.Companies)-1]
	last.Rows = append(last.Rows, row)
}

// change is what approving does to a month's invoice.
func (d *Delta) change() *big.Rat {
	change := new(big.Rat).Sub(d.reported, d.contract)
	return change.Mul(change, d.price)
}

// value is a delta in a form: what is approved is what was seen.
func (d *Delta) value() string {
	return url.Values{"company": {d.Company}, "service": {d.Service}, "units": {d.Reported.String()}}.Encode()
}

// approveSeen approves the deltas of a form.
func approveSeen(s *Sandbox, v *session, in *integration, form url.Values) (outcome, error) {
	var wishes []Wish
	for _, text := range form["delta"] {
		seen, err := url.ParseQuery(text)
		if err != nil {
			return outcome{}, errors.New("the form is broken: load the page anew")
		}
		wishes = append(wishes, Wish{seen.Get("company"), seen.Get("service"), json.Number(seen.Get("units"))})
	}
	if len(wishes) == 0 {
		return outcome{}, errors.New("there is nothing to approve")
	}
	made, err := in.organization.approve(v.user.name(), wishes, s.now())
	if err != nil {
		return outcome{}, err
	}
	return outcome{said: several(len(made), "line") + " of " + in.organization.psa.Name + " changed."}, nil
}
