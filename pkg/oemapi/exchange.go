package oemapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxAnswerBytes bounds an answer: what this API says of one organization are a
// few hundred bytes for each of its integrations.
const maxAnswerBytes = 1 << 20

var errTimeout = errors.New("call timed out")

// Result is what came of a call; beside an error too it holds what is known.
type Result struct {
	// StatusCode is the HTTP status, 0 without an answer.
	StatusCode int
	// RequestID is the platform's X-Request-Id, one line of at most 128 bytes,
	// empty when it sent none.
	RequestID string
	// Duration is the time from the first dial to the end of the answer.
	Duration time.Duration
	// Message is the platform's sentence, one line of at most 512 bytes, with our
	// secrets masked; without an answer it says why.
	Message string
}

// operation is one kind of call.
type operation struct {
	name   string // in errors: what we were doing
	method string
	path   string // below /oem-api, escaped
}

// credentials are what the body of every call says of its sender.
type credentials struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	GrantType    string `json:"grantType"`
	Scope        string `json:"scope"`
	// OrganizationToken is left out of a call that is about no organization.
	OrganizationToken string `json:"organizationOemToken,omitempty"`
}

func (c *Client) credentials(organization Secret) credentials {
	return credentials{
		ClientID:          c.id,
		ClientSecret:      c.secret.Reveal(),
		GrantType:         "client_credentials",
		Scope:             "vendor_manage",
		OrganizationToken: organization.Reveal(),
	}
}

// call makes one call of the client, and understands its answer by decode, which
// hides secrets by the redactor that it is given. organization is the zero Secret
// where the call is about no organization; secrets are all that the body has
// beside the client's own.
func call[T any](
	ctx context.Context, c *Client, op operation, body any, secrets []Secret, decode func([]byte, redactor) (T, error),
) (T, Result, error) {
	var none T
	x := c.newExchange(op, secrets...)
	answer, failure := x.do(ctx, body)
	if failure != nil {
		return none, x.result, failure
	}
	got, err := decode(answer, x.hide)
	if err != nil {
		if said := x.result.Message; said != "" && json.Valid(answer) {
			err = fmt.Errorf("%w: %s", err, said)
		}
		failure := x.unreadable(err)
		return none, x.result, failure
	}
	if fresh, ok := any(got).(interface{ secrets() []Secret }); ok {
		x.result.Message = newRedactor(fresh.secrets()...).message(x.result.Message)
	}
	return got, x.result, nil
}

// refuse makes the error for a call that is not to be sent, if there are reasons.
func (c *Client) refuse(op operation, reasons ...error) (Result, error) {
	var texts []string
	for _, reason := range reasons {
		if reason != nil {
			texts = append(texts, reason.Error())
		}
	}
	if len(texts) == 0 {
		return Result{}, nil
	}
	x := c.newExchange(op)
	failure := x.refused(errors.New(strings.Join(texts, "; ")))
	return x.result, failure
}

// exchange is one call on its way out and back.
type exchange struct {
	client *Client
	op     operation
	hide   redactor
	result Result
}

// newExchange begins a call that may carry the given secrets beside the client's
// own.
func (c *Client) newExchange(op operation, secrets ...Secret) *exchange {
	return &exchange{client: c, op: op, hide: newRedactor(append(secrets, c.secret)...)}
}

