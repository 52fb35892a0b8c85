package transit_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/usagebridge/usagebridge/pkg/vault/transit"
)

var _ registry.KMSClient = (*transit.Client)(nil)

const token = "hvs.s3cret"

// server plays the transit engine: its ciphertext is the plaintext, marked.
func server(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Plaintext  string `json:"plaintext"`
			Ciphertext string `json:"ciphertext"`
			Associated string `json:"associated_data"`
		}
		refuse := func(status int, why string) {
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"errors":[%q]}`, why)
		}
		mark := "vault:v1:" + base64.StdEncoding.EncodeToString([]byte(r.Host)) + ":"
		switch {
		case r.Header.Get("X-Vault-Token") != token:
			refuse(http.StatusForbidden, "permission denied")
		case r.Method != http.MethodPost || json.NewDecoder(r.Body).Decode(&body) != nil:
			refuse(http.StatusBadRequest, "bad request")
		case r.URL.Path == "/v1/team/transit/encrypt/bridge":
			_, _ = fmt.Fprintf(w, `{"data":{"ciphertext":%q}}`, mark+body.Associated+":"+body.Plaintext)
		case r.URL.Path == "/v1/team/transit/decrypt/bridge":
			plaintext, found := strings.CutPrefix(body.Ciphertext, mark+body.Associated+":")
			if !found {
				refuse(http.StatusBadRequest, "cipher: message authentication failed")
				return
			}
			_, _ = fmt.Fprintf(w, `{"data":{"plaintext":%q}}`, plaintext)
		case r.URL.Path == "/v1/team/transit/encrypt/away":
			http.Redirect(w, r, "https://other.example/", http.StatusTemporaryRedirect)
		case r.URL.Path == "/v1/team/transit/encrypt/nothing":
			_, _ = fmt.Fprint(w, `{"data":{}}`)
		case r.URL.Path == "/v1/team/transit/encrypt/page":
			_, _ = fmt.Fprint(w, `<html>`)
		default:
			refuse(http.StatusNotFound, "encryption key not found")
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func client(t *testing.T, s *httptest.Server, token string) *transit.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return transit.New(transit.Config{TokenFile: path, Transport: s.Client().Transport})
}

func uri(s *httptest.Server, name string) string {
	return "hcvault://" + strings.TrimPrefix(s.URL, "https://") + "/team/transit/keys/" + name
}

func TestAKeysetIsEncryptedAndDecryptedByVault(t *testing.T) {
	s := server(t)
	key, err := client(t, s, token).GetAEAD(uri(s, "bridge"))
	if err != nil {
		t.Fatal(err)
	}
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := handle.Write(keyset.NewJSONWriter(&file), key); err != nil {
		t.Fatal(err)
	}
	read, err := keyset.Read(keyset.NewJSONReader(&file), key)
	if err != nil || read.String() != handle.String() {
		t.Errorf("got %v and error %v, want %v", read, err, handle)
	}
	sealed, err := key.Encrypt([]byte("text"), []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := key.Decrypt(sealed, []byte("one")); err != nil || string(opened) != "text" {
		t.Errorf("got %q and error %v, want text", opened, err)
	}
	if _, err := key.Decrypt(sealed, []byte("two")); err == nil || !strings.Contains(err.Error(), "message authentication failed") {
		t.Errorf("got error %v, want Vault's own words", err)
	}
}

func TestWhatKeepsVaultFromEncryptingIsSaidWithoutSecrets(t *testing.T) {
	s := server(t)
	for _, test := range []struct{ what, token, key, want string }{
		{"a wrong token", "hvs.wrong", "bridge", "answered 403: permission denied"},
		{"no token", "", "bridge", "does not hold one word"},
		{"two words", "a b", "bridge", "does not hold one word"},
		{"an unknown key", token, "unknown", "team/transit/keys/unknown was answered 404: encryption key not found"},
		{"another host is named", token, "away", "answered 307"},
		{"an empty answer", token, "nothing", "no ciphertext"},
		{"a page", token, "page", "not JSON"},
	} {
		key, err := client(t, s, test.token).GetAEAD(uri(s, test.key))
		if err != nil {
			t.Fatal(err)
		}
		_, err = key.Encrypt([]byte("plain-s3cret"), nil)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "hvs.") {
			t.Errorf("%s: got error %v, want %q and no secret", test.what, err, test.want)
		}
	}
	s.Close()
	key, err := client(t, s, token).GetAEAD(uri(s, "bridge"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Decrypt([]byte("x"), nil); err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(s.URL, "https://")) {
		t.Errorf("got error %v, want the host that does not answer", err)
	}
	if _, err := transit.New(transit.Config{TokenFile: "/nowhere"}).GetAEAD("x"); err == nil || !strings.Contains(err.Error(), transit.WantURI) {
		t.Errorf("got error %v, want it to say what a URI looks like", err)
	}
}

func TestAURINamesAKeyOfVaultOrNone(t *testing.T) {
	for uri, want := range map[string]bool{
		"hcvault://vault.example/transit/keys/a":           true,
		"hcvault://vault.example:8200/team/transit/keys/a": true,
		"hcvault://[::1]:8200/transit/keys/a-b_c.d":        true,
		"hcvault://vault.example/keys/a":                   false,
		"hcvault://vault.example/transit/keys/":            false,
		"hcvault://vault.example/transit/keys/../../sys":   false,
		"hcvault://vault.example/transit/keys/..":          false,
		"hcvault://user@vault.example/transit/keys/a":      false,
		"hcvault://vault.example/transit/keys/a?x=1":       false,
		"http://vault.example/transit/keys/a":              false,
		"":                                                 false,
	} {
		if got := transit.New(transit.Config{}).Supported(uri); got != want || transit.Supports(uri) != want {
			t.Errorf("%q: got %t, want %t", uri, got, want)
		}
	}
}
