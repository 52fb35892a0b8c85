package ledger_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

func TestStoredEntryKeepsItsForm(t *testing.T) {
	e := accepted(folded(t, op(1, 10, 100, 5), op(2, 20, 200, 7)))
	const want = `{"v":1,"state":"synced","seen":[{"t":20,"a":200,"u":7,"e":"2","d":"applied"},{"t":10,"a":100,"u":5,"e":"1","d":"applied"}],` +
		`"delivered":{"t":20,"a":200,"u":7,"at":1800000000000000000,"r":"r-1"},"answer":{"at":1800000000000000000,"s":201}}`
	if got := string(ledger.AppendEntry([]byte("x"), &e)); got != "x"+want {
		t.Errorf("AppendEntry = %s\nwant x%s", got, want)
	}
}

func TestEntryReadBackIsTheEntryWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		got, err := ledger.ParseEntry(e.Key, ledger.AppendEntry(nil, &e))
		if err != nil {
			t.Fatalf("ParseEntry: %v", err)
		}
		if e.State == ledger.Sending {
			e.State = ledger.Dirty // a call does not outlive the process
		}
		if !reflect.DeepEqual(got, e) {
			t.Fatalf("read back %+v\nwant %+v", got, e)
		}
	})
}

// drawEntry draws any sound entry, its texts any UTF-8.
func drawEntry(t *rapid.T) ledger.Entry {
	number := rapid.Int64()
	e := ledger.Entry{
		Key:      key,
		State:    rapid.SampledFrom(ledger.States()).Draw(t, "state"),
		Attempts: rapid.Int().Draw(t, "attempts"),
		Next:     number.Draw(t, "next"),
		Since:    number.Draw(t, "since"),
	}
	if e.State == ledger.Held {
		e.Reason = rapid.SampledFrom(ledger.HoldReasons()).Draw(t, "reason")
	}
	v := ledger.Version{Time: number.Draw(t, "time"), Arrival: rapid.Uint64().Draw(t, "arrival")}
	for range rapid.IntRange(1, 6).Draw(t, "seen") {
		e.Seen = append(e.Seen, ledger.Seen{
			Version: v, Value: drawValue(t), Event: rapid.Uint64().Draw(t, "event"),
			Disposition: rapid.SampledFrom(ledger.Dispositions()).Draw(t, "disposition"),
		})
		v.Arrival /= 2
	}
	if at := number.Draw(t, "delivered"); at != 0 {
		e.Delivered = ledger.Delivered{Version: v, Value: drawValue(t), At: at, Receipt: ledger.Receipt{
			RequestID: rapid.String().Draw(t, "request"), Generation: rapid.IntMin(0).Draw(t, "generation"), Unbuilt: rapid.Bool().Draw(t, "unbuilt"),
		}}
	}
	if at := number.Draw(t, "answered"); at != 0 {
		e.Answer = ledger.Answer{At: at, Status: rapid.Int().Draw(t, "status"), Message: rapid.String().Draw(t, "message")}
	}
	return e
}

func drawValue(t *rapid.T) ledger.Value {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`{"name":"a<b>&\"c\\ \u2028"}`, "\x00\ufffd\u2028\u2029\x7f"}))
	return ledger.Value{Units: rapid.Int64().Draw(t, "units"), Properties: text.Draw(t, "properties")}
}

