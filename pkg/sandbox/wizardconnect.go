package sandbox

import (
	"net/url"
	"slices"
	"strings"
)

type welcomeBody struct {
	Integrations []welcomeRow
}

type welcomeRow struct {
	ID, Vendor, Path string
	Status           Status
	About            string // what the status means
}

// showWelcome is the page before the steps.
func showWelcome(s *Sandbox, p *wizardPage) {
	var body welcomeBody
	for _, in := range p.session.organization.integrations {
		in.settle(s.now())
		body.Integrations = append(body.Integrations, welcomeRow{in.id, in.vendorName(), in.page("connect"), in.status, in.status.about()})
	}
	p.Waits = len(body.Integrations) == 0
	p.Body = body
}

// about is what a status means to who uses the wizard.
func (s Status) about() string {
	switch s {
	case Inactive:
		return "the vendor prepares its accounts and services"
	case Mapping:
		return "ready to be mapped by you"
	case Pending:
		return "mapped; waits for the first usage"
	case Connected:
		return "usage arrives"
	default:
		return ""
	}
}

type connectBody struct {
	Credentials        []string // labels; none: the vendor has a key
	Exchanged          string   // when
	About              string
	Waiting            string
	Accounts, Services tally
}

func showConnect(_ *Sandbox, p *wizardPage, _ url.Values) {
	in := p.in
	body := connectBody{About: in.status.about(), Waiting: in.waiting(), Accounts: in.accounts.tally(), Services: in.services.tally()}
	if in.credentialsKind() {
		body.Credentials = slices.Clone(in.vendor.CredentialLabels)
	}
	if !in.exchanged.IsZero() {
		body.Exchanged = onPage(in.exchanged)
	}
	p.Body = body
}

// authenticate is the button that clears everything, as the documentation has it.
func authenticate(_ *Sandbox, _ *session, in *integration, form url.Values) (outcome, error) {
	if form.Get("confirm") != "yes" {
		return outcome{}, errConfirm
	}
	in.reset()
	return outcome{said: "Authenticated again. Accounts, services and mappings were cleared; " + in.vendorName() + " has to post them once more."}, nil
}

type psaBody struct {
	Choices   []psaChoice
	Connected *psaTable
	Mapped    bool // into the connected one
}

type psaChoice struct {
	ID, Name, About string
	Connected       bool
}

// psaTable is a PSA with its contracts, as it is now.
type psaTable struct {
	Name      string
	Companies []psaCompany
	Services  []psaPrice
}

type psaCompany struct {
	Name, Contract string
	Lines          []string
}

type psaPrice struct{ Name, Price string }

func showPSA(s *Sandbox, p *wizardPage, _ url.Values) {
	o := p.in.organization
	var body psaBody
	for i := range s.config.PSAs {
		v := &s.config.PSAs[i]
		body.Choices = append(body.Choices, psaChoice{
			ID: v.ID, Name: v.Name, Connected: o.psa != nil && o.psa.ID == v.ID,
			About: several(len(v.Services), "service") + ", prices in " + v.Currency + ". Customers: " + firstCompanies(v, 3),
		})
	}
	for _, in := range o.integrations {
		body.Mapped = body.Mapped || in.accounts.tally().Mapped+in.services.tally().Mapped > 0
	}
	if o.psa != nil {
		body.Connected = o.psa.table()
	}
	p.Body = body
}

func firstCompanies(p *PSA, n int) string {
	shown := make([]string, 0, n)
	for _, c := range p.Companies[:min(n, len(p.Companies))] {
		shown = append(shown, c.Name)
	}
	text := strings.Join(shown, ", ")
	if more := len(p.Companies) - len(shown); more > 0 {
		text += " and " + several(more, "other")
	}
	return text
}

func (b *books) table() *psaTable {
	t := &psaTable{Name: b.Name}
	for _, v := range b.Services {
		t.Services = append(t.Services, psaPrice{v.Name, money(b.Currency, mustUnits(v.Price))})
	}
	for _, c := range b.Companies {
		row := psaCompany{Name: c.Name, Contract: c.Contract}
		for _, v := range b.Services {
			if units := b.contracts[c.ID][v.ID]; units != nil {
				row.Lines = append(row.Lines, unitsText(units)+" × "+v.Name)
			}
		}
		t.Companies = append(t.Companies, row)
	}
	return t
}

func choosePSA(s *Sandbox, v *session, _ *integration, form url.Values) (outcome, error) {
	o, id := v.organization, form.Get("psa")
	if o.psa != nil && o.psa.ID != id && form.Get("confirm") != "yes" {
		return outcome{}, errConfirm
	}
	if err := s.connectPSA(o, id); err != nil {
		return outcome{}, err
	}
	return outcome{said: o.psa.Name + " is connected. Nothing of it exists: it is made up.", next: "accounts"}, nil
}
