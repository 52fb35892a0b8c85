package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tink-crypto/tink-go/v2/testing/fakekms"
)

// keysetFile makes a keyset's file and gives its path.
func keysetFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master.json")
	if _, err := Open(Source{File: path, CreateIfMissing: true}); err != nil {
		t.Fatal(err)
	}
	return path
}

func edit(t *testing.T, source Source) *File {
	t.Helper()
	f, err := Edit(source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func open(t *testing.T, path string) *Vault {
	t.Helper()
	v, err := Open(Source{File: path})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func states(v *Vault) (list []KeyState) {
	for _, k := range v.Keys() {
		list = append(list, k.State)
	}
	return list
}

func TestAKeyGoesFromNewToPrimaryToOldAndAway(t *testing.T) {
	path := keysetFile(t)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	first := open(t, path)
	former := seal(t, first, "s3cret")
	f := edit(t, Source{File: path})
	k, err := f.Add()
	if err != nil {
		t.Fatal(err)
	}
	added := open(t, path)
	if got := fmt.Sprint(states(added)); got != "[primary new]" || k.State != Fresh || added.Primary() != first.Primary() {
		t.Fatalf("after Add: got %s, added %+v, primary %+v; want the former primary and a new key", got, k, added.Primary())
	}
	if err := f.Promote(k.ID); err != nil {
		t.Fatal(err)
	}
	promoted := open(t, path)
	if got := fmt.Sprint(states(promoted)); got != "[old primary]" || promoted.Primary().Print != k.Print {
		t.Fatalf("after Promote: got %s with primary %+v, want [old primary] with %+v", got, promoted.Primary(), k)
	}
	if _, err := added.Open(seal(t, promoted, "s3cret"), integration); err != nil {
		t.Errorf("who knows the new key does not open what it seals: %v", err)
	}
	if err := f.Retire(k.ID); err == nil || !strings.Contains(err.Error(), "primary") {
		t.Errorf("got error %v, want the primary key not retired", err)
	}
	if err := f.Retire(first.Primary().ID); err != nil {
		t.Fatal(err)
	}
	retired := open(t, path)
	if got := fmt.Sprint(states(retired)); got != "[primary]" {
		t.Errorf("after Retire: got %s, want [primary]", got)
	}
	if _, err := retired.Open(former, integration); !errors.Is(err, ErrSealed) {
		t.Errorf("got error %v, want %v: its key is retired", err, ErrSealed)
	}
	for _, id := range []uint32{0, 1, first.Primary().ID} {
		if f.Promote(id) == nil || f.Retire(id) == nil {
			t.Errorf("key %d, which is not there, was promoted or retired", id)
		}
	}
	assertMode(t, path, 0o400)
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestAKeysetIsChangedBehindALinkAndByOneAtATime(t *testing.T) {
	path := keysetFile(t)
	link := filepath.Join(t.TempDir(), "link.json")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(filepath.Dir(path), ".keyset-left")
	if err := os.WriteFile(left, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(left, time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	f := edit(t, Source{File: link})
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got error %v, want what a crash left behind removed", err)
	}
	if _, err := Edit(Source{File: path}); !errors.Is(err, ErrLocked) {
		t.Errorf("got error %v, want %v", err, ErrLocked)
	}
	if _, err := f.Add(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("got %v and error %v, want the link still one", info, err)
	}
	if got := fmt.Sprint(states(open(t, path))); got != "[primary new]" {
		t.Errorf("behind the link: got %s, want [primary new]", got)
	}
	_ = f.Close()
	if _, err := edit(t, Source{File: path}).Add(); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeChangedIsRefused(t *testing.T) {
	_, err := Edit(Source{Inline: NewSecret("{}")})
	assertRefusal(t, err, "inline", "sets the variable")
	missing := filepath.Join(t.TempDir(), "none.json")
	_, err = Edit(Source{File: missing})
	assertRefusal(t, err, "no such file", missing)
	path := keysetFile(t)
	f := edit(t, Source{File: path})
	for name, content := range map[string]string{"is not JSON": "x", "is empty": ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, addErr := f.Add()
		for _, err := range []error{addErr, f.Promote(1), f.Retire(1), f.Wrap()} {
			assertRefusal(t, err, name, path)
		}
		if data, _ := os.ReadFile(path); string(data) != content {
			t.Errorf("got %q, want the broken file left as it is", data)
		}
	}
}

// place is records in memory (Place).
type place struct {
	records map[string][]Field
	busy    func(key string) // called once between reading and storing
	err     error
}

func (p *place) Name() string { return "RECORDS" }

func (p *place) Each(_ context.Context, yield func(string, []Field) error) error {
	for key, fields := range p.records {
		if err := yield(key, copied(fields)); err != nil {
			return err
		}
	}
	return p.err
}

func (p *place) Change(_ context.Context, key string, change func([]Field) error) error {
	for {
		before := copied(p.records[key])
		after := copied(before)
		if err := change(after); err != nil {
			return err
		}
		if busy := p.busy; busy != nil {
			p.busy = nil
			busy(key)
		}
		same := true
		for n := range before {
			same = same && *before[n].Text == *p.records[key][n].Text
		}
		if same {
			p.records[key] = after
			return nil
		}
	}
}

func copied(fields []Field) []Field {
	list := make([]Field, len(fields))
	for n, f := range fields {
		text := *f.Text
		list[n] = Field{Name: f.Name, Owner: f.Owner, Text: &text}
	}
	return list
}

func field(name, text string) Field { return Field{Name: name, Owner: integration, Text: &text} }

func TestEverythingIsSealedAnewOrNamed(t *testing.T) {
	path := keysetFile(t)
	first := open(t, path)
	foreign := newVault(t)
	p := &place{records: map[string][]Field{
		"one": {field("a", seal(t, first, "1")), field("b", seal(t, first, "2"))},
		"two": {field("c", seal(t, first, "3")), field("d", seal(t, foreign, "4"))},
	}}
	f := edit(t, Source{File: path})
	k, err := f.Add()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Promote(k.ID); err != nil {
		t.Fatal(err)
	}
	v := open(t, path)
	p.records["new"] = []Field{field("e", seal(t, v, "5"))}
	p.busy = func(key string) { p.records[key][0] = field("x", seal(t, first, "changed meanwhile")) }
	calls := 0
	done, err := v.Reseal(t.Context(), p, func() error { calls++; return nil })
	if err != nil || done.Records != 2 || done.Secrets != 3 || len(done.Closed) != 1 || calls != 2 {
		t.Errorf("got %+v, error %v after %d calls; want 3 secrets in 2 records sealed anew, and one closed", done, err, calls)
	}
	if want := "d: "; len(done.Closed) > 0 && (!strings.HasPrefix(done.Closed[0].Error(), want) || !errors.Is(done.Closed[0], ErrSealed)) {
		t.Errorf("got %v, want the field d named", done.Closed[0])
	}
	tally, err := Count(t.Context(), p)
	want := Tally{k.ID: 4, foreign.Primary().ID: 1}
	if err != nil || tally.String() != want.String() {
		t.Errorf("got %v sealed and error %v, want %v", tally, err, want)
	}
	if _, err := v.Reseal(t.Context(), p, nil); err != nil {
		t.Error(err)
	}
	p.records["one"][0] = field("a", seal(t, first, "1"))
	errEnough := errors.New("enough")
	if _, err := v.Reseal(t.Context(), p, func() error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("got error %v, want %v", err, errEnough)
	}
	p.err = errEnough
	if _, err := v.Reseal(t.Context(), p, nil); !errors.Is(err, errEnough) || !strings.Contains(err.Error(), "RECORDS") {
		t.Errorf("got error %v, want one of the place RECORDS", err)
	}
}

func TestAVaultFollowsItsFileAndKeepsWhatItHasWhenThatIsBroken(t *testing.T) {
	path := keysetFile(t)
	right, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	v := open(t, path)
	p := &place{records: map[string][]Field{"one": {field("a", seal(t, v, "1"))}}}
	accept := func(ctx context.Context, next *Vault) error { return v.CheckLoss(ctx, next, p) }
	write := func(data []byte) {
		t.Helper()
		aside := path + ".aside" // as whoever replaces a copy has to
		if err := errors.Join(os.WriteFile(aside, data, 0o600), os.Rename(aside, path)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var heard []string
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		go v.Follow(ctx, time.Second, accept, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				heard = append(heard, fmt.Sprint(states(v)))
				return
			}
			heard = append(heard, err.Error())
		})
		step := func(change func(), want string, complains bool) {
			t.Helper()
			mu.Lock()
			heard = nil
			mu.Unlock()
			change()
			<-time.After(3500 * time.Millisecond) // each is said once
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(heard) != 1 || !strings.Contains(heard[0], want) || (v.Complaint() != nil) != complains {
				t.Errorf("got %q and complaint %v, want %q once, and a complaint: %t", heard, v.Complaint(), want, complains)
			}
			if _, err := v.Open(*p.records["one"][0].Text, integration); err != nil {
				t.Errorf("what is stored does not open: %v", err)
			}
		}
		step(func() { write([]byte("{")) }, "is not JSON", true)
		step(func() { write(foreign) }, "it lacks key "+v.Fingerprint()+" (1 secret)", true)
		step(func() { _ = os.Remove(path) }, "file does not exist", true)
		step(func() { write(right) }, "[primary]", false)
		step(func() {
			f, err := Edit(Source{File: path})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if _, err := f.Add(); err != nil {
				t.Fatal(err)
			}
		}, "[primary new]", false)
		stop()
		synctest.Wait()
	})
	inline, err := Open(ParseSource(string(right)))
	if err != nil {
		t.Fatal(err)
	}
	inline.Follow(t.Context(), time.Nanosecond, nil, nil) // returns: it cannot change
	if taken, err := inline.Reload(t.Context(), nil); taken || err != nil {
		t.Errorf("inline: got %t and error %v, want nothing to reload", taken, err)
	}
}

func TestAWorkerThatSleptThroughARotationTakesTheNewKeyset(t *testing.T) {
	path := keysetFile(t)
	slept := open(t, path)
	awake, err := GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, awake, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &place{records: map[string][]Field{"one": {field("a", seal(t, open(t, path), "1"))}}}
	taken, err := slept.Reload(t.Context(), func(ctx context.Context, next *Vault) error { return slept.CheckLoss(ctx, next, p) })
	if !taken || err != nil {
		t.Fatalf("got %t and error %v, want the keyset taken that opens what is stored", taken, err)
	}
	if _, err := slept.Open(*p.records["one"][0].Text, integration); err != nil {
		t.Error(err)
	}
}

func TestAKeysetIsEncryptedByAKeyManagementServiceWhereItLies(t *testing.T) {
	uri, err := fakekms.NewKeyURI()
	if err != nil {
		t.Fatal(err)
	}
	kms, err := fakekms.NewClient(uri)
	if err != nil {
		t.Fatal(err)
	}
	path := keysetFile(t)
	inClear, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	with := Source{File: path, KeyURI: uri, KMS: kms}
	worker, err := Open(with) // in clear still
	if err != nil || worker.Wrapped() || !worker.Unwraps() {
		t.Fatalf("got %v and error %v, want a keyset in clear read all the same", worker, err)
	}
	sealed := seal(t, worker, "s3cret")
	f := edit(t, with)
	if err := f.Wrap(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(`"encryptedKeyset"`)) || bytes.Contains(data, []byte(`"keyData"`)) {
		t.Fatalf("got %s and error %v, want the keyset encrypted", data, err)
	}
	assertMode(t, path, 0o600)
	if taken, err := worker.Reload(t.Context(), nil); !taken || err != nil || !worker.Wrapped() {
		t.Errorf("got %t and error %v, want a worker that runs to take it", taken, err)
	}
	if _, err := worker.Open(sealed, integration); err != nil {
		t.Error(err)
	}
	if _, err := f.Add(); err != nil {
		t.Fatal(err)
	}
	if data, _ = os.ReadFile(path); !bytes.Contains(data, []byte(`"encryptedKeyset"`)) {
		t.Errorf("got %s, want it still encrypted when it is changed", data)
	}
	_, err = Open(Source{File: path})
	assertRefusal(t, err, "encrypted", EnvMasterKeyURI)
	other, err := fakekms.NewKeyURI()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(Source{File: path, KeyURI: other, KMS: kms})
	assertRefusal(t, err, EnvMasterKeyURI, path)
	_, err = Open(Source{File: path, KeyURI: "nokms://x"})
	assertRefusal(t, err, "no key management service is known", EnvMasterKeyURI)
	made := filepath.Join(t.TempDir(), "made.json")
	if _, err := Open(Source{File: made, KeyURI: uri, KMS: kms, CreateIfMissing: true}); err != nil {
		t.Fatal(err)
	}
	if data, _ = os.ReadFile(made); !bytes.Contains(data, []byte(`"encryptedKeyset"`)) {
		t.Errorf("got %s, want a new keyset encrypted from the start", data)
	}
	if bytes.Equal(inClear, data) {
		t.Error("got the same keyset twice")
	}
}

func TestAMarkTellsSecretsApartAndNothingElse(t *testing.T) {
	v := newVault(t)
	mark := v.Mark(NewSecret("1234"), integration)
	if one, other := v.Mark(NewSecret("1 2"), "acme/m"), v.Mark(NewSecret("2"), "acme/m 1"); one == other {
		t.Errorf("got %q for both: where the owner ends makes no difference", one)
	}
	if len(mark) != 16 || strings.Trim(mark, "0123456789abcdef") != "" {
		t.Errorf("got %q, want 16 hexadecimal digits", mark)
	}
	if again := v.Mark(NewSecret("1234"), integration); again != mark {
		t.Errorf("got %q and %q for the same secret", mark, again)
	}
	for what, other := range map[string]string{
		"another secret":                 v.Mark(NewSecret("1235"), integration),
		"another owner":                  v.Mark(NewSecret("1234"), "acme/msp-0043"),
		"a blank moved to the owner":     v.Mark(NewSecret("34"), integration+" 12"),
		"a keyset that nobody else has":  newVault(t).Mark(NewSecret("1234"), integration),
		"the print of the key that made": v.Primary().Print,
	} {
		if other == mark {
			t.Errorf("%s: got the same mark %q", what, mark)
		}
	}
}

// info is a file of that mode and owner.
type info struct {
	fs.FileInfo

	mode  fs.FileMode
	owner uint32
}

func (i info) Mode() fs.FileMode { return i.mode }
func (i info) Sys() any          { return &syscall.Stat_t{Uid: i.owner} }

func TestAFileOfRootMayBeReadByItsGroupUnlessTheReaderIsRoot(t *testing.T) {
	for _, test := range []struct {
		mode   fs.FileMode
		owner  uint32
		reader int
		want   bool
	}{
		{0o600, 0, 1000, false}, {0o400, 0, 0, false}, {0o600, 1000, 1000, false},
		{0o440, 0, 1000, false}, {0o640, 0, 1000, false},
		{0o440, 0, 0, true}, {0o640, 0, 0, true}, {0o440, 1000, 1000, true}, {0o440, 1000, 0, true},
		{0o460, 0, 1000, true}, {0o450, 0, 1000, true}, {0o444, 0, 1000, true}, {0o404, 0, 1000, true}, {0o402, 0, 1000, true},
		{0o440, 0, -1, true}, // a system without users
	} {
		if got := exposed(info{mode: test.mode, owner: test.owner}, test.reader); got != test.want {
			t.Errorf("mode %04o of user %d, read by %d: got exposed %t, want %t", test.mode, test.owner, test.reader, got, test.want)
		}
	}
}
