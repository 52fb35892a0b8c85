package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/vault"
)

func (c *cli) keysForget() *cobra.Command {
	var why string
	var yes bool
	cmd := &cobra.Command{
		Use:   "forget KEY --yes --why TEXT",
		Short: "Give up the secrets that are sealed with a key that is lost for good",
		Long: `Removes from the store what is sealed with a key that no keyset has any more, so
that new tokens can be given: each integration concerned then needs "integrations
credentials set". This cannot be undone: look for a copy of the keyset first.

Refused while the keyset has the key, or a worker that runs.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseKeyID(args[0])
			if err != nil {
				return err
			}
			if !yes || why == "" {
				return usagef("--yes and --why are both wanted: what is sealed with key %d cannot be opened by anybody afterwards", id)
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				forgotten, err := a.forgetKey(ctx, id, why)
				if err == nil {
					c.say("%s given up: `usagebridge doctor` names the integrations that need new tokens", plural(forgotten, "secret is", "secrets are"))
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

func parseKeyID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 0 {
		return 0, usagef("key %q: want the number of a key, as `usagebridge keys ls` has it", text)
	}
	return uint32(id), nil
}

// forgetKey empties every field that is sealed with a key that nobody has.
func (a *app) forgetKey(ctx context.Context, id uint32, why string) (forgotten int, err error) {
	places, err := a.places(ctx)
	if err != nil {
		return 0, err
	}
	sealed, err := vault.Count(ctx, places...)
	if err != nil {
		return 0, err
	}
	if sealed[id] == 0 {
		return 0, usagef("nothing is sealed with key %d; what is sealed: %s", id, or(sealed.String(), "nothing"))
	}
	if err := a.isLost(ctx, id); err != nil {
		return 0, err
	}
	if err := a.auditKey(ctx, keyForgotten, vault.Key{ID: id}, why, "with what it sealed: "+plural(sealed[id], "secret", "secrets")); err != nil {
		return 0, err
	}
	for _, place := range places {
		n, err := forgetIn(ctx, place, id)
		forgotten += n
		if err != nil {
			return forgotten, fmt.Errorf("give up what is sealed in %s: %w", place.Name(), err)
		}
	}
	return forgotten, nil
}

// isLost refuses a key that somebody has.
func (a *app) isLost(ctx context.Context, id uint32) error {
	keys, err := vault.Open(a.config.keyset())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return usageError{err}
	}
	if err == nil && slices.ContainsFunc(keys.Keys(), func(k vault.Key) bool { return k.ID == id }) {
		return usagef("key %d is not lost: the keyset has it", id)
	}
	workers, err := a.keyNotes(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(workers)) {
		note := workers[name]
		if note == nil || slices.ContainsFunc(note.Keys, func(k vault.Key) bool { return k.ID == id }) {
			return usagef("key %d is not lost: worker %s has it, or does not tell; its keyset may be what you look for", id, name)
		}
	}
	return nil
}

func forgetIn(ctx context.Context, place vault.Place, id uint32) (forgotten int, err error) {
	sealedWith := func(f vault.Field) bool {
		by, ok := vault.KeyOf(*f.Text)
		return ok && by == id
	}
	var concerned []string
	err = place.Each(ctx, func(key string, fields []vault.Field) error {
		if slices.ContainsFunc(fields, sealedWith) {
			concerned = append(concerned, key)
		}
		return nil
	})
	for _, key := range concerned {
		if err != nil {
			return forgotten, err
		}
		n := 0
		err = place.Change(ctx, key, func(fields []vault.Field) error {
			n = 0 // it may be called again
			for _, f := range fields {
				if sealedWith(f) {
					*f.Text = ""
					n++
				}
			}
			return nil
		})
		forgotten += n
	}
	return forgotten, err
}
