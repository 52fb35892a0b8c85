package broker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// An exported store is a tar: for every stream its parts NAME/00000001 and on,
// as the server sends them, then manifest.json, which says what all of them
// must be, then manifest.sha256, which says what that must be. The manifest is
// last because nobody knows before how much will come, and so that a file that
// ends too early has none.

const (
	storeFormat  = "usagebridge store"
	storeVersion = 1
	manifestFile = "manifest.json"
	manifestSum  = "manifest.sha256"
	maxManifest  = 64 << 20

	// settleWait is how long a cluster may take to give up a stream of which no
	// more comes. It does so after 5 s.
	settleWait = 30 * time.Second
)

// Manifest says what an exported store holds.
type Manifest struct {
	Format  string           `json:"format"`
	Version int              `json:"version"`
	Created time.Time        `json:"created"`
	Server  string           `json:"server"` // version of the nats-server
	Streams []ExportedStream `json:"streams"`
}

// ExportedStream is one stream of an exported store.
type ExportedStream struct {
	Name string `json:"name"`
	// Messages, First and Last are the number of messages and their first and
	// last sequence.
	Messages uint64 `json:"messages"`
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	// Parts and Bytes are what the export has of it, SHA256 the digest of all
	// parts one after the other. There are none of a stream that is to be made
	// anew, empty: leases are of no use elsewhere.
	Parts  int    `json:"parts"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256,omitempty"`

	Config json.RawMessage `json:"config"`
	State  json.RawMessage `json:"state,omitempty"`
}

func (s *ExportedStream) empty() bool { return s.Name == bucketPrefix+BucketLeases }

// Export writes the whole store: every stream that Init has made, with its
// messages, their sequences and times, and what the partitions' consumers have
// acknowledged. No worker may run, and it is an error if anything is published
// meanwhile: an export is the store at one moment, or none. The secrets of
// integrations stay sealed; everything else is in the clear, even if the store
// is encrypted. told, if not nil, is told of each stream before it is written.
func (b *Broker) Export(ctx context.Context, w io.Writer, told func(name string, messages, bytes uint64)) (Manifest, error) {
	m := Manifest{Format: storeFormat, Version: storeVersion, Created: time.Now().UTC().Truncate(time.Second), Server: b.conn.ConnectedServerVersion()}
	if err := b.quiet(ctx); err != nil {
		return m, fmt.Errorf("export the store: %w", err)
	}
	infos, err := b.ours(ctx)
	if err != nil {
		return m, fmt.Errorf("export the store: %w", err)
	}
	if len(infos) == 0 {
		return m, errors.New("export the store: nothing is set up in it")
	}
	out := tar.NewWriter(w)
	for _, info := range infos {
		if told != nil {
			told(info.Config.Name, info.State.Msgs, info.State.Bytes)
		}
		s, err := b.exportStream(ctx, out, info)
		if err != nil {
			return m, fmt.Errorf("export stream %s: %w", info.Config.Name, err)
		}
		m.Streams = append(m.Streams, s)
	}
	if err := b.unchanged(ctx, &m); err != nil {
		return m, fmt.Errorf("export the store: %w", err)
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("export the store: %w", err)
	}
	sum := sha256.Sum256(data)
	err = writePart(out, manifestFile, data, m.Created)
	if err == nil {
		err = writePart(out, manifestSum, []byte(hex.EncodeToString(sum[:])+"\n"), m.Created)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		return m, fmt.Errorf("export the store: %w", err)
	}
	return m, nil
}

