package ledger

import "time"

// Call is the record of one call to the partner: a line of the sync log.
type Call struct {
	Organization string        `json:"organization"`
	Operation    string        `json:"operation"` // account, service, count, mapping or read
	Account      string        `json:"account,omitempty"`
	Service      string        `json:"service,omitempty"`
	Units        int64         `json:"units,omitempty"`      // millionths, counts only
	Properties   string        `json:"properties,omitempty"` // catalog only
	Time         int64         `json:"time,omitempty"`       // of the figure, nanoseconds since 1970 UTC
	Arrival      uint64        `json:"arrival,omitempty"`    // of the figure
	Generation   int           `json:"generation,omitempty"` // of the integration
	Attempt      int           `json:"attempt"`              // 1-based
	At           time.Time     `json:"at"`                   // when the answer came
	Duration     time.Duration `json:"duration_ns"`
	Status       int           `json:"http_status,omitempty"` // 0: no answer
	RequestID    string        `json:"request_id,omitempty"`
	Verdict      string        `json:"verdict"` // delivery's ruling, such as delivered or retry
	Message      string        `json:"message,omitempty"`
	Worker       string        `json:"worker"`
}
