package event_test

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// stored is when every message of these tests was stored.
var stored = time.Date(2026, 11, 20, 12, 0, 1, 0, time.UTC)

// countEvent is the example of the event contract.
func countEvent() *event.Event {
	return &event.Event{
		ID: "01J9Z3K8", Source: "//billing.acme.example", Type: event.TypeCount, Time: stored.Add(-time.Second),
		Vendor: "acme", Organization: "msp-0042",
		Data: event.Count{AccountID: "a-17", ServiceID: "backup", UnitCount: 42 * event.UnitsScale},
	}
}

func TestTheEnvelopeIsThatOfTheContract(t *testing.T) {
	e := countEvent()
	want := `{"specversion":"1.0","id":"01J9Z3K8","source":"//billing.acme.example","type":"usage.count.v1",` +
		`"time":"2026-11-20T12:00:00Z","datacontenttype":"application/json",` +
		`"data":{"vendorId":"acme","organizationId":"msp-0042","accountId":"a-17","serviceId":"backup","unitCount":42}}`
	if got := string(e.Structured()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(e.AppendStructured([]byte("before"))); got != "before"+want {
		t.Errorf("appended: got %s", got)
	}
}

func TestDataIsWrittenExactlyAndWithoutNeedlessEscapes(t *testing.T) {
	for _, test := range []struct {
		name string
		data event.Data
		want string
	}{
		{
			"a text keeps its characters",
			event.Account{AccountID: "a", Name: "<R&D> \"ä\" \\ \n\x1f\u2028", ExternalID: "x"},
			`"accountId":"a","name":"<R&D> \"ä\" \\ \u000A\u001F` + "\u2028" + `","externalId":"x"}`,
		},
		{"a service without a description", event.Service{ServiceID: "s", Name: "n"}, `"serviceId":"s","name":"n"}`},
		{
			"millionths are no float",
			event.Count{AccountID: "a", ServiceID: "s", UnitCount: event.MaxUnits - 1},
			`"accountId":"a","serviceId":"s","unitCount":999999999999.999999}`,
		},
		{
			"a part of a snapshot",
			event.Snapshot{AccountID: "a", Counts: []event.Count{{AccountID: "a", ServiceID: "s", UnitCount: 500_000}, {AccountID: "a", ServiceID: "t"}}, Part: 2, Parts: 3, SnapshotID: "n"},
			`"accountId":"a","counts":[{"accountId":"a","serviceId":"s","unitCount":0.5},{"accountId":"a","serviceId":"t","unitCount":0}],"part":2,"parts":3,"snapshotId":"n"}`,
		},
		{"a snapshot of nothing", event.Snapshot{}, `"counts":[]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := event.Event{Vendor: "v", Organization: "o", Data: test.data}
			want := `{"vendorId":"v","organizationId":"o",` + test.want
			if got := string(e.AppendData(nil)); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestBinaryHeadersArePercentEncoded(t *testing.T) {
	e := countEvent()
	e.ID, e.Source, e.ReplayOf, e.Backfill = `50% "x" ü`, "//a b", "7-1", `100%"`
	want := map[string][]string{
		"ce-specversion": {"1.0"}, "ce-id": {"50%25%20%22x%22%20%C3%BC"}, "ce-source": {"//a%20b"}, "ce-type": {"usage.count.v1"},
		"ce-time": {"2026-11-20T12:00:00Z"}, "ce-replayof": {"7-1"}, "ce-backfill": {"100%25%22"}, "content-type": {"application/json"},
	}
	if got := e.BinaryHeaders(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestABatchHasOneToAThousandEventsOfOneIntegration(t *testing.T) {
	other := countEvent()
	other.Organization = "msp-0043"
	many := make([]*event.Event, event.MaxBatch+1)
	for i := range many {
		many[i] = countEvent()
	}
	for _, test := range []struct {
		name   string
		events []*event.Event
		want   string
	}{
		{"none", nil, "no events"},
		{"1001", many, "1001 events"},
		{"two integrations", []*event.Event{countEvent(), other}, "event 1 is of acme/msp-0043, event 0 of acme/msp-0042"},
	} {
		if b, err := event.EncodeBatch(test.events); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %.40s, %v, want an error with %s", test.name, b, err, test.want)
		}
	}
	b, err := event.EncodeBatch(many[:event.MaxBatch])
	if err != nil {
		t.Fatal(err)
	}
	results := event.Decode(event.Message{Subject: "usage.v1.acme.msp-0042.batch", Data: b, Sequence: 9, Stored: stored}, event.DefaultLimits())
	if last := results[len(results)-1]; len(results) != event.MaxBatch || last.Fault != nil || last.Event.Arrival.String() != "9-999" {
		t.Errorf("the last of a full batch: got %+v of %d results, want an event that arrived at 9-999", last, len(results))
	}
}

func TestAnEventIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := validEvent(t)
		if err := e.Check(); err != nil {
			t.Fatalf("the generator made a wrong event: %v", err)
		}
		message := event.Message{Subject: e.Subject().String(), Sequence: 1 << 40, Stored: e.Time}
		e.Arrival = event.ArrivalAt(message.Sequence, 0)
		if e.ReplayOf != "" {
			e.Arrival, _ = event.ParseArrival(e.ReplayOf)
		}
		structured, binary, batch := message, message, message
		structured.Data = e.Structured()
		binary.Header, binary.Data = e.BinaryHeaders(), e.AppendData(nil)
		batch.Subject = event.Subject{Kind: event.KindBatch, Vendor: e.Vendor, Organization: e.Organization}.String()
		var err error
		if batch.Data, err = event.EncodeBatch([]*event.Event{e, e}); err != nil {
			t.Fatal(err)
		}
		for mode, m := range map[string]event.Message{"structured": structured, "binary": binary, "batch": batch} {
			got := event.Decode(m, event.DefaultLimits())[0]
			if got.Fault != nil || !reflect.DeepEqual(got.Event, e) {
				t.Fatalf("%s: got %+v, %v\nwant %+v\nbody %s", mode, got.Event, got.Fault, e, m.Data)
			}
		}
	})
}

// printable is what the id of a backfill is made of.
var printable = &unicode.RangeTable{R16: []unicode.Range16{{Lo: '!', Hi: '~', Stride: 1}}, LatinOffset: 1}

// validEvent draws an event that the contract accepts.
func validEvent(t *rapid.T) *event.Event {
	id := rapid.StringN(1, 24, 256).Filter(func(s string) bool { return event.CheckID(s) == nil })
	attribute := rapid.StringN(1, 40, 1024).Filter(func(s string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7F && r <= 0x9F || r == 0xFFFD })
	})
	units := rapid.Map(rapid.Int64Range(0, int64(event.MaxUnits)), func(n int64) event.Units { return event.Units(n) })
	count := rapid.Custom(func(t *rapid.T) event.Count {
		return event.Count{AccountID: id.Draw(t, "account"), ServiceID: id.Draw(t, "service"), UnitCount: units.Draw(t, "units")}
	})
	e := &event.Event{
		ID: attribute.Draw(t, "id"), Source: attribute.Draw(t, "source"),
		Time:   time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 1e9-1).Draw(t, "nanos")).UTC(),
		Vendor: id.Draw(t, "vendor"), Organization: id.Draw(t, "organization"),
	}
	if rapid.Bool().Draw(t, "replayed") {
		e.ReplayOf = event.ArrivalAt(rapid.Uint64Range(1, 1<<40-1).Draw(t, "seq"), rapid.IntRange(0, 999).Draw(t, "index")).String()
	}
	if rapid.Bool().Draw(t, "backfilled") {
		e.Backfill = rapid.StringOfN(rapid.RuneFrom(nil, printable), 1, 128, -1).Draw(t, "backfill")
	}
	switch rapid.IntRange(0, 3).Draw(t, "type") {
	case 0:
		e.Type, e.Data = event.TypeCount, count.Draw(t, "count")
	case 1:
		e.Type = event.TypeSnapshot
		counts := rapid.SliceOfNDistinct(count, 0, 4, func(c event.Count) [2]string { return [2]string{c.AccountID, c.ServiceID} })
		s := event.Snapshot{Counts: counts.Draw(t, "counts")}
		if rapid.Bool().Draw(t, "parts") {
			s.Parts = rapid.IntRange(1, event.MaxParts).Draw(t, "of")
			s.Part, s.SnapshotID = rapid.IntRange(1, s.Parts).Draw(t, "part"), id.Draw(t, "snapshot")
		}
		e.Data = s
	case 2:
		e.Type = event.TypeAccount
		e.Data = event.Account{
			AccountID: id.Draw(t, "account"), Name: rapid.StringN(1, 512, -1).Draw(t, "name"),
			ExternalID: rapid.StringN(0, 256, -1).Draw(t, "external"), Description: rapid.StringN(0, 300, -1).Draw(t, "description"),
		}
	case 3:
		e.Type = event.TypeService
		e.Data = event.Service{ServiceID: id.Draw(t, "service"), Name: rapid.StringN(1, 512, -1).Draw(t, "name")}
	}
	return e
}
