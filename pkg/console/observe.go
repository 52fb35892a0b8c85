package console

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"
)

// maxPanicBytes is how much of a panic's value is logged.
const maxPanicBytes = 512

// observe surrounds every answer: with the headers that all have, with a
// measurement, and with the recovery of a panic.
func (c *Console) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		prepare(w.Header())
		answer := &recorder{ResponseWriter: w}
		defer func() {
			// The mux has noted in r which pattern matched.
			c.metrics.answered(labelOf(r.Pattern), answer.code(), time.Since(began))
		}()
		defer c.rescue(answer, r)
		next.ServeHTTP(answer, r)
	})
}

// prepare sets what every answer has.
func prepare(h http.Header) { h.Set("X-Content-Type-Options", "nosniff") }

// rescue answers for a handler that panicked. When the answer has begun, all
// that is left is to cut the connection, so that nobody takes it for whole.
func (c *Console) rescue(answer *recorder, r *http.Request) {
	value := recover()
	if value == nil {
		return
	}
	if err, ok := value.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(value)
	}
	text := fmt.Sprint(value)
	c.config.Logger.ErrorContext(r.Context(), "http handler panicked", "route", labelOf(r.Pattern),
		"panic", text[:min(len(text), maxPanicBytes)], "stack", string(debug.Stack()))
	if answer.status != 0 {
		answer.status = http.StatusInternalServerError
		panic(http.ErrAbortHandler)
	}
	clear(answer.Header()) // they were meant for another answer
	prepare(answer.Header())
	problem{Status: http.StatusInternalServerError, Detail: "a mistake of this server: its log has the stack"}.write(answer)
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the answer has begun
}

// WriteHeader notes the status and passes it on.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write begins the answer with 200 unless it has begun.
func (r *recorder) Write(body []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(body)
}

// code is the status that the client sees.
func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}
