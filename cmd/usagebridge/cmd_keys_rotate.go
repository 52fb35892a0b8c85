package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usagebridge/usagebridge/pkg/vault"
)

const (
	// keyWait is how long a rotation waits for the workers: they look at the
	// keyset every second, and tell of it with their signs of life.
	keyWait = 30 * time.Second
	// keySettle is how long an old key is kept when everybody seals with the new
	// one: for what was sealed before and not yet stored.
	keySettle = 10 * time.Second
	// keyLook is how often a rotation looks at what workers tell.
	keyLook = 200 * time.Millisecond
)

func (c *cli) keysRotate() *cobra.Command {
	var why string
	wait, settle := keyWait, keySettle
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Put a new key in the place of the one that seals the tokens, while workers run",
		Long: `Replaces the key that seals the stored tokens. No worker is restarted, and none
ever meets a token that it cannot open:

  1. A new key is added to the keyset's file. It seals nothing yet.
  2. Workers read the file again by themselves, and tell that they know the key.
  3. Once all do, the key is promoted: from now on it seals.
  4. What the former key has sealed is sealed anew, one record after the other.
  5. Once all workers seal with the new key, and nothing is sealed with the
     former one, that is retired: it is removed from the file.

Where all workers share the file, all of it is done in one go. Where one has a
copy of its own, or the keyset in its environment, the command ends with code 3
after step 1 and after step 4 and says who has to get the file: replace the copy
as a whole (write it aside, then mv), no restart is needed; a worker that has it
in the environment is restarted with the new content. Then run the command again:
it goes on where it was, also after it was broken off. At the end the copies get
the file once more, without the former key.

Keep a copy of the former keyset with every export of the store that was made
before: nothing else opens the tokens in it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 || settle < 0 {
				return usagef("--wait %v, --settle %v: want 0 or more", wait, settle)
			}
			return c.withApp(cmd.Context(), func(ctx context.Context, a *app) error {
				r, err := c.rotation(ctx, a, why)
				if err != nil {
					return err
				}
				defer func() { _ = r.file.Close() }()
				r.wait, r.settle = wait, settle
				err = r.run(ctx)
				if c.json {
					err = errors.Join(c.printJSON(r.done), err)
				}
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&wait, "wait", wait, "how long to wait for workers to take the keyset")
	flags.DurationVar(&settle, "settle", settle, "how long the former key is kept when all workers seal with the new one, for what was just being stored")
	flags.StringVar(&why, "why", "", "the reason, kept in the audit log")
	return cmd
}

// rotation is one rotation, or the rest of one that was broken off. What there
// is to do is read off the keyset: keys behind the primary one are new, those
// before it are old.
type rotation struct {
	app    *app
	file   *vault.File
	places []vault.Place
	why    string
	say    func(format string, args ...any)

	wait, settle time.Duration
	// after, if not nil, is called after every step, and ends the rotation with
	// its error.
	after func(step string) error

	looked time.Time // at the workers, while secrets are sealed anew
	done   rotated
}

// rotated is what a rotation has done.
type rotated struct {
	Primary  uint32   `json:"primary"` // key that seals now
	Added    uint32   `json:"added,omitempty"`
	Promoted bool     `json:"promoted"`
	Resealed int      `json:"resealed"` // secrets
	Retired  []uint32 `json:"retired"`
	Finished bool     `json:"finished"`
}

// rotation locks the keyset's file.
func (c *cli) rotation(ctx context.Context, a *app, why string) (*rotation, error) {
	places, err := a.places(ctx)
	if err != nil {
		return nil, err
	}
	source := a.config.keyset()
	if source.File == "" {
		return nil, usagef("the keyset stands in %s_MASTER_KEYSET itself, where no command can change it: write it into a file of mode 0600, "+
			"run this with %s_MASTER_KEYSET set to the path of that file, and restart the workers with its content whenever this says that they have to get it", envPrefix, envPrefix)
	}
	file, err := vault.Edit(source)
	if errors.Is(err, vault.ErrLocked) {
		return nil, err
	}
	if err != nil {
		return nil, usageError{err}
	}
	return &rotation{app: a, file: file, places: places, why: why, say: c.say, wait: keyWait, settle: keySettle, done: rotated{Retired: []uint32{}}}, nil
}

// run goes through all steps that are left.
func (r *rotation) run(ctx context.Context) error {
	keys, err := r.open(ctx)
	if err != nil {
		return err
	}
	if err := r.begin(ctx, keys); err != nil {
		return err
	}
	if err := r.promote(ctx); err != nil {
		return err
	}
	if _, err := r.reseal(ctx); err != nil {
		return err
	}
	if err := r.awaitPrimary(ctx); err != nil {
		return err
	}
	if err := idle(ctx, r.settle); err != nil {
		return err
	}
	closed, err := r.reseal(ctx) // what came meanwhile
	if err != nil {
		return err
	}
	if err := r.retireOld(ctx, closed); err != nil {
		return err
	}
	r.done.Finished = true
	r.say("done: key %d seals; workers with a copy of %s of their own get it once more", r.done.Primary, r.file.Path())
	if len(closed) > 0 {
		return partlyf("%s could not be opened, and stay as they are: %w", plural(len(closed), "secret", "secrets"), errors.Join(closed...))
	}
	return nil
}

// open opens the keyset, which has to be the right one.
func (r *rotation) open(ctx context.Context) (*vault.Vault, error) {
	keys, err := r.file.Vault()
	if err != nil {
		return nil, usageError{err}
	}
	sealed, err := vault.Sealed(ctx, r.places...)
	if err != nil {
		return nil, err
	}
	r.done.Primary = keys.Primary().ID
	return keys, checkKeyset(keys, sealed)
}

// begin adds a key, unless an earlier rotation has not come to its end.
func (r *rotation) begin(ctx context.Context, keys *vault.Vault) error {
	unfinished := slices.ContainsFunc(keys.Keys(), func(k vault.Key) bool { return k.State == vault.Fresh || k.State == vault.Old })
	if unfinished {
		r.say("a rotation was begun before and goes on: %s", keyList(keys.Keys()))
		return nil
	}
	k, err := r.file.Add()
	if err != nil {
		return err
	}
	r.done.Added = k.ID
	r.say("key %d is added to %s; it seals nothing yet", k.ID, r.file.Path())
	if err := r.step("added"); err != nil {
		return err
	}
	return r.record(ctx, k)
}

// record puts a key that was added on record.
func (r *rotation) record(ctx context.Context, k vault.Key) error {
	return errors.Join(r.app.auditKey(ctx, keyAdded, k, r.why, ""), r.step("recorded"))
}

// promote makes the newest key the one that seals, once every worker knows it.
func (r *rotation) promote(ctx context.Context) error {
	keys, err := r.file.Vault()
	if err != nil {
		return err
	}
	list := keys.Keys()
	next := list[len(list)-1]
	if next.State != vault.Fresh {
		return nil // it was promoted before
	}
	if added, err := r.app.keysAdded(ctx); err != nil {
		return err
	} else if added[next.ID] == nil { // broken off between the two
		if err := r.record(ctx, next); err != nil {
			return err
		}
	}
	if err := r.await(ctx, "know the new key", func(n *keyNote) bool { return n.knows(next) }); err != nil {
		return err
	}
	if err := r.app.auditKey(ctx, keyPromoted, next, r.why, fmt.Sprintf("in place of key %d", keys.Primary().ID)); err != nil {
		return err
	}
	if err := r.step("promotion recorded"); err != nil {
		return err
	}
	if err := r.file.Promote(next.ID); err != nil {
		return err
	}
	r.done.Primary, r.done.Promoted = next.ID, true
	r.say("key %d is promoted: from now on it seals", next.ID)
	return r.step("promoted")
}

// reseal seals anew whatever another key has sealed, and says what it could not
// open. A worker that starts meanwhile without the key ends it.
func (r *rotation) reseal(ctx context.Context) (closed []error, err error) {
	keys, err := r.file.Vault()
	if err != nil {
		return nil, err
	}
	sealed, err := vault.Count(ctx, r.places...)
	if err != nil {
		return nil, err
	}
	primary, stale := keys.Primary(), vault.Tally{}
	for _, k := range keys.Keys() {
		if n := sealed[k.ID]; n > 0 && k != primary {
			stale[k.ID] = n
		}
	}
	if len(stale) > 0 {
		if err := r.app.auditKey(ctx, keySealedAnew, primary, r.why, "what was sealed with "+stale.String()); err != nil {
			return nil, err
		}
		if err := r.step("sealing recorded"); err != nil {
			return nil, err
		}
	}
	before := func() error {
		if err := r.step("sealing"); err != nil || time.Since(r.looked) < keyLook {
			return err
		}
		r.looked = time.Now()
		return r.await(ctx, "know the key", func(n *keyNote) bool { return n.knows(primary) })
	}
	for _, place := range r.places {
		done, err := keys.Reseal(ctx, place, before)
		r.done.Resealed += done.Secrets
		if done.Secrets > 0 {
			r.say("%s in %s of %s are sealed with key %d now", plural(done.Secrets, "secret", "secrets"), plural(done.Records, "record", "records"), place.Name(), primary.ID)
		}
		if err != nil {
			return nil, err
		}
		closed = append(closed, done.Closed...)
	}
	return closed, r.step("sealed")
}

// awaitPrimary waits until nobody seals with another key any more.
func (r *rotation) awaitPrimary(ctx context.Context) error {
	keys, err := r.file.Vault()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(keys.Keys(), func(k vault.Key) bool { return k.State == vault.Old }) {
		return nil // there is nothing to retire
	}
	primary := keys.Primary()
	return r.await(ctx, "seal with the new key", func(n *keyNote) bool { return n.primary().Print == primary.Print })
}

// retireOld removes the keys that are old.
func (r *rotation) retireOld(ctx context.Context, closed []error) error {
	keys, err := r.file.Vault()
	if err != nil {
		return err
	}
	for _, k := range keys.Keys() {
		if k.State != vault.Old {
			continue
		}
		if err := r.retire(ctx, k); err != nil {
			return errors.Join(append([]error{err}, closed...)...)
		}
	}
	return nil
}

// retire removes a key that nobody needs.
func (r *rotation) retire(ctx context.Context, k vault.Key) error {
	sealed, err := vault.Count(ctx, r.places...)
	if err != nil {
		return err
	}
	if n := sealed[k.ID]; n > 0 {
		return usagef("key %d is not retired: %s sealed with it; `usagebridge keys rotate` seals anew what opens, "+
			"and credentials that do not open are to be set again (`usagebridge doctor` names them)", k.ID, plural(n, "stored secret is", "stored secrets are"))
	}
	if err := r.app.auditKey(ctx, keyRetired, k, r.why, ""); err != nil {
		return err
	}
	if err := r.step("retirement recorded"); err != nil {
		return err
	}
	if err := r.file.Retire(k.ID); err != nil {
		return err
	}
	r.done.Retired = append(r.done.Retired, k.ID)
	r.say("key %d is retired: exports of the store that were made before need a copy of the former keyset", k.ID)
	return r.step("retired")
}

// retireNow is the command "keys retire".
func (r *rotation) retireNow(ctx context.Context, id uint32) error {
	keys, err := r.open(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(keys.Keys(), func(k vault.Key) bool { return k.ID == id })
	if at < 0 {
		return usagef("key %d is not in %s, which has %s", id, r.file.Path(), keyList(keys.Keys()))
	}
	k := keys.Keys()[at]
	if k.State == vault.Primary {
		return usagef("key %d is the one that seals: `usagebridge keys rotate` puts another in its place", id)
	}
	workers, err := r.app.keyNotes(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(workers)) {
		if note := workers[name]; note == nil || note.primary().ID == id {
			return usagef("key %d is not retired: worker %s seals with it, or does not tell with which key it seals", id, name)
		}
	}
	return r.retire(ctx, k)
}

// await waits until the notes of all workers that are alive are as they should
// be, and says of whom they are not.
func (r *rotation) await(ctx context.Context, what string, good func(*keyNote) bool) error {
	for until := time.Now().Add(r.wait); ; {
		workers, err := r.app.keyNotes(ctx)
		if err != nil {
			return err
		}
		maps.DeleteFunc(workers, func(_ string, n *keyNote) bool { return n != nil && good(n) })
		if len(workers) == 0 {
			return r.step("workers " + what)
		}
		if !time.Now().Before(until) {
			return partlyf("not all workers %s: %s. Give these the keyset %s (a copy is replaced as a whole; one in the environment by a restart), "+
				"then run `usagebridge keys rotate` again: it goes on from here", what, whyNot(workers), r.file.Path())
		}
		if err := idle(ctx, keyLook); err != nil {
			return err
		}
	}
}

// whyNot says of each worker what is known.
func whyNot(workers map[string]*keyNote) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(workers)) {
		switch n := workers[name]; {
		case n == nil:
			parts = append(parts, name+" does not tell which keys it knows: it is of an older version")
		case n.Complaint != "":
			parts = append(parts, fmt.Sprintf("%s complains: %s", name, n.Complaint))
		default:
			parts = append(parts, fmt.Sprintf("%s has %s", name, keyList(n.Keys)))
		}
	}
	return strings.Join(parts, "; ")
}

func (r *rotation) step(name string) error {
	if r.after == nil {
		return nil
	}
	return r.after(name)
}

// idle waits, unless ctx ends first.
func idle(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
