// Package catalog says what a catalog event means: which accounts and services
// shall exist at the partner, and with which properties.
//
// It deliberately knows neither how events arrive nor how the partner is told.
package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// Properties are what the partner shall know of an account or a service. A
// service has no external id.
type Properties struct {
	Name        string `json:"name"`
	ExternalID  string `json:"externalId,omitempty"`
	Description string `json:"description,omitempty"`
}

// Value is the ledger's form of the properties: equal properties give equal
// values.
func (p Properties) Value() (ledger.Value, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(p); err != nil {
		return ledger.Value{}, fmt.Errorf("encode properties: %w", err)
	}
	return ledger.Value{Properties: string(bytes.TrimRight(b.Bytes(), "\n"))}, nil
}

// ParseProperties reads the properties back out of a ledger value.
func ParseProperties(v ledger.Value) (Properties, error) {
	var p Properties
	if err := json.Unmarshal([]byte(v.Properties), &p); err != nil {
		return Properties{}, fmt.Errorf("decode properties: %w", err)
	}
	return p, nil
}

// Account is the meaning of catalog.account.v1.
func Account(e *event.Event) ([]ledger.Operation, error) {
	data, ok := e.Data.(event.Account)
	if !ok {
		return nil, fmt.Errorf("event %q of type %s carries %T: want an account", e.ID, e.Type, e.Data)
	}
	return operation(e, ledger.AccountKey(e.Organization, data.AccountID), Properties{
		Name: data.Name, ExternalID: data.ExternalID, Description: data.Description,
	})
}

// Service is the meaning of catalog.service.v1.
func Service(e *event.Event) ([]ledger.Operation, error) {
	data, ok := e.Data.(event.Service)
	if !ok {
		return nil, fmt.Errorf("event %q of type %s carries %T: want a service", e.ID, e.Type, e.Data)
	}
	return operation(e, ledger.ServiceKey(e.Organization, data.ServiceID), Properties{Name: data.Name, Description: data.Description})
}

func operation(e *event.Event, key ledger.Key, p Properties) ([]ledger.Operation, error) {
	value, err := p.Value()
	if err != nil {
		return nil, err
	}
	return []ledger.Operation{{
		Key:      key,
		Version:  ledger.Version{Time: e.Time.UnixNano(), Arrival: uint64(e.Arrival)},
		Value:    value,
		Event:    e.Digest(),
		Backfill: e.Backfill,
		Replay:   e.ReplayOf != "",
	}}, nil
}
