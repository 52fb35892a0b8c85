package vault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const verbs = "vsqxXdTptbcoOUeEfFgG"

// holder is how other packages keep a secret: fmt cannot call the methods of
// an unexported field.
type holder struct {
	Shown  Secret
	hidden Secret
}

func TestASecretNeverShows(t *testing.T) {
	const text = "s3cret-token"
	secret := NewSecret(text)
	values := []any{secret, &secret, holder{secret, secret}, &holder{secret, secret}, []Secret{secret},
		map[string]Secret{"k": secret}, Source{Inline: secret}, fmt.Errorf("wrapped %v", secret)}
	for _, value := range values {
		for _, flag := range []string{"", "+", "#", " ", "0", "-20", "20"} {
			for _, verb := range verbs {
				format := "%" + flag + string(verb)
				assertHidden(t, format, fmt.Sprintf(format, value), text)
			}
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		assertHidden(t, "json", string(encoded), text)
		for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
			"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"slog json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var log bytes.Buffer
			slog.New(handler(&log)).Info("call", "value", value, slog.Group("g", "value", value))
			assertHidden(t, name, log.String(), text)
		}
	}
}

func assertHidden(t *testing.T, how, got, secret string) {
	t.Helper()
	hex := fmt.Sprintf("%x", secret)
	if strings.Contains(got, secret) || strings.Contains(strings.ToLower(got), hex) {
		t.Errorf("%s: got %q, which shows the secret", how, got)
	}
}

func TestASecretPrintsThreeStars(t *testing.T) {
	for _, secret := range []Secret{{}, NewSecret(""), NewSecret("s3cret")} {
		for _, verb := range "vsqxXdt" { // fmt answers %T and %p itself
			if got := fmt.Sprintf("%#"+string(verb), secret); got != "***" {
				t.Errorf("%%#%c: got %q, want ***", verb, got)
			}
		}
		encoded, _ := json.Marshal(struct{ Token Secret }{secret})
		text, _ := secret.MarshalText()
		for how, got := range map[string]string{
			"String": secret.String(), "GoString": secret.GoString(), "MarshalText": string(text),
			"LogValue": secret.LogValue().String(), "%v": fmt.Sprintf("%v", secret), "%#v": fmt.Sprintf("%#v", secret), //nolint:gocritic // the verb is what is tested
		} {
			if got != "***" {
				t.Errorf("%s: got %q, want ***", how, got)
			}
		}
		if got := string(encoded); got != `{"Token":"***"}` {
			t.Errorf("json: got %s, want ***", got)
		}
	}
}

func TestASecretIsRevealedOnlyOnDemand(t *testing.T) {
	if got := NewSecret("s3cret").Reveal(); got != "s3cret" {
		t.Errorf("got %q, want s3cret", got)
	}
	var zero Secret
	if zero.Reveal() != "" || !zero.IsZero() || !NewSecret("").IsZero() || NewSecret("x").IsZero() {
		t.Error("got a zero secret that is not zero, or the other way round")
	}
}

func TestAVaultNeverShowsItsKeys(t *testing.T) {
	data, err := GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(ParseSource(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	var keyset struct {
		Key []struct{ KeyData struct{ Value []byte } }
	}
	if err := json.Unmarshal(data, &keyset); err != nil {
		t.Fatal(err)
	}
	material := keyset.Key[0].KeyData.Value
	key := string(material[len(material)-32:])
	for _, value := range []any{v, *v, struct{ v *Vault }{v}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			got := fmt.Sprintf(format, value)
			assertHidden(t, format, got, key)
			assertHidden(t, format, got, strings.Trim(fmt.Sprint([]byte(key)), "[]")) //nolint:staticcheck // the numbers that fmt makes of bytes
		}
	}
	for _, format := range []string{"%v", "%#v", "%d"} {
		if got, want := fmt.Sprintf(format, v), "vault.Vault(key "+v.Fingerprint()+")"; got != want {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}
}
