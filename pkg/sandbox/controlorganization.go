package sandbox

import (
	"cmp"
	"net/http"
)

// handleOrganizations is what of the control API is about organizations: all that the wizard does.
func (s *Sandbox) handleOrganizations(mux *http.ServeMux) {
	mux.HandleFunc("GET /sandbox/organizations", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.Organizations()) })
	mux.HandleFunc("GET /sandbox/psas", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.PSAs()) })
	mux.HandleFunc("POST /sandbox/organizations/{name}/sessions", s.postSession)
	mux.HandleFunc("POST /sandbox/organizations/{name}/psa", s.postPSA)
	mux.HandleFunc("GET /sandbox/organizations/{name}/psa", func(w http.ResponseWriter, r *http.Request) {
		answerWith(w, func() (PSA, error) { return s.ConnectedPSA(r.PathValue("name")) })
	})
	mux.HandleFunc("GET /sandbox/organizations/{name}/deltas", func(w http.ResponseWriter, r *http.Request) {
		answerWith(w, func() ([]Delta, error) { return s.Deltas(r.PathValue("name")) })
	})
	mux.HandleFunc("GET /sandbox/organizations/{name}/approvals", func(w http.ResponseWriter, r *http.Request) {
		answerWith(w, func() ([]Approval, error) { return s.Approvals(r.PathValue("name")) })
	})
	mux.HandleFunc("POST /sandbox/organizations/{name}/approvals", s.postApprovals)
}

// answerWith answers 200 with what is asked for, or with its error.
func answerWith[T any](w http.ResponseWriter, ask func() (T, error)) {
	v, err := ask()
	if err != nil {
		finish(w, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

func (s *Sandbox) postSession(w http.ResponseWriter, r *http.Request) {
	var body struct {
		VendorUserID string `json:"vendorUserId"`
	}
	if !s.decode(w, r, &body) {
		return
	}
	path, err := s.NewSession(r.PathValue("name"), body.VendorUserID)
	if err != nil {
		finish(w, err)
		return
	}
	writeJSON(w, http.StatusCreated, map[string]string{"url": s.baseURL(r) + path})
}

func (s *Sandbox) postPSA(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ID string `json:"id"`
	}
	if s.decode(w, r, &body) {
		finish(w, s.ConnectPSA(r.PathValue("name"), body.ID))
	}
}

func (s *Sandbox) postMapping(w http.ResponseWriter, r *http.Request) {
	var t Targets
	if s.decode(w, r, &t) {
		finish(w, s.MapTo(r.PathValue("name"), t))
	}
}

func (s *Sandbox) postSuggestions(w http.ResponseWriter, r *http.Request) {
	answerWith(w, func() (accepted, error) {
		accounts, services, err := s.AcceptSuggestions(r.PathValue("name"))
		return accepted{accounts, services}, err
	})
}

type accepted struct {
	Accounts int `json:"accounts"`
	Services int `json:"services"`
}

func (s *Sandbox) postApprovals(w http.ResponseWriter, r *http.Request) {
	var body struct {
		By     string `json:"by"`
		All    bool   `json:"all"`
		Deltas []Wish `json:"deltas"`
	}
	if !s.decode(w, r, &body) {
		return
	}
	if body.All == (len(body.Deltas) > 0) {
		problem(w, http.StatusBadRequest, `want either {"all":true} or {"deltas":[{"company":…,"service":…,"units":…}]}`)
		return
	}
	by := cmp.Or(body.By, "control API")
	answerWith(w, func() ([]Approval, error) {
		if body.All {
			return s.ApproveAll(r.PathValue("name"), by)
		}
		return s.Approve(r.PathValue("name"), by, body.Deltas...)
	})
}
