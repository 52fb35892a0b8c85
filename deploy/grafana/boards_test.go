package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A page is a board as Grafana reads it, as far as the tests ask.
type page struct {
	UID         string   `json:"uid"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	Panels      []shown  `json:"panels"`
	Links       []struct {
		Type string   `json:"type"`
		URL  string   `json:"url"`
		Tags []string `json:"tags"`
	} `json:"links"`
	Templating struct {
		List []choice `json:"list"`
	} `json:"templating"`
}

type choice struct {
	Name       string     `json:"name"`
	Type       string     `json:"type"`
	Query      string     `json:"query"`
	Multi      bool       `json:"multi"`
	IncludeAll bool       `json:"includeAll"`
	AllValue   string     `json:"allValue"`
	Datasource *sourceRef `json:"datasource"`
}

type sourceRef struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type shown struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  *sourceRef `json:"datasource"`
	GridPos     struct {
		H, W, X, Y int
	} `json:"gridPos"`
	Options struct {
		Content string `json:"content"`
	} `json:"options"`
	FieldConfig struct {
		Defaults struct {
			Unit       string `json:"unit"`
			NoValue    string `json:"noValue"`
			Thresholds struct {
				Steps []struct {
					Value *float64 `json:"value"`
				} `json:"steps"`
			} `json:"thresholds"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []struct {
		RefID      string     `json:"refId"`
		Expr       string     `json:"expr"`
		Legend     string     `json:"legendFormat"`
		Instant    bool       `json:"instant"`
		Datasource *sourceRef `json:"datasource"`
	} `json:"targets"`
}

func readPages(t *testing.T) map[string]*page {
	t.Helper()
	files, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]*page{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := new(page)
		if err := json.Unmarshal(text, p); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		pages[file] = p
	}
	return pages
}

func TestTheBoardsAreWhatTheGeneratorWrites(t *testing.T) {
	var want []string
	for _, b := range boards() {
		want = append(want, b.file())
		text, err := b.json()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(b.file()); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s differs from what the generator writes (%v); run `make generate`", b.file(), err)
		}
	}
	got, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got the files %q, want those of the boards %q: Grafana shows every one", got, want)
	}
}

// Bookmarks, alerts and links of other boards name the uid; people look for the title.
func TestTheBoardsKeepTheirNames(t *testing.T) {
	want := map[string][2]string{
		"overview.json":    {"usagebridge-overview", "usagebridge: overview"},
		"integration.json": {"usagebridge-integration", "usagebridge: one integration"},
		"deadletters.json": {"usagebridge-deadletters", "usagebridge: dead letters"},
		"nats.json":        {"usagebridge-nats", "usagebridge: NATS and partitions"},
	}
	seen := map[string]string{}
	for file, p := range readPages(t) {
		if got := [2]string{p.UID, p.Title}; got != want[file] {
			t.Errorf("%s: got uid and title %q, want %q", file, got, want[file])
		}
		for _, name := range []string{p.UID, p.Title} {
			if other := seen[name]; other != "" {
				t.Errorf("%s and %s are both called %q", file, other, name)
			}
			seen[name] = file
		}
	}
	if len(seen) != 2*len(want) {
		t.Errorf("got %d names, want %d", len(seen), 2*len(want))
	}
}

// A panel is looked at by somebody who was woken up.
func TestEveryPanelSaysWhatItAnswers(t *testing.T) {
	parts := regexp.MustCompile(`(?s)^\*\*[^*]+\?[^*]*\*\*\n\n\*\*Normal:\*\* .+\.\n\n\*\*Look next:\*\* .+$`)
	for file, p := range readPages(t) {
		if p.Description == "" || !slices.Contains(p.Tags, tag) {
			t.Errorf("%s: got description %q and tags %q, want one, and the tag %s", file, p.Description, p.Tags, tag)
		}
		titles := map[string]bool{}
		for i := range p.Panels {
			s := &p.Panels[i]
			if s.Title == "" || titles[s.Title] {
				t.Errorf("%s: got the title %q, want one that no other panel has", file, s.Title)
			}
			titles[s.Title] = true
			if s.Type == "row" {
				continue
			}
			if !parts.MatchString(s.Description) {
				t.Errorf("%s: %s: got the description %q, want a question, what is normal, and where to look next", file, s.Title, s.Description)
			}
			if s.Type == "text" {
				if s.Options.Content == "" {
					t.Errorf("%s: %s: got no text", file, s.Title)
				}
				continue // it shows no value, and asks nobody
			}
			if s.FieldConfig.Defaults.Unit == "" {
				t.Errorf("%s: %s: got no unit, want one", file, s.Title)
			}
			if s.Type == "stat" && s.FieldConfig.Defaults.NoValue == "" {
				t.Errorf("%s: %s: got nothing to show without data, want words: an empty box looks like a fault of the board", file, s.Title)
			}
			chosen := sourceRef{Type: "prometheus", UID: "${datasource}"}
			if s.Datasource == nil || *s.Datasource != chosen {
				t.Errorf("%s: %s: got the data source %v, want %v", file, s.Title, s.Datasource, chosen)
			}
			if len(s.Targets) == 0 {
				t.Errorf("%s: %s: got no query, want one", file, s.Title)
			}
			for _, target := range s.Targets {
				if target.Datasource == nil || *target.Datasource != chosen {
					t.Errorf("%s: %s: %s: got the data source %v, want %v", file, s.Title, target.RefID, target.Datasource, chosen)
				}
				if s.Type == "stat" && !target.Instant {
					t.Errorf("%s: %s: got a range, want the value now: the last of a range outlives its worker", file, s.Title)
				}
			}
		}
	}
}

