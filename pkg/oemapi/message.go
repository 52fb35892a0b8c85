package oemapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxMessageBytes   = 512 // conventions: bodies are cut at 512 bytes
	maxRequestIDBytes = 128
	// minRedactedBytes: something shorter is no secret, and masking it would tear
	// holes into every message that happens to contain those letters.
	minRedactedBytes = 4
)

// redactor makes foreign text fit for an error, a log line and a terminal.
type redactor struct{ masks *strings.Replacer }

// newRedactor masks the given secrets in each spelling in which a server, a proxy
// or our own HTTP library may echo them.
func newRedactor(secrets ...Secret) redactor {
	var forms []string
	for _, secret := range secrets {
		if text := secret.Reveal(); len(text) >= minRedactedBytes {
			forms = append(forms, spellings(text)...)
		}
	}
	// At one place the first match wins: the longest must come first.
	slices.SortFunc(forms, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	var pairs []string
	for _, form := range slices.Compact(forms) {
		pairs = append(pairs, form, masked)
	}
	return redactor{strings.NewReplacer(pairs...)}
}

// percentEncoded is one byte in a URL, whose digits some servers write small.
var percentEncoded = regexp.MustCompile(`%[0-9A-F]{2}`)

func spellings(secret string) []string {
	quoted := strconv.Quote(secret)
	forms := []string{
		secret, html.EscapeString(secret), quoted[1 : len(quoted)-1],
		inJSON(secret), strings.ReplaceAll(secret, "/", `\/`),
		inJSON(inJSON(secret)), // a request echoed as a text within JSON
	}
	for _, escaped := range []string{url.QueryEscape(secret), url.PathEscape(secret)} {
		forms = append(forms, escaped, percentEncoded.ReplaceAllStringFunc(escaped, strings.ToLower))
	}
	return forms
}

func inJSON(text string) string {
	marshaled, _ := json.Marshal(text) // a string always marshals
	return string(marshaled[1 : len(marshaled)-1])
}

// message masks before it cuts, or half a secret could survive at the edge.
func (r redactor) message(text string) string {
	return cut(r.masks.Replace(text), maxMessageBytes)
}

func (r redactor) requestID(header string) string {
	return cut(r.masks.Replace(header), maxRequestIDBytes)
}

// cut returns text in one line of valid UTF-8 and at most limit bytes (limit >= 3),
// ending in an ellipsis when something is missing.
func cut(text string, limit int) string {
	const ellipsis = "…"
	// What is not fit is replaced and not dropped: dropping could join the pieces
	// of a secret after the masking.
	text = strings.Map(func(r rune) rune {
		// Cf holds the marks that turn the writing direction around.
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
	text = strings.TrimSpace(text)
	if len(text) <= limit {
		return text
	}
	end := limit - len(ellipsis)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}

// spoken finds what an answer says to a human: its field "message" (one or several),
// else "error", else all of it when it is plain text. Other data is no sentence: it
// may be a customer's, or the request itself.
func spoken(body []byte) string {
	body = bytes.TrimSpace(body)
	switch {
	case begins(body, '['):
		return ""
	case begins(body, '{'):
		var answer struct {
			Message any `json:"message"`
			Error   any `json:"error"`
		}
		_ = json.Unmarshal(body, &answer) // what cannot be read says nothing
		return cmp.Or(sentence(answer.Message), sentence(answer.Error))
	default:
		return string(body)
	}
}

func sentence(value any) string {
	switch value := value.(type) {
	case string:
		return value
	case []any: // one entry per faulty field, as validation libraries answer
		var parts []string
		for _, part := range value {
			if text := sentence(part); text != "" {
				parts = append(parts, text)
			}
		}
		return strings.Join(parts, "; ")
	default:
		return ""
	}
}

func begins(body []byte, delimiter byte) bool {
	return len(body) > 0 && body[0] == delimiter
}
