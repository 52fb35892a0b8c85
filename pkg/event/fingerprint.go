package event

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Fingerprint groups letters that have the same kind of fault: eight
// lower-case hex digits over the reason, the type of the event, where the
// problem is, and Title. Letters that differ only in ids, figures, times or
// their places in a batch have the same; letters that broke different rules
// have different ones. What the partner refused is grouped by the partner's
// answer alone. A letter that was parked has the one of then.
func (l *Letter) Fingerprint() string {
	if l.Stamp != "" {
		return l.Stamp
	}
	parts := []string{string(l.Fault.Reason), "", "", l.Title()}
	if !ofPartner(l.Fault.Reason) {
		parts[1], parts[2] = l.eventType(), l.generalPointer()
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:4])
}

// Title says in one line what is wrong with all letters of the same
// Fingerprint: what is particular to one of them is written as "…".
func (l *Letter) Title() string {
	switch {
	case l.Fault.Reason == ReasonConflict:
		return "the same id and source came before with other content"
	case ofPartner(l.Fault.Reason) && l.Answer != "":
		return general(l.withoutIDs(l.Answer), l.Answer[0] == '{' || l.Answer[0] == '[')
	}
	title := general(l.Fault.Problem, false)
	if l.Fault.Want != "" {
		title += ": want " + anyQuoted.ReplaceAllString(l.Fault.Want, "…")
	}
	return title
}

// ofPartner reports whether a reason is the outcome of calls.
func ofPartner(r Reason) bool { return r == ReasonRejected || r == ReasonUndeliverable }

// anyQuoted are the values in a Want. Its numbers are the rule's own.
var anyQuoted = regexp.MustCompile(`"(\\.|[^"\\])*"?…?`)

// eventType is the type of the letter's event as far as it can be read.
func (l *Letter) eventType() string {
	if binaryMode(l.Original.Header) {
		envelope, _ := readHeaders(l.Original.Header)
		return envelope.typ.text
	}
	doc := document{body: l.Original.Data}
	if doc.parse() != "" || doc.nodes[0].kind != kindObject {
		return ""
	}
	return doc.readEnvelope(0).typ.text
}

// generalPointer is the pointer below the event, not below its batch, with a *
// for each place in an array.
func (l *Letter) generalPointer() string {
	tokens := strings.Split(l.Fault.Pointer, "/")
	if len(tokens) > 1 && tokens[1] == strconv.Itoa(l.Index) {
		tokens = slices.Delete(tokens, 1, 2)
	}
	for i, token := range tokens {
		if _, err := strconv.ParseUint(token, 10, 64); err == nil {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, "/")
}

// withoutIDs replaces the ids that the letter knows of itself: a partner
// repeats them as they are, without quotes.
func (l *Letter) withoutIDs(text string) string {
	ids := []string{l.Source, l.EventID, l.Organization}
	if s, err := ParseSubject(l.Key); err == nil {
		ids = append(ids, s.Account, s.Service)
	} else if key, ok := strings.CutPrefix(l.Key, l.Organization+"/"); ok {
		ids = append(ids, strings.Split(key, "/")[1:]...) // without the kind, which is a word of the language
	}
	slices.SortFunc(ids, func(a, b string) int { return len(b) - len(a) }) // an id may be a piece of another
	for _, id := range ids {
		text = replaceWord(text, id)
	}
	return text
}

// replaceWord replaces a text where it stands alone.
func replaceWord(text, word string) string {
	if word == "" {
		return text
	}
	var b strings.Builder
	for {
		at := strings.Index(text, word)
		if at < 0 {
			return b.String() + text
		}
		end := at + len(word)
		before, _ := utf8.DecodeLastRuneInString(b.String() + text[:at])
		after, _ := utf8.DecodeRuneInString(text[end:])
		b.WriteString(text[:at])
		if alphanumeric(before) || alphanumeric(after) {
			b.WriteString(word)
		} else {
			b.WriteString("…")
		}
		text = text[end:]
	}
}

func alphanumeric(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// The pieces of a text, at its start: something in quotes, a word with all
// that may be in a time, an address or an id, and blanks.
var (
	quotedPiece = regexp.MustCompile("^(?:" + `"(?:\\.|[^"\\])*(?:"|$)|` + `'(?:\\.|[^'\\])*'|` + "`[^`]*`)")
	wordPiece   = regexp.MustCompile(`^[-+#/]*[\p{L}\p{N}…](?:[\p{L}\p{N}…_@%]|[-+./]+[\p{L}\p{N}…]|:(?:\d|//))*`)
	blankPiece  = regexp.MustCompile(`^\s+`)
	// literals are several in a row, so that a list of three is as one of two,
	// or one that was cut and is told the length of.
	literals = regexp.MustCompile(`…([\s,;]*…| \(… characters\))+`)
)

// general replaces what is particular to one event in the first line of a
// text: what is in quotes, and words with a digit or with the sign that a
// value was cut. In a body of JSON, the names of members and sentences stay.
func general(text string, body bool) string {
	text, _, _ = strings.Cut(text, "\n")
	var b strings.Builder
	for previous := ' '; text != ""; {
		var piece, shown string
		if piece = quotedPiece.FindString(text); piece != "" && (piece[0] != '\'' || !alphanumeric(previous)) {
			shown = generalQuoted(piece, text[len(piece):], body)
		} else if piece = wordPiece.FindString(text); piece != "" {
			shown = generalWord(piece)
		} else if piece = blankPiece.FindString(text); piece != "" {
			shown = " "
		} else {
			_, size := utf8.DecodeRuneInString(text)
			piece = text[:size]
			shown = strings.ToValidUTF8(piece, "…")
		}
		previous, _ = utf8.DecodeLastRuneInString(piece)
		text = text[len(piece):]
		b.WriteString(shown)
	}
	return literals.ReplaceAllString(strings.TrimSpace(b.String()), "…")
}

// generalQuoted is what stays of something in quotes, with rest behind it.
func generalQuoted(quoted, rest string, body bool) string {
	inside := strings.Trim(quoted, quoted[:1])
	switch {
	case body && strings.HasPrefix(strings.TrimLeft(rest, " "), ":"):
		return inside
	case body && strings.Contains(inside, " "):
		return general(inside, false)
	}
	return "…"
}

// encodingName is the one word with a digit that is no value.
const encodingName = "UTF-8"

func generalWord(word string) string {
	if word != encodingName && (strings.ContainsAny(word, "0123456789…@") || strings.Contains(word, "//")) {
		return "…"
	}
	return word
}
