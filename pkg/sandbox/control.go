package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
)

func (s *Sandbox) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	s.handleWizard(mux)
	mux.HandleFunc("GET /sandbox/report", s.getReport)
	mux.HandleFunc("GET /sandbox/tape", s.getTape)
	mux.HandleFunc("POST /sandbox/integrations", s.postIntegration)
	mux.HandleFunc("POST /sandbox/integrations/{name}/human", s.postHuman)
	mux.HandleFunc("POST /sandbox/integrations/{name}/status", s.postStatus)
	mux.HandleFunc("POST /sandbox/integrations/{name}/reset", func(w http.ResponseWriter, r *http.Request) {
		finish(w, s.Reset(r.PathValue("name")))
	})
	mux.HandleFunc("POST /sandbox/integrations/{name}/tokens", s.postTokens)
	mux.HandleFunc("DELETE /sandbox/integrations/{name}/tokens", func(w http.ResponseWriter, r *http.Request) {
		finish(w, s.RevokeTokens(r.PathValue("name")))
	})
	mux.HandleFunc("POST /sandbox/integrations/{name}/anomaly", s.postAnomaly)
	mux.HandleFunc("POST /sandbox/integrations/{name}/inform", s.postInform)
	mux.HandleFunc("GET /sandbox/integrations/{name}/oem-token", s.getOEMToken)
	s.handleOrganizations(mux)
	mux.HandleFunc("POST /sandbox/integrations/{name}/mapping", s.postMapping)
	mux.HandleFunc("POST /sandbox/integrations/{name}/suggestions", s.postSuggestions)
	mux.HandleFunc("GET /sandbox/vendors", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.Vendors()) })
	mux.HandleFunc("GET /sandbox/oem", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.OEM()) })
	mux.HandleFunc("PUT /sandbox/oem", s.putOEM)
	mux.HandleFunc("GET /sandbox/faults", s.getFaults)
	mux.HandleFunc("PUT /sandbox/faults", s.putFaults)
	mux.HandleFunc("DELETE /sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, fmt.Sprintf("%s %s is nothing this sandbox has; the Vendor-API is below %s, the OEM-API "+
			"below %s, the wizard below %s, and a slash in an integration's name is written %%2F", r.Method, r.URL.EscapedPath(), BasePath, OEMBasePath, WizardPath))
	})
	return mux
}

func (s *Sandbox) getReport(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("integration")
	if name == "" {
		writeJSON(w, http.StatusOK, s.Report())
		return
	}
	in, ok := s.ReportOf(name)
	if !ok {
		finish(w, fmt.Errorf("report: %w integration %q", ErrUnknown, name))
		return
	}
	writeJSON(w, http.StatusOK, Report{Integrations: []IntegrationReport{in}, Totals: in.Totals})
}

func (s *Sandbox) getTape(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var after uint64
	if text := q.Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			problem(w, http.StatusBadRequest, fmt.Sprintf("query after=%.64q: want a sequence, 0 or more", text))
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	for {
		part := s.tapeChunk(after)
		if len(part) == 0 {
			return
		}
		for i := range part {
			rec := &part[i]
			after = rec.Sequence
			if fits(q.Get("integration"), rec.Integration) && fits(q.Get("organization"), rec.Organization) &&
				fits(q.Get("account"), rec.Account) && fits(q.Get("service"), rec.Service) && out.Encode(rec) != nil {
				return
			}
		}
	}
}

func (s *Sandbox) postIntegration(w http.ResponseWriter, r *http.Request) {
	var in Integration
	if !s.decode(w, r, &in) {
		return
	}
	if in.ID != "" {
		problem(w, http.StatusBadRequest, "integrationId is assigned by the partner: leave it out")
		return
	}
	in, err := s.AddIntegration(in)
	if err != nil {
		finish(w, err)
		return
	}
	writeJSON(w, http.StatusCreated, in)
}

