package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/usagebridge/usagebridge/pkg/vault"
)

// diskFacts is the file system of the store directory.
type diskFacts struct {
	free, size uint64 // bytes; free: for us, not for root
	err        error
}

// fileFacts is a file that the configuration names.
type fileFacts struct {
	variable, path string
	exposed        bool // others than those who should may use a secret
	mode           fs.FileMode
	empty          bool
	err            error
}

// keysetFacts is what the master keyset opens.
type keysetFacts struct {
	where  string
	err    error
	closed map[string]error // by integration, why a token cannot be opened
	keys   []vault.Key
	// inClear says that it is not encrypted, although a key is named for that.
	inClear bool
	// workers is what those that are alive tell of theirs, by name.
	workers map[string]*keyNote
}

// keyFacts is the key that signs statements.
type keyFacts struct {
	path string
	id   string
	err  error
	made bool // on first use, so that there may be none yet
}

// How full may be how full: of a disk, of a stream, of an account.
const (
	nearlyFull = 0.80
	asFull     = 0.95
	// diskFloor is what a disk should have left whatever its size: an hour of a
	// large vendor's events, and room for the server to compact its files.
	diskFloor = 1 << 30
)

func localChecks() []check {
	return []check{
		{
			id: "configuration.valid", title: "environment",
			why:   "A worker refuses to start with a setting that it does not understand.",
			judge: judgeConfig,
		},
		{
			id: "configuration.files", title: "named files", needs: needConfig,
			why:   "A worker cannot start without them, and whoever can read a secret can use it.",
			judge: judgeFiles,
		},
		{
			id: "configuration.inform", title: "Inform webhook", needs: needConfig,
			why:   "Without the partner's hints a mapped integration is noticed by the next probe alone.",
			judge: judgeInform,
		},
		{
			id: "store.present", title: "store", needs: needConfig,
			why:   "The store holds the events and the ledger: without it there is nothing to deliver from.",
			judge: judgeStore,
		},
		{
			id: "store.key", title: "store key", needs: needEmbeddedStore,
			why:   "With another key the server would see an empty store, and whoever set it up again would destroy the old one.",
			judge: judgeStoreKey,
		},
		{
			id: "store.disk", title: "disk space", needs: needLocalDisk,
			why:   "A store on a full disk refuses every event and every write to the ledger, and works again only after a restart.",
			judge: judgeDisk,
		},
		{
			id: "store.keyset", title: "master keyset", needs: needConfig,
			why:   "The partner's tokens are sealed with it: without the right one nothing can be sent, and no backup of the store replaces it.",
			judge: judgeKeyset,
		},
		{
			id: "store.statement_key", title: "statement key", needs: needConfig,
			why:   "Statements signed with another key do not verify with the public key that was handed out.",
			judge: judgeStatementKey,
		},
	}
}

func needEmbeddedStore(e *evidence) string {
	if reason := needLocalDisk(e); reason != "" {
		return reason
	}
	if !e.store.Exists {
		return "there is no store yet"
	}
	return ""
}

func needLocalDisk(e *evidence) string {
	if reason := needConfig(e); reason != "" {
		return reason
	}
	if e.config.NATSURL != "" {
		return "the NATS server keeps the data, not this machine"
	}
	return ""
}

func judgeConfig(e *evidence) []symptom {
	if e.configErr != nil {
		return one(stepFailed, "set the variables named; `usagebridge config` shows all, deploy/reference.md explains them",
			"%s", strings.ReplaceAll(e.configErr.Error(), "\n", "; "))
	}
	return one(stepOK, "", "%s set, the others have their defaults", plural(e.given, "variable", "variables"))
}

func judgeFiles(e *evidence) []symptom {
	var found []symptom
	note := func(f *fileFacts, v verdict, mend, format string, args ...any) {
		found = append(found, symptom{verdict: v, object: f.variable, observed: fmt.Sprintf(format, args...), mend: mend})
	}
	for n := range e.files {
		f := &e.files[n]
		switch {
		case errors.Is(f.err, fs.ErrNotExist):
			note(f, stepFailed, "put the file there, or set "+f.variable+" to its path", "%s does not exist", f.path)
		case f.err != nil:
			note(f, stepFailed, "let the user that the worker runs as read "+f.path, "%v", f.err)
		case f.empty:
			note(f, stepFailed, "write the secret into "+f.path, "%s is empty", f.path)
		case f.exposed:
			note(f, stepWarning, "`chmod 600 "+f.path+"`", "others than its owner may use %s (mode %04o)", f.path, f.mode.Perm())
		}
	}
	if len(e.files) == 0 {
		return one(stepSkipped, "", "no variable names a file")
	}
	return orFine(found, "%s readable", plural(len(e.files), "file", "files"))
}

func judgeInform(e *evidence) []symptom {
	if e.config.InformSecretFile == "" {
		return one(stepSkipped, "", "not configured (%s_INFORM_SECRET_FILE): probes alone, every %s to %s", envPrefix, span(e.config.ProbeMin), span(e.config.ProbeMax))
	}
	return one(stepOK, "", "configured")
}

func judgeStore(e *evidence) []symptom {
	switch {
	case e.config.NATSURL != "":
		return one(stepOK, "", "on the NATS server that %s_NATS_URL names", envPrefix)
	case !e.store.Exists:
		return one(stepFailed, fmt.Sprintf("`usagebridge init --vendor NAME`, or set %s_STORE_DIR or %s_NATS_URL to where it is", envPrefix, envPrefix),
			"nothing was ever set up on %s", e.store.Dir)
	case e.store.Err != nil:
		return one(stepFailed, "let the user that the worker runs as read and write "+e.store.Dir, "%v", e.store.Err)
	case e.store.URL != "":
		return one(stepOK, "", "%s, open in another process", e.store.Dir)
	}
	return one(stepOK, "", "%s, not in use", e.store.Dir)
}

