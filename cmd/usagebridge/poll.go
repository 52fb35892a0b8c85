package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/oemapi"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// oemPoll asks the OEM-API now and then for the status of the integrations whose
// organization's token is known. It is one of several inputs of the status,
// and the only one that says what happened while nothing was sent.
type oemPoll struct {
	engine *engine
	client *oemapi.Client
	heard  map[string]string // the last status of each integration by its name
}

// newPoll is nil when nothing is to be polled.
func newPoll(e *engine) (*oemPoll, error) {
	c := e.app.config
	if c.OEMAPIURL == "" || c.OEMPoll == 0 {
		return nil, nil //nolint:nilnil // no poll, and nothing wrong
	}
	client, err := c.oemClient()
	if err != nil {
		return nil, err
	}
	return &oemPoll{engine: e, client: client, heard: map[string]string{}}, nil
}

// run polls until ctx ends.
func (p *oemPoll) run(ctx context.Context) error {
	defer p.client.CloseIdleConnections()
	tick := time.NewTicker(p.engine.app.config.OEMPoll)
	defer tick.Stop()
	for {
		if err := p.round(ctx); err != nil && ctx.Err() == nil {
			p.engine.app.log.Warn("statuses not polled", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round asks for every integration that this worker looks after. What is wrong
// with one organization must not keep the others from being asked for; what is
// wrong with us, or with the platform, ends the round.
func (p *oemPoll) round(ctx context.Context) error {
	all, err := p.engine.integrations.All(ctx)
	if err != nil {
		return fmt.Errorf("list integrations: %w", err)
	}
	for _, i := range all {
		polled := i.OEMToken != "" && i.Dialect == string(vendorapi.MSPCentric) && p.engine.worker.Owns(i.Vendor, i.Organization)
		if !polled {
			continue
		}
		err := p.ask(ctx, &i)
		if failure, ok := errors.AsType[*oemapi.Error](err); ok && (failure.Temporary() || failure.Class() == oemapi.Unauthorized) {
			return err
		}
		if err != nil {
			p.engine.app.log.Warn("status not polled", "vendor", i.Vendor, "organization", i.Organization, "err", err)
		}
	}
	return nil
}

// ask asks for one integration, and passes on what is news.
func (p *oemPoll) ask(ctx context.Context, i *status.Integration) error {
	token, err := openOEMToken(p.engine.vault, i)
	if err != nil {
		return err
	}
	list, _, err := p.client.Integrations(ctx, token)
	if err != nil {
		return err
	}
	listed, ok := which(list, i.IntegrationID)
	// Only a change is news: a list that lags behind must not argue, poll after
	// poll, with what the answers to our own calls prove.
	if !ok || listed.Status == "" || p.heard[i.Name()] == listed.Status {
		return nil
	}
	p.heard[i.Name()] = listed.Status
	p.engine.tracker.Learn(ctx, i.Vendor, i.Organization, status.Observation{
		At: time.Now(), Observed: status.Status(listed.Status), IntegrationID: listed.ID, Message: "read in the OEM-API's list",
	})
	return nil
}

// which finds the integration of that id, or the only one when no id is known.
func which(list []oemapi.Integration, id string) (oemapi.Integration, bool) {
	if id == "" && len(list) == 1 {
		return list[0], true
	}
	for _, i := range list {
		if i.ID == id && id != "" {
			return i, true
		}
	}
	return oemapi.Integration{}, false
}
