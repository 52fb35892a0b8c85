package event_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usagebridge/usagebridge/pkg/event"
)

const requestBody = `{"specversion":"1.0","id":"r-1","source":"//billing.acme.example","type":"integration.requested.v1","time":"2026-11-20T12:00:00Z",` +
	`"data":{"vendorId":"acme","organizationId":"msp 1","organizationName":"Contoso","email":"ann@contoso.example","firstName":"Ann","lastName":"Ott","vendorUserId":"u-1","platformVendorId":"pv-1"}}`

// requestData is what comes behind the name of the data.
var _, requestData, _ = strings.Cut(requestBody, `"data"`)

func requestMessage(body string) event.Message {
	return event.Message{
		Subject: "integration.v1.acme.msp=201.requested", Data: []byte(body), Stream: "REQUESTS", Sequence: 7,
		Stored: time.Date(2026, time.November, 20, 12, 0, 1, 0, time.UTC),
	}
}

func TestARequestIsReadInBothModes(t *testing.T) {
	structured := requestMessage(requestBody)
	_, data, _ := strings.Cut(requestBody, `"data":`)
	binary := requestMessage(strings.TrimSuffix(data, "}"))
	binary.Header = map[string][]string{
		"ce-specversion": {"1.0"}, "ce-id": {"r-1"}, "Ce-Source": {"//billing.acme.example"}, "ce-type": {event.TypeRequested}, "ce-time": {"2026-11-20T12:00:00Z"}, "content-type": {"application/json"},
	}
	for name, m := range map[string]event.Message{"structured": structured, "binary": binary} {
		q, fault := event.DecodeRequest(m, event.DefaultLimits())
		if fault != nil {
			t.Fatalf("%s: %v", name, fault)
		}
		got := fmt.Sprint(q.ID, q.Source, q.Vendor, q.Organization, q.OrganizationName, q.Email, q.FirstName, q.LastName, q.VendorUserID, q.PlatformVendorID)
		if want := fmt.Sprint("r-1", "//billing.acme.example", "acme", "msp 1", "Contoso", "ann@contoso.example", "Ann", "Ott", "u-1", "pv-1"); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if event.RequestSubject(q.Vendor, q.Organization) != m.Subject || !event.IsRequest(m.Subject) {
			t.Errorf("%s: got subject %s, want %s", name, event.RequestSubject(q.Vendor, q.Organization), m.Subject)
		}
	}
}

func TestARequestThatIsNoneSaysWhy(t *testing.T) {
	for _, test := range []struct {
		name, from, to string
		want           []string // each problem as "reason at pointer"
	}{
		{"no JSON", requestBody, `{`, []string{"malformed at "}},
		{"a batch", requestBody, `[` + requestBody + `]`, []string{"malformed at "}},
		{"a text", requestBody, `"x"`, []string{"malformed at "}},
		{"a member twice", `"email":`, `"email":"bob@contoso.example","email":`, []string{"malformed at /data/email"}},
		{"no specversion", `"specversion":"1.0",`, ``, []string{"malformed at /specversion"}},
		{"another type", event.TypeRequested, event.TypeCount, []string{"unknown_type at /type"}},
		{"no type", `"type":"integration.requested.v1",`, ``, []string{"invalid at /type"}},
		{"no data", `,"data"` + requestData, `}`, []string{"invalid at /data"}},
		{"data in base64", `"data":{`, `"data_base64":"","data":{`, []string{"invalid at /data_base64"}},
		{"data of another kind", `"data"` + requestData, `"data":[]}`, []string{"invalid at /data"}},
		{"several", `"email":"ann@contoso.example","firstName":"Ann","lastName":"Ott"`, `"email":7,"firstName":""`, []string{"invalid at /data/email", "invalid at /data/lastName", "invalid at /data/firstName"}},
		{"no address", "ann@contoso.example", "ann", []string{"invalid at /data/email"}},
		{"two addresses", "ann@contoso.example", "ann@contoso.example,bob@contoso.example", []string{"invalid at /data/email"}},
		{"an address with a line break", "ann@", `ann\n@`, []string{"invalid at /data/email"}},
		{"a long name", `"Contoso"`, `"` + strings.Repeat("x", 513) + `"`, []string{"invalid at /data/organizationName"}},
		{"another organization", `"msp 1"`, `"msp 2"`, []string{"subject_mismatch at "}},
		{"another vendor", `"acme"`, `"next"`, []string{"subject_mismatch at "}},
		{"too old", "2026-11-20", "2026-01-20", []string{"too_old at /time"}},
		{"too far ahead", "2026-11-20", "2026-11-21", []string{"too_far_ahead at /time"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			q, fault := event.DecodeRequest(requestMessage(strings.Replace(requestBody, test.from, test.to, 1)), event.DefaultLimits())
			var got []string
			for _, f := range fault.All() {
				got = append(got, string(f.Reason)+" at "+f.Pointer)
			}
			if q != nil || strings.Join(got, "; ") != strings.Join(test.want, "; ") {
				t.Errorf("got %q (%v), want %q", got, fault, test.want)
			}
		})
	}
}

func TestARequestIsNoEventOfTheLedger(t *testing.T) {
	results := event.Decode(requestMessage(requestBody), event.DefaultLimits())
	if len(results) != 1 || results[0].Fault == nil || results[0].Fault.Reason != event.ReasonUnknownType {
		t.Errorf("got %+v, want an unknown type", results)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(requestBody))
	f.Add([]byte(`{"specversion":"1.0","data":null}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m := requestMessage(string(body))
		q, fault := event.DecodeRequest(m, event.Limits{})
		if (q == nil) == (fault == nil) {
			t.Fatalf("got %v and %v, want one of them", q, fault)
		}
		if q != nil && event.RequestSubject(q.Vendor, q.Organization) != m.Subject {
			t.Errorf("got a request for %s/%s on %s", q.Vendor, q.Organization, m.Subject)
		}
	})
}
