package event_test

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/schemas"
)

// envelopeSchema compiles the published schema of an envelope.
func envelopeSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	var id string
	for _, name := range schemas.Names() {
		b, err := schemas.Schema(name)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		location := doc.(map[string]any)["$id"].(string)
		if err := c.AddResource(location, doc); err != nil {
			t.Fatal(err)
		}
		if name == "envelope" {
			id = location
		}
	}
	schema, err := c.Compile(id)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// What the schemas publish and what the program does must be one contract. The
// exceptions are those of the schemas' $comment, written down in beyondSchema;
// a member that occurs twice and half a surrogate pair cannot be generated
// from a value and have their own tests.
func TestTheDecoderAcceptsExactlyWhatTheSchemasAccept(t *testing.T) {
	schema := envelopeSchema(t)
	verdicts := map[string]int{}
	property := func(t *rapid.T) {
		envelope := nearlyValid(t)
		body := marshal(t, envelope)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		problem := schema.Validate(doc)
		beyond := beyondSchema(doc)
		fault := judge(event.Message{Data: body})
		verdicts[verdict(problem == nil, beyond == "")]++
		if want := problem == nil && beyond == ""; want != (fault == nil) {
			t.Fatalf("body    %s\ndecoder %v\nschema  %v\nbeyond  %s", body, fault, problem, beyond)
		}
		checkBatch(t, body, fault)
		checkBinary(t, envelope, fault)
	}
	for range 20 { // a hundred events each: enough to meet every rule
		rapid.Check(t, property)
	}
	for _, v := range []string{"accepted", "refused by the schema", "refused beyond the schema"} {
		if verdicts[v] == 0 {
			t.Errorf("no event was %s: the property says nothing about those: %v", v, verdicts)
		}
	}
}

func verdict(schema, beyond bool) string {
	switch {
	case !schema:
		return "refused by the schema"
	case !beyond:
		return "refused beyond the schema"
	}
	return "accepted"
}

const testSequence = 1000

// judge is the fault of a single event, apart from what no schema of it can
// know: its subject and its age.
func judge(m event.Message) *event.Fault {
	m.Subject, m.Sequence, m.Stored = "usage.v1.v.o.batch", testSequence, stored
	return exceptSubjectAndAge(event.Decode(m, event.DefaultLimits())[0].Fault)
}

func exceptSubjectAndAge(fault *event.Fault) *event.Fault {
	if fault == nil {
		return nil
	}
	switch fault.Reason {
	case event.ReasonSubjectMismatch, event.ReasonTooFarAhead, event.ReasonTooOld:
		return nil
	default:
		return fault
	}
}

// checkBatch checks that an event in a batch is judged as it is alone.
func checkBatch(t *rapid.T, body []byte, alone *event.Fault) {
	m := event.Message{
		Subject: "usage.v1.v.o.batch", Sequence: testSequence, Stored: stored,
		Data: []byte("[" + string(body) + ",{}]"),
	}
	results := event.Decode(m, event.DefaultLimits())
	if len(results) != 2 {
		t.Fatalf("batch of %s: got %d results, want 2", body, len(results))
	}
	in := exceptSubjectAndAge(results[0].Fault)
	for ; in != nil && alone != nil; in, alone = in.Next, alone.Next {
		if in.Reason != alone.Reason || in.Pointer != "/0"+alone.Pointer || in.Problem != alone.Problem {
			break
		}
	}
	if in != nil || alone != nil {
		t.Fatalf("%s: in a batch %v, alone %v", body, in, alone)
	}
}

// checkBinary checks that an event whose attributes can be headers is judged
// in binary mode as it is in structured mode.
func checkBinary(t *rapid.T, envelope map[string]any, structured *event.Fault) {
	header := map[string][]string{}
	for name, value := range envelope {
		switch text, isText := value.(string); {
		case name == "data":
		case name == "data_base64" || name == "Time" || !isText && value != nil:
			return // no header can say that
		case isText:
			header["ce-"+name] = []string{percent(text)}
		}
	}
	data, ok := envelope["data"]
	if !ok || header["ce-specversion"] == nil {
		return
	}
	fault := judge(event.Message{Header: header, Data: marshal(t, data)})
	if (fault == nil) != (structured == nil) {
		t.Fatalf("%v: binary %v, structured %v", envelope, fault, structured)
	}
	for ; fault != nil; fault, structured = fault.Next, structured.Next {
		if structured == nil || fault.Reason != structured.Reason || fault.Problem != structured.Problem {
			t.Fatalf("%v: binary %v, structured %v", envelope, fault, structured)
		}
	}
}

