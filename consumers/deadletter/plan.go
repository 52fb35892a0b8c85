package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// StoredLetter is a dead letter with its place in DEADLETTERS.
type StoredLetter struct {
	event.Letter

	Sequence uint64
}

// Letters yields dead letters, oldest first: at least those that the filter
// chooses. An error of yield ends it and comes back.
type Letters func(ctx context.Context, f Filter, yield func(StoredLetter) error) error

// PlanConfig says what to plan.
type PlanConfig struct {
	Filter Filter
	Limit  int     // only the first so many letters; 0: all
	Sample int     // how many letters are shown with their outcome, and of those that would stay
	Share  int     // percent of an integration's rate, 1 to 100
	Rate   float64 // calls per second and integration; 0: no limit
	Now    time.Time
}

// Plan says what a replay would do, as letters and ledger are now.
type Plan struct {
	Filter  Filter `json:"filter"`
	Upto    uint64 `json:"upto"` // place in DEADLETTERS of the last of the letters
	Letters int    `json:"letters"`
	Keys    int    `json:"keys"` // distinct ones that the letters concern
	// Outcomes and Left count the letters: by outcome, and those that stay
	// where they are by what is in the way. Letters of one key supersede one
	// another: of those that would be applied only the newest counts as such.
	Outcomes map[Outcome]int  `json:"outcomes"`
	Left     map[Obstacle]int `json:"left"`
	Share    int              `json:"share"`
	Pace     float64          `json:"pace"`    // letters per second and integration
	Seconds  float64          `json:"seconds"` // about how long it takes
	Parts    []Part           `json:"parts"`
	// Sample has the first letters; Failing the first ones that would stay, no
	// more than were asked for as a sample, and at most 20.
	Sample  []Specimen `json:"sample"`
	Failing []Specimen `json:"failing,omitempty"`
}

// Specimen is a letter of a plan with what would become of it.
type Specimen struct {
	ID          string   `json:"id"`
	Integration string   `json:"integration"`
	EventID     string   `json:"event_id,omitempty"`
	Key         string   `json:"key,omitempty"`
	Outcome     Outcome  `json:"outcome"`
	Obstacle    Obstacle `json:"obstacle,omitempty"`
	Problem     string   `json:"problem,omitempty"`
	// Before and After are the event as a document, when it is edited.
	Before RawDocument `json:"before,omitempty"`
	After  RawDocument `json:"after,omitempty"`
}

const (
	// planned letters are judged so many at a time: each costs a look-up in
	// the ledger, and no more than these are held.
	planChunk    = 128
	planLookups  = 16
	maxFailing   = 20
	unlimited    = 1000 // letters per second, where calls have no limit
	maxShare     = 100
	sharesOfRate = 100
)

// PaceOf is the pace of a replay in letters per second and integration: a share
// in percent of the rate in calls per second, where 0 means that calls have no
// limit, and 1000 is taken.
func PaceOf(rate float64, share int) float64 {
	if rate <= 0 {
		rate = unlimited
	}
	return rate * float64(min(max(share, 1), maxShare)) / sharesOfRate
}

var errEnough = errors.New("enough")

