package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Wish is a delta that somebody saw and wants in the contract.
type Wish struct {
	// Company and Service are the PSA's ids.
	Company string `json:"company"`
	Service string `json:"service"`
	// Units are those that were reported when it was seen.
	Units json.Number `json:"units"`
}

// Approve puts what is reported into the contracts, and returns what that changed. Nobody
// approves a figure unseen: when one of the wishes is not, or no longer, what is reported, or
// changes nothing, Approve returns [ErrConflict] and changes nothing at all.
func (s *Sandbox) Approve(name, by string, wishes ...Wish) ([]Approval, error) {
	var out []Approval
	err := s.changeOrganization("approve", name, func(o *organization) (err error) {
		out, err = o.approve(by, wishes, s.now())
		return err
	})
	return out, err
}

// ApproveAll puts all that is reported into the contracts, seen or not, and returns what that
// changed.
func (s *Sandbox) ApproveAll(name, by string) ([]Approval, error) {
	var out []Approval
	err := s.changeOrganization("approve", name, func(o *organization) error {
		deltas, err := o.deltas()
		if err != nil {
			return err
		}
		var wishes []Wish
		for i := range deltas {
			if d := &deltas[i]; d.Open() {
				wishes = append(wishes, d.wish())
			}
		}
		out, err = o.approve(by, wishes, s.now())
		return err
	})
	return out, err
}

// Approvals are those of the organization, the oldest first.
func (s *Sandbox) Approvals(name string) ([]Approval, error) {
	out := []Approval{}
	err := s.changeOrganization("approvals", name, func(o *organization) error {
		out = append(out, o.approvals...)
		return nil
	})
	return out, err
}

func (d *Delta) wish() Wish { return Wish{d.Company, d.Service, *d.Reported} }

func (o *organization) approve(by string, wishes []Wish, now time.Time) ([]Approval, error) {
	deltas, err := o.deltas()
	if err != nil {
		return nil, err
	}
	var errs []error
	made := []Approval{}
	for _, w := range wishes {
		i := slices.IndexFunc(deltas, func(d Delta) bool { return d.Company == w.Company && d.Service == w.Service })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%w line: company %q, service %q", ErrUnknown, w.Company, w.Service))
			continue
		}
		d := &deltas[i]
		if err := d.check(w); err != nil {
			errs = append(errs, err)
			continue
		}
		made = append(made, Approval{
			Time: now, By: by, PSA: o.psa.ID, Company: d.Company, CompanyName: d.CompanyName, Service: d.Service, ServiceName: d.ServiceName,
			From: json.Number(unitsText(d.contract)), To: *d.Reported, to: d.reported,
		})
		d.contract = d.reported // a second wish for the line changes nothing
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, a := range made {
		o.psa.contracts[a.Company][a.Service] = a.to
	}
	o.approvals = append(o.approvals, made...)
	return made, nil
}

// check compares a delta with what somebody saw of it.
func (d *Delta) check(w Wish) error {
	where := fmt.Sprintf("%s, %s", d.CompanyName, d.ServiceName)
	seen, err := parseUnits(w.Units.String())
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", where, err)
	case d.reported == nil:
		return fmt.Errorf("%s: %w: nothing that could be compared is reported", where, ErrConflict)
	case seen.Cmp(d.reported) != 0:
		return fmt.Errorf("%s: %w: %s units are reported by now, not %s", where, ErrConflict, *d.Reported, w.Units)
	case !d.Open():
		return fmt.Errorf("%s: %w: the contract has %s units already", where, ErrConflict, *d.Reported)
	}
	return nil
}
