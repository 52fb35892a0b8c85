package vault

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"
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

// Whoever builds a format from parts must not build one that shows a secret.
func FuzzNoFormatShowsASecret(f *testing.F) {
	for _, format := range []string{"%v", "%+#v", "%[1]*d", "%!", "%x%s", "%[2]v", "%.3s", "%w", "%%%v", "%-08.3q"} {
		f.Add(format)
	}
	const text = "s3cret-token"
	secret := NewSecret(text)
	f.Fuzz(func(t *testing.T, format string) {
		if strings.Contains(format, text) {
			return
		}
		for _, value := range []any{secret, &secret, holder{secret, secret}, &holder{secret, secret}, []any{secret}, map[string]any{"k": &secret}} {
			assertHidden(t, format, fmt.Sprintf(format, value, value), text)
			assertHidden(t, format, fmt.Errorf(format, value).Error(), text)
		}
	})
}

func TestASecretIsHiddenFromEveryEncodingAndFromErrors(t *testing.T) {
	const text = "s3cret-token"
	secret := NewSecret(text)
	type record struct {
		Token Secret            `json:"token" yaml:"token" xml:"token"`
		Map   map[string]Secret `json:"map" yaml:"map" xml:"-"`
		Inner struct{ Token *Secret }
	}
	r := record{Token: secret, Map: map[string]Secret{"k": secret}}
	r.Inner.Token = &secret
	encodings := map[string]func() ([]byte, error){
		"json":          func() ([]byte, error) { return json.Marshal(r) },
		"json indented": func() ([]byte, error) { return json.MarshalIndent(&r, "", " ") },
		"xml":           func() ([]byte, error) { return xml.Marshal(r) },
		"yaml":          func() ([]byte, error) { return yaml.Marshal(r) },
		"template": func() ([]byte, error) {
			var b bytes.Buffer
			err := template.Must(template.New("").Parse("{{.}} {{.Token}} {{.Inner.Token}} {{printf `%q` .Map}}")).Execute(&b, r)
			return b.Bytes(), err
		},
		"an error": func() ([]byte, error) {
			return []byte(fmt.Errorf("call with %w: %v", errors.New("no"), r).Error()), nil
		},
		"a joined error": func() ([]byte, error) {
			return []byte(errors.Join(fmt.Errorf("%+v", r), fmt.Errorf("%#v", &r)).Error()), nil
		},
		"a panic": func() (text []byte, err error) {
			defer func() { text = fmt.Append(nil, recover()) }()
			panic(fmt.Sprint("with ", secret, r))
		},
	}
	for how, encode := range encodings {
		encoded, err := encode()
		if err != nil {
			t.Errorf("%s: %v", how, err)
		}
		assertHidden(t, how, string(encoded), text)
		if !strings.Contains(string(encoded), masked) {
			t.Errorf("%s: got %q, want it masked", how, encoded)
		}
	}
}
