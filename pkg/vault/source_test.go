package vault

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
)

func TestTheValueOfTheVariableIsAPathOrAKeyset(t *testing.T) {
	for value, want := range map[string]Source{
		"":                        {},
		"  ":                      {},
		"/etc/usagebridge/keys":   {File: "/etc/usagebridge/keys"},
		" keys.json\n":            {File: "keys.json"},
		"{\"primaryKeyId\":1}":    {Inline: NewSecret(`{"primaryKeyId":1}`)},
		"\n {\"primaryKeyId\":1}": {Inline: NewSecret(`{"primaryKeyId":1}`)},
	} {
		got := ParseSource(value)
		if got.File != want.File || got.Inline.Reveal() != want.Inline.Reveal() || got.CreateIfMissing {
			t.Errorf("%q: got file %q inline %q, want file %q inline %q",
				value, got.File, got.Inline.Reveal(), want.File, want.Inline.Reveal())
		}
	}
}

func TestAMissingKeysetIsCreatedOnlyOnDemand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "here", "master.json")
	_, err := Open(Source{File: path})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), EnvMasterKeyset) {
		t.Fatalf("got error %v, want one that names %s and %s", err, path, EnvMasterKeyset)
	}
	if _, err := os.Lstat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got error %v, want a refusal that leaves nothing behind", err)
	}

	made, err := Open(Source{File: path, CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	assertMode(t, path, 0o600)
	assertMode(t, filepath.Dir(path), 0o700)
	assertAlone(t, path)
	ciphertext := seal(t, made, "s3cret")

	for _, create := range []bool{false, true} {
		again, err := Open(Source{File: path, CreateIfMissing: create})
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := again.Open(ciphertext, integration); err != nil || opened.Reveal() != "s3cret" {
			t.Errorf("create %t: got error %v, want the keyset that was made before", create, err)
		}
	}
}

func TestProcessesThatCreateAtOnceEndWithOneKeyset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "master.json")
	const openers = 16
	var wg sync.WaitGroup
	prints := make([]string, openers)
	for i := range openers {
		wg.Go(func() {
			v, err := Open(Source{File: path, CreateIfMissing: true})
			if err != nil {
				t.Error(err)
				return
			}
			prints[i] = v.Fingerprint()
		})
	}
	wg.Wait()
	for i, got := range prints {
		if got != prints[0] {
			t.Errorf("opener %d: got key %s, want %s like the first", i, got, prints[0])
		}
	}
	assertAlone(t, path)
}

func TestBadKeysetsAreRefused(t *testing.T) {
	good, err := GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	const secretValue = "GhDLpyOPr3jT9m8cJyDzc2VjcmV0"
	key := `{"keyData":{"typeUrl":"type.googleapis.com/google.crypto.tink.AesGcmKey","value":"` + secretValue +
		`","keyMaterialType":"SYMMETRIC"},"status":"ENABLED","keyId":7,"outputPrefixType":"TINK"}`
	cases := []struct{ name, content, want string }{
		{"empty", "", "is empty"},
		{"blank", " \n", "is empty"},
		{"not JSON", "s3cret words", "is not JSON"},
		{"cut", string(good[:len(good)/2]), "is not JSON"},
		{"a JSON text", `"` + secretValue + `"`, "is not a Tink keyset"},
		{"an empty object", "{}", "holds no key"},
		{"encrypted", `{"encryptedKeyset":"` + secretValue + `"}`, "is an encrypted Tink keyset"},
		{"without keys", `{"primaryKeyId":7,"key":[]}`, "holds no key"},
		{"without a primary key", `{"key":[` + key + `]}`, "has no primary key"},
		{"with a primary key that is not there", `{"primaryKeyId":8,"key":[` + key + `]}`, "has no primary key"},
		{"with a disabled primary key", `{"primaryKeyId":7,"key":[` + strings.Replace(key, "ENABLED", "DISABLED", 1) + `]}`, "has no primary key"},
		{"with a field too many", `{"primaryKeyId":7,"secret":"` + secretValue + `","key":[` + key + `]}`, "is not a Tink keyset"},
		{"with a bad key", `{"primaryKeyId":7,"key":[` + key + `]}`, "Tink keyset"},
		{"for another purpose", macKeyset(t), "not for AEAD"},
		{"huge", strings.Repeat(" ", maxKeysetBytes) + string(good), "larger than"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "master.json")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, create := range []bool{false, true} {
				_, err := Open(Source{File: path, CreateIfMissing: create})
				assertRefusal(t, err, c.want, path)
				if err != nil && (strings.Contains(err.Error(), secretValue) || strings.Contains(err.Error(), "s3cret")) {
					t.Errorf("got %q, which repeats content", err)
				}
			}
			if after, _ := os.ReadFile(path); string(after) != c.content {
				t.Error("the file was changed, want it left alone")
			}
			if strings.HasPrefix(c.content, "{") {
				_, err := Open(ParseSource(c.content))
				assertRefusal(t, err, c.want, EnvMasterKeyset)
			}
		})
	}
}

func TestAKeysetThatOthersMayUseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.json")
	if _, err := Open(Source{File: path, CreateIfMissing: true}); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Source{File: path, CreateIfMissing: true})
		assertRefusal(t, err, "chmod 600", path)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Source{File: path}); err != nil {
		t.Errorf("mode 0400: got error %v, want none", err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(Source{File: dir, CreateIfMissing: true})
	assertRefusal(t, err, "not a regular file", dir)

	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Source{File: pipe})
	assertRefusal(t, err, "not a regular file", pipe)

	dangling := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Source{File: dangling, CreateIfMissing: true})
	assertRefusal(t, err, "file does not exist", dangling)

	below := filepath.Join(pipe, "master.json")
	_, err = Open(Source{File: below, CreateIfMissing: true})
	assertRefusal(t, err, "not a directory", below)
}

func TestExactlyOneSourceIsWanted(t *testing.T) {
	_, err := Open(Source{CreateIfMissing: true})
	assertRefusal(t, err, "no master keyset", EnvMasterKeyset)
	_, err = Open(Source{File: "a", Inline: NewSecret("{}")})
	assertRefusal(t, err, "two master keysets", EnvMasterKeyset)
}

func assertRefusal(t *testing.T, err error, want, where string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), where) {
		t.Errorf("got error %v, want one that contains %q and names %q", err, want, where)
	}
}

func assertMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s: got mode %04o, want %04o", path, got, want)
	}
}

// assertAlone checks that no key was left behind under another name.
func assertAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("got %v, want %s alone", entries, filepath.Base(path))
	}
}

func macKeyset(t *testing.T) string {
	t.Helper()
	handle, err := keyset.NewHandle(mac.HMACSHA256Tag256KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		t.Fatal(err)
	}
	return text.String()
}
