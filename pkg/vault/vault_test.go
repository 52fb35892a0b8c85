package vault

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"pgregory.net/rapid"
)

const integration = "acme/msp-0042"

func newVault(t *testing.T) *Vault {
	t.Helper()
	data, err := GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(ParseSource(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func seal(t *testing.T, v *Vault, text string) string {
	t.Helper()
	ciphertext, err := v.Seal(NewSecret(text), integration)
	if err != nil {
		t.Fatal(err)
	}
	return ciphertext
}

func TestWhatIsSealedOpensAgain(t *testing.T) {
	v := newVault(t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(1, -1, -1).Draw(t, "text")
		aad := rapid.StringN(1, -1, -1).Draw(t, "aad")
		ciphertext, err := v.Seal(NewSecret(text), aad)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(ciphertext, "tink1:") || strings.ContainsAny(ciphertext, " \n") {
			t.Fatalf("got %q, want tink1: and base64 in one piece", ciphertext)
		}
		opened, err := v.Open(ciphertext, aad)
		if err != nil {
			t.Fatal(err)
		}
		if got := opened.Reveal(); got != text {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

func TestTheSameSecretIsSealedDifferentlyEachTime(t *testing.T) {
	v := newVault(t)
	if first, second := seal(t, v, "s3cret"), seal(t, v, "s3cret"); first == second {
		t.Errorf("got %q twice, want two ciphertexts: equal ones would show that two integrations share a token", first)
	}
}

func TestNothingIsNotSealed(t *testing.T) {
	v := newVault(t)
	if _, err := v.Seal(NewSecret(""), integration); err == nil {
		t.Error("an empty secret was sealed, want an error")
	}
	if _, err := v.Seal(NewSecret("s3cret"), ""); err == nil {
		t.Error("a secret was sealed for no integration, want an error: it would open everywhere")
	}
}

func TestACiphertextStaysClosed(t *testing.T) {
	v := newVault(t)
	good := seal(t, v, "s3cret-token")
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(good, formatTag))
	flipped := func(at int) string {
		bent := append([]byte(nil), raw...)
		bent[at] ^= 1
		return formatTag + base64.StdEncoding.EncodeToString(bent)
	}
	other := newVault(t)
	cases := []struct {
		name       string
		with       *Vault
		ciphertext string
		aad        string
		want       string
	}{
		{"for another integration", v, good, "acme/msp-0043", "copied from another integration"},
		{"for no integration", v, good, "", "copied from another integration"},
		{"with another keyset", other, good, integration, "primary key " + other.Fingerprint()},
		{"when the last byte is altered", v, flipped(len(raw) - 1), integration, "altered"},
		{"when the nonce is altered", v, flipped(6), integration, "altered"},
		{"when the key id is altered", v, flipped(4), integration, EnvMasterKeyset},
		{"when it is cut", v, good[:len(formatTag)+8], integration, EnvMasterKeyset},
		{"when it is empty", v, "", integration, `"tink1:"`},
		{"when only the tag is there", v, "tink1:", integration, EnvMasterKeyset},
		{"when it is clear text", v, "s3cret-token", integration, `"tink1:"`},
		{"when a newer version made it", v, "tink2:AAAA", integration, "newer version"},
		{"when it is not base64", v, "tink1:s3cret-token", integration, "not base64"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			opened, err := c.with.Open(c.ciphertext, c.aad)
			if !errors.Is(err, ErrSealed) {
				t.Fatalf("got error %v, want one that wraps ErrSealed", err)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", c.aad)) {
				t.Errorf("got %q, want it to name %q and to contain %q", err, c.aad, c.want)
			}
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "AAAA") {
				t.Errorf("got %q, which repeats content", err)
			}
			if !opened.IsZero() {
				t.Error("got a secret beside the error")
			}
		})
	}
}

func TestAnOlderKeyOfTheKeysetStillOpens(t *testing.T) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	before := openHandle(t, handle)
	ciphertext := seal(t, before, "s3cret")

	manager := keyset.NewManagerFromHandle(handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.SetPrimary(id); err != nil {
		t.Fatal(err)
	}
	rotated, err := manager.Handle()
	if err != nil {
		t.Fatal(err)
	}
	after := openHandle(t, rotated)
	opened, err := after.Open(ciphertext, integration)
	if err != nil || opened.Reveal() != "s3cret" {
		t.Errorf("got error %v, want what the older key sealed", err)
	}
	if got, want := after.Fingerprint(), fmt.Sprint(id); got != want || got == before.Fingerprint() {
		t.Errorf("got fingerprint %s, want the new primary key %s", got, want)
	}
	if _, err := before.Open(seal(t, after, "new"), integration); err == nil || !strings.Contains(err.Error(), "names key "+after.Fingerprint()) {
		t.Errorf("got error %v, want one that names the key the older keyset lacks", err)
	}
}

func openHandle(t *testing.T, handle *keyset.Handle) *Vault {
	t.Helper()
	var text strings.Builder
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		t.Fatal(err)
	}
	v, err := Open(ParseSource(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func FuzzOpenNeverPanicsAndNeverOpensForeignText(f *testing.F) {
	data, err := GenerateKeyset()
	if err != nil {
		f.Fatal(err)
	}
	v, err := Open(ParseSource(string(data)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("")
	f.Add("tink1:")
	f.Add("tink1:AQAAAAA=")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := v.Open(text, integration); !errors.Is(err, ErrSealed) {
			t.Errorf("%q: got error %v, want ErrSealed", text, err)
		}
	})
}
