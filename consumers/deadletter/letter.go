package deadletter

import (
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// KeyOf names what the letter is about as kind/account/service, without what
// is empty: count/a-17/backup, account/a-17, service/backup, snapshot. Letters
// of the fold have the subject of their event, letters of the partner the key
// in the ledger, and of an event that could not be read the subject on which
// it came says what it was meant for. Empty: nobody knows.
func KeyOf(l *event.Letter) string {
	if l.Key == "" {
		return subjectKey(l.Original.Subject)
	}
	if key := subjectKey(l.Key); key != "" {
		return key
	}
	if key, found := strings.CutPrefix(l.Key, l.Organization+"/"); found && checkKey(key) == nil {
		return key
	}
	return l.Key
}

// subjectKey is what a subject addresses; empty for a batch, and for what is
// no subject.
func subjectKey(subject string) string {
	s, err := event.ParseSubject(subject)
	if err != nil || s.Kind == event.KindBatch {
		return ""
	}
	parts := []string{string(s.Kind), s.Account, s.Service}
	return strings.Join(slices.DeleteFunc(parts, func(id string) bool { return id == "" }), "/")
}

// checkKey refuses what neither is a key nor, with a * at its end, the
// beginning of one.
func checkKey(key string) error {
	kind, _, more := strings.Cut(key, "/")
	switch {
	case more:
		if slices.ContainsFunc(ledger.Kinds(), func(k ledger.Kind) bool { return k.String() == kind }) {
			return nil
		}
	case kind == string(event.KindSnapshot), strings.HasSuffix(kind, "*") && kind != "*":
		return nil
	}
	return errors.New("want kind/account/service without the organization, such as count/a-17/backup, account/a-17, service/backup or count/a-17/*")
}

// Identity is the id and the source of the letter's event. An event that
// breaks the contract may have them nevertheless.
func Identity(l *event.Letter) (id, source string) {
	if l.EventID != "" {
		return l.EventID, l.Source
	}
	for name, values := range l.Original.Header {
		if len(values) == 0 {
			continue
		}
		value, err := url.PathUnescape(values[0])
		if err != nil {
			value = values[0]
		}
		switch strings.ToLower(name) {
		case "ce-id":
			id = value
		case "ce-source":
			source = value
		}
	}
	var envelope struct {
		ID     any `json:"id"`
		Source any `json:"source"`
	}
	if id != "" || source != "" || json.Unmarshal(l.Original.Data, &envelope) != nil {
		return id, source
	}
	id, _ = envelope.ID.(string)
	source, _ = envelope.Source.(string)
	return id, source
}
