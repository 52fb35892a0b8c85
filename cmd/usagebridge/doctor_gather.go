package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/statement"
	"github.com/usagebridge/usagebridge/pkg/vault"
)

// ledgerPatience bounds the reading of all ledgers: a million entries take a
// few seconds.
const ledgerPatience = time.Minute

// gather looks at everything there is, and changes nothing. What is not there
// is evidence as well: it never fails.
func gather(ctx context.Context, vendor string, offline bool) *evidence {
	e := &evidence{now: time.Now(), vendor: vendor, offline: offline}
	if e.config, e.configErr = loadConfig(); e.configErr != nil {
		return e
	}
	e.lookAtStore()
	e.lookAtConfig()
	if err := e.refuseToOpen(); err != nil {
		e.natsErr = err
	} else {
		e.lookAtServer(ctx)
	}
	e.lookAtKeys()
	return e
}

// lookAtConfig looks at the files that the variables name.
func (e *evidence) lookAtConfig() {
	e.files = e.config.files()
	for _, s := range e.config.settings() {
		if s.Source == fromEnvironment {
			e.given++
		}
	}
	if e.config.NATSCert != "" {
		if pair, err := tls.LoadX509KeyPair(e.config.NATSCert, e.config.NATSKey); err == nil {
			e.clientCertificateEnds = pair.Leaf.NotAfter // what is wrong with it keeps us from connecting
		}
	}
}

// lookAtStore chooses the directory as every command does: that of dev if dev
// is what runs.
func (e *evidence) lookAtStore() {
	c := &e.config
	key := ""
	if c.StoreKeyFile != "" {
		if key, e.storeErr = readSecretFile(c.StoreKeyFile); e.storeErr != nil {
			e.storeErr = fmt.Errorf("%s_STORE_KEY_FILE: %w", envPrefix, e.storeErr)
		}
	}
	if c.NATSURL != "" {
		return
	}
	e.store = broker.InspectStore(c.StoreDir, key)
	if e.store.URL == "" {
		if dev := broker.InspectStore(devDir(c.StoreDir), key); dev.URL != "" {
			e.store, c.StoreDir = dev, dev.Dir
		}
	}
	e.disk = diskOf(c.StoreDir)
}

// refuseToOpen says why no server of ours is to be started: the doctor makes
// no store, and opens none with another key.
func (e *evidence) refuseToOpen() error {
	switch {
	case e.config.NATSURL != "" || e.store.URL != "":
		return nil
	case !e.store.Exists:
		return errors.New("there is no store")
	case e.storeErr != nil:
		return e.storeErr
	}
	return errors.Join(e.store.KeyErr, e.store.Err)
}

// lookAtServer looks at NATS and at what is kept there.
func (e *evidence) lookAtServer(ctx context.Context) {
	// What the connection would log is what the findings say.
	a, err := openApp(ctx, e.config, slog.New(slog.DiscardHandler))
	if err != nil {
		e.natsErr = err
		return
	}
	defer a.close()
	e.own = a.embedded != nil
	e.nats = a.broker.Inspect(ctx, e.vendor)
	if len(e.nats.Vendors) == 0 {
		return
	}
	e.lookAtRecords(ctx, a)
	e.lookAtLedgers(ctx, a)
	if !e.offline {
		e.hosts = hostsOf(&e.config, e.integrations)
		callHosts(ctx, e.hosts)
	}
}

func (e *evidence) lookAtRecords(ctx context.Context, a *app) {
	records, err := a.vendorRecords(ctx)
	if err == nil {
		var all []status.Integration
		all, err = a.listIntegrations(ctx)
		for _, i := range all {
			if e.vendor == "" || i.Vendor == e.vendor {
				e.integrations = append(e.integrations, i)
			}
		}
	}
	e.recordsErr = err
	e.stopped = map[string]stop{}
	for name, r := range records {
		if r.Stopped != nil {
			e.stopped[name] = *r.Stopped
		}
	}
}

func (e *evidence) lookAtLedgers(ctx context.Context, a *app) {
	if e.recordsErr != nil {
		e.syncErr = e.recordsErr
		return
	}
	ctx, cancel := context.WithTimeout(ctx, ledgerPatience)
	defer cancel()
	e.sync, e.syncErr = a.syncOf(ctx, syncChoice{vendor: e.vendor})
}

// lookAtKeys opens the keyset and the statement key where they are, and makes
// neither.
func (e *evidence) lookAtKeys() {
	source := e.config.keyset()
	e.keyset.where = envPrefix + "_MASTER_KEYSET"
	if e.config.MasterKeyset == "" {
		e.keyset.where = source.File
	}
	e.keyset.closed = map[string]error{}
	if e.nats != nil {
		e.keyset.workers = readKeyNotes(e.nats.Notes)
	}
	keys, err := vault.Open(source)
	e.keyset.err = err
	if err == nil {
		e.keyset.keys, e.keyset.inClear = keys.Keys(), keys.Unwraps() && !keys.Wrapped()
		for n := range e.integrations {
			i := &e.integrations[n]
			if err := opens(keys, i); err != nil {
				e.keyset.closed[i.Name()] = err
			}
		}
	}
	e.statement.path, e.statement.made = e.config.statementKeyPath()
	key, err := statement.OpenKey(e.statement.path, false, vault.Exposed)
	if e.statement.err = err; err == nil {
		e.statement.id = key.ID()
	}
}

// opens tries all tokens of an integration.
func opens(keys *vault.Vault, i *status.Integration) error {
	for _, sealed := range []string{i.VendorToken, i.PartnerToken, i.OEMToken} {
		if sealed == "" {
			continue // the OEM token is a matter of choice
		}
		if _, err := keys.Open(sealed, i.Name()); err != nil {
			return err
		}
	}
	return nil
}