// percent encodes every byte, which is always right.
func percent(text string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(text) {
		b.WriteString("%" + string(digits[text[i]>>4]) + string(digits[text[i]&15]))
	}
	return b.String()
}

func marshal(t *rapid.T, v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// beyondSchema names the rule that refuses an event although its schema is
// kept; empty when none does. It must not be asked about events that break
// their schema, so it believes the kinds of all values.
func beyondSchema(doc any) string {
	envelope, _ := doc.(map[string]any)
	text := func(object map[string]any, name string) string { s, _ := object[name].(string); return s }
	if len(text(envelope, "id")) > 1024 || len(text(envelope, "source")) > 1024 {
		return "bytes of id or source"
	}
	at, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text(envelope, "time")))
	if year := at.UTC().Year(); err == nil && (year < 1970 || year > 9999) {
		return "years of time in UTC"
	}
	if original, err := event.ParseArrival(text(envelope, "replayof")); err == nil && original > event.ArrivalAt(testSequence, 0) {
		return "replayof is later"
	}
	data, _ := envelope["data"].(map[string]any)
	if text(envelope, "type") == event.TypeSnapshot {
		if rule := beyondSnapshot(data); rule != "" {
			return rule
		}
	}
	for _, name := range memberNames(text(envelope, "type")) {
		if strings.HasSuffix(name, "Id") && name != "externalId" && event.EscapedLen(text(data, name)) > 256 {
			return "escaped bytes of " + name
		}
	}
	return ""
}

func beyondSnapshot(data map[string]any) string {
	number := func(name string) *big.Rat {
		n, _ := data[name].(json.Number)
		r, ok := new(big.Rat).SetString(n.String())
		if !ok {
			return new(big.Rat)
		}
		return r
	}
	if number("part").Cmp(number("parts")) > 0 {
		return "part beyond parts"
	}
	seen := map[[2]string]bool{}
	counts, _ := data["counts"].([]any)
	for _, c := range counts {
		entry, _ := c.(map[string]any)
		if account, ok := data["accountId"]; ok && entry["accountId"] != account {
			return "another account"
		}
		account, _ := entry["accountId"].(string)
		service, _ := entry["serviceId"].(string)
		if event.EscapedLen(account) > 256 || event.EscapedLen(service) > 256 {
			return "escaped bytes of an entry"
		}
		if seen[[2]string{account, service}] {
			return "counted twice"
		}
		seen[[2]string{account, service}] = true
	}
	return ""
}

// memberNames lists the members that data of a type can have.
func memberNames(typ string) []string {
	names := []string{"vendorId", "organizationId"}
	switch typ {
	case event.TypeCount:
		return append(names, "accountId", "serviceId", "unitCount")
	case event.TypeSnapshot:
		return append(names, "accountId", "counts", "part", "parts", "snapshotId")
	case event.TypeAccount:
		return append(names, "accountId", "name", "externalId", "description")
	}
	return append(names, "serviceId", "name", "description")
}

// nearlyValid draws an envelope as a JSON value: a valid one with up to three
// changes.
func nearlyValid(t *rapid.T) map[string]any {
	id := rapid.SampledFrom([]string{"a", "a-17", "b.c", "ä", "🧾"})
	count := func() map[string]any {
		return map[string]any{"accountId": id.Draw(t, "account"), "serviceId": id.Draw(t, "service"), "unitCount": json.Number("42")}
	}
	typ := rapid.SampledFrom([]string{event.TypeCount, event.TypeSnapshot, event.TypeAccount, event.TypeService}).Draw(t, "type")
	data := map[string]any{"vendorId": "v", "organizationId": "o"}
	objects := []map[string]any{data}
	switch typ {
	case event.TypeCount:
		data["accountId"], data["serviceId"], data["unitCount"] = "a", "s", json.Number("1")
	case event.TypeSnapshot:
		counts := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "counts") {
			c := count()
			counts = append(counts, c)
			objects = append(objects, c)
		}
		data["counts"] = counts
		if rapid.Bool().Draw(t, "in parts") {
			data["part"], data["parts"], data["snapshotId"] = json.Number("1"), json.Number("2"), "s"
		}
	case event.TypeAccount:
		data["accountId"], data["name"] = "a", "n"
	case event.TypeService:
		data["serviceId"], data["name"] = "s", "n"
	}
	envelope := map[string]any{"specversion": "1.0", "id": "1", "source": "//s", "type": typ, "time": "2026-11-20T12:00:00Z", "data": data}
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		if rapid.Bool().Draw(t, "attribute") {
			change(t, envelope, []string{"specversion", "id", "source", "type", "time", "datacontenttype", "replayof", "backfill", "data", "data_base64", "dataschema", "Time"})
		} else {
			change(t, rapid.SampledFrom(objects).Draw(t, "object"), append(memberNames(typ), "UnitCount", "later"))
		}
	}
	return envelope
}

