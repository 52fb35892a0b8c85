package vendorapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	maxBodyBytes = 64 << 10
	// maxReadBytes bounds an answer that we asked for: a hundred thousand
	// accounts with long names are 20 MiB.
	maxReadBytes = 32 << 20
	// maxDrainBytes are read beyond that to keep the connection; a body that
	// is longer still costs more than a new connection.
	maxDrainBytes = 4 << 10
)

var (
	errTimeout = errors.New("call timed out")
	errTooLong = fmt.Errorf("the answer is longer than %d MiB", maxReadBytes>>20)
)

// Result is what came of a call; beside an error too it holds what is known.
type Result struct {
	// StatusCode is the HTTP status, 0 without an answer.
	StatusCode int
	// RequestID is the partner's X-Request-Id, at most 128 printable bytes,
	// empty when it sent none.
	RequestID string
	// Date is when the answer was made by the partner's own clock, to the second
	// (RFC 9110, 6.6.1); zero when it did not tell.
	Date time.Time
	// Duration is the time from the first dial to the end of the answer.
	Duration time.Duration
	// Message is the partner's sentence, one line of at most 512 bytes, with
	// our credentials masked; without an answer it says why.
	Message string
	// Existed says that the account or service was there before (409), which
	// counts as success. Whether the existing one carries the same name the
	// answer does not say; Gradient can be asked, see [Client.ListAccounts].
	Existed bool
}

// operation is one kind of call.
type operation struct {
	name     string // in errors: what we were doing
	method   string
	segments []string
	query    url.Values
	creates  bool       // a 409 says that it exists
	bulk     bool       // a 409 says that one of many exists
	reads    bool       // the answer is what was asked for, not a receipt
	needs    Capability // of the dialect; empty: every dialect has it
	fault    string     // what is wrong with the request; then nothing is sent
}

// exchange makes one call and returns the raw body for the calls whose answer
// holds more than a message: of a read all of it, else at most 64 KiB. A nil
// body sends none.
func (c *Client) exchange(ctx context.Context, op operation, body any) (Result, []byte, error) {
	refuse := func(class Class, reason string) (Result, []byte, error) {
		failure := &Error{operation: op.name, class: class, message: c.secrets().message(reason)}
		return Result{Message: failure.message}, nil, failure
	}
	if reason := c.dialect.refusal(op.needs); reason != "" {
		return refuse(Unexpected, reason)
	}
	if op.fault != "" {
		return refuse(Rejected, op.fault)
	}
	payload, err := encode(body)
	if err != nil {
		return refuse(Rejected, err.Error())
	}
	var sent atomic.Bool
	callCtx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	request, err := c.request(callCtx, op, payload, &sent)
	if err != nil {
		return refuse(Rejected, err.Error())
	}

	start := time.Now()
	// The transport itself and not http.Client: it follows no redirect, which
	// would carry the token to wherever the answer points.
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		failure := c.noAnswer(ctx, callCtx, op, err, sent.Load())
		return Result{Duration: time.Since(start), Message: failure.message}, nil, failure
	}
	defer func() { _ = response.Body.Close() }()
	answer, readErr := readBody(response, op.reads)
	result := Result{
		StatusCode: response.StatusCode,
		RequestID:  c.secrets().requestID(response.Header.Get("X-Request-Id")),
		Date:       dateOf(response.Header),
		Duration:   time.Since(start),
	}
	failure := c.conclude(op, response, answer, &result)
	if failure == nil && op.reads && readErr != nil {
		failure = c.brokenOff(ctx, callCtx, op, readErr, response.StatusCode)
	}
	if failure != nil {
		result.Message = failure.message
		return result, answer, failure
	}
	return result, answer, nil
}

// dateOf reads the header Date; one that cannot be read tells nothing.
func dateOf(header http.Header) time.Time {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date.UTC()
}

