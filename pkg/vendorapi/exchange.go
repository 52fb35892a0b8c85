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
	// maxDrainBytes are read beyond that to keep the connection; a body that
	// is longer still costs more than a new connection.
	maxDrainBytes = 4 << 10
)

var errTimeout = errors.New("call timed out")

// Result is what came of a call; beside an error too it holds what is known.
type Result struct {
	// StatusCode is the HTTP status, 0 without an answer.
	StatusCode int
	// RequestID is the partner's X-Request-Id, at most 128 printable bytes,
	// empty when it sent none.
	RequestID string
	// Duration is the time from the first dial to the end of the answer.
	Duration time.Duration
	// Message is the partner's sentence, one line of at most 512 bytes, with
	// our credentials masked; without an answer it says why.
	Message string
	// Existed says that the account or service was there before (409), which
	// counts as success. The API has no way to read it, so whether the
	// existing one carries the same name is not known.
	Existed bool
}

// operation is one kind of call.
type operation struct {
	name     string // in errors: what we were doing
	method   string
	segments []string
	creates  bool   // a 409 says that it exists
	fault    string // what is wrong with the request; then nothing is sent
}

// exchange makes one call and returns the raw body, at most 64 KiB of it, for
// the calls whose answer holds more than a message.
func (c *Client) exchange(ctx context.Context, op operation, body any) (Result, []byte, error) {
	refuse := func(reason string) (Result, []byte, error) {
		failure := &Error{operation: op.name, class: Rejected, message: c.secrets().message(reason)}
		return Result{Message: failure.message}, nil, failure
	}
	if op.fault != "" {
		return refuse(op.fault)
	}
	payload, err := encode(body)
	if err != nil {
		return refuse(err.Error())
	}
	var sent atomic.Bool
	callCtx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	request, err := c.request(callCtx, op, payload, &sent)
	if err != nil {
		return refuse(err.Error())
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
	answer := readBody(response)
	result := Result{
		StatusCode: response.StatusCode,
		RequestID:  c.secrets().requestID(response.Header.Get("X-Request-Id")),
		Duration:   time.Since(start),
	}
	text := bodyMessage(answer)
	result.Existed = response.StatusCode == http.StatusConflict && op.creates
	if result.Existed || (response.StatusCode >= 200 && response.StatusCode <= 299) {
		result.Message = c.secrets().message(text)
		return result, answer, nil
	}
	failure := c.answered(op, response, text)
	result.Message = failure.message
	return result, answer, failure
}

func (c *Client) request(ctx context.Context, op operation, payload []byte, sent *atomic.Bool) (*http.Request, error) {
	// Once a connection is handed out, its writer runs on its own: a call that
	// is cancelled right then may still leave. Hence not WroteRequest, which
	// may come after we have looked.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	request, err := http.NewRequestWithContext(ctx, op.method, below(c.base, op.segments).String(), bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", c.userAgent)
	c.dialect.authorize(request.Header, c.secrets().bearer)
	return request, nil
}

// encode writes JSON as a human would: without HTML escapes, which the partner
// would have to undo.
func encode(body any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, fmt.Errorf("encode body: %w", err)
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

// readBody reads what it can. A body that breaks off changes nothing: the
// status line has been said.
func readBody(response *http.Response) []byte {
	if response.StatusCode < 200 {
		return nil // 101: the body is the connection, and would never end
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxBodyBytes))
	_, _ = io.CopyN(io.Discard, response.Body, maxDrainBytes)
	return body
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
