package console

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/usagebridge/usagebridge/pkg/event"
)

// problem is a refusal as RFC 9457 has it. Its type is always about:blank:
// the status says what kind of refusal it is, errors says the rest.
type problem struct {
	Status int    // HTTP
	Detail string // one sentence for a person

	Errors []finding // each problem of the request, in its order
	// stored is what was published before something went wrong; nil where
	// nothing could have been.
	stored *stored
}

// finding is one thing wrong with a request.
type finding struct {
	// Pointer is a JSON Pointer (RFC 6901) into the body, empty for the
	// whole; nil when Header says where the problem is.
	Pointer *string `json:"pointer,omitempty"`
	Header  string  `json:"header,omitempty"` // name of a header, in lower case
	// Reason is one of the event contract's dead-letter reasons, or refused:
	// the log does not take the event, now or later.
	Reason  event.Reason `json:"reason"`
	Problem string       `json:"problem"`
	Want    string       `json:"want,omitempty"`
}

const reasonRefused event.Reason = "refused"

func findingOf(f *event.Fault) finding {
	found := finding{Reason: f.Reason, Problem: f.Problem, Want: f.Want}
	switch {
	case f.Pointer == "ce-datacontenttype": // the one attribute whose header has no prefix
		found.Header = "content-type"
	case strings.HasPrefix(f.Pointer, "ce-"):
		found.Header = f.Pointer
	default:
		found.Pointer = &f.Pointer
	}
	return found
}

// write sends the problem.
func (p problem) write(w http.ResponseWriter) {
	body := struct {
		Type   string    `json:"type"`
		Title  string    `json:"title"`
		Status int       `json:"status"`
		Detail string    `json:"detail"`
		Errors []finding `json:"errors,omitempty"`
		*stored
	}{"about:blank", http.StatusText(p.Status), p.Status, p.Detail, p.Errors, p.stored}
	writeJSON(w, p.Status, "application/problem+json", body)
}

func writeJSON(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(body) // a client that is gone is no news
}
