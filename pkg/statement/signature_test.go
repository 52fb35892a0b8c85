package statement_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/statement"
)

func newKey(t *testing.T) *statement.Key {
	t.Helper()
	key, err := statement.OpenKey(filepath.Join(t.TempDir(), "new", "key.pem"), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// small is a signed document of a statement whose names have all that names
// may have.
func small(t *testing.T, key *statement.Key) (document, signature []byte) {
	t.Helper()
	s := made(t, statement.Statement{Vendor: "ac\"me", Organization: "MSP ÄÖ\u00a0\n", AsOf: noon.Add(5 * time.Nanosecond), Rows: []statement.Row{{Account: "a", Service: "s", Units: "1"}}})
	document, err := s.CSV()
	if err != nil {
		t.Fatal(err)
	}
	return document, key.Sign(s, document)
}

func TestASignatureSaysWhatItWasMadeFor(t *testing.T) {
	key := newKey(t)
	document, signature := small(t, key)
	got, err := statement.Verify(key.Public(), document, signature)
	if err != nil {
		t.Fatal(err)
	}
	if got.KeyID != key.ID() || got.Vendor != "ac\"me" || got.Organization != "MSP ÄÖ\u00a0\n" || !got.AsOf.Equal(noon.Add(5*time.Nanosecond)) {
		t.Errorf("got %+v, want what was signed", got)
	}
	if !strings.HasPrefix(string(signature), "usagebridge statement signature v1\nkey: "+key.ID()+"\n") {
		t.Errorf("got\n%s\nwant the header and the key first", signature)
	}
	if again := key.Sign(made(t, statement.Statement{Vendor: "v"}), document); bytes.Equal(again, signature) {
		t.Error("got one signature for two integrations, want two")
	}
}

func TestAnyByteThatIsChangedLostOrAddedIsFound(t *testing.T) {
	key := newKey(t)
	document, signature := small(t, key)
	verify := func(what string, document, signature []byte) {
		t.Helper()
		if _, err := statement.Verify(key.Public(), document, signature); !errors.Is(err, statement.ErrInvalid) {
			t.Errorf("%s: got %v, want %v", what, err, statement.ErrInvalid)
		}
	}
	for _, part := range []struct {
		name  string
		bytes []byte
		try   func(what string, altered []byte)
	}{
		{"file", document, func(what string, altered []byte) { verify(what, altered, signature) }},
		{"signature", signature, func(what string, altered []byte) { verify(what, document, altered) }},
	} {
		for i := range part.bytes {
			for bit := range 8 {
				altered := slices.Clone(part.bytes)
				altered[i] ^= 1 << bit
				part.try(fmt.Sprintf("byte %d of the %s is %q", i, part.name, altered[i]), altered)
			}
			part.try(fmt.Sprintf("byte %d of the %s is missing", i, part.name), slices.Delete(slices.Clone(part.bytes), i, i+1))
			part.try(fmt.Sprintf("the %s ends at %d", part.name, i), part.bytes[:i])
			part.try(fmt.Sprintf("a line break before byte %d of the %s", i, part.name), slices.Insert(slices.Clone(part.bytes), i, '\n'))
		}
		for _, behind := range []string{"\n", " ", "\x00", "x"} {
			part.try(fmt.Sprintf("%q behind the %s", behind, part.name), append(slices.Clone(part.bytes), behind...))
		}
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	key, other := newKey(t), newKey(t)
	document, signature := small(t, key)
	_, otherSignature := small(t, other)
	lines := strings.SplitAfter(string(signature), "\n")
	swap := func(line int, text string) []byte {
		changed := slices.Clone(lines)
		changed[line] = text
		return []byte(strings.Join(changed, ""))
	}
	for _, bad := range []struct {
		name                string
		document, signature []byte
		want                string
	}{
		{"another file", []byte("x"), signature, "the file is not the one that was signed: its sha256 is 2d711642"},
		{"another key", document, otherSignature, "signed with key \"" + other.ID() + "\", and the key to verify with is \"" + key.ID()},
		{"another as-of", document, swap(4, "as-of: 2026-11-20T12:00:00.000000006Z\n"), "has not signed what the signature says"},
		{"another organization", document, swap(3, "organization: \"o\"\n"), "has not signed what the signature says"},
		{"another key's name", document, swap(1, "key: "+other.ID()+"\n"), "was signed with key"},
		{"no time", document, swap(4, "as-of: yesterday\n"), "line 5 of the signature is damaged: want as-of"},
		{"a short sum", document, swap(5, "sha256: 00\n"), "line 6 of the signature is damaged: want sha256"},
		{"a line less", document, swap(2, ""), "want 7 whole lines"},
		{"a cut signature", document, signature[:len(signature)-1], "want 7 whole lines"},
		{"CRLF", document, bytes.ReplaceAll(signature, []byte("\n"), []byte("\r\n")), "first line"},
		{"another spelling", document, swap(2, "vendor: `ac\"me`\n"), "not spelt as it was made"},
		{"no signature at all", document, []byte("hello"), "it is no signature of a statement"},
		{"nothing", document, nil, "it is no signature of a statement"},
	} {
		if _, err := statement.Verify(key.Public(), bad.document, bad.signature); !errors.Is(err, statement.ErrInvalid) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want an error with %q", bad.name, err, bad.want)
		}
	}
	if _, err := statement.Verify(nil, document, signature); err == nil {
		t.Error("no key: got no error, want one")
	}
}

func TestAKeyIsMadeOnceAndReadByAllWhoStartAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "key.pem")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			if key, err := statement.OpenKey(path, true, nil); err == nil {
				ids[i] = key.ID()
			}
		})
	}
	wg.Wait()
	if slices.Sort(ids); ids[0] == "" || ids[0] != ids[len(ids)-1] {
		t.Errorf("got the keys %q, want one", ids)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("got mode %v (%v), want 0600", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("got %v beside the key (%v), want nothing", left, err)
	}
}