// Only what has a scale can be red: a figure at the top without one says nothing at a glance.
func TestFiguresAtTheTopHaveThresholds(t *testing.T) {
	free := "Not folded yet" // what is many depends on the vendor
	for file, p := range readPages(t) {
		for i := range p.Panels {
			s := &p.Panels[i]
			steps := s.FieldConfig.Defaults.Thresholds.Steps
			if s.Type == "stat" && s.Title != free && len(steps) < 2 {
				t.Errorf("%s: %s: got %d steps of colour, want 2 or more", file, s.Title, len(steps))
			}
			for j := 2; j < len(steps); j++ {
				if *steps[j].Value <= *steps[j-1].Value {
					t.Errorf("%s: %s: got the steps %v and %v, want them rising", file, s.Title, *steps[j-1].Value, *steps[j].Value)
				}
			}
		}
	}
}

func TestPanelsStandBesideEachOther(t *testing.T) {
	for file, p := range readPages(t) {
		ids := map[int]bool{}
		taken := map[[2]int]string{}
		bottom := 0
		for i := range p.Panels {
			s := &p.Panels[i]
			if s.ID == 0 || ids[s.ID] {
				t.Errorf("%s: %s: got the id %d, want one of its own", file, s.Title, s.ID)
			}
			ids[s.ID] = true
			if i == 0 && s.Type != "row" {
				t.Errorf("%s: got %s first, want a heading", file, s.Title)
			}
			g := s.GridPos
			if g.W < 3 || g.X < 0 || g.X+g.W > columns || g.Y > bottom {
				t.Errorf("%s: %s: got %+v below %d, want it within %d columns, 3 wide at least, and no gap above", file, s.Title, g, bottom, columns)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: %s lies on %s", file, s.Title, other)
					}
					taken[[2]int{x, y}] = s.Title
				}
			}
			bottom = max(bottom, g.Y+g.H)
		}
		if got, want := len(taken), bottom*columns; got != want {
			t.Errorf("%s: panels cover %d cells, want all %d: lines should be full", file, got, want)
		}
	}
}

func TestVariablesComeFromTheChosenPrometheus(t *testing.T) {
	metrics := exposed(t)
	for file, p := range readPages(t) {
		names := []string{}
		for _, c := range p.Templating.List {
			names = append(names, c.Name)
			if c.Type == "datasource" {
				if c.Query != "prometheus" {
					t.Errorf("%s: %s: got data sources of type %q, want prometheus", file, c.Name, c.Query)
				}
				continue
			}
			if c.Datasource == nil || c.Datasource.UID != "${datasource}" {
				t.Errorf("%s: %s: got the data source %v, want ${datasource}", file, c.Name, c.Datasource)
			}
			inner, label, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(c.Query, "label_values("), ")"), ", ")
			for _, problem := range judge(inner, metrics) {
				t.Errorf("%s: %s: %s", file, c.Name, problem)
			}
			if label != c.Name {
				t.Errorf("%s: %s: got the values of %q, want those of the label of its name", file, c.Name, label)
			}
			if one := file == "integration.json"; c.Multi == one || c.IncludeAll == one || (c.AllValue != ".*") != one {
				t.Errorf("%s: %s: got multi %v, all %v as %q; want one value on the board of one integration, any number elsewhere", file, c.Name, c.Multi, c.IncludeAll, c.AllValue)
			}
		}
		if len(names) < 2 || names[0] != "datasource" || names[1] != "vendor" {
			t.Errorf("%s: got the variables %q, want datasource and vendor first", file, names)
		}
	}
}

func TestBoardsLeadToEachOtherAndToTheRunbook(t *testing.T) {
	pages := readPages(t)
	uids := map[string]bool{}
	for _, p := range pages {
		uids[p.UID] = true
	}
	link := regexp.MustCompile(`/d/([a-z-]+)`)
	for file, p := range pages {
		others, book := false, false
		for _, l := range p.Links {
			others = others || l.Type == "dashboards" && slices.Contains(l.Tags, tag)
			book = book || l.Type == "link" && l.URL == runbook
		}
		if !others || !book {
			t.Errorf("%s: got links %+v, want one to the boards tagged %s and one to %s", file, p.Links, tag, runbook)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if !uids[m[1]] {
				t.Errorf("%s: links to the board %s, which is not there", file, m[1])
			}
		}
	}
}
