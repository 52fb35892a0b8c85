package ledger

import (
	"reflect"
	"testing"
)

// oneEntry is the stored form of an entry as most are.
const oneEntry = `{"v":1,"state":"synced","seen":[{"t":1800000000000000004,"a":400000,"u":7000000,"e":"1a2b3c4d5e6f7081","d":"applied"},` +
	`{"t":1800000000000000003,"a":300000,"u":5000000,"e":"2a2b3c4d5e6f7081","d":"applied"},{"t":1800000000000000002,"a":200000,"e":"3a2b3c4d5e6f7081","d":"superseded"},` +
	`{"t":1800000000000000001,"a":100000,"u":4000000,"e":"4a2b3c4d5e6f7081","d":"applied"}],` +
	`"delivered":{"t":1800000000000000004,"a":400000,"u":7000000,"at":1800000000000000009,"r":"0198a6a0-0000-7000-8000-000000000000"},"answer":{"at":1800000000000000009,"s":201}}`

func FuzzAnEntryIsTheSameHoweverItIsRead(f *testing.F) {
	for _, text := range []string{
		oneEntry,
		`{"v":1,"state":"held","reason":"unmapped","seen":[{"t":-1,"a":1,"e":"1","d":"applied","b":"ff","w":2}],"attempts":3,"next":-4,"since":5}`,
		`{"v":1,"state":"dirty","seen":[{"t":1,"a":1,"p":"{}","e":"1","d":"applied"}],"delivered":{"t":1,"a":1,"at":2,"g":3,"nb":true},"answer":{"at":9,"s":400,"m":"bad"}}`,
		`{"v":1,"state":"dirty","seen":[{"t":1,"a":1,"e":"1","d":"applied","w":256}]}`, `{"v":1,"state":"dirty","seen":[{"t":1,"a":1,"e":"1","d":"applied","w":8}]}`,
		`{"v":1,"state":"dirty","seen":[{"t":01,"a":1,"e":"G","d":"applied"}]}`,
		`{"v":1,"state":"dirty","seen":[]}`, `{"v":1,"state":"dirty","seen":[{}]}`, `{"v":1}`, `{"v":1,"state":"dirty","state":"synced"}x`,
		`{"v":1,"state":"sending","seen":[{"t":9223372036854775808,"a":18446744073709551616,"e":"","d":"dead"}]}`,
	} {
		f.Add([]byte(text))
	}
	key := CountKey("o", "a", "s")
	f.Fuzz(func(t *testing.T, data []byte) {
		quick, ok := scanEntry(key, data)
		if !ok {
			return
		}
		whole, err := parseEntry(key, data)
		if err != nil {
			t.Fatalf("%s: read as %+v, although it is wrong: %v", data, quick, err)
		}
		if !reflect.DeepEqual(quick, whole) {
			t.Fatalf("%s: read as %+v\nwant %+v", data, quick, whole)
		}
	})
}

func TestEntriesAsTheyAreWrittenAreReadTheFastWay(t *testing.T) {
	want, err := parseEntry(CountKey("o", "a", "s"), []byte(oneEntry))
	if err != nil {
		t.Fatal(err)
	}
	got, ok := scanEntry(want.Key, []byte(oneEntry))
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("read as %+v, %t\nwant %+v", got, ok, want)
	}
	if again := string(AppendEntry(nil, &want)); again != oneEntry {
		t.Errorf("written as %s\nwant %s", again, oneEntry)
	}
}

func BenchmarkReadEntry(b *testing.B) {
	for _, c := range []struct {
		name string
		read func(Key, []byte) (Entry, error)
	}{{"scan", ParseEntry}, {"encoding-json", parseEntry}} {
		b.Run(c.name, func(b *testing.B) {
			key, data := CountKey("o", "a", "s"), []byte(oneEntry)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.read(key, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
