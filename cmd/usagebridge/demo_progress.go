package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows how far a demo is.
type progress interface {
	update(r readings)
	end()
}

// newProgress shows bars to a person at a terminal, and writes a line now and
// then for everybody else. A log that says more than errors would run through
// the bars.
func newProgress(w io.Writer, d *demo) progress {
	gauges := d.gauges()
	if !isTerminal(w) || d.config.LogLevel != "error" {
		return &progressLines{w: w, gauges: gauges, shown: time.Now()}
	}
	return newProgressBars(w, gauges)
}

// demoGauge is one thing that fills up.
type demoGauge struct {
	name string
	of   int
	at   func(r *readings) int
}

func (d *demo) gauges() []demoGauge {
	want := &d.plan.want
	return []demoGauge{
		{"published", want.published(), func(*readings) int { return int(d.feed.published.Load()) }},
		{"folded", want.events, func(r *readings) int { return total(r.dispositions) }},
		{"delivered", want.keys(), func(r *readings) int { return total(r.keys) - r.open() }},
		{"dead letters", want.deadLetters(), func(r *readings) int { return r.letters }},
	}
}

// progressLines writes one line every two seconds.
type progressLines struct {
	w      io.Writer
	gauges []demoGauge
	shown  time.Time
}

const progressEvery = 2 * time.Second

func (p *progressLines) update(r readings) {
	if time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	for i, g := range p.gauges {
		if i > 0 {
			_, _ = io.WriteString(p.w, "   ")
		}
		_, _ = fmt.Fprintf(p.w, "%s %s/%s", g.name, thousands(g.at(&r)), thousands(g.of))
	}
	_, _ = io.WriteString(p.w, "\n")
}

func (p *progressLines) end() {}

// progressBars draws a bar for each gauge.
type progressBars struct {
	container *mpb.Progress
	gauges    []demoGauge
	bars      []*mpb.Bar
}

func newProgressBars(w io.Writer, gauges []demoGauge) *progressBars {
	p := &progressBars{gauges: gauges, container: mpb.New(mpb.WithOutput(w), mpb.WithWidth(44), mpb.WithAutoRefresh())}
	style := mpb.BarStyle().Lbound(" ").Filler("━").Tip("━").Padding("─").Rbound(" ")
	for _, g := range gauges {
		p.bars = append(p.bars, p.container.New(int64(g.of), style,
			mpb.PrependDecorators(decor.Name("  "+g.name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
				return fmt.Sprintf("%9s of %s", thousands(int(s.Current)), thousands(int(s.Total)))
			}))))
	}
	return p
}

func (p *progressBars) update(r readings) {
	for i, g := range p.gauges {
		// Not up to the end: a bar that is full stops, and "delivered" falls
		// back whenever a figure changes.
		p.bars[i].SetCurrent(int64(min(g.at(&r), g.of-1)))
	}
}

func (p *progressBars) end() {
	for i, bar := range p.bars {
		if current := bar.Current(); int(current) == p.gauges[i].of-1 {
			bar.SetCurrent(current + 1)
		}
		bar.Abort(false)
	}
	p.container.Wait()
}