func judgeStoreKey(e *evidence) []symptom {
	mend := "set " + envPrefix + "_STORE_KEY_FILE to the file with the key that the store was made with; never run init on another"
	switch {
	case e.storeErr != nil:
		return one(stepFailed, mend, "%v", e.storeErr)
	case e.store.KeyErr != nil:
		return one(stepFailed, mend, "%v", e.store.KeyErr)
	case e.config.StoreKeyFile == "":
		return one(stepOK, "", "the store is not encrypted, and no key is given")
	}
	return one(stepOK, "", "it is the key that the store was made with")
}

func judgeDisk(e *evidence) []symptom {
	d := e.disk
	if d.err != nil {
		return one(stepSkipped, "", "%v", d.err)
	}
	used := 1 - float64(d.free)/float64(max(d.size, 1))
	text := fmt.Sprintf("%s free of %s (%.0f %% used)", byteSize(d.free), byteSize(d.size), 100*used)
	mend := "make room on the disk of " + e.store.Dir + ", or stop the worker and move the directory (USAGEBRIDGE_STORE_DIR)"
	switch {
	case used >= asFull && d.free < 4*diskFloor || d.free < diskFloor/4:
		return one(stepFailed, mend, "%s", text)
	case used >= nearlyFull && d.free < 16*diskFloor || d.free < diskFloor:
		return one(stepWarning, mend, "%s", text)
	}
	return one(stepOK, "", "%s", text)
}

func judgeKeyset(e *evidence) []symptom {
	k := &e.keyset
	if k.err != nil {
		missing := errors.Is(k.err, fs.ErrNotExist)
		if missing && e.config.MasterKeyset == "" && e.recordsErr == nil && e.nats != nil && len(e.integrations) == 0 {
			return one(stepSkipped, "", "none yet: it is made with the first integration")
		}
		if missing && e.nats == nil {
			return one(stepSkipped, "", "there is none at %s, and no integration could be read that needs one", k.where)
		}
		return one(stepFailed, "set "+envPrefix+"_MASTER_KEYSET to the keyset that the integrations were added with, or restore it", "%v", k.err)
	}
	found := judgeRotation(k)
	for _, i := range e.integrations {
		if err := k.closed[i.Name()]; err != nil {
			found = append(found, symptom{
				verdict: stepFailed, object: i.Name(), observed: err.Error(),
				mend: "give the right keyset (" + envPrefix + "_MASTER_KEYSET), or `usagebridge integrations credentials set " + i.Name() + " …`",
			})
		}
	}
	if len(found) == 0 && (e.nats == nil || e.recordsErr != nil) {
		return one(stepOK, "", "readable; no integration could be read to try it on")
	}
	return orFine(found, "opens the tokens of %s", plural(len(e.integrations), "integration", "integrations"))
}

// judgeRotation looks at what is between two keysets.
func judgeRotation(k *keysetFacts) []symptom {
	var found []symptom
	note := func(object, mend, format string, args ...any) {
		found = append(found, symptom{verdict: stepWarning, object: object, observed: fmt.Sprintf(format, args...), mend: mend})
	}
	if slices.ContainsFunc(k.keys, func(key vault.Key) bool { return key.State == vault.Fresh || key.State == vault.Old }) {
		note("", "`usagebridge keys rotate` goes on with it", "a rotation has not come to its end: %s", keyList(k.keys))
	}
	if k.inClear {
		note("", "`usagebridge keys wrap`", "the file is in clear, although %s names a key to encrypt it with", vault.EnvMasterKeyURI)
	}
	for _, name := range slices.Sorted(maps.Keys(k.workers)) {
		worker := k.workers[name]
		switch {
		case worker == nil:
			note(name, "update it, or stop it before keys are rotated", "it does not tell which keys it knows")
		case worker.Complaint != "":
			note(name, "put the right keyset into its file; it goes on with the one that it has until it is restarted",
				"it does not use the keyset in its file: %s", worker.Complaint)
		}
	}
	return found
}

func judgeStatementKey(e *evidence) []symptom {
	k := &e.statement
	switch {
	case k.err == nil:
		return one(stepOK, "", "key %s", k.id)
	case errors.Is(k.err, fs.ErrNotExist) && k.made:
		return one(stepSkipped, "", "none yet: it is made with the first statement")
	}
	return one(stepFailed, "set "+envPrefix+"_STATEMENT_KEY_FILE to the key that statements are signed with, mode 0600", "%v", k.err)
}

// lookAtFile reads what a variable names, and nothing of its content.
func lookAtFile(variable, path string) fileFacts {
	f, secret := fileFacts{variable: variable, path: path}, false
	for _, word := range []string{"SECRET", "KEY", "CREDS"} {
		secret = secret || strings.Contains(strings.TrimPrefix(variable, envPrefix), word)
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file (%s)", path, info.Mode())
	}
	if err != nil {
		f.err = err
		return f
	}
	f.mode, f.empty, f.exposed = info.Mode(), info.Size() == 0, secret && vault.Exposed(info)
	file, err := os.Open(path)
	if err == nil {
		err = file.Close()
	}
	f.err = err
	return f
}

// briefly rounds a duration as people say it.
func briefly(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// span writes a length of time as people say it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return plural(int(d/day), "day", "days")
	}
	return durationSetting(d)
}

// durationSetting writes a duration as variables take it, without the units
// that are zero.
func durationSetting(d time.Duration) string {
	text := d.String()
	if short, zero := strings.CutSuffix(text, "m0s"); zero {
		text = short + "m"
	}
	if short, zero := strings.CutSuffix(text, "h0m"); zero {
		text = short + "h"
	}
	return text
}