// conclude completes the result by what the status and the body say, and makes the
// error where they say no.
func (c *Client) conclude(op operation, response *http.Response, answer []byte, result *Result) *Error {
	conflict := response.StatusCode == http.StatusConflict
	switch {
	case succeeded(response), conflict && op.creates:
		result.Existed = conflict
		result.Message = c.secrets().message(receiptMessage(answer))
		return nil
	default:
		failure := c.answered(op, response, bodyMessage(answer))
		if conflict && op.bulk && !saysNotReady(failure.message) {
			// The same accounts would be refused for ever, and are not held.
			failure.class = Rejected
			result.Existed = true
		}
		return failure
	}
}

func succeeded(response *http.Response) bool {
	return response.StatusCode >= 200 && response.StatusCode <= 299
}

func (c *Client) request(ctx context.Context, op operation, payload []byte, sent *atomic.Bool) (*http.Request, error) {
	// Once a connection is handed out, its writer runs on its own: a call that
	// is cancelled right then may still leave. Hence not WroteRequest, which
	// may come after we have looked.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	address := below(c.base, op.segments)
	address.RawQuery = op.query.Encode()
	request, err := http.NewRequestWithContext(ctx, op.method, address.String(), bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	if len(payload) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	if op.reads {
		request.Header.Set("Accept", "application/json")
	}
	request.Header.Set("User-Agent", c.userAgent)
	c.dialect.authorize(request.Header, c.secrets().bearer)
	return request, nil
}

// encode writes JSON as a human would: without HTML escapes, which the partner
// would have to undo.
func encode(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, fmt.Errorf("encode body: %w", err)
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

// readBody reads what it can. Of a receipt a body that breaks off changes
// nothing, the status line has been said; of a read it is the error.
func readBody(response *http.Response, reads bool) ([]byte, error) {
	if response.StatusCode < 200 {
		return nil, nil // 101: the body is the connection, and would never end
	}
	limit := int64(maxBodyBytes)
	if reads && succeeded(response) {
		limit = maxReadBytes
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit))
	if err != nil {
		return body, err
	}
	if more, _ := io.CopyN(io.Discard, response.Body, maxDrainBytes); more > 0 {
		return body, errTooLong
	}
	return body, nil
}

// answered makes the error for an answer that is no success.
func (c *Client) answered(op operation, response *http.Response, text string) *Error {
	failure := &Error{
		operation: op.name,
		class:     classOf(response.StatusCode, text),
		status:    response.StatusCode,
		message:   c.secrets().message(text),
		sent:      true,
	}
	failure.retryAfter, failure.hasRetryAfter = parseRetryAfter(response.Header, time.Now())
	if response.StatusCode >= 300 && response.StatusCode <= 399 {
		// Where it points is left out: addresses may carry secrets.
		failure.message = "redirects are not followed, they would carry the token elsewhere; check the API address of the integration"
	}
	return failure
}

// noAnswer makes the error for a call that ended without an answer. Our own
// timeout is the partner's failure; every other end of the context is the
// caller's wish.
func (c *Client) noAnswer(ctx, callCtx context.Context, op operation, err error, sent bool) *Error {
	timedOut := errors.Is(context.Cause(callCtx), errTimeout)
	if ctx.Err() != nil && !timedOut {
		return cancelled(op.name, ctx.Err(), sent)
	}
	failure := &Error{operation: op.name, class: Network, sent: sent}
	if timedOut {
		failure.message = "timed out after " + c.timeout.String()
		failure.cause = context.DeadlineExceeded
		return failure
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // its text repeats the whole URL
	}
	failure.message = c.secrets().message(err.Error())
	return failure
}

// brokenOff makes the error for a read whose answer began well and was not read
// to its end.
func (c *Client) brokenOff(ctx, callCtx context.Context, op operation, err error, status int) *Error {
	if errors.Is(err, errTooLong) {
		return c.unreadable(op, err, status)
	}
	failure := c.noAnswer(ctx, callCtx, op, err, true)
	if failure.class == Network {
		failure.status = status
		failure.message = c.secrets().message("the answer broke off: " + failure.message)
	}
	return failure
}

// unreadable makes the error for a read whose answer is not what was asked for.
func (c *Client) unreadable(op operation, err error, status int) *Error {
	return &Error{operation: op.name, class: Unexpected, status: status, message: c.secrets().message(err.Error()), sent: true}
}
