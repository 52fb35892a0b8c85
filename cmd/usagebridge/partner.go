package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/usagebridge/usagebridge/consumers/catalog"
	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/delivery"
	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

// partner makes a lane's calls through the Vendor-API (delivery.Partner).
type partner struct {
	client  *vendorapi.Client
	overlap *overlap // nil: there are no other credentials than the client's
}

// call makes one call, with the credentials that the partner takes.
func (p partner) call(ctx context.Context, do func(context.Context, *vendorapi.Client) delivery.Answer) delivery.Answer {
	if p.overlap == nil {
		return do(ctx, p.client)
	}
	return p.overlap.call(ctx, do)
}

// Send posts an account, a service or a count.
func (p partner) Send(ctx context.Context, t delivery.Task) delivery.Answer {
	return p.call(ctx, func(ctx context.Context, client *vendorapi.Client) delivery.Answer { return send(ctx, client, t) })
}

func send(ctx context.Context, client *vendorapi.Client, t delivery.Task) delivery.Answer {
	if t.Key.Kind == ledger.Count {
		return answer(client.PostCount(ctx, vendorapi.Count{
			AccountID: t.Key.Account,
			ServiceID: t.Key.Service,
			Units:     json.Number(event.Units(t.Figure.Value.Units).String()),
			NoBuild:   t.NoBuild,
		}))
	}
	properties, err := catalog.ParseProperties(t.Figure.Value)
	if err != nil {
		return delivery.Answer{Class: delivery.Rejected, Message: err.Error(), At: time.Now()}
	}
	if t.Key.Kind == ledger.Account {
		return answer(client.PostAccount(ctx, account(t, properties)))
	}
	return answer(client.PostService(ctx, vendorapi.Service{
		ID: t.Key.Service, Name: properties.Name, Description: properties.Description,
	}))
}

func account(t delivery.Task, properties catalog.Properties) vendorapi.Account {
	return vendorapi.Account{
		ID: t.Key.Account, Name: properties.Name, ExternalID: properties.ExternalID, Description: properties.Description,
	}
}

// SendAccounts posts several accounts in one call (delivery.Bulk).
func (p partner) SendAccounts(ctx context.Context, tasks []delivery.Task) delivery.Answer {
	accounts := make([]vendorapi.Account, len(tasks))
	for i, t := range tasks {
		properties, err := catalog.ParseProperties(t.Figure.Value)
		if err != nil {
			return delivery.Answer{Class: delivery.Rejected, Message: err.Error(), At: time.Now()}
		}
		accounts[i] = account(t, properties)
	}
	return p.call(ctx, func(ctx context.Context, client *vendorapi.Client) delivery.Answer {
		return answer(client.PostAccounts(ctx, accounts))
	})
}

// SetMapping tells the partner that the catalog is posted.
func (p partner) SetMapping(ctx context.Context) delivery.Answer {
	return p.call(ctx, func(ctx context.Context, client *vendorapi.Client) delivery.Answer {
		result, err := client.SetMapping(ctx)
		a := answer(result.Result, err)
		a.Observed, a.IntegrationID = result.Status, result.IntegrationID
		return a
	})
}

// ReadStatus asks for the status, and shows whether the tokens are good
// (delivery.Reader).
func (p partner) ReadStatus(ctx context.Context) delivery.Answer {
	return p.call(ctx, func(ctx context.Context, client *vendorapi.Client) delivery.Answer {
		seen, result, err := client.Organization(ctx)
		a := answer(result, err)
		a.Observed, a.IntegrationID = seen.Status, seen.IntegrationID
		return a
	})
}

// ReadAccounts asks for the accounts (delivery.Reader). Gradient takes counts
// for what is mapped as soon as anything is, and has no word for that: it is
// what we call pending.
func (p partner) ReadAccounts(ctx context.Context, seen string) (delivery.Sight, delivery.Answer) {
	var accounts []vendorapi.ListedAccount
	a := p.call(ctx, func(ctx context.Context, client *vendorapi.Client) delivery.Answer {
		var result vendorapi.Result
		var err error
		accounts, result, err = client.ListAccounts(ctx, true)
		return answer(result, err)
	})
	a.Observed = seen
	sight := delivery.Sight{
		Mapped:    make(map[string]bool, len(accounts)),
		Announced: seen != "" && seen != string(status.Inactive),
	}
	for i := range accounts {
		sight.Mapped[accounts[i].ID] = accounts[i].Mapped
		if accounts[i].Mapped && seen == string(status.Mapping) {
			a.Observed = string(status.Pending)
		}
	}
	return sight, a
}

// answer puts what the client says into the words of delivery.
func answer(r vendorapi.Result, err error) delivery.Answer {
	a := delivery.Answer{
		Class:     delivery.Accepted,
		Status:    r.StatusCode,
		Message:   r.Message,
		RequestID: r.RequestID,
		At:        time.Now(),
		Duration:  r.Duration,
		Existed:   r.Existed,
	}
	if err == nil {
		return a
	}
	var failure *vendorapi.Error
	if !errors.As(err, &failure) {
		a.Class, a.Message = delivery.Unavailable, err.Error()
		return a
	}
	a.Class = classes[failure.Class()]
	a.RetryAfter, _ = failure.RetryAfter()
	return a
}

// classes says what each class of failure means for a lane. An answer outside
// the protocol, such as a redirect, points to a wrong address: nothing that
// the vendor sent is at fault, so the integration waits and nothing is dead.
var classes = map[vendorapi.Class]delivery.Class{
	vendorapi.Unauthorized: delivery.Unauthorized,
	vendorapi.Anomaly:      delivery.Suspected,
	vendorapi.NotFound:     delivery.NotFound,
	vendorapi.NotReady:     delivery.NotReady,
	vendorapi.Throttled:    delivery.Throttled,
	vendorapi.Rejected:     delivery.Rejected,
	vendorapi.Unavailable:  delivery.Unavailable,
	vendorapi.Network:      delivery.Unavailable,
	vendorapi.Unexpected:   delivery.Suspected,
	vendorapi.Cancelled:    delivery.Stopped,
}