func (s *Sandbox) postHuman(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Action   string    `json:"action"`
		Accounts Selection `json:"accounts"`
		Services Selection `json:"services"`
	}
	if !s.decode(w, r, &body) {
		return
	}
	name := r.PathValue("name")
	switch body.Action {
	case "map":
		finish(w, s.Map(name, body.Accounts, body.Services))
	case "unmap":
		finish(w, s.Unmap(name, body.Accounts, body.Services))
	case "finish":
		finish(w, s.Finish(name))
	default:
		problem(w, http.StatusBadRequest, fmt.Sprintf(`action %.64q: want "map", "unmap" or "finish"`, body.Action))
	}
}

func (s *Sandbox) postStatus(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Status Status `json:"status"`
	}
	if s.decode(w, r, &body) {
		finish(w, s.SetStatus(r.PathValue("name"), body.Status))
	}
}

func (s *Sandbox) postTokens(w http.ResponseWriter, r *http.Request) {
	in, err := s.IssueTokens(r.PathValue("name"))
	if err != nil {
		finish(w, err)
		return
	}
	writeJSON(w, http.StatusCreated, in)
}

func (s *Sandbox) postAnomaly(w http.ResponseWriter, r *http.Request) {
	var body struct {
		On *bool `json:"on"`
	}
	switch {
	case !s.decode(w, r, &body):
	case body.On == nil:
		problem(w, http.StatusBadRequest, `want {"on":true} or {"on":false}`)
	default:
		finish(w, s.SetAnomaly(r.PathValue("name"), *body.On))
	}
}

func (s *Sandbox) postInform(w http.ResponseWriter, r *http.Request) {
	var o Inform
	if !s.decode(w, r, &o) {
		return
	}
	if err := o.Validate(); err != nil {
		finish(w, err)
		return
	}
	informed, err := s.Inform(r.Context(), r.PathValue("name"), o)
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, informed)
	case errors.Is(err, ErrUnknown):
		finish(w, err)
	default:
		problem(w, http.StatusBadGateway, err.Error())
	}
}

func (s *Sandbox) getOEMToken(w http.ResponseWriter, r *http.Request) {
	token, err := s.OEMToken(r.PathValue("name"))
	if err != nil {
		finish(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"oemToken": token})
}

func (s *Sandbox) putOEM(w http.ResponseWriter, r *http.Request) {
	var o OEM
	if s.decode(w, r, &o) {
		finish(w, s.SetOEM(o))
	}
}

func (s *Sandbox) getFaults(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Faults())
}

func (s *Sandbox) putFaults(w http.ResponseWriter, r *http.Request) {
	var p Plan
	if s.decode(w, r, &p) {
		finish(w, s.SetFaults(p))
	}
}

// decode reads the body into v, or answers what is wrong with it and returns false.
func (s *Sandbox) decode(w http.ResponseWriter, r *http.Request, v any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.config.BodyLimit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
		return false
	case err != nil:
		problem(w, http.StatusBadRequest, "the body could not be read to its end")
		return false
	}
	if err := decodeStrict(body, v); err != nil {
		problem(w, http.StatusBadRequest, "the body is not what this call takes: "+err.Error())
		return false
	}
	return true
}

// decodeStrict refuses fields that v does not have, and anything after the first value.
func decodeStrict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("it is empty; want a JSON object")
	case errors.As(err, &wrongType):
		if wrongType.Field == "" {
			return fmt.Errorf("it is a JSON %s; want %s", wrongType.Value, inJSON(wrongType.Type))
		}
		return fmt.Errorf("field %q is a JSON %s; want %s", wrongType.Field, wrongType.Value, inJSON(wrongType.Type))
	case err != nil:
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("it goes on after its JSON value")
	}
	return nil
}

// inJSON says what a Go type is in JSON.
func inJSON(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return inJSON(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a number"
	}
}

// finish answers a call that returns nothing but an error.
func finish(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrUnknown):
		problem(w, http.StatusNotFound, err.Error())
	case errors.Is(err, ErrConflict):
		problem(w, http.StatusConflict, err.Error())
	default:
		problem(w, http.StatusBadRequest, err.Error())
	}
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail,
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		// A value that is no JSON number cannot come this far; if one does, say so.
		problem(w, http.StatusInternalServerError, "encode the answer: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}
