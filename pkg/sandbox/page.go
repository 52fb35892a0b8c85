package sandbox

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"slices"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pageRecords is how many of the newest records the page shows.
const pageRecords = 20

type pageData struct {
	BasePath     string
	OEMBasePath  string
	Human        HumanMode
	Integrations []pageRow
	Faults       []Rule
	Newest       []Record
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
	data := pageData{BasePath: BasePath, OEMBasePath: OEMBasePath, Human: s.config.Human, Faults: s.Faults().Rules, Newest: s.newest()}
	for _, in := range s.Report().Integrations {
		data.Integrations = append(data.Integrations, newPageRow(in))
	}
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, data); err != nil {
		problem(w, http.StatusInternalServerError, "render the page: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, _ = text.WriteTo(w)
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
