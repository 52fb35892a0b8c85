package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// furnished is an embedded store with something of everything: events of which
// some are acknowledged, a ledger, letters, records and logs.
func furnished(t *testing.T) *Broker {
	t.Helper()
	b := connect(t, startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL())
	initVendor(t, b, InitConfig{Vendor: "acme", Partitions: 2, LeaseTTL: 2 * time.Second})
	publishCounts(t, b, "o", 30)
	src, err := b.Source(t.Context(), "acme", Partition("acme", "o", 2), SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Ack(t.Context(), receive(t, src, 10)[:7]); err != nil {
		t.Fatal(err)
	}
	src.Close()
	if err := b.Ledger("acme").Write(t.Context(), 1, entries(1200)); err != nil {
		t.Fatal(err)
	}
	letter := event.Letter{Vendor: "acme", Organization: "o", Fault: event.Fault{Reason: event.ReasonMalformed}}
	letter.Original.Stream, letter.Original.Sequence = EventsStream("acme"), 3
	if err := b.Park(t.Context(), []event.Letter{letter}); err != nil {
		t.Fatal(err)
	}
	decisions, err := OpenBucket[string](t.Context(), b, BucketDecisions)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // history 1: the sequences have gaps
		if err := decisions.Create(t.Context(), fmt.Sprint("k", i), "released"); err != nil {
			t.Fatal(err)
		}
		if _, err := decisions.Update(t.Context(), fmt.Sprint("k", i), func(s *string) error { *s = "refused"; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Append(t.Context(), "audit.v1.root", map[string][]string{"K": {"v"}}, []byte("did"), ""); err != nil {
		t.Fatal(err)
	}
	return b
}

func export(t *testing.T, b *Broker) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := b.Export(t.Context(), &file, nil); err != nil {
		t.Fatalf("export: %v", err)
	}
	return file.Bytes()
}

// contents is every message of every stream, and what consumers have
// acknowledged, as text.
func contents(t *testing.T, b *Broker) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	infos, err := b.ours(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		name := info.Config.Name
		all[name] = []string{fmt.Sprintf("%d messages, the last was %d", info.State.Msgs, info.State.LastSeq)}
		s, err := b.js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for sequence := info.State.FirstSeq; sequence <= info.State.LastSeq && info.State.Msgs > 0; sequence++ {
			m, err := s.GetMsg(t.Context(), sequence)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				t.Fatalf("read %s %d: %v", name, sequence, err)
			}
			all[name] = append(all[name], fmt.Sprintf("%d %s %s %v %s", m.Sequence, m.Time, m.Subject, m.Header, m.Data))
		}
		list := s.ListConsumers(t.Context())
		for c := range list.Info() {
			if c.Config.Durable != "" {
				all[name+"/"+c.Name] = []string{fmt.Sprintf("acknowledged to %d, %d to come, %d under way, %v", c.AckFloor.Stream, c.NumPending, c.NumAckPending, c.Config.AckWait)}
			}
		}
		if err := list.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func wantContents(t *testing.T, got, want map[string][]string) {
	t.Helper()
	for name := range want {
		if g, w := strings.Join(got[name], "\n"), strings.Join(want[name], "\n"); g != w {
			t.Errorf("%s: got\n%.2000s\nwant\n%.2000s", name, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d streams and consumers, want %d", len(got), len(want))
	}
}

func TestAStoreMovesToAClusterAsItIs(t *testing.T) {
	old := furnished(t)
	want := contents(t, old)
	file := export(t, old)

	onCluster(t)
	b := blank(t)
	boss := operator(b)
	m, err := boss.Import(t.Context(), bytes.NewReader(file), ImportConfig{})
	if err != nil {
		t.Fatalf("import: %v", err)
	}
	if len(m.Streams) != 13 {
		t.Errorf("%d streams imported, want 13", len(m.Streams))
	}
	wantContents(t, contents(t, b), want)
	report := initVendor(t, b, InitConfig{Vendor: "acme"})
	for _, o := range report.Objects {
		if o.State != Unchanged {
			t.Errorf("init after the import: %s %s is %s %v, want %s", o.Kind, o.Name, o.State, o.Differences, Unchanged)
		}
	}
	if v, err := b.Vendor(t.Context(), "acme"); err != nil || v.Replicas != 3 || v.Partitions != 2 {
		t.Errorf("vendor %+v, %v; want 3 replicas and 2 partitions", v, err)
	}

	// It goes on where it was.
	publishCounts(t, b, "o", 1)
	src, err := b.Source(t.Context(), "acme", Partition("acme", "o", 2), SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var rest []uint64
	for len(rest) < 24 {
		messages, err := src.Receive(within(t, 40*time.Second))
		if err != nil {
			t.Fatalf("after %v: %v", rest, err)
		}
		if err := src.Ack(t.Context(), messages); err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			rest = append(rest, m.Sequence)
		}
	}
	seen := map[uint64]bool{}
	for _, sequence := range rest {
		if sequence <= 7 {
			t.Errorf("event %d is delivered again: it was acknowledged before the move", sequence)
		}
		seen[sequence] = true
	}
	if len(seen) != 24 || !seen[31] {
		t.Errorf("after the move came %v, want 8 to 31", rest)
	}
	n := 0
	err = b.Ledger("acme").Load(t.Context(), 1, func(ledger.Entry) error { n++; return nil })
	if err != nil || n != 1200 {
		t.Errorf("the ledger has %d entries, %v; want 1200", n, err)
	}
}

func TestAStoreMovesBackToAnEmbeddedServer(t *testing.T) {
	old := furnished(t)
	file := export(t, old)
	b := connect(t, startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL())
	if _, err := b.Import(t.Context(), bytes.NewReader(file), ImportConfig{}); err != nil {
		t.Fatalf("import: %v", err)
	}
	wantContents(t, contents(t, b), contents(t, old))
}

func TestAnImportThatWasBrokenOffIsResumed(t *testing.T) {
	old := furnished(t)
	file, want := export(t, old), contents(t, old)
	b := operator(blank(t)) // on a cluster, something else is left of it
	broken := errors.New("broken off")
	failing := &failingFile{ReadSeeker: bytes.NewReader(file), err: broken}
	_, err := b.Import(t.Context(), failing, ImportConfig{Told: func(s ExportedStream, _ bool) {
		failing.now = s.Name == bucketPrefix+LedgerBucket("acme")
	}})
	if !errors.Is(err, broken) {
		t.Fatalf("import: got %v, want %v", err, broken)
	}
	wantError(t, err, "import stream KV_LEDGER_acme", "resume")
	_, err = b.Import(t.Context(), bytes.NewReader(file), ImportConfig{})
	wantError(t, err, "the store is not empty", "EVENTS_acme")
	passed := map[string]bool{}
	_, err = b.Import(within(t, 30*time.Second), bytes.NewReader(file), ImportConfig{Resume: true, Told: func(s ExportedStream, there bool) { passed[s.Name] = there }})
	if err != nil {
		t.Fatalf("resume: %v", err)
	}
	if !passed["EVENTS_acme"] || passed["KV_LEDGER_acme"] {
		t.Errorf("passed over %v, want the log and not the ledger", passed)
	}
	wantContents(t, contents(t, b), want)

	publishCounts(t, b, "o", 1)
	_, err = b.Import(t.Context(), bytes.NewReader(file), ImportConfig{Resume: true})
	wantError(t, err, "EVENTS_acme (its last message is 31, in the file it is 30)")
}

// failingFile fails to be read from now on.
type failingFile struct {
	io.ReadSeeker
	now bool
	err error
}

func (f *failingFile) Read(p []byte) (int, error) {
	if f.now {
		return 0, f.err
	}
	return f.ReadSeeker.Read(p)
}

func TestAFileThatIsNotAsItWasWrittenIsRefusedBeforeAnythingIs(t *testing.T) {
	old := furnished(t)
	file := export(t, old)
	b := connect(t, startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL())
	refuse := func(what string, data []byte) {
		t.Helper()
		if _, err := b.Import(t.Context(), bytes.NewReader(data), ImportConfig{}); err == nil {
			t.Errorf("%s was imported", what)
		} else if !strings.Contains(err.Error(), "read the exported store: ") {
			t.Errorf("%s: got error %q, want one of the reading", what, err)
		}
		if infos, err := b.ours(t.Context()); err != nil || len(infos) > 0 {
			t.Fatalf("%s: the store has %d streams, %v; want none", what, len(infos), err)
		}
	}
	refuse("nothing", nil)
	refuse("a text", bytes.Repeat([]byte("no tar "), 1000))
	for _, n := range []int{1, 511, 512, 513, len(file) / 2, len(file) - 3*512, len(file) - 4*512 - 1} {
		refuse(fmt.Sprintf("the first %d bytes of %d", n, len(file)), file[:n])
	}
	for at := 600; at < len(file)-1024; at += len(file) / 50 {
		altered := bytes.Clone(file)
		if altered[at] ^= 1; inPadding(file, at) {
			continue // of which nobody reads anything
		}
		refuse(fmt.Sprintf("a file with another byte %d", at), altered)
	}
}

// inPadding says that the byte belongs to no header and no content.
func inPadding(file []byte, at int) bool {
	for offset := 0; offset+512 <= len(file); {
		size := 0
		if _, err := fmt.Sscanf(string(bytes.Trim(file[offset+124:offset+136], "\x00 ")), "%o", &size); err != nil {
			return true // the end
		}
		begin := offset + 512
		end := begin + (size+511)/512*512
		if at < begin {
			return false
		}
		if at < end {
			return at >= begin+size
		}
		offset = end
	}
	return true
}

func TestAnExportIsOfAQuietStore(t *testing.T) {
	b := furnished(t)
	member, err := b.Member(t.Context(), "w one", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Export(t.Context(), io.Discard, nil)
	wantError(t, err, "these workers run", "w one", "stop them first")
	if err := member.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = b.Export(t.Context(), io.Discard, func(name string, _, _ uint64) {
		if name == StreamAudit {
			publishCounts(t, b, "o", 1)
		}
		if name == StreamSyncLog {
			if err := b.Append(t.Context(), "audit.v1.root", nil, []byte("did"), ""); err != nil {
				t.Error(err)
			}
		}
	})
	wantError(t, err, "AUDIT (its last message was 1, now it is 2)", "export again")

	empty := connect(t, startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL())
	_, err = empty.Export(t.Context(), io.Discard, nil)
	wantError(t, err, "nothing is set up")
}

func TestAWorkersUserCannotCopyTheStore(t *testing.T) {
	onCluster(t)
	b := open(t, 1)
	_, err := b.Export(t.Context(), io.Discard, nil)
	wantError(t, err, "export stream", "Permissions Violation", "USAGEBRIDGE_NATS_NKEY")
}
