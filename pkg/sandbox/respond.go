package sandbox

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

const garbage = `<!doctype html><html><head><title>Sign in</title></head><body><p>{"status":</body>`

// respond carries out a verdict. Nothing it does or fails to do changes what was accepted.
func (s *Sandbox) respond(w http.ResponseWriter, r *http.Request, v *verdict) {
	a := v.answer
	if a.status == 0 {
		tear(w)
		return
	}
	h := w.Header()
	if a.header[0] != "" {
		h.Set(a.header[0], a.header[1])
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	body := a.body()
	var effect Effect
	if v.rule != nil {
		effect = v.rule.Effect
	}
	switch effect {
	case EmptyBody:
		h.Del("Content-Type")
		body = nil
	case GarbageBody:
		h.Set("Content-Type", "text/html; charset=utf-8")
		body = []byte(garbage)
	case SlowBody:
		s.writeSlowly(w, r, a.status, body, v.rule.BodyTime)
		return
	case HugeBody:
		writeHuge(w, a.status, v.rule.BodyBytes)
		return
	default: // the other effects leave the body alone
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	// A client that is gone is no news: the tape has its line.
	_, _ = w.Write(body) //nolint:gosec // JSON of an encoder that escapes HTML, or a constant
}

// tear ends the connection the way a crashed peer does: a TCP reset, not an orderly close,
// which a client could take for an idle connection that may be retried.
func tear(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	raw := conn
	if t, ok := conn.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	if t, ok := raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	// The raw connection: a tls.Conn would say goodbye first.
	_ = raw.Close()
}

// slowSteps is in how many pieces a slow body dribbles.
const slowSteps = 10

func (s *Sandbox) writeSlowly(w http.ResponseWriter, r *http.Request, status int, body []byte, total time.Duration) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	flush := http.NewResponseController(w)
	for i := range slowSteps {
		if _, err := w.Write(body[len(body)*i/slowSteps : len(body)*(i+1)/slowSteps]); err != nil { //nolint:gosec // JSON of an encoder that escapes HTML
			return
		}
		_ = flush.Flush() // a writer that cannot flush is slow enough at the end
		s.sleep(r.Context(), total/slowSteps)
	}
}

// writeHuge sends valid JSON of exactly size bytes, or a little more when size is tiny.
func writeHuge(w http.ResponseWriter, status, size int) {
	head, tail := `{"status":`+strconv.Itoa(status)+`,"message":"`, `"}`
	fill := max(0, size-len(head)-len(tail))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, head)
	chunk := bytes.Repeat([]byte("x"), 32<<10)
	for fill > 0 {
		n, err := w.Write(chunk[:min(fill, len(chunk))])
		if err != nil {
			return
		}
		fill -= n
	}
	_, _ = io.WriteString(w, tail)
}