func TestAPublicKeyIsReadAsItWasWritten(t *testing.T) {
	key := newKey(t)
	text, err := key.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	public, err := statement.ParsePublicKey(text)
	if err != nil || !public.Equal(key.Public()) {
		t.Fatalf("got %v, %v; want the key's own half", public, err)
	}
	if id, err := statement.KeyID(public); err != nil || id != key.ID() {
		t.Errorf("got id %q, %v; want %q", id, err, key.ID())
	}
}

func TestNoVerbPrintsAPrivateKey(t *testing.T) {
	key := newKey(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, key); got != "statement.Key("+key.ID()+")" {
			t.Errorf("%s: got %q, want the id alone", verb, got)
		}
	}
}

func TestAKeyFileThatCannotServeIsRefusedWithWhatWouldServe(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, _ := x509.MarshalPKCS8PrivateKey(private)
	publicDER, _ := x509.MarshalPKIXPublicKey(public)
	good := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER})
	for _, bad := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "missing"), "openssl genpkey -algorithm ed25519"},
		{"a directory", dir, "is not a regular file"},
		{"readable by others", write("open", 0o644, good), "may be used by others than its owner (mode 0644); run chmod 600 on it"},
		{"empty", write("empty", 0o600, nil), "is not one PEM block; want one that begins with -----BEGIN PRIVATE KEY-----"},
		{"two keys", write("two", 0o600, append(good, good...)), "is not one PEM block"},
		{"the public half", write("public", 0o600, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})), "is a public key; signing wants the private one"},
		{"another kind", write("other", 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})), "is no ed25519 key in PKCS #8"},
	} {
		_, err := statement.OpenKey(bad.path, false, nil)
		if err == nil || !strings.Contains(err.Error(), bad.want) || !strings.Contains(err.Error(), bad.path) {
			t.Errorf("%s: got %v, want an error with the path and %q", bad.name, err, bad.want)
		}
		if missing := bad.name == "missing"; errors.Is(err, fs.ErrNotExist) != missing {
			t.Errorf("%s: got %v, want fs.ErrNotExist to be in it: %v", bad.name, err, missing)
		}
	}
	if _, err := statement.OpenKey(write("good", 0o600, good), false, nil); err != nil {
		t.Errorf("a good key: got %v", err)
	}
	trusting := func(fs.FileInfo) bool { return false }
	if _, err := statement.OpenKey(write("group", 0o640, good), false, trusting); err != nil {
		t.Errorf("a key whose file is called safe: got %v", err)
	}
	if _, err := statement.ParsePublicKey(good); err == nil || !strings.Contains(err.Error(), "is a private key; want the public one") {
		t.Errorf("a private key for a public one: got %v", err)
	}
}
