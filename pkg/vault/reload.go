package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Accept says why a vault must not take a keyset that its file holds now; next
// is the vault with that keyset.
type Accept func(ctx context.Context, next *Vault) error

// Follow reads the keyset's file now and again until ctx ends, and uses what it
// holds as soon as that has changed and accept finds nothing against it. What
// is broken or not accepted is not used: the vault keeps the keyset that it
// has. changed is told of every keyset that is taken (nil) and, once, of
// everything that keeps one from being taken. A keyset that was given inline
// cannot change.
func (v *Vault) Follow(ctx context.Context, every time.Duration, accept Accept, changed func(error)) {
	if v.state.source.File == "" {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		taken, err := v.Reload(ctx, accept)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != said:
			said = err.Error()
			changed(err)
		case err == nil && (taken || said != ""):
			said = ""
			changed(nil)
		}
	}
}

// Reload is one round of [Vault.Follow].
func (v *Vault) Reload(ctx context.Context, accept Accept) (taken bool, err error) {
	s := v.state
	if s.source.File == "" {
		return false, nil
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	next, err := s.source.read(s.ring.Load().digest)
	if err == nil && next != nil && accept != nil {
		if err = accept(ctx, &Vault{state: newState(s.source, next)}); err != nil {
			err = fmt.Errorf("master keyset %q is not taken: %w", s.source.File, err)
		}
	}
	if err != nil {
		s.complaint.Store(&err)
		return false, err
	}
	s.complaint.Store(nil)
	if next == nil {
		return false, nil
	}
	s.ring.Store(next)
	return true, nil
}

// Complaint is what keeps the vault from using what its file holds; nil: it
// does use that.
func (v *Vault) Complaint() error {
	if err := v.state.complaint.Load(); err != nil {
		return *err
	}
	return nil
}

// CheckLoss is what an [Accept] asks of the places where secrets are kept: that
// next opens whatever v opens. The error names the keys that are missing.
func (v *Vault) CheckLoss(ctx context.Context, next *Vault, places ...Place) error {
	sealed, err := Sealed(ctx, places...)
	if err != nil {
		return err
	}
	lost := Tally{}
	for _, f := range sealed {
		if _, err := next.Open(*f.Text, f.Owner); err == nil {
			continue
		}
		if _, err := v.Open(*f.Text, f.Owner); err == nil {
			lost.add(*f.Text)
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("%w: it lacks %s; this worker keeps the keyset that it has", errForeign, lost)
	}
	return nil
}

var errForeign = errors.New("it does not open what is stored")

func newState(source Source, r *ring) *state {
	s := &state{source: source}
	s.ring.Store(r)
	return s
}

// read reads the source's keyset; nil if that is the one with the digest.
func (s *Source) read(known [sha256.Size]byte) (*ring, error) {
	data, err := s.bytes()
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(data) == known {
		return nil, nil //nolint:nilnil // nothing new, and nothing wrong
	}
	r, err := openRing(data, s.master)
	if err != nil {
		return nil, fmt.Errorf("master keyset %s %w", s.where(), err)
	}
	return r, nil
}
