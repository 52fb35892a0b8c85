package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// prometheusThat answers each query with a vector, or refuses it where refuses says so.
func prometheusThat(t *testing.T, refuses func(expr string) bool, vector func(expr string) string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		expr := r.URL.Query().Get("query")
		if refuses(expr) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"status":"error","errorType":"bad_data","error":"parse error"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[%s]}}`, vector(expr))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func never(string) bool { return false }

const one = `{"metric":{"vendor":"acme","organization":"msp-1"},"values":[[1,"NaN"],[2,"7"]]}`

func TestAskingCountsTheQueriesThatFindData(t *testing.T) {
	server := prometheusThat(t, never, func(expr string) string {
		if strings.Contains(expr, "$") {
			t.Errorf("got the query %s, want every variable filled", expr)
		}
		return one
	})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-ask", server}, &out); err != nil {
		t.Errorf("run says %v, want nothing: every query finds data", err)
	}
	for _, b := range boards() {
		all := 0
		for _, r := range b.rows {
			for i := range r.panels {
				all += len(r.panels[i].queries)
			}
		}
		if want := fmt.Sprintf("%s: %d of %d queries find data\n", b.name, all, all); !strings.Contains(out.String(), want) {
			t.Errorf("got %s\nwant %q in it", out.String(), want)
		}
	}
	if want := "data   overview: Workers: 1 series, the first 7\n"; !strings.Contains(out.String(), want) {
		t.Errorf("got %s\nwant %q in it", out.String(), want)
	}
}

func TestAskingTellsWhatMayBeEmptyFromWhatMayNot(t *testing.T) {
	tests := []struct{ name, answer, of, line, says string }{
		{"nothing where there must be data", "", "process_resident_memory_bytes", "EMPTY  overview: Memory by worker:", "1 queries find nothing although there must be data, and 0 fail"},
		{"0/0 where there must be data", `{"metric":{},"values":[[1,"NaN"]]}`, "process_resident_memory_bytes", "EMPTY  overview: Memory by worker:", "1 queries find nothing"},
		{"nothing where that is good news", "", "doctor_findings)", "empty  nats: Findings: nothing", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := prometheusThat(t, never, func(expr string) string {
				if strings.Contains(expr, tt.of) {
					return tt.answer
				}
				return one
			})
			var out bytes.Buffer
			err := run(t.Context(), []string{"-ask", server}, &out)
			if got := fmt.Sprint(err); (err == nil) != (tt.says == "") || !strings.Contains(got, tt.says) && err != nil {
				t.Errorf("run says %q, want %q", got, tt.says)
			}
			if !strings.Contains(out.String(), tt.line) {
				t.Errorf("got %s\nwant %q in it", out.String(), tt.line)
			}
		})
	}
}

func TestAskingSaysWhichQueryFails(t *testing.T) {
	server := prometheusThat(t, func(expr string) bool { return strings.HasPrefix(expr, "max(usagebridge_workers)") }, func(string) string { return one })
	var out bytes.Buffer
	err := run(t.Context(), []string{"-ask", server}, &out)
	if want := "0 queries find nothing although there must be data, and 1 fail"; err == nil || err.Error() != want {
		t.Errorf("run says %v, want %s", err, want)
	}
	if want := "ERROR  overview: Workers: parse error: max(usagebridge_workers)\n"; !strings.Contains(out.String(), want) {
		t.Errorf("got %s\nwant %q in it", out.String(), want)
	}
}

func TestAskingAPrometheusWithoutWorkersSaysSo(t *testing.T) {
	server := prometheusThat(t, never, func(string) string { return "" })
	err := run(t.Context(), []string{"-ask", server}, io.Discard)
	if want := server + " has no series of usagebridge; want a Prometheus that scrapes its workers"; err == nil || err.Error() != want {
		t.Errorf("run says %v, want %s", err, want)
	}
}

func TestWithoutATaskTheCommandSaysWhatItWants(t *testing.T) {
	t.Setenv("PROMETHEUS_URL", "")
	err := run(t.Context(), nil, io.Discard)
	if want := "nothing to do; want -write DIRECTORY or -ask URL"; err == nil || err.Error() != want {
		t.Errorf("run says %v, want %s", err, want)
	}
}

func TestStrictQuestionsTakeNoEmptyPanel(t *testing.T) {
	server := prometheusThat(t, never, func(expr string) string {
		if strings.Contains(expr, "doctor_findings)") {
			return ""
		}
		return one
	})
	var out bytes.Buffer
	err := run(t.Context(), []string{"-ask", server, "-strict"}, &out)
	if want := "find nothing although there must be data, and 0 fail"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("run says %v, want %q", err, want)
	}
	if want := "EMPTY  nats: Findings: "; !strings.Contains(out.String(), want) {
		t.Errorf("got %s\nwant %q in it", out.String(), want)
	}
}

func TestWhatWasFoundIsDrawn(t *testing.T) {
	server := prometheusThat(t, never, func(expr string) string {
		switch {
		case strings.Contains(expr, "vendor_stopped"):
			return fmt.Sprintf(`{"metric":{},"values":[[%d,"42"]]}`, time.Now().Unix())
		case strings.Contains(expr, "doctor_findings)"):
			return ""
		}
		return fmt.Sprintf(`{"metric":{"vendor":"<acme>","organization":"msp-1"},"values":[[1,"1"],[2,"+Inf"],[%d,"7"]]},`+
			`{"metric":{"vendor":"gone","organization":"msp-0"},"values":[[1,"1"]]}`, time.Now().Unix())
	})
	dir := t.TempDir()
	if err := run(t.Context(), []string{"-ask", server, "-draw", dir, "-range", "1m"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	for file, wants := range map[string][]string{
		"overview.html": {`>42</div>`, "<polyline points="},
		"nats.html":     {`<div class="nothing">nothing</div>`},
		"integration.html": {
			"<th>organization</th>", "<td>msp-1</td>", "&lt;acme&gt;",
		},
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %s", file, want)
			}
		}
		if strings.Contains(string(text), "<td>msp-0</td>") {
			t.Errorf("%s has a row of what is no more", file)
		}
		if strings.Contains(string(text), "NaN") || strings.Contains(string(text), "<acme>") {
			t.Errorf("%s has a NaN, or a label that is not escaped", file)
		}
	}
}

func TestValuesAreSpelledInTheirUnits(t *testing.T) {
	for _, tt := range []struct {
		value float64
		unit  string
		want  string
	}{
		{0.5, share, "50.00 %"}, {1.25, seconds, "1.25 s"}, {7200, seconds, "2h0m0s"}, {3 << 20, octets, "3.0 MiB"},
		{2.5, events, "2.5/s"}, {12345678, count, "12345678"}, {math.Inf(1), seconds, "∞"},
	} {
		if got := spell(tt.value, tt.unit); got != tt.want {
			t.Errorf("spell(%v, %s) = %q, want %q", tt.value, tt.unit, got, tt.want)
		}
	}
}

func TestARangeThatIsTooShortIsRefused(t *testing.T) {
	err := run(t.Context(), []string{"-ask", "http://127.0.0.1:1", "-range", "1s"}, io.Discard)
	if want := "-range 1s: want a minute at least, such as 6h"; err == nil || err.Error() != want {
		t.Errorf("run says %v, want %s", err, want)
	}
}
