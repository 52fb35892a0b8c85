package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// A board is one page of Grafana. Its name is the file's and, after
// "usagebridge-", its uid: bookmarks and alerts point there, so it never changes.
type board struct {
	name        string
	title       string
	description string
	span        string // the time range at first, such as "now-6h"
	variables   []cog.Builder[dashboard.VariableModel]
	rows        []row
}

// A row is a heading, and panels of one height beneath it. A line of panels
// fills the width of 24 columns; what does not fit begins the next.
type row struct {
	title  string
	height uint32
	panels []panel
}

const (
	tag     = "usagebridge"
	runbook = "https://github.com/usagebridge/usagebridge/blob/main/deploy/runbook.md"
	columns = 24
)

func boards() []board {
	return []board{overview, integration, deadLetters, nats}
}

func (b *board) file() string { return b.name + ".json" }

func (b *board) uid() string { return tag + "-" + b.name }

// json is the board as Grafana reads it. The keys are sorted and the comparisons
// of queries not escaped, so that a change of a board is readable as one.
func (b *board) json() ([]byte, error) {
	built, err := b.build()
	if err != nil {
		return nil, fmt.Errorf("build the board %q: %w", b.title, err)
	}
	text, err := json.Marshal(built)
	if err != nil {
		return nil, fmt.Errorf("encode the board %q: %w", b.title, err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("sort the board %q: %w", b.title, err)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(tree); err != nil {
		return nil, fmt.Errorf("encode the board %q: %w", b.title, err)
	}
	return out.Bytes(), nil
}

func (b *board) build() (dashboard.Dashboard, error) {
	to := dashboard.NewDashboardBuilder(b.title).
		Uid(b.uid()).
		Description(b.description).
		Tags([]string{tag}).
		Time(b.span, "now").
		Refresh("30s").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Variables(b.variables).
		Links([]cog.Builder[dashboard.DashboardLink]{
			ready[dashboard.DashboardLink]{dashboard.DashboardLink{
				Title: "Boards", Type: dashboard.DashboardLinkTypeDashboards, Tags: []string{tag}, IncludeVars: true, KeepTime: true,
			}},
			ready[dashboard.DashboardLink]{dashboard.DashboardLink{
				Title: "Runbook", Type: dashboard.DashboardLinkTypeLink, Icon: "doc", Tags: []string{},
				Tooltip: "What every alert means, and what to do", Url: new(runbook), TargetBlank: true,
			}},
		})
	id, top := uint32(1), uint32(0)
	for _, r := range b.rows {
		heading := dashboard.RowPanel{
			Type: "row", Id: id, Title: &r.title, Panels: []dashboard.Panel{},
			GridPos: &dashboard.GridPos{W: columns, H: 1, Y: top},
		}
		to.WithRow(ready[dashboard.RowPanel]{heading})
		id++
		top++
		left := uint32(0)
		for i := range r.panels {
			p := &r.panels[i]
			if left+p.width > columns {
				left, top = 0, top+r.height
			}
			built, err := p.build(id, dashboard.GridPos{X: left, Y: top, W: p.width, H: r.height})
			if err != nil {
				return dashboard.Dashboard{}, fmt.Errorf("panel %q: %w", p.title, err)
			}
			to.WithPanel(ready[dashboard.Panel]{built})
			id++
			left += p.width
		}
		top += r.height
	}
	return to.Build()
}

// ready is a builder of what is built already: the kit sets defaults that cannot
// be taken back, such as links that hide in a menu.
type ready[T any] struct{ value T }

// Build gives the value (cog.Builder).
func (r ready[T]) Build() (T, error) { return r.value, nil }

// source is the Prometheus that is chosen at the top of a board.
func source() common.DataSourceRef {
	return common.DataSourceRef{Type: new("prometheus"), Uid: new("${datasource}")}
}

func chooseSource() cog.Builder[dashboard.VariableModel] {
	return dashboard.NewDatasourceVariableBuilder("datasource").Label("Prometheus").Type("prometheus")
}

// chooseMany is a variable with the values of a label. All means every value,
// also those that come later.
func chooseMany(name, label, metric string) cog.Builder[dashboard.VariableModel] {
	query := "label_values(" + metric + ", " + name + ")"
	return dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(source()).
		Query(dashboard.StringOrMap{String: &query}).Definition(query).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).IncludeAll(true).AllValue(".*").
		Current(dashboard.VariableOption{
			Selected: new(true),
			Text:     dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
			Value:    dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
		})
}

// chooseOne is a variable with one value. Those offered are those that a series
// had within the time range; any other may be typed.
func chooseOne(name, label, series string) cog.Builder[dashboard.VariableModel] {
	query := "label_values(" + series + ", " + name + ")"
	return dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(source()).
		Query(dashboard.StringOrMap{String: &query}).Definition(query).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		AllowCustomValue(true)
}
