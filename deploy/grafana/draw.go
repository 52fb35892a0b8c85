package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed draw.html
var drawHTML string

var drawPage = template.Must(template.New("draw").Parse(drawHTML))

// A drawing is a board with the data that its queries found, on a page that needs
// no Grafana: to look at what the boards say of a run.
type drawing struct {
	Board board
	Span  time.Duration
	End   time.Time
	Rows  []drawnRow
}

// Title is the board's.
func (d *drawing) Title() string { return d.Board.title }

type drawnRow struct {
	Title  string
	Panels []drawnPanel
}

// drawnPanel has one of Number, Curves, Table and Text, or says why there is none
// of them.
type drawnPanel struct {
	Title, Asks string
	Width       uint32
	Nothing     string
	Number      string
	Color       string
	Curves      *curves
	Table       [][]string
	Text        string
}

// curves are the series of a panel as lines in a box of 100 by 100, upwards.
type curves struct {
	Top, Bottom string // the ends of the axis
	Lines       []curve
}

type curve struct {
	Name, Color, Points, Last string
}

// palette are the colours of series that have none of their own.
var palette = []string{"#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300"}

// named are the colours of levels and paints.
var named = map[string]string{good: "#56a64b", warn: "#ff780a", bad: "#e02f44", "yellow": "#f2cc0c"}

func colorOf(name string) string {
	if color, ok := named[name]; ok {
		return color
	}
	return "#8ab8ff"
}

// add draws a panel into the last row.
func (d *drawing) add(p *panel, findings []finding) {
	row := &d.Rows[len(d.Rows)-1]
	row.Panels = append(row.Panels, d.panel(p, findings))
}

func (d *drawing) panel(p *panel, findings []finding) drawnPanel {
	drawn := drawnPanel{Title: p.title, Asks: p.asks, Width: p.width, Nothing: p.empty}
	if p.kind == markdown {
		drawn.Text = p.content
		return drawn
	}
	found := 0
	for _, f := range findings {
		found += len(f.series)
		if f.err != nil {
			drawn.Nothing = f.err.Error()
		}
	}
	if found == 0 {
		return drawn
	}
	if p.kind == number || p.kind == rows {
		if found = d.present(findings); found == 0 {
			return drawn
		}
	}
	switch p.kind {
	case number:
		value := first(findings).last().value
		drawn.Number, drawn.Color = spell(value, p.unit), colorOf(p.colorAt(value))
	case rows:
		drawn.Table = tableOf(p, findings)
	case lines, stacked, timeline, markdown:
		drawn.Curves = d.curves(p, findings)
	}
	return drawn
}

// first is the first series of all.
func first(findings []finding) series {
	for _, f := range findings {
		if len(f.series) > 0 {
			return f.series[0]
		}
	}
	return series{}
}

// present drops the series that have no value any more, and counts the others.
func (d *drawing) present(findings []finding) (left int) {
	for i := range findings {
		findings[i].series = slices.DeleteFunc(findings[i].series, func(s series) bool {
			return s.last().at < float64(d.End.Unix())-d.Span.Seconds()/20
		})
		left += len(findings[i].series)
	}
	return left
}

// colorAt is the colour of the level that a value has reached.
func (p *panel) colorAt(value float64) string {
	color := good
	for i, l := range p.levels {
		if i == 0 || value >= l.from {
			color = l.color
		}
	}
	return color
}

// tableOf has the last values, the largest first, under the names of their labels.
func tableOf(p *panel, findings []finding) [][]string {
	labels := map[string]bool{}
	var all []series
	for _, f := range findings {
		for _, s := range f.series {
			all = append(all, s)
			for label := range s.Metric {
				labels[label] = true
			}
		}
	}
	slices.SortStableFunc(all, func(a, b series) int { return cmp.Compare(b.last().value, a.last().value) })
	head := slices.Sorted(maps.Keys(labels))
	text := [][]string{append(slices.Clone(head), strings.ToLower(p.queries[0].legend))}
	for _, s := range all[:min(len(all), 12)] {
		var line []string
		for _, label := range head {
			line = append(line, s.Metric[label])
		}
		text = append(text, append(line, spell(s.last().value, p.unit)))
	}
	return text
}

// curves scales all series of a panel into one box.
func (d *drawing) curves(p *panel, findings []finding) *curves {
	low, high := math.Inf(1), math.Inf(-1)
	height := func(value float64) float64 {
		if p.log {
			return math.Log10(max(value, 1e-3))
		}
		return value
	}
	for _, f := range findings {
		for _, s := range f.series {
			for _, v := range s.Values {
				if !math.IsInf(v.value, 0) {
					low, high = min(low, v.value), max(high, v.value)
				}
			}
		}
	}
	if !p.log && !p.zoom {
		low = min(low, 0)
	}
	if high <= low {
		high = low + 1
	}
	c := &curves{Top: spell(high, p.unit), Bottom: spell(low, p.unit)}
	bottom, scale := height(low), 100/(height(high)-height(low))
	start := d.End.Add(-d.Span)
	for _, f := range findings {
		for _, s := range f.series {
			line := curve{Name: legend(f.legend, s), Color: palette[len(c.Lines)%len(palette)], Last: spell(s.last().value, p.unit)}
			for _, paint := range p.paints {
				if paint.series == line.Name {
					line.Color = colorOf(paint.color)
				}
			}
			var points strings.Builder
			for _, v := range s.Values {
				x := 100 * (v.at - float64(start.UnixMilli())/1000) / d.Span.Seconds()
				y := 100 - (height(min(v.value, high))-bottom)*scale
				fmt.Fprintf(&points, "%.2f,%.2f ", x, y)
			}
			line.Points = points.String()
			c.Lines = append(c.Lines, line)
		}
	}
	return c
}

// legend puts the labels of a series into its name, as Grafana does.
func legend(pattern string, s series) string {
	for label, value := range s.Metric {
		pattern = strings.ReplaceAll(pattern, "{{"+label+"}}", value)
	}
	return pattern
}

// spell writes a value in its unit.
func spell(value float64, unit string) string {
	if math.IsInf(value, 0) {
		return "∞"
	}
	switch unit {
	case share:
		return strconv.FormatFloat(value*100, 'f', 2, 64) + " %"
	case seconds:
		if math.Abs(value) >= 120 {
			return (time.Duration(value) * time.Second).String()
		}
		return strconv.FormatFloat(value, 'g', 3, 64) + " s"
	case octets:
		return strconv.FormatFloat(value/(1<<20), 'f', 1, 64) + " MiB"
	case events, requests:
		return strconv.FormatFloat(value, 'g', 3, 64) + "/s"
	}
	return strconv.FormatFloat(math.Round(value*1000)/1000, 'f', -1, 64)
}

// write writes the page into the directory, if there is one.
func (d *drawing) write(dir string) error {
	if dir == "" {
		return nil
	}
	path := filepath.Join(dir, d.Board.name+".html")
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("draw the board %q: %w", d.Board.title, err)
	}
	if err := drawPage.Execute(file, d); err != nil {
		_ = file.Close()
		return fmt.Errorf("draw the board %q: %w", d.Board.title, err)
	}
	return file.Close()
}
