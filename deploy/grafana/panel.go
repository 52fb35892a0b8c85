package main

import (
	"errors"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/text"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// A panel answers one question.
type panel struct {
	kind  kind
	width uint32
	title string

	asks   string // the question
	normal string // the answer when all is well
	next   string // where to look when it is not

	unit    string
	queries []query
	levels  []level // for a stat its colours, for lines dashed marks
	paints  []paint // of series whose name says whether they are good
	empty   string  // what no data means; without it, there must be data
	log     bool    // a logarithmic axis, for ages and durations
	zoom    bool    // an axis that need not begin at 0
	content string  // of a kind of markdown
	words   []word  // what the values of a timeline mean
	follow  string  // link of each row of a table
	open    *board  // the board that has more of it
}

// kind is how a panel shows its answer.
type kind int

const (
	number   kind = iota // one figure, now
	lines                // over time
	stacked              // over time, parts of a whole
	rows                 // a table, now
	timeline             // states over time
	markdown             // text
)

// A query is PromQL. The legend names what tells its series apart.
type query struct {
	expr   string
	legend string
}

// A level is a value from which on a colour holds. A colour without a value is
// the first, and holds below all others.
type level struct {
	from  float64
	color string
}

// A paint is the colour of the series with a name.
type paint struct{ series, color string }

// A word is what a value means, and its colour.
type word struct{ value, text, color string }

const (
	good = "green"
	warn = "orange"
	bad  = "red"
)

// Units, as Grafana names them.
const (
	share    = "percentunit"
	seconds  = "s"
	count    = "short"
	octets   = "bytes"
	events   = "eps"
	requests = "reqps"
)

// below says that a value under from is bad and one above enough is good.
func below(from, enough float64) []level {
	return []level{{color: bad}, {from, warn}, {enough, good}}
}

// above says from where on a value wants attention.
func above(from float64, color string) []level {
	return []level{{color: good}, {from, color}}
}

func (p *panel) build(id uint32, at dashboard.GridPos) (dashboard.Panel, error) {
	built, err := p.picture()
	if err != nil {
		return built, err
	}
	built.Id = &id
	built.GridPos = &at
	built.Title = &p.title
	built.Description = new(p.description())
	if p.open != nil {
		built.Links = []dashboard.DashboardLink{{
			Title: "More: " + p.open.title, Type: dashboard.DashboardLinkTypeLink, Tags: []string{},
			Url: new("/d/" + p.open.uid() + "?${datasource:queryparam}&${vendor:queryparam}&${__url_time_range}"),
		}}
	}
	if p.kind == markdown {
		return built, nil
	}
	built.Datasource = new(source())
	if built.Targets, err = p.targets(); err != nil {
		return built, err
	}
	if built.FieldConfig == nil {
		built.FieldConfig = &dashboard.FieldConfigSource{}
	}
	p.fields(built.FieldConfig)
	return built, nil
}

// description is what Grafana shows behind the i of a panel.
func (p *panel) description() string {
	return "**" + p.asks + "**\n\n**Normal:** " + p.normal + "\n\n**Look next:** " + p.next
}

// targets are the queries. A figure that is to hold now is asked for now: the
// last one of a range would outlive the worker that told it.
func (p *panel) targets() ([]variants.Dataquery, error) {
	if len(p.queries) == 0 {
		return nil, errors.New("it has no query; want at least one")
	}
	var targets []variants.Dataquery
	for i, q := range p.queries {
		to := prometheus.NewDataqueryBuilder().Datasource(source()).
			RefId(string(rune('A' + i))).EditorMode(prometheus.QueryEditorModeCode).
			Expr(q.expr).LegendFormat(q.legend).Range()
		switch p.kind {
		case number:
			to.Instant()
		case rows:
			to.Instant().Format(prometheus.PromQueryFormatTable)
		case lines, stacked, timeline, markdown:
			to.Exemplar(strings.HasPrefix(q.expr, "histogram_quantile")) // leads to traces, where they are on
		}
		built, err := to.Build()
		if err != nil {
			return nil, err
		}
		targets = append(targets, built)
	}
	return targets, nil
}

// fields sets what holds for every series of the panel.
func (p *panel) fields(to *dashboard.FieldConfigSource) {
	d := &to.Defaults
	d.Unit = &p.unit
	if p.empty != "" {
		d.NoValue = &p.empty
	}
	d.Thresholds = &dashboard.ThresholdsConfig{Mode: dashboard.ThresholdsModeAbsolute, Steps: p.steps()}
	mode := dashboard.FieldColorModeIdPaletteClassic
	if p.kind == number || p.kind == rows || p.kind == timeline {
		mode = dashboard.FieldColorModeIdThresholds
	}
	d.Color = &dashboard.FieldColor{Mode: mode}
	if (p.kind == lines || p.kind == stacked) && !p.log && !p.zoom {
		d.Min = new(0.0) // a small change of a large number must not look like a large one
	}
	to.Overrides = []dashboard.DashboardFieldConfigSourceOverrides{}
	for _, c := range p.paints {
		to.Overrides = append(to.Overrides, override(c.series, "color", map[string]string{"mode": "fixed", "fixedColor": c.color}))
	}
	if p.follow != "" {
		to.Overrides = append(to.Overrides, override("organization", "links", []map[string]string{{"title": "Show this integration", "url": p.follow}}))
	}
	if len(p.words) > 0 {
		d.Mappings = p.mappings()
	}
}

func (p *panel) steps() []dashboard.Threshold {
	steps := []dashboard.Threshold{{Color: good}}
	for i, l := range p.levels {
		if i == 0 {
			steps[0].Color = l.color
			continue
		}
		steps = append(steps, dashboard.Threshold{Value: &l.from, Color: l.color})
	}
	return steps
}

func (p *panel) mappings() []dashboard.ValueMapping {
	options := map[string]dashboard.ValueMappingResult{}
	for i, w := range p.words {
		options[w.value] = dashboard.ValueMappingResult{Text: &w.text, Color: &w.color, Index: new(int32(i))}
	}
	return []dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: options}}}
}

