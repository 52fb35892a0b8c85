package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAListenerOnEveryAddressIsAskedOnTheLoopback(t *testing.T) {
	for _, tt := range []struct {
		listen string
		live   bool
		want   string // empty: refused
	}{
		{"127.0.0.1:8080", false, "http://127.0.0.1:8080/readyz"},
		{"127.0.0.1:8080", true, "http://127.0.0.1:8080/livez"},
		{"0.0.0.0:8080", false, "http://127.0.0.1:8080/readyz"},
		{":8080", false, "http://127.0.0.1:8080/readyz"},
		{"[::]:8080", false, "http://[::1]:8080/readyz"},
		{"[::ffff:0.0.0.0]:8080", false, "http://127.0.0.1:8080/readyz"},
		{"[::1]:8080", false, "http://[::1]:8080/readyz"},
		{"10.1.2.3:80", true, "http://10.1.2.3:80/livez"},
		{"worker.example:8080", false, "http://worker.example:8080/readyz"},
		{"127.0.0.1:0", false, ""},
		{"127.0.0.1:", false, ""},
		{"127.0.0.1", false, ""},
	} {
		got, err := healthURL(tt.listen, tt.live)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("healthURL(%q, %v) = %q, %v, want %q", tt.listen, tt.live, got, err, tt.want)
		}
		if err != nil && exitCode(err) != exitUsage {
			t.Errorf("healthURL(%q): exit code %d, want %d", tt.listen, exitCode(err), exitUsage)
		}
	}
}

func TestOnlyAnAnswerOf200IsHealthy(t *testing.T) {
	long := strings.Repeat("x", 2*healthText)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not ready: not connected to NATS\x1b[31m", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, long, http.StatusInternalServerError) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("ok"))
	})
	mux.HandleFunc("/never", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, tt := range []struct {
		path string
		want string // the error, of which this is a part; empty: none
	}{
		{"/ok", ""},
		{"/away", "/away answered 503: not ready: not connected to NATS�[31m"},
		{"/long", "/long answered 500: " + strings.Repeat("x", healthText)},
		{"/moved", "/moved answered 302"},
		{"/empty", "/empty answered 204"},
		{"/cut", "/cut answered 200 and then broke off"},
		{"/never", "/never did not answer within 3s"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			ctx := t.Context()
			if tt.path == "/never" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
			}
			var out bytes.Buffer
			err := (&cli{stdout: &out}).askHealth(ctx, server.URL+tt.path)
			switch {
			case tt.want == "":
				if err != nil || out.String() != "ok\n" {
					t.Errorf("got %q, %v, want \"ok\\n\" and no error", out.String(), err)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			case exitCode(err) != exitFailed:
				t.Errorf("exit code %d of %v, want %d", exitCode(err), err, exitFailed)
			case len(err.Error()) > healthText+100:
				t.Errorf("got an error of %d bytes, want at most %d of the answer in it", len(err.Error()), healthText)
			}
		})
	}
}
