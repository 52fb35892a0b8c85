package oemapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// The kinds of integration that a vendor has, in [Vendor.Kind].
const (
	// KindCredentials: the platform calls the vendor, with credentials by the
	// labels of the vendor's template.
	KindCredentials = "credentials"
	// KindExternal: the vendor calls the platform, with a partner key that the
	// platform makes for each integration.
	KindExternal = "external"
)

// Vendor is what the platform knows of a vendor. Its texts are fit for a log line.
type Vendor struct {
	// ID is the platform's id, never empty.
	ID   string
	Name string
	// Status is the platform's word for the vendor's own readiness.
	Status string
	// Kind is [KindExternal], [KindCredentials], or a word that nobody told us of.
	Kind string
	// Labels are those of the credentials that an integration wants, sorted. They
	// may contain blanks.
	Labels []string
}

// Vendors lists the vendors that the client may integrate, in the platform's order.
// An answer without a list, or with a vendor without an id, is [Unexpected].
func (c *Client) Vendors(ctx context.Context) ([]Vendor, Result, error) {
	op := operation{name: "list vendors", method: http.MethodPost, path: "/vendor"}
	return call(ctx, c, op, c.credentials(Secret{}), nil, decodeVendors)
}

func decodeVendors(body []byte, hide redactor) ([]Vendor, error) {
	var answer struct {
		Vendors []struct {
			ID       id              `json:"id"`
			Name     string          `json:"name"`
			Status   string          `json:"integrationStatus"`
			Kind     string          `json:"integrationType"`
			Template json.RawMessage `json:"integrationCredentialTemplate"`
		} `json:"vendors"`
	}
	if err := decode(body, &answer); err != nil {
		return nil, err
	}
	if answer.Vendors == nil {
		return nil, errors.New(`the answer has no list; want an array "vendors"`)
	}
	list := make([]Vendor, len(answer.Vendors))
	for i, v := range answer.Vendors {
		list[i] = Vendor{ID: hide.message(string(v.ID)), Name: hide.message(v.Name), Status: hide.message(v.Status), Kind: hide.message(v.Kind)}
		for _, label := range labels(v.Template) {
			list[i].Labels = append(list[i].Labels, hide.message(label))
		}
		if list[i].ID == "" {
			return nil, fmt.Errorf("vendor %d of the list has no id", i+1)
		}
	}
	return list, nil
}

// labels are those of a template, which one page of the documentation shows as an
// object and another as a list of objects.
func labels(template json.RawMessage) []string {
	parts := []map[string]any{}
	var one map[string]any
	if json.Unmarshal(template, &one) == nil {
		parts = append(parts, one)
	} else {
		_ = json.Unmarshal(template, &parts) // what is neither has no labels
	}
	found := map[string]bool{}
	for _, part := range parts {
		for label := range part {
			found[label] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
