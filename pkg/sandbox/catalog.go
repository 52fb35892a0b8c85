package sandbox

import (
	"errors"
	"fmt"
)

// item is a posted account or service; note is its externalId or description.
type item struct {
	id, name, note string
	mapped         bool
	unmapped       bool // by somebody, on purpose
	inactive       bool // as the vendor said
	// targets are the company or the services of the PSA that it is mapped to; none where it
	// is unmapped, or was mapped by the control API or the automatic human.
	targets []string
}

// step is one change of a mapping.
type step struct {
	id     string
	mapped bool
}

// catalog holds what was posted, in the order of posting.
type catalog struct {
	byID  map[string]*item
	order []*item
	// settled items at the front of order were seen by the automatic human, so that he
	// does not walk through all of them when he comes after every single post.
	settled int
	// steps made so far; only ever appended to, so that a prefix of it is the past.
	steps []step
}

func newCatalog() catalog { return catalog{byID: map[string]*item{}} }

// post adds an item whose id is new.
func (c *catalog) post(it item) {
	c.byID[it.id] = &it
	c.order = append(c.order, &it)
}

func (c *catalog) isMapped(id string) bool {
	it := c.byID[id]
	return it != nil && it.mapped
}

// set maps or unmaps an item and remembers it.
func (c *catalog) set(it *item, mapped bool) {
	it.unmapped = !mapped
	if !mapped {
		it.targets = nil
	}
	if it.mapped != mapped {
		it.mapped = mapped
		c.steps = append(c.steps, step{it.id, mapped})
	}
}

// mapNew is a visit of the automatic human: he leaves alone what somebody unmapped.
func (c *catalog) mapNew() {
	for _, it := range c.order[c.settled:] {
		if !it.unmapped {
			c.set(it, true)
		}
	}
	c.settled = len(c.order)
}

func (c *catalog) setSelected(s Selection, mapped bool) {
	if s.all {
		for _, it := range c.order {
			c.set(it, mapped)
		}
	}
	for _, id := range s.ids {
		c.set(c.byID[id], mapped)
	}
}

func (c *catalog) missing(kind string, s Selection) error {
	var errs []error
	for _, id := range s.ids {
		if c.byID[id] == nil {
			errs = append(errs, fmt.Errorf("%w %s %q: it was never posted", ErrUnknown, kind, id))
		}
	}
	return errors.Join(errs...)
}
