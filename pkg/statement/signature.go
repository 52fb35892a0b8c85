package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// header is the first line of a signature. It is signed with the rest, so that
// no signature of this key can be taken for one of another kind.
const header = "usagebridge statement signature v1"

// The other lines of a signature, in their order.
var fields = []string{"key", "vendor", "organization", "as-of", "sha256", "signature"}

// Signature is what a signature says of the document that it was made for.
type Signature struct {
	KeyID        string
	Vendor       string
	Organization string
	AsOf         time.Time
	SHA256       [sha256.Size]byte // of the document's bytes

	value []byte
}

// ErrInvalid is in the chain of every error of [Verify].
var ErrInvalid = errors.New("not valid")

// Sign signs the exact bytes of a document of the statement, in whatever
// format. The signature is a text of seven lines.
func (k *Key) Sign(s *Statement, document []byte) []byte {
	signature := Signature{
		KeyID: k.ID(), Vendor: s.Vendor, Organization: s.Organization, AsOf: s.AsOf.UTC(), SHA256: sha256.Sum256(document),
	}
	signature.value = ed25519.Sign(k.private, signature.message())
	return signature.text()
}

// message is what is signed: every line of the text but the last.
func (s *Signature) message() []byte {
	var b bytes.Buffer
	b.WriteString(header + "\n")
	values := []string{
		s.KeyID, strconv.QuoteToASCII(s.Vendor), strconv.QuoteToASCII(s.Organization), s.AsOf.Format(time.RFC3339Nano), hex.EncodeToString(s.SHA256[:]),
	}
	for i, value := range values {
		b.WriteString(fields[i] + ": " + value + "\n")
	}
	return b.Bytes()
}

func (s *Signature) text() []byte {
	return append(s.message(), fields[len(fields)-1]+": "+base64.StdEncoding.EncodeToString(s.value)+"\n"...)
}

// ParseSignature reads what [Key.Sign] writes, and nothing that differs from
// it by a single byte. It verifies nothing.
func ParseSignature(text []byte) (*Signature, error) {
	lines := strings.SplitAfter(string(text), "\n")
	if lines[0] != header+"\n" {
		return nil, fmt.Errorf("%w: the signature's first line is not %q: it is no signature of a statement, or was altered", ErrInvalid, header)
	}
	if len(lines) != len(fields)+2 || lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("%w: the signature was altered or cut: want %d whole lines", ErrInvalid, len(fields)+1)
	}
	var s Signature
	for i, name := range fields {
		value, ok := strings.CutPrefix(strings.TrimSuffix(lines[i+1], "\n"), name+": ")
		if !ok || !s.set(name, value) {
			return nil, fmt.Errorf("%w: line %d of the signature is damaged: want %s and its value", ErrInvalid, i+2, name)
		}
	}
	if !bytes.Equal(s.text(), text) {
		return nil, fmt.Errorf("%w: the signature is not spelt as it was made: it was altered", ErrInvalid)
	}
	return &s, nil
}

// set reads the value of one line.
func (s *Signature) set(name, value string) bool {
	var err error
	switch name {
	case "key":
		s.KeyID = value
	case "vendor":
		s.Vendor, err = strconv.Unquote(value)
	case "organization":
		s.Organization, err = strconv.Unquote(value)
	case "as-of":
		s.AsOf, err = time.Parse(time.RFC3339Nano, value)
	case "sha256":
		var sum []byte
		sum, err = hex.DecodeString(value)
		return err == nil && copy(s.SHA256[:], sum) == len(s.SHA256) && len(sum) == len(s.SHA256)
	case "signature":
		s.value, err = base64.StdEncoding.DecodeString(value)
	}
	return err == nil
}

// Verify says whether the signature was made with the private half of key for
// exactly these bytes, and what it says of them. Every error wraps
// [ErrInvalid] and names what is wrong.
func Verify(key ed25519.PublicKey, document, text []byte) (*Signature, error) {
	s, err := ParseSignature(text)
	if err != nil {
		return nil, err
	}
	id, err := KeyID(key)
	if err != nil {
		return nil, err
	}
	if s.KeyID != id {
		return nil, fmt.Errorf("%w: it was signed with key %q, and the key to verify with is %q", ErrInvalid, s.KeyID, id)
	}
	if !ed25519.Verify(key, s.message(), s.value) {
		return nil, fmt.Errorf("%w: key %q has not signed what the signature says: it was altered", ErrInvalid, id)
	}
	if sum := sha256.Sum256(document); sum != s.SHA256 {
		return nil, fmt.Errorf("%w: the file is not the one that was signed: its sha256 is %x, the signed one's %x", ErrInvalid, sum, s.SHA256)
	}
	return s, nil
}
