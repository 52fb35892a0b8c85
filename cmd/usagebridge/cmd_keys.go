package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vault/transit"
)

func (c *cli) keysCommand() *cobra.Command {
	return group("keys", "Keys of the master keyset, which seals the tokens: list, rotate, retire",
		c.keysList(), c.keysRotate(), c.keysRetire(), c.keysWrap(), c.keysForget())
}

// masterKeyView is a key as people and programs see it.
type masterKeyView struct {
	vault.Key

	Added  *time.Time `json:"added,omitempty"` // as the audit log has it; nil: it does not say
	Sealed int        `json:"sealed"`          // stored secrets that it has sealed
	// Known and Unknown are the workers that open what it seals, and those that
	// do not or do not tell.
	Known   []string `json:"workers"`
	Unknown []string `json:"workers_without"`
}

// missingKey is the state of a key that sealed something and is not in the
// keyset.
const missingKey vault.KeyState = "missing"

func (c *cli) keysList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the keys, what each has sealed, and how many workers know it",
		Long: `Lists the keys of the master keyset in the order in which they came, with how many
stored secrets each has sealed and how many of the workers that run know it. Keys
are

  primary   it seals, and opens
  new       it only opens so far: "keys rotate" makes it the primary one
  old       it only opens what it sealed before: "keys rotate" seals that anew,
            and then removes the key
  disabled  another program has switched it off
  missing   something is sealed with it, and the keyset does not have it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				views, err := a.masterKeys(ctx)
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(views)
				}
				rows := make([][]string, len(views))
				for n, v := range views {
					rows[n] = v.row(time.Now())
				}
				return c.table([]string{"KEY", "STATE", "ADDED", "SEALED", "WORKERS", "FINGERPRINT"}, rows)
			})
		},
	}
}

func (v *masterKeyView) row(now time.Time) []string {
	added := "-"
	if v.Added != nil {
		added = ago(*v.Added, now)
	}
	workers := fmt.Sprintf("%d of %d", len(v.Known), len(v.Known)+len(v.Unknown))
	return []string{fmt.Sprint(v.ID), string(v.State), added, plural(v.Sealed, "secret", "secrets"), workers, or(v.Print, "-")}
}

// masterKeys looks at keyset, store and workers. It lists what is there, whether
// or not it fits together, and makes no keyset.
func (a *app) masterKeys(ctx context.Context) ([]masterKeyView, error) {
	places, err := a.places(ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := vault.Count(ctx, places...)
	if err != nil {
		return nil, err
	}
	keys, err := vault.Open(a.config.keyset())
	if err != nil {
		return nil, usageError{err}
	}
	workers, err := a.keyNotes(ctx)
	if err != nil {
		return nil, err
	}
	added, err := a.keysAdded(ctx)
	if err != nil {
		return nil, err
	}
	var views []masterKeyView
	for _, k := range keys.Keys() {
		v := masterKeyView{Key: k, Sealed: sealed[k.ID], Added: added[k.ID], Known: []string{}, Unknown: []string{}}
		for _, name := range slices.Sorted(maps.Keys(workers)) {
			if note := workers[name]; note != nil && note.knows(k) {
				v.Known = append(v.Known, name)
			} else {
				v.Unknown = append(v.Unknown, name)
			}
		}
		views = append(views, v)
		delete(sealed, k.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(sealed)) {
		views = append(views, masterKeyView{Key: vault.Key{ID: id, State: missingKey}, Sealed: sealed[id], Added: added[id], Known: []string{}, Unknown: []string{}})
	}
	return views, nil
}

// What the audit log calls what is done to keys.
const (
	keyCreated    = "master key created"
	keyAdded      = "master key added"
	keyPromoted   = "master key promoted"
	keyRetired    = "master key retired"
	keyForgotten  = "master key given up"
	keySealedAnew = "secrets sealed anew"
	keysetWrapped = "master keyset encrypted"
)

// keysAdded is when each key came, as far as that is on record.
func (a *app) keysAdded(ctx context.Context) (map[uint32]*time.Time, error) {
	added := map[uint32]*time.Time{}
	err := a.actions(ctx, time.Time{}, func(done action) (further bool) {
		if done.Action == keyCreated || done.Action == keyAdded {
			if id, ok := parseKeyName(done.Object); ok {
				added[id] = &done.At
			}
		}
		return true
	})
	return added, err
}

// keyName is how a key is named in the audit log.
func keyName(id uint32) string { return "key " + strconv.FormatUint(uint64(id), 10) }

func parseKeyName(name string) (id uint32, ok bool) {
	number, ok := strings.CutPrefix(name, "key ")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(number, 10, 32)
	return uint32(n), err == nil
}

// keyList names keys with their states.
func keyList(keys []vault.Key) string {
	if len(keys) == 0 {
		return "no key"
	}
	names := make([]string, len(keys))
	for n, k := range keys {
		names[n] = fmt.Sprintf("key %d (%s)", k.ID, k.State)
	}
	return strings.Join(names, ", ")
}

func (c *cli) keysRetire() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "retire KEY",
		Short: "Remove a key with which nothing is sealed any more from the keyset",
		Long: `Removes a key from the keyset's file. Refused is the primary key, a key with which
anything stored is sealed, and one with which a worker still seals. Whatever was
copied out of the store before, such as the output of "store export", can then be
opened with a copy of the former keyset alone: keep that with it.

"keys rotate" does this by itself at its end; this command is for what another
program left behind.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseKeyID(args[0])
			if err != nil {
				return err
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				r, err := c.rotation(ctx, a, why)
				if err != nil {
					return err
				}
				defer func() { _ = r.file.Close() }()
				if err := r.retireNow(ctx, id); err != nil {
					return err
				}
				c.say("key %d is retired", id)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

func (c *cli) keysWrap() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "wrap",
		Short: "Encrypt the keyset's file with a key of a key management service",
		Long: `Encrypts the keyset's file with the key that USAGEBRIDGE_MASTER_KEY_URI names. Until
then a keyset in clear is read all the same. So first set that variable for every
worker, and USAGEBRIDGE_MASTER_KEY_TOKEN_FILE, and restart them one after the
other; then run this. No worker is restarted: they read the file again.

A file that is encrypted already is encrypted again, with the newest version of
the service's key. The keyset lay on the disk in clear before: run "keys rotate"
afterwards, and destroy the copies in clear once no export needs them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				if a.config.MasterKeyURI == "" {
					return usagef("%s is not set: want %s", vault.EnvMasterKeyURI, transit.WantURI)
				}
				r, err := c.rotation(ctx, a, why)
				if err != nil {
					return err
				}
				defer func() { _ = r.file.Close() }()
				if err := r.wrap(ctx); err != nil {
					return err
				}
				c.say("%s is encrypted with %s", r.file.Path(), a.config.MasterKeyURI)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

// wrap encrypts the keyset where it lies, if all workers can read it then.
func (r *rotation) wrap(ctx context.Context) error {
	keys, err := r.open(ctx)
	if err != nil {
		return err
	}
	workers, err := r.app.keyNotes(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(workers)) {
		if note := workers[name]; note == nil || !note.Unwraps {
			return usagef("worker %s could not read a keyset that is encrypted: set %s and %s_MASTER_KEY_TOKEN_FILE for it, and restart it first",
				name, vault.EnvMasterKeyURI, envPrefix)
		}
	}
	if err := r.file.Wrap(); err != nil {
		return err
	}
	return r.app.auditKey(ctx, keysetWrapped, keys.Primary(), r.why, "with "+r.app.config.MasterKeyURI)
}
