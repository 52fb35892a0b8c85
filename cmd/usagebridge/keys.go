package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/consumers/onboarding"
	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/vault"
	"github.com/usagebridge/usagebridge/pkg/vault/transit"
)

// places lists where sealed secrets are kept. What is missing here is not sealed
// anew when keys are rotated, and is lost with the old key.
func (a *app) places(ctx context.Context) ([]vault.Place, error) {
	integrations, err := a.integrations(ctx)
	if err != nil {
		return nil, err
	}
	places := []vault.Place{
		sealedRecords[status.Integration]{name: broker.BucketIntegrations, bucket: integrations, fields: integrationFields},
	}
	onboardings, err := a.onboardings(ctx)
	if errors.Is(err, jetstream.ErrBucketNotFound) { // of a store that an older version set up
		return places, nil
	}
	if err != nil {
		return nil, err
	}
	return append(places, sealedRecords[onboarding.Record]{name: broker.BucketOnboardings, bucket: onboardings, fields: onboardingFields}), nil
}

// sealedRecords is a bucket whose records have sealed fields (vault.Place).
type sealedRecords[T any] struct {
	name   string
	bucket *broker.Bucket[T]
	fields func(*T) []vault.Field
}

func integrationFields(i *status.Integration) []vault.Field {
	var fields []vault.Field
	for _, s := range i.Sealed() {
		fields = append(fields, vault.Field{Name: i.Name() + " " + s.Name, Owner: i.Name(), Text: s.Text})
	}
	return fields
}

func onboardingFields(r *onboarding.Record) []vault.Field {
	var fields []vault.Field
	for _, text := range r.Sealed() {
		fields = append(fields, vault.Field{Name: "onboarding of " + r.Name(), Owner: r.Name(), Text: text})
	}
	return fields
}

// Name is that of the bucket.
func (s sealedRecords[T]) Name() string { return s.name }

// Each yields the fields of every record.
func (s sealedRecords[T]) Each(ctx context.Context, yield func(key string, fields []vault.Field) error) error {
	all, err := s.bucket.All(ctx)
	if err != nil {
		return err
	}
	for key, record := range all {
		if err := yield(key, s.fields(&record)); err != nil {
			return err
		}
	}
	return nil
}

// Change edits the fields of one record.
func (s sealedRecords[T]) Change(ctx context.Context, key string, change func([]vault.Field) error) error {
	_, err := s.bucket.Update(ctx, key, func(record *T) error { return change(s.fields(record)) })
	if errors.Is(err, broker.ErrNotFound) {
		return nil
	}
	return err
}

// keyset says where the master keyset is.
func (c *Config) keyset() vault.Source {
	source := vault.ParseSource(c.MasterKeyset)
	if c.MasterKeyset == "" {
		source.File = filepath.Join(c.StoreDir, "master-keyset.json")
	}
	if c.MasterKeyURI != "" {
		source.KeyURI, source.KMS = c.MasterKeyURI, transit.New(transit.Config{TokenFile: c.MasterKeyTokenFile})
	}
	return source
}

