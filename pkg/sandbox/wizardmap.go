package sandbox

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// rowsPerPage of a mapping page: what a person decides at a time.
const rowsPerPage = 50

// mapBody is a page on which accounts, or services, are mapped.
type mapBody struct {
	NoPSA       bool
	Waiting     string
	Rows        []mapRow
	Targets     []mapTarget
	Tally       tally
	Suggestions int
	// Undecided says that only those are listed.
	Undecided               bool
	All, Open               string // addresses of either list
	Earlier, Later          string // addresses of the other parts of the list
	First, Last, OutOf      int
	WithoutTarget           int // mapped by the control API or the automatic human
	Kind, Kinds, TargetKind string
}

// mapRow is one account or service.
type mapRow struct {
	ID, Name, Note  string
	Field           string // of the form
	Suggestion      string // name of what is suggested
	Excluded, Loose bool   // Loose: mapped without a target
	Targets         []mapTarget
	chosen          []string
}

// Decided says that there is a decision to show.
func (r mapRow) Decided() bool { return len(r.chosen) > 0 || r.Excluded }

// mapTarget is a company or a service of the PSA.
type mapTarget struct {
	ID, Name, About, Value string
	Chosen                 bool
}

// Values of the fields of a form: ids follow a prefix, so that no id can be mistaken for one.
const (
	valueExclude = "exclude"
	valueTarget  = "to:"
)

// field is the name of an item in a form: browsers change line ends in names, and ids may be anything.
func field(id string) string { return "to." + base64.RawURLEncoding.EncodeToString([]byte(id)) }

func showAccounts(_ *Sandbox, p *wizardPage, query url.Values) {
	body := mapBody{Kind: "account", Kinds: "accounts", TargetKind: "company"}
	if b := p.in.organization.psa; b != nil {
		for _, c := range b.Companies {
			body.Targets = append(body.Targets, mapTarget{ID: c.ID, Name: c.Name, About: c.Contract, Value: valueTarget + c.ID})
		}
	}
	body.fill(p, &p.in.accounts, p.in.organization.psa.companyNames(), query)
}

func showServices(_ *Sandbox, p *wizardPage, query url.Values) {
	body := mapBody{Kind: "service", Kinds: "services", TargetKind: "PSA service"}
	if b := p.in.organization.psa; b != nil {
		for _, v := range b.Services {
			body.Targets = append(body.Targets, mapTarget{ID: v.ID, Name: v.Name, About: money(b.Currency, mustUnits(v.Price)) + " per unit", Value: valueTarget + v.ID})
		}
	}
	body.fill(p, &p.in.services, p.in.organization.psa.serviceNames(), query)
}

// fill lists what is to be decided, and puts the body on its page.
func (body *mapBody) fill(p *wizardPage, c *catalog, known names, query url.Values) {
	body.NoPSA = p.in.organization.psa == nil
	if p.in.status == Inactive || len(c.order) == 0 {
		body.Waiting = p.in.waiting()
		if body.Waiting == "" {
			body.Waiting = p.in.vendorName() + " has not yet said that it is ready to be mapped."
		}
	}
	p.Waits = body.Waiting != "" && !body.NoPSA && !p.in.credentialsKind()
	body.Tally, body.Suggestions = c.tally(), len(c.suggestions(known))
	body.Undecided = query.Get("show") == "undecided"
	var shown []*item
	for _, it := range c.order {
		if it.mapped && len(it.targets) == 0 {
			body.WithoutTarget++
		}
		if !body.Undecided || !it.decided() {
			shown = append(shown, it)
		}
	}
	for _, it := range body.part(p, shown, query) {
		body.Rows = append(body.Rows, body.row(it, known))
	}
	p.Body = body
}

// part is what of the list is on this page.
func (body *mapBody) part(p *wizardPage, all []*item, query url.Values) []*item {
	address := func(page int) string {
		q := url.Values{}
		if body.Undecided {
			q.Set("show", "undecided")
		}
		if page > 0 {
			q.Set("page", strconv.Itoa(page))
		}
		if len(q) == 0 {
			return p.Self
		}
		return p.Self + "?" + q.Encode()
	}
	last := max(0, (len(all)-1)/rowsPerPage)
	page, _ := strconv.Atoi(query.Get("page")) // what is no number is the first page
	page = min(max(page, 0), last)
	if page > 0 {
		body.Earlier = address(page - 1)
	}
	if page < last {
		body.Later = address(page + 1)
	}
	body.All, body.Open = p.Self, p.Self+"?show=undecided"
	p.Self = address(page)
	from, to := page*rowsPerPage, min((page+1)*rowsPerPage, len(all))
	body.First, body.Last, body.OutOf = min(from+1, to), to, len(all)
	return all[from:to]
}