func TestEntryThatCannotBeTrustedIsRefused(t *testing.T) {
	const seen = `"seen":[{"t":1,"a":1,"e":"1","d":"applied"}]`
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":               {`{`, "unexpected end"},
		"text behind it":        {`{"v":1,"state":"dirty",` + seen + `} x`, "after top-level value"},
		"another format":        {`{"v":2,"state":"dirty",` + seen + `}`, "format 2: this version reads format 1"},
		"no format":             {`{"state":"dirty",` + seen + `}`, "format 0"},
		"no figure":             {`{"v":1,"state":"dirty"}`, "has no figure"},
		"no state":              {`{"v":1,` + seen + `}`, `unknown state ""`},
		"unknown state":         {`{"v":1,"state":"lost",` + seen + `}`, `unknown state "lost"`},
		"unknown reason":        {`{"v":1,"state":"held","reason":"moon",` + seen + `}`, `unknown reason "moon"`},
		"a reason without hold": {`{"v":1,"state":"dirty","reason":"unmapped",` + seen + `}`, `is dirty and yet has the reason "unmapped"`},
		"unknown disposition":   {`{"v":1,"state":"dirty","seen":[{"t":1,"a":1,"e":"1","d":"odd"}]}`, `disposition "odd"`},
		"no digest":             {`{"v":1,"state":"dirty","seen":[{"t":1,"a":1,"e":"xyz","d":"applied"}]}`, `digest "xyz"`},
		"a fraction of a unit":  {`{"v":1,"state":"dirty","seen":[{"t":1,"a":1,"u":1.5,"e":"1","d":"applied"}]}`, "cannot unmarshal number 1.5"},
		"newer behind older":    {`{"v":1,"state":"dirty","seen":[{"t":1,"a":1,"e":"1","d":"applied"},{"t":1,"a":2,"e":"2","d":"applied"}]}`, "newer figure behind an older one (place 1)"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ledger.ParseEntry(key, []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "entry msp-1/count/acme/backup") {
				t.Errorf("ParseEntry = %v; want an error that names the entry and says %q", err, c.want)
			}
		})
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range []ledger.Entry{folded(f, op(1, 10, 100, 5)), accepted(folded(f, op(1, 10, 100, 5), op(2, 20, 200, 7)))} {
		f.Add(ledger.AppendEntry(nil, &e))
	}
	f.Add([]byte(`{"v":1,"state":"held","reason":"unmapped","seen":[{"t":-1,"a":0,"p":"\ud800","e":"ff","d":"unchanged"}],"answer":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ledger.ParseEntry(key, data)
		if err != nil {
			return
		}
		// What was read once is read the same for ever.
		stored := ledger.AppendEntry(nil, &e)
		again, err := ledger.ParseEntry(key, stored)
		if err != nil {
			t.Fatalf("reading what was written: %v\n%s", err, stored)
		}
		if got := ledger.AppendEntry(nil, &again); string(got) != string(stored) {
			t.Fatalf("written again: %s\nwant %s", got, stored)
		}
	})
}

func BenchmarkAppendEntry(b *testing.B) {
	e := accepted(folded(b, op(1, 10, 1, 1), op(2, 20, 2, 2), op(3, 30, 3, 3), op(4, 40, 4, 4)))
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = ledger.AppendEntry(dst[:0], &e)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkParseEntry(b *testing.B) {
	e := accepted(folded(b, op(1, 10, 1, 1), op(2, 20, 2, 2), op(3, 30, 3, 3), op(4, 40, 4, 4)))
	data := ledger.AppendEntry(nil, &e)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ledger.ParseEntry(key, data); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTheLargestEntryFitsIntoAMessage(t *testing.T) {
	// The most that the event contract lets properties be, in the characters
	// that take the most room in JSON within JSON.
	properties, err := json.Marshal(map[string]string{
		"name": strings.Repeat("\x01", 512), "externalId": strings.Repeat("\x01", 256), "description": strings.Repeat("\x01", 4096),
	})
	if err != nil {
		t.Fatal(err)
	}
	var e ledger.Entry
	for i := 1; i <= 100; i++ {
		o := op(i, 10, i, 0)
		o.Key, o.Value = ledger.AccountKey("msp-1", "acme"), ledger.Value{Properties: string(properties)}
		e = after(e, o)
	}
	e = e.Accept(e.Seen[0], ledger.Receipt{RequestID: strings.Repeat("r", 128), Generation: math.MaxInt, Unbuilt: true}, ledger.Answer{At: 1, Message: strings.Repeat("\x01", 512)})
	const most = 1 << 20 // the server's bound, headers and subject included
	if got := len(ledger.AppendEntry(nil, &e)); got > most/2 {
		t.Errorf("the stored entry takes %d bytes, want at most half of %d", got, most)
	}
}