func override(series, property string, value any) dashboard.DashboardFieldConfigSourceOverrides {
	return dashboard.DashboardFieldConfigSourceOverrides{
		Matcher:    dashboard.MatcherConfig{Id: "byName", Options: series},
		Properties: []dashboard.DynamicConfigValue{{Id: property, Value: value}},
	}
}

// picture is what belongs to a kind of panel alone.
func (p *panel) picture() (dashboard.Panel, error) {
	switch p.kind {
	case number:
		return stat.NewPanelBuilder().
			ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
			ColorMode(common.BigValueColorModeBackground).
			GraphMode(common.BigValueGraphModeNone).Build()
	case lines, stacked:
		return p.graph().Build()
	case rows:
		hide := map[string]any{"excludeByName": map[string]bool{"Time": true}, "renameByName": map[string]string{"Value": strings.ToLower(p.queries[0].legend)}}
		return table.NewPanelBuilder().
			SortBy([]cog.Builder[common.TableSortByFieldState]{
				common.NewTableSortByFieldStateBuilder().DisplayName(strings.ToLower(p.queries[0].legend)).Desc(true),
			}).
			WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: hide}).Build()
	case timeline:
		return statetimeline.NewPanelBuilder().MergeValues(true).ShowValue(common.VisibilityModeAuto).
			Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).ShowLegend(false)).Build()
	case markdown:
		return text.NewPanelBuilder().Mode(text.TextModeMarkdown).Content(p.content).Build()
	}
	return dashboard.Panel{}, errors.New("it is of no kind that is known")
}

// graph is a panel over time.
func (p *panel) graph() *timeseries.PanelBuilder {
	to := timeseries.NewPanelBuilder().
		LineWidth(1).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().
			DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().
			Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	if p.kind == stacked {
		to.FillOpacity(40).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
	}
	if len(p.levels) > 0 {
		to.ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	if p.log {
		to.ScaleDistribution(common.NewScaleDistributionConfigBuilder().Type(common.ScaleDistributionLog).Log(10))
	}
	return to
}