func (body *mapBody) row(it *item, known names) mapRow {
	r := mapRow{
		ID: it.id, Name: it.name, Note: it.note, Field: field(it.id), Excluded: it.excluded(), Loose: it.mapped && len(it.targets) == 0,
		Targets: slices.Clone(body.Targets), chosen: it.targets,
	}
	suggested := known[look(it.name)]
	for i := range r.Targets {
		t := &r.Targets[i]
		t.Chosen = slices.Contains(it.targets, t.ID)
		if t.ID == suggested && !it.decided() {
			r.Suggestion = t.Name
		}
	}
	return r
}

// decisionsIn reads a form: every row that was on the page stands in "row".
func (c *catalog) decisionsIn(kind string, form url.Values, known names) (map[string]decision, error) {
	all := map[string]decision{}
	var errs []error
	suggested := c.suggestions(known)
	for _, name := range form["row"] {
		text, _ := strings.CutPrefix(name, "to.")
		id, err := base64.RawURLEncoding.DecodeString(text)
		it := c.byID[string(id)]
		if err != nil || it == nil {
			errs = append(errs, fmt.Errorf("%s is not known any more: the page is older than the last change", kind))
			continue
		}
		d, err := decisionIn(form[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", kind, it.name, err))
		}
		if form.Get("accept") == name {
			d = suggested[it.id]
		}
		if d.excluded != it.excluded() || !slices.Equal(d.targets, it.targets) {
			all[it.id] = d
		}
	}
	return all, errors.Join(errs...)
}

// decisionIn reads the values of one row.
func decisionIn(values []string) (decision, error) {
	var d decision
	for _, value := range values {
		target, is := strings.CutPrefix(value, valueTarget)
		switch {
		case is:
			d.targets = append(d.targets, target)
		case value == valueExclude:
			d.excluded = true
		}
	}
	if d.excluded && len(d.targets) > 0 {
		return d, errors.New("it is both mapped and excluded; want one of them")
	}
	slices.Sort(d.targets)
	return d, nil
}

func saveAccounts(_ *Sandbox, _ *session, in *integration, form url.Values) (outcome, error) {
	decisions, err := in.accounts.decisionsIn("account", form, in.organization.psa.companyNames())
	if err == nil {
		err = in.decide(decisions, nil)
	}
	return saved(&in.accounts, "account", len(decisions)), err
}

func saveServices(_ *Sandbox, _ *session, in *integration, form url.Values) (outcome, error) {
	decisions, err := in.services.decisionsIn("service", form, in.organization.psa.serviceNames())
	if err == nil {
		err = in.decide(nil, decisions)
	}
	return saved(&in.services, "service", len(decisions)), err
}

// saved says what came of it; when nothing is left to decide it leads on.
func saved(c *catalog, kind string, changed int) outcome {
	left := c.tally().Undecided
	o := outcome{said: fmt.Sprintf("%s changed. %d left to decide.", several(changed, kind), left)}
	if left == 0 {
		o.said = fmt.Sprintf("%s changed. All %ss are decided.", several(changed, kind), kind)
	}
	return o
}

func suggestAccounts(_ *Sandbox, _ *session, in *integration, _ url.Values) (outcome, error) {
	found := in.accounts.suggestions(in.organization.psa.companyNames())
	err := in.decide(found, nil)
	return saved(&in.accounts, "account", len(found)), err
}

func suggestServices(_ *Sandbox, _ *session, in *integration, _ url.Values) (outcome, error) {
	found := in.services.suggestions(in.organization.psa.serviceNames())
	err := in.decide(nil, found)
	return saved(&in.services, "service", len(found)), err
}

func excludeAccounts(_ *Sandbox, _ *session, in *integration, _ url.Values) (outcome, error) {
	rest := in.accounts.undecided()
	err := in.decide(rest, nil)
	return saved(&in.accounts, "account", len(rest)), err
}

func excludeServices(_ *Sandbox, _ *session, in *integration, _ url.Values) (outcome, error) {
	rest := in.services.undecided()
	err := in.decide(nil, rest)
	return saved(&in.services, "service", len(rest)), err
}

// undecided items, as decisions to exclude them.
func (c *catalog) undecided() map[string]decision {
	rest := map[string]decision{}
	for _, it := range c.order {
		if !it.decided() {
			rest[it.id] = decision{excluded: true}
		}
	}
	return rest
}