// change deletes a member or gives it another value.
func change(t *rapid.T, object map[string]any, names []string) {
	name := rapid.SampledFrom(names).Draw(t, "member")
	if rapid.IntRange(0, 5).Draw(t, "how") == 0 {
		delete(object, name)
		return
	}
	if _, exists := object[name].(map[string]any); exists && rapid.IntRange(0, 3).Draw(t, "keep") > 0 {
		return // data is worth more whole
	}
	object[name] = value(t, name)
}

// value draws a JSON value that is often near the border of what the member
// may be.
func value(t *rapid.T, name string) any {
	texts := []string{
		"", "a", "s", "1.0", "a\nb", "\u0085", ".", strings.Repeat(".", 85), strings.Repeat(".", 86), strings.Repeat("a", 256), strings.Repeat("a", 257),
		strings.Repeat("ä", 512), strings.Repeat("ä", 513), strings.Repeat("a", 1024), strings.Repeat("a", 1025), strings.Repeat("🧾", 4096), strings.Repeat("a", 4097),
	}
	numbers := []json.Number{
		"0", "-0", "-0.0e3", "1", "2", "2.0", "20e-1", "1.5", "3", "1000", "1001", "1e3", "-1", "-1e-7", "0.1", "0.000001", "1e-6", "1e-7", "0.1234567", "1.0000000",
		"10000000e-6", "4.2e1", "1E2", "1e12", "1E+12", "1000000000000.000001", "1000000000000.0000000", "999999999999.999999", "1e13", "1e-300", "1e300", "0e-300",
	}
	special := map[string][]string{
		"type":            {event.TypeCount, event.TypeSnapshot, event.TypeAccount, event.TypeService, "usage.count.v2", "Usage.count.v1"},
		"datacontenttype": {"application/json", "APPLICATION/json;charset=utf-8", "text/x+json", "text/plain", "application/json ; a", "application/+json", "a/b;+json", "application/json\n"},
		"replayof":        {"1", "0", "1000", "1000-1", "1001", "999-999", "1-0", "1-1000", "01", "9999999999999999", "10000000000000000", "1\n"},
		"backfill":        {"2026-10", "!~", "", "a b", "a\n", "ä", "a\x7f", strings.Repeat("b", 128), strings.Repeat("b", 129)},
	}
	for _, id := range []string{"accountId", "serviceId", "snapshotId"} {
		special[id] = []string{"a", "s", "", strings.Repeat(".", 85), strings.Repeat(".", 86), strings.Repeat("ä", 257)}
	}
	kind := rapid.IntRange(0, 9).Draw(t, "kind")
	switch {
	case kind == 0:
		return rapid.SampledFrom([]any{nil, true, false, []any{}, map[string]any{}, []any{nil}, []any{map[string]any{}}}).Draw(t, "value")
	case kind < 8 && name == "time":
		return timeText(t)
	case kind < 8 && special[name] != nil:
		return rapid.SampledFrom(special[name]).Draw(t, "text")
	case kind < 8 && (name == "unitCount" || name == "part" || name == "parts"), kind == 8:
		return rapid.SampledFrom(numbers).Draw(t, "number")
	}
	return rapid.SampledFrom(texts).Draw(t, "text")
}

// timeText draws what is nearly a time of RFC 3339.
func timeText(t *rapid.T) string {
	part := func(usual string, others ...string) string {
		if rapid.IntRange(0, 9).Draw(t, "usual") < 8 {
			return usual
		}
		return rapid.SampledFrom(others).Draw(t, "part")
	}
	return part("2026", "1969", "1970", "9999", "0000", "10000", "26") + "-" + part("02", "00", "01", "12", "13", "2") + "-" + part("28", "00", "01", "29", "30", "31", "32") +
		part("T", "t", " ", "") + part("12", "00", "23", "24") + ":" + part("00", "59", "60") + ":" + part("00", "59", "60", "61") +
		part("", ".", ".5", ",5", ".123456789", ".1234567890") + part("Z", "z", "", "+00:00", "-23:59", "+23:59", "+24:00", "+01:60", "+0100", "Z\n")
}
