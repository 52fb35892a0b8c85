package vendorapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxMessageBytes   = 512 // conventions: bodies are cut at 512 bytes
	maxRequestIDBytes = 128
	// minRedactedBytes: something shorter is no secret, and masking it would
	// tear holes into every message that happens to contain those letters.
	minRedactedBytes = 4
)

// newRedactor masks the given secrets in each spelling in which a server, a
// proxy or our own HTTP library may echo them.
func newRedactor(secrets ...string) *strings.Replacer {
	var forms []string
	for _, secret := range secrets {
		if len(secret) < minRedactedBytes {
			continue
		}
		quoted := strconv.Quote(secret)
		marshaled, _ := json.Marshal(secret) // a string always marshals
		forms = append(forms,
			secret,
			url.QueryEscape(secret),
			url.PathEscape(secret),
			html.EscapeString(secret),
			quoted[1:len(quoted)-1],
			string(marshaled[1:len(marshaled)-1]),
			strings.ReplaceAll(secret, "/", `\/`),
		)
	}
	// At one place the first match wins: the longest must come first.
	slices.SortFunc(forms, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	var pairs []string
	for _, form := range slices.Compact(forms) {
		pairs = append(pairs, form, masked)
	}
	return strings.NewReplacer(pairs...)
}

// message makes foreign text fit for an error, a log line and a terminal. It
// masks before it cuts, or half a token could survive at the edge.
func (s *secrets) message(text string) string {
	return cutMessage(s.redactor.Replace(text), maxMessageBytes)
}

// requestID is the partner's name for a call, at most 128 printable bytes.
func (s *secrets) requestID(header string) string {
	// Strange bytes are replaced and not dropped: dropping could join the
	// pieces of a token after the masking.
	id := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s.redactor.Replace(header))
	return id[:min(len(id), maxRequestIDBytes)]
}

// cutMessage returns text in one line of valid UTF-8 and at most limit bytes
// (limit >= 3), ending in an ellipsis when something is missing.
func cutMessage(text string, limit int) string {
	const ellipsis = "…"
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

// bodyMessage finds the human sentence in an answer: the labelled one, else the
// body as it is.
func bodyMessage(body []byte) string {
	return cmp.Or(labelledMessage(body), string(body))
}

// receiptMessage finds the human sentence in the answer to a call that
// succeeded. Structured data without one is no sentence: it may be all the
// accounts of a customer.
func receiptMessage(body []byte) string {
	body = bytes.TrimSpace(body)
	switch {
	case begins(body, '['):
		return ""
	case begins(body, '{'):
		return labelledMessage(body)
	default:
		return string(body)
	}
}

// labelledMessage returns the field "message" (one or several), else "error".
func labelledMessage(body []byte) string {
	var answer struct {
		Message any `json:"message"`
		Error   any `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return ""
	}
	return cmp.Or(sentence(answer.Message), sentence(answer.Error))
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