// NewPlan judges every letter that the filter chooses, once.
func NewPlan(ctx context.Context, letters Letters, judge *Judge, c PlanConfig) (*Plan, error) {
	p := planner{
		config: c, judge: judge, seed: maphash.MakeSeed(), keys: map[uint64]lead{}, parts: map[[2]string]int{},
		plan: &Plan{
			Filter: c.Filter, Share: c.Share, Pace: PaceOf(c.Rate, c.Share),
			Outcomes: map[Outcome]int{}, Left: map[Obstacle]int{}, Parts: []Part{}, Sample: []Specimen{},
		},
	}
	taken := 0
	err := letters(ctx, c.Filter, func(l StoredLetter) error {
		if !c.Filter.Match(&l.Letter) {
			return nil
		}
		p.chunk = append(p.chunk, l)
		taken++
		full := taken == c.Limit
		if full || len(p.chunk) == planChunk {
			if err := p.settle(ctx); err != nil {
				return err
			}
		}
		if full {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	if err := p.settle(ctx); err != nil {
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	return p.finish(), nil
}

// planner adds up a plan.
type planner struct {
	config PlanConfig
	judge  *Judge
	plan   *Plan
	chunk  []StoredLetter
	// keys has hashes: of a million keys the odds that two share one are below
	// one in ten million, and a wrong count would be off by one.
	keys  map[uint64]lead
	seed  maphash.Seed
	hopes []hope            // by letter, in the order of the plan
	parts map[[2]string]int // places in plan.Parts by vendor and organization
}

// lead is the newest figure of a key that the letters so far would bring.
type lead struct {
	version ledger.Version
	letter  int // of planner.hopes, counted from 1; 0: none brings one
}

// hope is what a letter counts for as long as no newer one takes it away.
type hope struct {
	leads    int32 // keys of which it has the newest figure
	requeued bool  // else it is applied
	beyond   bool  // it does something whatever becomes of its figures
}

// settle judges the letters of the chunk together and adds them in order.
func (p *planner) settle(ctx context.Context) error {
	rulings := make([]Ruling, len(p.chunk))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(planLookups)
	for i := range p.chunk {
		group.Go(func() (err error) {
			rulings[i], err = p.judge.Judge(ctx, &p.chunk[i].Letter, p.config.Now)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i := range p.chunk {
		p.add(&p.chunk[i], &rulings[i])
	}
	clear(p.chunk)
	p.chunk = p.chunk[:0]
	return nil
}

func (p *planner) add(l *StoredLetter, r *Ruling) {
	plan := p.plan
	plan.Letters++
	plan.Upto = max(plan.Upto, l.Sequence)
	for _, key := range r.Keys {
		p.count(l.Vendor, key.String())
	}
	if key := KeyOf(&l.Letter); len(r.Keys) == 0 && key != "" { // the event cannot be read, the letter names one
		p.count(l.Vendor, l.Organization+"/"+key)
	}
	p.rank(l.Vendor, r)
	plan.Outcomes[r.Outcome]++
	at, known := p.parts[[2]string{l.Vendor, l.Organization}]
	if !known {
		at = len(plan.Parts)
		p.parts[[2]string{l.Vendor, l.Organization}] = at
		plan.Parts = append(plan.Parts, Part{Vendor: l.Vendor, Organization: l.Organization})
	}
	plan.Parts[at].Letters++
	if len(plan.Sample) < p.config.Sample {
		plan.Sample = append(plan.Sample, specimen(l, r))
	}
	if r.Outcome != Left {
		return
	}
	plan.Left[r.Obstacle]++
	if len(plan.Failing) < min(p.config.Sample, maxFailing) {
		plan.Failing = append(plan.Failing, specimen(l, r))
	}
}

func (p *planner) count(vendor, key string) {
	hash := p.hash(vendor, key)
	if _, known := p.keys[hash]; !known {
		p.keys[hash] = lead{}
	}
}

func (p *planner) hash(vendor, key string) uint64 {
	return maphash.Comparable(p.seed, [2]string{vendor, key})
}

// rank takes from older letters of the plan what the next one has newer
// figures of, and the other way round. Of two figures of one place in the log
// the later letter's wins, as in the ledger.
func (p *planner) rank(vendor string, r *Ruling) {
	p.hopes = append(p.hopes, hope{requeued: r.Outcome == Requeued, beyond: r.beyond})
	if len(r.news) == 0 {
		return
	}
	own := len(p.hopes)
	for _, figure := range r.news {
		hash := p.hash(vendor, figure.key.String())
		newest := p.keys[hash]
		if newest.letter > 0 && newest.version.Compare(figure.version) > 0 {
			continue
		}
		p.keys[hash] = lead{figure.version, own}
		p.hopes[own-1].leads++
		if newest.letter > 0 {
			p.overtake(newest.letter - 1)
		}
	}
	if p.hopes[own-1].leads == 0 && !r.beyond {
		r.Outcome = Superseded
	}
}

// overtake takes the newest figure of one key from an earlier letter.
func (p *planner) overtake(letter int) {
	h := &p.hopes[letter]
	h.leads--
	if h.leads > 0 || h.beyond {
		return
	}
	before := Applies
	if h.requeued {
		before = Requeued
	}
	if p.plan.Outcomes[before]--; p.plan.Outcomes[before] == 0 {
		delete(p.plan.Outcomes, before)
	}
	p.plan.Outcomes[Superseded]++
	if letter < len(p.plan.Sample) { // it has the first letters
		p.plan.Sample[letter].Outcome = Superseded
	}
}

func (p *planner) finish() *Plan {
	p.plan.Keys = len(p.keys)
	most := 0
	for _, part := range p.plan.Parts {
		most = max(most, part.Letters)
	}
	p.plan.Seconds = lasts(most, p.plan.Pace).Seconds()
	return p.plan
}

// Published is how many letters would be published.
func (p *Plan) Published() int { return p.Letters - p.Outcomes[Left] }

// Duration is about how long the replay takes: as long as the integration with
// the most letters, since none waits for another.
func (p *Plan) Duration() time.Duration { return time.Duration(p.Seconds * float64(time.Second)) }

func specimen(l *StoredLetter, r *Ruling) Specimen {
	id, _ := Identity(&l.Letter)
	return Specimen{
		ID: l.Place(), Integration: l.Vendor + "/" + l.Organization, EventID: id, Key: KeyOf(&l.Letter),
		Outcome: r.Outcome, Obstacle: r.Obstacle, Problem: r.Problem, Before: r.Before, After: r.After,
	}
}

// RawDocument is JSON as it was written. What is no JSON, such as an event that
// cannot be read, becomes a string.
type RawDocument []byte

// MarshalJSON writes the document.
func (d RawDocument) MarshalJSON() ([]byte, error) {
	if json.Valid(d) {
		return d, nil
	}
	return json.Marshal(string(d))
}