func writePart(out *tar.Writer, name string, data []byte, at time.Time) error {
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: at, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

// quiet refuses while a worker is alive: what it does between two streams would
// be in the one and not in the other.
func (b *Broker) quiet(ctx context.Context) error {
	working := map[string]bool{}
	_, err := b.js.Stream(ctx, bucketPrefix+BucketLeases)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err == nil {
		err = b.holders(ctx, "*", func(_ string, h holder) error {
			working[h.Worker] = true
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("look for workers that run: %w", err)
	}
	if len(working) > 0 {
		return fmt.Errorf("these workers run, or were killed within the life of their leases: %s: stop them first",
			strings.Join(slices.Sorted(maps.Keys(working)), ", "))
	}
	return nil
}

// ours lists the streams that Init makes, by name.
func (b *Broker) ours(ctx context.Context) ([]*jetstream.StreamInfo, error) {
	shared := map[string]bool{}
	for _, o := range b.objects(InitConfig{Vendor: "-", Partitions: 1}) {
		shared[o.want.Name] = true
	}
	var all []*jetstream.StreamInfo
	list := b.js.ListStreams(ctx)
	for info := range list.Info() {
		name := info.Config.Name
		if shared[name] || strings.HasPrefix(name, eventsPrefix) || strings.HasPrefix(name, bucketPrefix+ledgerPrefix) {
			all = append(all, info)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	slices.SortFunc(all, func(a, b *jetstream.StreamInfo) int { return strings.Compare(a.Config.Name, b.Config.Name) })
	return all, nil
}

func (b *Broker) exportStream(ctx context.Context, out *tar.Writer, info *jetstream.StreamInfo) (ExportedStream, error) {
	s := ExportedStream{Name: info.Config.Name}
	if s.empty() {
		config, err := json.Marshal(info.Config)
		s.Config = config
		return s, err
	}
	sum, now := sha256.New(), time.Now()
	taken, err := b.snapshotStream(ctx, s.Name, strings.HasPrefix(s.Name, eventsPrefix) || s.Name == StreamRequests, func(chunk []byte) error {
		s.Parts++
		s.Bytes += int64(len(chunk))
		sum.Write(chunk)
		return writePart(out, partName(s.Name, s.Parts), chunk, now)
	})
	if err != nil {
		return s, err
	}
	var state jetstream.StreamState
	if err := json.Unmarshal(taken.State, &state); err != nil {
		return s, fmt.Errorf("its state: %w", err)
	}
	s.Messages, s.First, s.Last = state.Msgs, state.FirstSeq, state.LastSeq
	s.SHA256, s.Config, s.State = hex.EncodeToString(sum.Sum(nil)), taken.Config, taken.State
	return s, nil
}

func partName(stream string, part int) string { return fmt.Sprintf("%s/%08d", stream, part) }

// unchanged says what was published since the export of each stream.
func (b *Broker) unchanged(ctx context.Context, m *Manifest) error {
	infos, err := b.ours(ctx)
	if err != nil {
		return err
	}
	last := map[string]uint64{}
	for _, info := range infos {
		last[info.Config.Name] = info.State.LastSeq
	}
	var changed []string
	for i := range m.Streams {
		s := &m.Streams[i]
		if now, there := last[s.Name]; !s.empty() && now != s.Last {
			changed = append(changed, fmt.Sprintf("%s (its last message was %d, now it is %d)", s.Name, s.Last, now))
		} else if !there {
			changed = append(changed, s.Name+" (it is gone)")
		}
		delete(last, s.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(last)) {
		changed = append(changed, name+" (it is new)")
	}
	if len(changed) > 0 {
		return fmt.Errorf("these streams have changed meanwhile: %s: stop publishers and commands, and export again", strings.Join(changed, ", "))
	}
	return b.quiet(ctx)
}

// ReadManifest reads an exported store to its end and says what it holds. An
// error means that the file is not whole, or not what was written.
func ReadManifest(r io.Reader) (Manifest, error) {
	var m Manifest
	found := map[string]*partsRead{}
	var data, sum []byte
	in := tar.NewReader(r)
	for {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = readPart(in, head, found, &data, &sum)
		}
		if err != nil {
			return m, fmt.Errorf("read the exported store: %w", damaged(err))
		}
	}
	if err := m.parse(data, sum); err != nil {
		return m, fmt.Errorf("read the exported store: %w", err)
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		if err := found[s.Name].check(s); err != nil {
			return m, fmt.Errorf("read the exported store: stream %s: %w", s.Name, err)
		}
		delete(found, s.Name)
	}
	for name := range found {
		return m, fmt.Errorf("read the exported store: it has parts of %s, of which its manifest does not know", name)
	}
	return m, nil
}

func damaged(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("the file is cut off, damaged, or no export: %w", err)
	}
	return err
}

// partsRead is what was found of one stream.
type partsRead struct {
	parts int
	bytes int64
	sum   hash.Hash
}

func readPart(in *tar.Reader, head *tar.Header, found map[string]*partsRead, manifest, sum *[]byte) error {
	switch head.Name {
	case manifestFile:
		return readSmall(in, head, manifest)
	case manifestSum:
		return readSmall(in, head, sum)
	}
	stream := path.Dir(head.Name)
	p := found[stream]
	if p == nil {
		p = &partsRead{sum: sha256.New()}
		found[stream] = p
	}
	p.parts++
	if want := partName(stream, p.parts); head.Name != want {
		return fmt.Errorf("%q is no part of an exported store, or not in its place: want %q", head.Name, want)
	}
	n, err := io.Copy(p.sum, in)
	p.bytes += n
	return err
}

func readSmall(in io.Reader, head *tar.Header, to *[]byte) error {
	if head.Size > maxManifest {
		return fmt.Errorf("%s has %d bytes: want at most %d", head.Name, head.Size, maxManifest)
	}
	data, err := io.ReadAll(in)
	*to = data
	return err
}

func (m *Manifest) parse(data, sum []byte) error {
	if data == nil || sum == nil {
		return fmt.Errorf("it has no %s and %s: the file is cut off, or no export", manifestFile, manifestSum)
	}
	if is := sha256.Sum256(data); hex.EncodeToString(is[:]) != strings.TrimSpace(string(sum)) {
		return fmt.Errorf("%s is not as it was written", manifestFile)
	}
	if err := json.Unmarshal(data, m); err != nil {
		return fmt.Errorf("%s: %w", manifestFile, err)
	}
	if m.Format != storeFormat || m.Version != storeVersion {
		return fmt.Errorf("its format is %q version %d: this usagebridge reads %q version %d", m.Format, m.Version, storeFormat, storeVersion)
	}
	return nil
}

// check holds what was found, nil for nothing, against the manifest.
func (p *partsRead) check(s *ExportedStream) error {
	if p == nil {
		p = &partsRead{sum: sha256.New()}
	}
	if s.empty() && p.parts == 0 {
		return nil
	}
	if p.parts != s.Parts || p.bytes != s.Bytes {
		return fmt.Errorf("it has %d parts of %d bytes, and was written with %d of %d", p.parts, p.bytes, s.Parts, s.Bytes)
	}
	if hex.EncodeToString(p.sum.Sum(nil)) != s.SHA256 {
		return errors.New("it is not as it was written (sha256)")
	}
	return nil
}

// ImportConfig says how to import a store.
type ImportConfig struct {
	// Replicas is 1 or 3; 0: 3 on a cluster, 1 elsewhere.
	Replicas int
	// Resume passes over streams that are there exactly as the file has them:
	// those that an import which was broken off has restored.
	Resume bool
	// Told, if not nil, is told of each stream before it is restored, or passed
	// over because it is there.
	Told func(s ExportedStream, there bool)
}

// Import restores an exported store into one that has none of its streams. The
// file is read to its end and checked before anything is written. Each stream
// appears as a whole, or, after an error, not at all or empty; those that are
// whole stay, and Resume goes on with the rest. No worker may run, and nobody
// may publish.
func (b *Broker) Import(ctx context.Context, file io.ReadSeeker, c ImportConfig) (Manifest, error) {
	m, err := ReadManifest(file)
	if err != nil {
		return m, err
	}
	if c.Replicas, err = b.importReplicas(c.Replicas); err != nil {
		return m, fmt.Errorf("import the store: %w", err)
	}
	there, err := b.settled(ctx, &m, c.Resume)
	if err != nil {
		return m, fmt.Errorf("import the store: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return m, fmt.Errorf("import the store: %w", err)
	}
	in := &importing{broker: b, config: c, tar: tar.NewReader(file)}
	// Leases come last: a worker starts when there are some to take.
	slices.SortStableFunc(m.Streams, func(a, b ExportedStream) int {
		switch {
		case a.empty() == b.empty():
			return 0
		case a.empty():
			return 1
		}
		return -1
	})
	for i := range m.Streams {
		s := &m.Streams[i]
		if c.Told != nil {
			c.Told(*s, there[s.Name])
		}
		if err := in.stream(ctx, s, there[s.Name]); err != nil {
			return m, fmt.Errorf("import stream %s: %w: what was imported before it is complete; resume the import for the rest", s.Name, err)
		}
	}
	return m, nil
}

func (b *Broker) importReplicas(wish int) (int, error) {
	clustered := b.conn.ConnectedClusterName() != ""
	switch {
	case wish == 0 && clustered:
		return 3, nil
	case wish == 0:
		return 1, nil
	case wish != 1 && wish != 3:
		return 0, fmt.Errorf("%d replicas: want 1 or 3", wish)
	case wish == 3 && !clustered:
		return 0, errNoCluster(b, wish)
	}
	return wish, nil
}

// settled waits until a cluster has given up the stream that an import which
// was broken off was restoring: until then it does not answer.
func (b *Broker) settled(ctx context.Context, m *Manifest, resume bool) (map[string]bool, error) {
	for began := time.Now(); ; {
		there, err := b.importable(ctx, m, resume)
		if err == nil || !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || time.Since(began) > settleWait {
			return there, err
		}
		if err := pause(ctx, time.Second); err != nil {
			return nil, err
		}
	}
}

// importable says which streams of the manifest are there already, or why
// nothing can be imported.
func (b *Broker) importable(ctx context.Context, m *Manifest, resume bool) (map[string]bool, error) {
	if err := b.quiet(ctx); err != nil {
		return nil, err
	}
	infos, err := b.ours(ctx)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	var names, problems []string
	for _, info := range infos {
		name := info.Config.Name
		names = append(names, name)
		at := slices.IndexFunc(m.Streams, func(s ExportedStream) bool { return s.Name == name })
		if at < 0 {
			problems = append(problems, name+" (the file does not have it)")
			continue
		}
		if resume && info.State.LastSeq == 0 && m.Streams[at].Last > 0 {
			continue // Import removes it
		}
		if problem := m.Streams[at].differs(info); problem != "" {
			problems = append(problems, fmt.Sprintf("%s (%s)", name, problem))
		}
		there[name] = true
	}
	if !resume && len(names) > 0 {
		return nil, fmt.Errorf("the store is not empty, it has %s: import into an empty one, or resume an import that was broken off", strings.Join(names, ", "))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("the store has streams that are not as the file has them: %s: they were not imported from it, or were used since: "+
			"remove them if they are to be replaced, and import again", strings.Join(problems, ", "))
	}
	return there, nil
}

// differs says in what the stream is not the exported one. Messages may have
// grown too old meanwhile.
func (s *ExportedStream) differs(is *jetstream.StreamInfo) string {
	switch {
	case s.empty():
		return ""
	case is.State.LastSeq != s.Last:
		return fmt.Sprintf("its last message is %d, in the file it is %d", is.State.LastSeq, s.Last)
	case is.State.Msgs != s.Messages && (is.Config.MaxAge == 0 || is.State.Msgs > s.Messages):
		return fmt.Sprintf("it has %d messages, in the file there are %d", is.State.Msgs, s.Messages)
	}
	return ""
}

// importing reads the parts of one stream after the other.
type importing struct {
	broker *Broker
	config ImportConfig
	tar    *tar.Reader
}

func (i *importing) stream(ctx context.Context, s *ExportedStream, there bool) error {
	config, err := withReplicas(s.Config, i.config.Replicas)
	if err != nil {
		return err
	}
	if s.empty() {
		return i.create(ctx, s.Name, config, there)
	}
	var to *restoring
	if !there {
		if i.config.Resume {
			err = i.removeEmpty(ctx, s)
		}
		if err != nil {
			return err
		}
		if to, err = i.broker.restoreStream(ctx, s.Name, snapshot{Config: config, State: s.State}); err != nil {
			return tooFewServers(err)
		}
	}
	chunk := &bytes.Buffer{}
	for part := range s.Parts {
		if _, err := i.tar.Next(); err != nil {
			return fmt.Errorf("read part %d: %w", part+1, err)
		}
		if there {
			continue
		}
		chunk.Reset()
		if _, err := chunk.ReadFrom(i.tar); err != nil {
			return fmt.Errorf("read part %d: %w", part+1, err)
		}
		if err := to.add(ctx, chunk.Bytes()); err != nil {
			return fmt.Errorf("part %d of %d: %w", part+1, s.Parts, err)
		}
	}
	if there {
		return nil
	}
	if err := to.end(ctx); err != nil {
		return err
	}
	return i.verify(ctx, s)
}

// removeEmpty removes what a cluster leaves of a stream that was not restored to
// its end: one in which there never was a message.
func (i *importing) removeEmpty(ctx context.Context, s *ExportedStream) error {
	is, err := i.broker.js.Stream(ctx, s.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if last := is.CachedInfo().State.LastSeq; last != 0 {
		return fmt.Errorf("it is there, and its last message is %d", last)
	}
	return i.broker.ask(ctx, apiDelete+s.Name, struct{}{}, &struct{}{})
}

// create makes a stream anew that is exported without its messages.
func (i *importing) create(ctx context.Context, name string, config json.RawMessage, there bool) error {
	if there {
		return nil
	}
	var info jetstream.StreamInfo
	return i.broker.ask(ctx, apiCreate+name, config, &info)
}

// verify asks for the stream until its leader has all of it.
func (i *importing) verify(ctx context.Context, s *ExportedStream) error {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		request, cancel := limited(ctx)
		is, err := i.broker.js.Stream(request, s.Name)
		cancel()
		problem := ""
		if err == nil {
			problem = s.differs(is.CachedInfo())
		}
		switch {
		case err == nil && problem == "":
			return nil
		case err == nil && wait == lastRetry:
			return errors.New(problem)
		case err != nil && wait == lastRetry:
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// withReplicas changes nothing else of a configuration: it is the server's.
func withReplicas(config json.RawMessage, replicas int) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fmt.Errorf("its configuration: %w", err)
	}
	fields["num_replicas"] = json.RawMessage(fmt.Sprint(replicas))
	return json.Marshal(fields)
}
