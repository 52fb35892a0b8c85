package event

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Structured is the event as a CloudEvents JSON envelope.
func (e *Event) Structured() []byte { return e.AppendStructured(nil) }

// AppendStructured appends the event as a CloudEvents JSON envelope to dst:
// always the same bytes for the same event, figures exact, no character
// escaped that JSON lets stand. It does not check the event; Check does.
func (e *Event) AppendStructured(dst []byte) []byte {
	dst = append(dst, `{"specversion":"1.0","id":`...)
	dst = appendString(dst, e.ID)
	dst = appendMember(dst, `,"source":`, e.Source)
	dst = appendMember(dst, `,"type":`, e.Type)
	dst = append(dst, `,"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	dst = appendOptional(dst, `,"replayof":`, e.ReplayOf)
	dst = appendOptional(dst, `,"backfill":`, e.Backfill)
	dst = append(dst, `,"datacontenttype":"application/json","data":`...)
	dst = e.AppendData(dst)
	return append(dst, '}')
}

// AppendData appends the data of the event as JSON to dst: the body of a
// message in binary mode. Optional members that are empty are left out.
func (e *Event) AppendData(dst []byte) []byte {
	dst = appendMember(dst, `{"vendorId":`, e.Vendor)
	dst = appendMember(dst, `,"organizationId":`, e.Organization)
	switch data := e.Data.(type) {
	case Count:
		dst = append(dst, ',')
		dst = data.append(dst)
	case Snapshot:
		dst = data.append(dst)
	case Account:
		dst = appendMember(dst, `,"accountId":`, data.AccountID)
		dst = appendMember(dst, `,"name":`, data.Name)
		dst = appendOptional(dst, `,"externalId":`, data.ExternalID)
		dst = appendOptional(dst, `,"description":`, data.Description)
	case Service:
		dst = appendMember(dst, `,"serviceId":`, data.ServiceID)
		dst = appendMember(dst, `,"name":`, data.Name)
		dst = appendOptional(dst, `,"description":`, data.Description)
	}
	return append(dst, '}')
}

// append appends the members of a count, without the braces.
func (c Count) append(dst []byte) []byte {
	dst = appendMember(dst, `"accountId":`, c.AccountID)
	dst = appendMember(dst, `,"serviceId":`, c.ServiceID)
	dst = append(dst, `,"unitCount":`...)
	return c.UnitCount.Append(dst)
}

func (s Snapshot) append(dst []byte) []byte {
	dst = appendOptional(dst, `,"accountId":`, s.AccountID)
	dst = append(dst, `,"counts":[`...)
	for i, c := range s.Counts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		dst = c.append(dst)
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	if s.Parts != 0 {
		dst = append(dst, `,"part":`...)
		dst = strconv.AppendInt(dst, int64(s.Part), 10)
		dst = append(dst, `,"parts":`...)
		dst = strconv.AppendInt(dst, int64(s.Parts), 10)
	}
	return appendOptional(dst, `,"snapshotId":`, s.SnapshotID)
}

// BinaryHeaders are the headers of the event in binary mode: ce-… for each
// attribute, percent-encoded as the CloudEvents HTTP binding says, and
// content-type. The body that belongs to them is what AppendData writes.
func (e *Event) BinaryHeaders() map[string][]string {
	header := map[string][]string{
		headerSpecVersion:          {specVersion},
		attributePrefix + "id":     {encodeHeader(e.ID)},
		attributePrefix + "source": {encodeHeader(e.Source)},
		attributePrefix + "type":   {encodeHeader(e.Type)},
		attributePrefix + "time":   {e.Time.UTC().Format(time.RFC3339Nano)},
		headerContentType:          {ContentTypeData},
	}
	if e.ReplayOf != "" {
		header[attributePrefix+"replayof"] = []string{encodeHeader(e.ReplayOf)}
	}
	if e.Backfill != "" {
		header[attributePrefix+"backfill"] = []string{encodeHeader(e.Backfill)}
	}
	return header
}

// EncodeBatch writes 1 to MaxBatch events of one integration as a CloudEvents
// JSON batch, in their order. It does not check the events; Check does.
func EncodeBatch(events []*Event) ([]byte, error) {
	switch {
	case len(events) == 0:
		return nil, errors.New("encode batch: no events: want 1 to 1000")
	case len(events) > MaxBatch:
		return nil, fmt.Errorf("encode batch: %d events: want 1 to %d", len(events), MaxBatch)
	}
	first := events[0]
	dst := []byte{'['}
	for i, e := range events {
		if e.Vendor != first.Vendor || e.Organization != first.Organization {
			return nil, fmt.Errorf("encode batch: event %d is of %s, event 0 of %s: want one integration in a batch",
				i, e.Subject().Integration(), first.Subject().Integration())
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.AppendStructured(dst)
	}
	return append(dst, ']'), nil
}

func appendMember(dst []byte, prefix, value string) []byte {
	return appendString(append(dst, prefix...), value)
}

// appendOptional appends a member unless it is empty.
func appendOptional(dst []byte, prefix, value string) []byte {
	if value == "" {
		return dst
	}
	return appendMember(dst, prefix, value)
}

// appendString appends a JSON string: only the quote, the backslash and
// control characters are escaped.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		if c < ' ' {
			dst = append(dst, `\u00`...)
			dst = append(dst, upperHex[c>>4], upperHex[c&15])
		} else {
			dst = append(dst, '\\', c)
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