// vault opens the master keyset. It is made on first use only, and only beside
// a store that has nothing sealed yet: a new keyset could open none of it. One
// that opens nothing of what is sealed is refused: it is the wrong one.
func (a *app) vault(ctx context.Context) (*vault.Vault, error) {
	places, err := a.places(ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := vault.Sealed(ctx, places...)
	if err != nil {
		return nil, err
	}
	source := a.config.keyset()
	_, absent := os.Lstat(source.File)
	source.CreateIfMissing = a.config.MasterKeyset == "" && len(sealed) == 0
	keys, err := vault.Open(source)
	if errors.Is(err, fs.ErrNotExist) && len(sealed) > 0 {
		return nil, usagef("%w (the store has secrets that are sealed with %s)", err, vault.TallyOf(sealed))
	}
	if err != nil {
		return nil, err
	}
	if source.CreateIfMissing && errors.Is(absent, fs.ErrNotExist) {
		return keys, a.auditKey(ctx, "master key created", keys.Primary(), "", "")
	}
	return keys, checkKeyset(keys, sealed)
}

// checkKeyset refuses a keyset that opens nothing of what is sealed, and has
// none of the keys with which it is sealed. Records that are damaged do not
// make a keyset the wrong one.
func checkKeyset(keys *vault.Vault, sealed []vault.Field) error {
	var failure error
	for _, f := range sealed {
		if _, failure = keys.Open(*f.Text, f.Owner); failure == nil {
			return nil
		}
	}
	tally := vault.TallyOf(sealed)
	has := slices.ContainsFunc(keys.Keys(), func(k vault.Key) bool { return tally[k.ID] > 0 })
	if has || len(tally) == 0 || len(tally) == 1 && tally[0] > 0 {
		return nil
	}
	return usagef("the master keyset opens nothing of what is stored, which is sealed with %s; it has %s: is %s_MASTER_KEYSET the keyset with which the integrations were added? %w",
		tally, keyList(keys.Keys()), envPrefix, failure)
}

// sealer is the vault for a command that stores secrets. What it seals must open
// for the workers that are there.
func (a *app) sealer(ctx context.Context) (*vault.Vault, error) {
	keys, err := a.vault(ctx)
	if err != nil {
		return nil, err
	}
	workers, err := a.keyNotes(ctx)
	if err != nil {
		return nil, err
	}
	for name, note := range workers {
		if note != nil && !note.knows(keys.Primary()) {
			return nil, usagef("worker %s could not open what this command would seal: its keyset has %s and not key %d: give both the same keyset "+
				"(if it has just been changed, try again in some seconds)", name, keyList(note.Keys), keys.Primary().ID)
		}
	}
	return keys, nil
}

// keyNote is what a worker tells of its keyset.
type keyNote struct {
	Keys []vault.Key `json:"keys"`
	// Unwraps says that it could decrypt a keyset that is encrypted.
	Unwraps bool `json:"unwraps,omitempty"`
	// Complaint says why it does not use what its file holds.
	Complaint string `json:"complaint,omitempty"`
}

// workerNote is all that a worker tells of itself with its signs of life.
type workerNote struct {
	Keyset *keyNote `json:"keyset,omitempty"`
}

// knows says whether the worker opens what the key seals.
func (n *keyNote) knows(k vault.Key) bool {
	return slices.ContainsFunc(n.Keys, func(own vault.Key) bool {
		return own.ID == k.ID && own.Print == k.Print && own.State != vault.Disabled
	})
}

// primary is the key with which the worker seals.
func (n *keyNote) primary() vault.Key {
	for _, k := range n.Keys {
		if k.State == vault.Primary {
			return k
		}
	}
	return vault.Key{}
}

// note is what this worker tells the others of itself.
func (e *engine) note() json.RawMessage {
	note := keyNote{Keys: e.vault.Keys(), Unwraps: e.vault.Unwraps()}
	if err := e.vault.Complaint(); err != nil {
		note.Complaint = err.Error()
	}
	told, err := json.Marshal(workerNote{Keyset: &note})
	if err != nil {
		e.app.log.Error("not told the others which keys are known", "err", err)
		return nil
	}
	return told
}

// keyNotes is what the workers that are alive tell of their keysets; nil for one
// that tells nothing of it.
func (a *app) keyNotes(ctx context.Context) (map[string]*keyNote, error) {
	told, err := a.broker.Notes(ctx)
	if err != nil {
		return nil, err
	}
	return readKeyNotes(told), nil
}

func readKeyNotes(told map[string]json.RawMessage) map[string]*keyNote {
	notes := map[string]*keyNote{}
	for name, text := range told {
		var note workerNote
		if json.Unmarshal(text, &note) != nil {
			note.Keyset = nil // it speaks of something else
		}
		notes[name] = note.Keyset
	}
	return notes
}

// keysetPoll is how often a worker looks whether its keyset has changed.
const keysetPoll = time.Second

// followKeys takes changes of the keyset without a restart, until ctx ends.
func (e *engine) followKeys(ctx context.Context) {
	e.vault.Follow(ctx, keysetPoll, e.accept, func(err error) {
		if err != nil {
			e.app.log.Error("master keyset not taken, the former one stays in use", "err", err)
			return
		}
		e.app.log.Info("master keyset in use", "keys", keyList(e.vault.Keys()))
		e.reopen(ctx)
	})
}

// accept says why this worker must not use a keyset.
func (e *engine) accept(ctx context.Context, next *vault.Vault) error {
	places, err := e.app.places(ctx)
	if err != nil {
		return err
	}
	return e.vault.CheckLoss(ctx, next, places...)
}

// reopen tells the worker of the integrations whose tokens could not be opened.
func (e *engine) reopen(ctx context.Context) {
	e.linking.Lock()
	defer e.linking.Unlock()
	for key := range e.closed {
		i, _, err := e.integrations.Get(ctx, key)
		if err == nil {
			e.learn(ctx, key, &i)
		}
	}
}

// refresh reads the keyset's file now if the record is sealed with a key that
// is not known: somebody rotates keys, and this worker has not looked yet.
func (e *engine) refresh(ctx context.Context, i *status.Integration) {
	known := e.vault.Keys()
	for _, s := range i.Sealed() {
		id, ok := vault.KeyOf(*s.Text)
		if !ok || slices.ContainsFunc(known, func(k vault.Key) bool { return k.ID == id }) {
			continue
		}
		if _, err := e.vault.Reload(ctx, e.accept); err != nil {
			e.app.log.Error("master keyset not taken, the former one stays in use", "err", err)
		}
		return
	}
}

// auditKey puts on record what is done to a key. It comes before what it
// records, where that can be: no key changes without a trace.
func (a *app) auditKey(ctx context.Context, what string, k vault.Key, why, detail string) error {
	text := detail
	if k.Print != "" {
		text = strings.TrimSuffix("fingerprint "+k.Print+", "+detail, ", ")
	}
	done := action{Actor: operator(), Action: what, Object: keyName(k.ID), Why: why, Detail: text, At: time.Now().UTC()}
	if err := a.audit(ctx, done); err != nil {
		return fmt.Errorf("put on record what is done to key %d: %w", k.ID, err)
	}
	return nil
}
