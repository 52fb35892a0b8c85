package event

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxTokenBytes is the longest escaped id, in bytes (event contract, "Subjects").
const MaxTokenBytes = 256

const upperHex = "0123456789ABCDEF"

// Escape writes an id as one subject token: bytes outside A-Z a-z 0-9 - _
// become =XX, two upper-case hex digits, UTF-8 byte by byte. Every id has
// exactly one escaped form. Escape does not check the length; CheckID does.
func Escape(id string) string {
	extra := 0
	for i := range len(id) {
		if !plain(id[i]) {
			extra += 2
		}
	}
	if extra == 0 {
		return id
	}
	out := make([]byte, 0, len(id)+extra)
	for i := range len(id) {
		if c := id[i]; plain(c) {
			out = append(out, c)
		} else {
			out = append(out, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(out)
}

// Unescape reads a token back into the id. It refuses what Escape never
// writes (an escaped plain byte, lower-case digits, bytes outside the
// alphabet), so that an id has one subject only: two spellings of one id
// would be two keys at the partner.
func Unescape(token string) (string, error) {
	if err := checkLength(len(token)); err != nil {
		return "", err
	}
	if strings.IndexByte(token, '=') < 0 {
		for i := range len(token) {
			if !plain(token[i]) {
				return "", fmt.Errorf("token %q: byte %d is %q: write bytes outside A-Z a-z 0-9 - _ as =XX", token, i, token[i])
			}
		}
		return token, nil
	}
	out := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		if plain(c) {
			out = append(out, c)
			continue
		}
		if c != '=' {
			return "", fmt.Errorf("token %q: byte %d is %q: write bytes outside A-Z a-z 0-9 - _ as =XX", token, i, c)
		}
		if i+2 >= len(token) {
			return "", fmt.Errorf("token %q: byte %d: = must be followed by two upper-case hex digits", token, i)
		}
		high, low := strings.IndexByte(upperHex, token[i+1]), strings.IndexByte(upperHex, token[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("token %q: byte %d: = must be followed by two upper-case hex digits", token, i)
		}
		b := byte(high<<4 | low)
		if plain(b) {
			return "", fmt.Errorf("token %q: byte %d: %q is legal as it is and must not be escaped", token, i, b)
		}
		out = append(out, b)
		i += 2
	}
	id := string(out)
	if !utf8.ValidString(id) {
		return "", fmt.Errorf("token %q: its bytes are not UTF-8", token)
	}
	return id, nil
}

// CheckID reports why an id cannot be used in a subject: empty, not UTF-8, or
// longer than MaxTokenBytes once escaped. It returns nil for a usable id.
func CheckID(id string) error {
	n := EscapedLen(id)
	if n != len(id) && !utf8.ValidString(id) {
		return errors.New("is not valid UTF-8")
	}
	return checkLength(n)
}

// EscapedLen is the length of Escape(id) in bytes.
func EscapedLen(id string) int {
	n := len(id)
	for i := range len(id) {
		if !plain(id[i]) {
			n += 2
		}
	}
	return n
}

func checkLength(n int) error {
	if n == 0 {
		return errors.New("is empty: an id has 1 to 256 bytes once escaped")
	}
	if n > MaxTokenBytes {
		return fmt.Errorf("is %d bytes long once escaped: an id has 1 to %d", n, MaxTokenBytes)
	}
	return nil
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
