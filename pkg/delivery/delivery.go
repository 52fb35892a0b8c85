// Package delivery makes the partner equal to the ledger, one lane for each
// integration: it decides what is sent, when, and what an answer means.
//
// A lane is level-triggered. It is told that a key changed, looks the entry up
// when it is about to send, and sends the newest value; how often the key
// changed before does not matter. Accounts and services go before the counts
// that name them, and no key ever has two calls under way.
//
// It deliberately knows no NATS and no HTTP: entries come from a Book, calls
// go to a Partner, and both are handed in. Time is the runtime's own, so that
// tests run in virtual time.
package delivery

import (
	"context"
	"time"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Task is one call to make.
type Task struct {
	// Key says what is sent. For the call that opens an integration for
	// mapping only the organization is set.
	Key ledger.Key
	// Figure is the value to send and its version.
	Figure ledger.Seen
	// Attempt counts the calls for this figure, from 1.
	Attempt int
	// Before is when the partner took what it had when the call began, as
	// [ledger.Delivered] has it.
	Before int64
	// Probe marks a call made to find out whether a hold is over.
	Probe bool
	// Again marks a figure that the partner accepted before and that is sent
	// once more to make sure: how old it is says nothing of the delivery.
	Again bool
	// Known says that the partner has accepted a figure of the key, this or an
	// older one, in the present generation.
	Known bool
	// Check marks an account or a service that is posted again to learn whether
	// the partner still has it.
	Check bool
	// Read marks a call that sends nothing and asks for the integration's
	// status, or with List for its accounts.
	Read, List bool
	// NoBuild asks the partner to take the figure without rebuilding its view
	// of the billing: more is to follow.
	NoBuild bool
	// Generation is that of the link under which the call is made.
	Generation int
}

// Operations of tasks without a kind.
const (
	// OperationMapping tells the partner that a person may map now.
	OperationMapping = "mapping"
	// OperationRead asks the partner for the integration's status and accounts.
	OperationRead = "read"
)

// Operation names the call: account, service, count, mapping or read.
func (t Task) Operation() string {
	switch {
	case t.Read:
		return OperationRead
	case t.Key.Kind == 0:
		return OperationMapping
	}
	return t.Key.Kind.String()
}

// Class sorts the partner's answers by what they mean, whatever the dialect.
type Class string

// The classes of answer.
const (
	// Accepted: the partner has the value (any 2xx; 409 for what exists already).
	Accepted Class = "accepted"
	// NotReady: the integration takes no counts yet.
	NotReady Class = "not_ready"
	// NotFound: the account or service is unknown or not mapped.
	NotFound Class = "not_found"
	// Unauthorized: the token is wrong or expired.
	Unauthorized Class = "unauthorized"
	// Suspected: the partner sees an anomaly in the usage.
	Suspected Class = "anomaly"
	// Throttled: too many calls.
	Throttled Class = "throttled"
	// Unavailable: no answer, or one that says to try again. Whether the
	// partner took the value is unknown; sending it again is harmless.
	Unavailable Class = "unavailable"
	// Rejected: the partner refuses this value for good.
	Rejected Class = "rejected"
	// Stopped: we ended the call ourselves while shutting down. Never an attempt.
	Stopped Class = "stopped"
)

// What a lane concludes from several answers, for a [Signal]. No answer has
// these classes.
const (
	// Lost: the partner no longer has what it had accepted (its user pressed
	// "Authenticate" again, or disconnected).
	Lost Class = "lost"
	// Flooded: so many figures in a row were refused for good that whatever is
	// wrong is not wrong with the figures.
	Flooded Class = "flooded"
)

// Answer is what came of one call.
type Answer struct {
	Class     Class
	Status    int    // HTTP status; 0 without an answer
	Message   string // short, redacted
	RequestID string
	// RetryAfter is how long the partner asked us to wait; 0: it did not ask.
	RetryAfter time.Duration
	// Existed says that what was to be created was there before.
	Existed bool
	// Observed is the integration's status if the answer named it, and
	// IntegrationID the partner's own name for the integration.
	Observed      string
	IntegrationID string
	At            time.Time
	Duration      time.Duration
}

// Partner makes one call. It returns when the call is over, at the latest
// when ctx ends, and never panics.
type Partner interface {
	// Send posts an account, a service or a count.
	Send(ctx context.Context, task Task) Answer
	// SetMapping tells the partner that accounts and services are posted and
	// a person may map them now.
	SetMapping(ctx context.Context) Answer
}

// Reader is a partner that can be asked what it has.
type Reader interface {
	// ReadStatus asks for the integration's status, which the answer names.
	ReadStatus(ctx context.Context) Answer
	// ReadAccounts asks for all accounts. status is what ReadStatus has just
	// answered; what the answer names is the status in the light of the
	// accounts. They count only when the answer is Accepted.
	ReadAccounts(ctx context.Context, status string) (Sight, Answer)
}

// Sight is what a Reader saw.
type Sight struct {
	// Mapped has every account that the partner has, by id, and whether a
	// person has mapped it.
	Mapped map[string]bool
	// Announced says that the partner need not be told that the catalog is
	// posted.
	Announced bool
}

// Bulk is a partner that takes several accounts in one call.
type Bulk interface {
	// SendAccounts posts 2 to MaxBulk accounts. When it refuses, none of them
	// need be at fault alone: each is then sent by itself.
	SendAccounts(ctx context.Context, tasks []Task) Answer
}

// MaxBulk is the most accounts that go in one call.
const MaxBulk = 500

// Book is the lane's view of the ledger.
type Book interface {
	// Entry is the recorded entry of the key: what is only folded and not yet
	// stored must not be sent, or a crash could make the program forget that
	// the partner has it. The lane asks with its own lock held: Entry must
	// return at once, and no lock that it takes may be held while a method of
	// the lane is called.
	Entry(key ledger.Key) (e ledger.Entry, ok bool)
	// Settle takes what became of a call, that of the mapping among them. It
	// must not block on the partner, and calls Lane.Settled with the task's
	// key once it is recorded, whatever the ruling; until then the lane leaves
	// the key alone.
	Settle(o Outcome)
}

// Outcome is what became of one call, to be recorded.
type Outcome struct {
	Task    Task
	Answer  Answer
	Verdict Verdict
	// Due is when a retry is to be made.
	Due time.Time
	// Uncalled says that no call was made: what it would have been answered is
	// known from what the partner let us read.
	Uncalled bool
}

// Signal tells the keeper of the integration's status what an answer said of
// the integration as a whole.
type Signal struct {
	Organization string
	// Class is Accepted, NotReady, Unauthorized, Suspected, NotFound, Lost or
	// Flooded.
	Class Class
	// Operation is the call that was answered.
	Operation string
	// Generation and Credentials are those of the link under which the call was
	// made. The integration may have others by now, of which it says nothing.
	Generation  int
	Credentials string
	Answer      Answer
}

// Link is what a lane must know of its integration. A new link replaces the
// former whole.
type Link struct {
	// Partner is nil while the integration is unknown or its tokens cannot be
	// opened: everything is held as not ready.
	Partner Partner
	// Reader is nil where the partner cannot be asked.
	Reader Reader
	// Bulk is nil where the partner takes one account at a time.
	Bulk Bulk
	// DefersBuild says that the partner heeds [Task.NoBuild].
	DefersBuild bool
	// Host is shared by all links to the same server; nil: it sets no limit.
	Host *Host
	// Ready says that the status allows counts (pending or connected).
	Ready bool
	// Connected says that the partner has accepted a count before.
	Connected bool
	// Setup says that the partner is to be told that the catalog is posted, as
	// soon as it is.
	Setup bool
	// Unauthorized says that the partner has refused these credentials before,
	// perhaps to another worker: they are not tried again.
	Unauthorized bool
	// Paused holds everything, by an operator's word.
	Paused bool
	// StatusSince is since when the status has been what it is, HoldSince since
	// when the integration is known to be held. Zero: not known, or not held.
	StatusSince, HoldSince time.Time
	// Credentials changes whenever the tokens or the address change: it lifts
	// a hold for bad credentials. It is a fingerprint, never a token.
	Credentials string
	// Generation counts how often the partner has been taken to have lost
	// everything: what it accepted under a lower one is to be sent again.
	Generation int
}

// Config bounds a lane. The zero value of a field means its default.
type Config struct {
	// Rate is the calls per second of one integration; 0: no limit.
	Rate float64
	// Concurrency is how many calls may be under way at once (default 16).
	Concurrency int
	// Linger is how long a changed key waits for further changes (default
	// 200 ms; negative: none).
	Linger time.Duration
	// RetryMin and RetryMax bound the backoff of one key (default 1 s, 5 min).
	RetryMin, RetryMax time.Duration
	// Attempts is the retry budget: after so many calls without a usable
	// answer a figure is undeliverable (default 2000: more than three days at
	// the longest wait, so that a partner's bad weekend makes nothing dead).
	Attempts int
	// Breaker is how many calls in a row may fail before the lane pauses and
	// tries with one call at a time (default 5). A key that fails alone, over
	// and over, counts once: it has a backoff of its own.
	Breaker int
	// ProbeMin and ProbeMax bound the interval of probes while a hold lasts
	// (default 15 min, 24 h).
	ProbeMin, ProbeMax time.Duration
	// Flood is how many figures in a row may be refused for good before the
	// lane asks to be paused (default 100; negative: never).
	Flood int
	// Reassert is how old a delivery may grow before the same count is sent
	// again, when there is nothing else to send; 0: however old. The partner
	// cannot be asked what it holds, and may have lost it.
	Reassert time.Duration
	// Grace is how long calls under way may take to finish when the lane is
	// stopped (default 3 s).
	Grace time.Duration
}

func (c Config) withDefaults() Config {
	setDefault(&c.Concurrency, 16)
	setDefault(&c.Linger, 200*time.Millisecond)
	setDefault(&c.RetryMin, time.Second)
	setDefault(&c.RetryMax, 5*time.Minute)
	setDefault(&c.Attempts, 2000)
	setDefault(&c.Breaker, 5)
	setDefault(&c.ProbeMin, 15*time.Minute)
	setDefault(&c.ProbeMax, 24*time.Hour)
	setDefault(&c.Flood, 100)
	setDefault(&c.Grace, 3*time.Second)
	c.Linger = max(c.Linger, 0)
	c.RetryMax = max(c.RetryMax, c.RetryMin)
	c.ProbeMax = max(c.ProbeMax, c.ProbeMin)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