// do sends the body as JSON and returns that of the answer, if it is a success and
// was read to its end. The result is complete in either case.
func (x *exchange) do(ctx context.Context, body any) ([]byte, *Error) {
	payload, err := encode(body)
	if err != nil {
		return nil, x.refused(err)
	}
	callCtx, cancel := context.WithTimeoutCause(ctx, x.client.timeout, errTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(callCtx, x.op.method, x.client.address+x.op.path, bytes.NewReader(payload))
	if err != nil {
		return nil, x.refused(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", x.client.userAgent)

	start := time.Now()
	// The transport itself and not http.Client: it follows no redirect, which
	// would carry the secrets in the body to wherever the answer points.
	response, err := x.client.transport.RoundTrip(request)
	if err != nil {
		x.result.Duration = time.Since(start)
		return nil, x.noAnswer(ctx, callCtx, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, readErr := readBody(response)
	x.result.StatusCode = response.StatusCode
	x.result.RequestID = x.hide.requestID(response.Header.Get("X-Request-Id"))
	x.result.Duration = time.Since(start)
	switch {
	case response.StatusCode < 200 || response.StatusCode > 299:
		return nil, x.answered(response, answer)
	case readErr != nil:
		return nil, x.noAnswer(ctx, callCtx, fmt.Errorf("the answer broke off: %w", readErr))
	case len(answer) > maxAnswerBytes:
		return nil, x.unreadable(fmt.Errorf("the answer is longer than %d MiB", maxAnswerBytes>>20))
	}
	x.result.Message = x.hide.message(spoken(answer))
	if failure := x.contradicted(answer); failure != nil {
		return nil, failure
	}
	return answer, nil
}

// encode writes JSON as a human would: without HTML escapes, which the platform
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

// readBody reads what it can, one byte more than is allowed.
func readBody(response *http.Response) ([]byte, error) {
	if response.StatusCode < 200 {
		return nil, nil // 101: the body is the connection, and would never end
	}
	return io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
}

// fail completes an error, and the result by what it says. The text is foreign.
func (x *exchange) fail(failure Error, text string) *Error {
	failure.operation, failure.status = x.op.name, x.result.StatusCode
	failure.message = x.hide.message(text)
	x.result.Message = failure.message
	return &failure
}

// refused makes the error for what is not sent.
func (x *exchange) refused(why error) *Error {
	return x.fail(Error{class: Rejected}, why.Error())
}

// answered makes the error for an answer that is no success.
func (x *exchange) answered(response *http.Response, body []byte) *Error {
	failure := Error{class: classOf(response.StatusCode)}
	failure.retryAfter, failure.hasRetryAfter = parseRetryAfter(response.Header, time.Now())
	if response.StatusCode >= 300 && response.StatusCode <= 399 {
		// Where it points is left out: addresses may carry secrets.
		return x.fail(failure, "redirects are not followed, they would carry the secrets elsewhere; check the API address")
	}
	return x.fail(failure, spoken(body))
}

// contradicted makes the error for a success whose body says another status: every
// answer repeats the status, and a no in the words of a yes is no list.
func (x *exchange) contradicted(body []byte) *Error {
	var answer struct {
		Status id `json:"status"`
	}
	_ = json.Unmarshal(body, &answer) // what cannot be read is found out by who asked
	said := string(answer.Status)
	if len(said) != 3 || (said[0] != '3' && said[0] != '4' && said[0] != '5') {
		return nil
	}
	return x.unreadable(fmt.Errorf("the body says status %s: %s", said, cmp.Or(x.result.Message, "no reason given")))
}

// unreadable makes the error for a success that is not what was asked for.
func (x *exchange) unreadable(why error) *Error {
	return x.fail(Error{class: Unexpected}, why.Error())
}

// noAnswer makes the error for a call that ended without an answer, or within one.
// Our own timeout is the platform's failure; every other end of the context is the
// caller's wish.
func (x *exchange) noAnswer(ctx, callCtx context.Context, err error) *Error {
	timedOut := errors.Is(context.Cause(callCtx), errTimeout)
	if ctx.Err() != nil && !timedOut {
		return x.fail(Error{class: Cancelled, cause: ctx.Err()}, "cancelled by the caller")
	}
	if timedOut {
		return x.fail(Error{class: Network, cause: context.DeadlineExceeded}, "timed out after "+x.client.timeout.String())
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // its text repeats the whole URL
	}
	return x.fail(Error{class: Network}, err.Error())
}
