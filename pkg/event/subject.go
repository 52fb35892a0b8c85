package event

import (
	"fmt"
	"strings"
)

// Kind says what a subject addresses: the fifth token of the grammar.
type Kind string

// The kinds of subject, as the event contract lists them.
const (
	KindCount    Kind = "count"    // usage.v1.{vendor}.{organization}.count.{account}.{service}
	KindSnapshot Kind = "snapshot" // usage.v1.{vendor}.{organization}.snapshot
	KindBatch    Kind = "batch"    // usage.v1.{vendor}.{organization}.batch
	KindAccount  Kind = "account"  // catalog.v1.{vendor}.{organization}.account.{account}
	KindService  Kind = "service"  // catalog.v1.{vendor}.{organization}.service.{service}
)

// The two event families: the first token of a subject.
const (
	FamilyUsage   = "usage"
	FamilyCatalog = "catalog"
)

// Subject is a parsed public subject. Ids are the vendor's own, unescaped.
// Account and Service are set as far as the kind has them.
type Subject struct {
	Kind         Kind
	Vendor       string
	Organization string
	Account      string
	Service      string
}

// Family is "usage" or "catalog".
func (s Subject) Family() string {
	if s.Kind == KindAccount || s.Kind == KindService {
		return FamilyCatalog
	}
	return FamilyUsage
}

// Integration names the integration the way people read it: vendor/organization.
func (s Subject) Integration() string { return s.Vendor + "/" + s.Organization }

// String is the subject to publish on, with every id escaped.
func (s Subject) String() string {
	var b strings.Builder
	b.WriteString(s.Family())
	b.WriteString(".v1.")
	b.WriteString(Escape(s.Vendor))
	b.WriteByte('.')
	b.WriteString(Escape(s.Organization))
	b.WriteByte('.')
	b.WriteString(string(s.Kind))
	switch s.Kind {
	case KindCount:
		b.WriteByte('.')
		b.WriteString(Escape(s.Account))
		b.WriteByte('.')
		b.WriteString(Escape(s.Service))
	case KindAccount:
		b.WriteByte('.')
		b.WriteString(Escape(s.Account))
	case KindService:
		b.WriteByte('.')
		b.WriteString(Escape(s.Service))
	case KindSnapshot, KindBatch:
	}
	return b.String()
}

// Check reports the first id that cannot be part of a subject.
func (s Subject) Check() error {
	ids := []struct{ name, id string }{{"vendor", s.Vendor}, {"organization", s.Organization}}
	switch s.Kind {
	case KindCount:
		ids = append(ids, struct{ name, id string }{"account", s.Account}, struct{ name, id string }{"service", s.Service})
	case KindAccount:
		ids = append(ids, struct{ name, id string }{"account", s.Account})
	case KindService:
		ids = append(ids, struct{ name, id string }{"service", s.Service})
	case KindSnapshot, KindBatch:
	default:
		return fmt.Errorf("subject kind %q is not one of count, snapshot, batch, account, service", s.Kind)
	}
	for _, i := range ids {
		if err := CheckID(i.id); err != nil {
			return fmt.Errorf("%s id %w", i.name, err)
		}
	}
	return nil
}

// ParseSubject reads a public subject (without the partition token under which
// the stream stores it). The error says which token is wrong and what the
// grammar wants.
func ParseSubject(subject string) (Subject, error) {
	t, n := tokens(subject)
	if n < 5 {
		return Subject{}, fmt.Errorf("subject %s has %d tokens: want {family}.v1.{vendor}.{organization}.{kind}…", quote(subject), n)
	}
	if t[1] != "v1" {
		return Subject{}, fmt.Errorf("subject %s: version %s is unknown: want v1", quote(subject), quote(t[1]))
	}
	want := 5
	s := Subject{Kind: Kind(t[4])}
	switch {
	case t[0] == FamilyUsage && s.Kind == KindCount:
		want = 7
	case t[0] == FamilyUsage && (s.Kind == KindSnapshot || s.Kind == KindBatch):
	case t[0] == FamilyCatalog && (s.Kind == KindAccount || s.Kind == KindService):
		want = 6
	default:
		return Subject{}, fmt.Errorf("subject %s: %s.…%s is no channel: want usage.…count|snapshot|batch or catalog.…account|service", quote(subject), t[0], t[4])
	}
	if n != want {
		return Subject{}, fmt.Errorf("subject %s has %d tokens: a %s subject has %d", quote(subject), n, s.Kind, want)
	}
	for _, at := range [...]int{2, 3, 5, 6} {
		if at >= want {
			break
		}
		id, err := Unescape(t[at])
		if err != nil {
			return Subject{}, fmt.Errorf("subject %s: token %d: %w", quote(subject), at+1, err)
		}
		s.set(at, id)
	}
	return s, nil
}

// set puts the id of the token at place at where it belongs.
func (s *Subject) set(at int, id string) {
	switch {
	case at == 2:
		s.Vendor = id
	case at == 3:
		s.Organization = id
	case at == 5 && s.Kind != KindService:
		s.Account = id
	default:
		s.Service = id
	}
}

// tokens cuts a subject at its dots and counts the tokens; the first seven,
// which is the longest subject there is, are returned.
func tokens(subject string) (t [7]string, n int) {
	for more := true; more; n++ {
		var token string
		token, subject, more = strings.Cut(subject, ".")
		if n < len(t) {
			t[n] = token
		}
	}
	return t, n
}
