package sandbox

import (
	"net/http"
	"slices"
)

// pageRecords is how many of the newest records the page shows.
const pageRecords = 20

type pageData struct {
	BasePath      string
	OEMBasePath   string
	WizardPath    string
	Human         HumanMode
	Organizations []OrganizationReport
	Integrations  []pageRow
	Vendors       []Vendor
	Faults        []Rule
	Newest        []Record
}

// pageRow is one integration: numbers only, the figures are in the report.
type pageRow struct {
	Name, ID                 string
	Dialect                  Dialect
	Status                   Status
	Accounts, MappedAccounts int
	Services, MappedServices int
	Values, Accepted         int
}

func newPageRow(in IntegrationReport) pageRow {
	row := pageRow{
		Name: in.Name, ID: in.ID, Dialect: in.Dialect, Status: in.Status,
		Accounts: len(in.Accounts), Services: len(in.Services), Accepted: in.Totals.AcceptedCounts,
	}
	for _, a := range in.Accounts {
		if a.Mapped {
			row.MappedAccounts++
		}
	}
	for _, v := range in.Services {
		if v.Mapped {
			row.MappedServices++
		}
	}
	for _, services := range in.Counts {
		row.Values += len(services)
	}
	return row
}

func (s *Sandbox) page(w http.ResponseWriter, _ *http.Request) {
	data := pageData{
		BasePath: BasePath, OEMBasePath: OEMBasePath, WizardPath: WizardPath, Human: s.config.Human,
		Organizations: s.Organizations(), Vendors: s.Vendors(), Faults: s.Faults().Rules, Newest: s.newest(),
	}
	for _, in := range s.Report().Integrations {
		data.Integrations = append(data.Integrations, newPageRow(in))
	}
	render(w, http.StatusOK, "sandbox", data)
}

// newest returns up to pageRecords records, the newest first.
func (s *Sandbox) newest() []Record {
	s.mu.Lock()
	last := s.tape.last
	s.mu.Unlock()
	records := s.TapeAfter(last - min(last, pageRecords))
	slices.Reverse(records)
	return records[:min(len(records), pageRecords)]
}
