package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Place is where sealed secrets are kept: records with sealed fields.
type Place interface {
	// Name is how people know the place.
	Name() string
	// Each yields the sealed fields of every record, by the record's key,
	// until yield gives an error. Changing the fields changes nothing stored.
	Each(ctx context.Context, yield func(key string, fields []Field) error) error
	// Change lets change edit the sealed fields of a record, and stores them by
	// compare-and-set: if somebody else has stored the record meanwhile it
	// starts again with what is there then. An error of change ends it, comes
	// back, and leaves the record as it is. A record that is gone is no error.
	Change(ctx context.Context, key string, change func(fields []Field) error) error
}

// Field is one sealed secret of a record.
type Field struct {
	Name  string  // of the field, for people
	Owner string  // for whom it is sealed
	Text  *string // the ciphertext; never nil, never empty
}

// Tally counts ciphertexts by the key that sealed them. What was not sealed by
// this program counts under 0.
type Tally map[uint32]int

func (t Tally) add(ciphertext string) {
	id, _ := KeyOf(ciphertext)
	t[id]++
}

// String lists the keys with their numbers.
func (t Tally) String() string {
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(t)) {
		secrets := "secrets"
		if t[id] == 1 {
			secrets = "secret"
		}
		key := fmt.Sprintf("key %d", id)
		if id == 0 {
			key = "no key that can be told"
		}
		parts = append(parts, fmt.Sprintf("%s (%d %s)", key, t[id], secrets))
	}
	return strings.Join(parts, ", ")
}

// Sealed lists all that is sealed in the places. Changing it changes nothing stored.
func Sealed(ctx context.Context, places ...Place) ([]Field, error) {
	var sealed []Field
	for _, place := range places {
		err := place.Each(ctx, func(_ string, fields []Field) error {
			sealed = append(sealed, fields...)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look at what is sealed in %s: %w", place.Name(), err)
		}
	}
	return sealed, nil
}

// TallyOf counts the ciphertexts of fields.
func TallyOf(fields []Field) Tally {
	tally := Tally{}
	for _, f := range fields {
		tally.add(*f.Text)
	}
	return tally
}

// Count counts what each key has sealed in the places.
func Count(ctx context.Context, places ...Place) (Tally, error) {
	sealed, err := Sealed(ctx, places...)
	if err != nil {
		return nil, err
	}
	return TallyOf(sealed), nil
}

// Resealed is what [Reseal] has done.
type Resealed struct {
	Records int // that were changed
	Secrets int // in them, that were sealed anew
	// Closed has what stays as it is, because it cannot be opened: one error
	// for each secret.
	Closed []error
}

// Reseal seals anew, with the primary key, everything in the place that
// another key has sealed. Each record is changed as a whole, so it can be
// broken off at any time and begun again. before, if not nil, is called before
// each change, and ends it with its error.
func (v *Vault) Reseal(ctx context.Context, place Place, before func() error) (Resealed, error) {
	var done Resealed
	var stale []string
	err := place.Each(ctx, func(key string, fields []Field) error {
		if slices.ContainsFunc(fields, v.isStale) {
			stale = append(stale, key)
		}
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("look for what is to be sealed anew in %s: %w", place.Name(), err)
	}
	for _, key := range stale {
		if before != nil {
			if err := before(); err != nil {
				return done, err
			}
		}
		if err := v.resealRecord(ctx, place, key, &done); err != nil {
			return done, fmt.Errorf("seal anew %s in %s: %w", key, place.Name(), err)
		}
	}
	return done, nil
}

// errAsItIs ends a change that would change nothing.
var errAsItIs = errors.New("nothing to change")

func (v *Vault) resealRecord(ctx context.Context, place Place, key string, done *Resealed) error {
	sealed, closed := 0, []error(nil)
	err := place.Change(ctx, key, func(fields []Field) error {
		sealed, closed = 0, nil // it may be called again
		for _, f := range fields {
			if !v.isStale(f) {
				continue
			}
			secret, err := v.Open(*f.Text, f.Owner)
			if err != nil {
				closed = append(closed, fmt.Errorf("%s: %w", f.Name, err))
				continue
			}
			if *f.Text, err = v.Seal(secret, f.Owner); err != nil {
				return err
			}
			sealed++
		}
		if sealed == 0 {
			return errAsItIs
		}
		return nil
	})
	done.Closed = append(done.Closed, closed...)
	if errors.Is(err, errAsItIs) {
		return nil
	}
	if err == nil && sealed > 0 {
		done.Records++
		done.Secrets += sealed
	}
	return err
}

// isStale says whether a field is sealed with another key than it should be.
func (v *Vault) isStale(f Field) bool {
	id, ok := KeyOf(*f.Text)
	return !ok || id != v.ring().primary
}
