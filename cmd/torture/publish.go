//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// acked is a message that the server has said to have stored.
type acked struct {
	sequence uint64
	body     string
}

// press publishes the posts of a schedule, each publisher its own in their
// order, and each again until it is acknowledged.
type press struct {
	js    jetstream.JetStream
	began time.Time
	day   time.Time // a day before the run, from which figures count their times

	mu    sync.Mutex
	acked []acked
	tries int
}

// publish publishes everything; ctx bounds it.
func (p *press) publish(ctx context.Context, posts []post) error {
	publishers := map[int][]post{}
	for _, post := range posts {
		publishers[post.publisher] = append(publishers[post.publisher], post)
	}
	errs := make(chan error, len(publishers))
	for _, mine := range publishers {
		go func() {
			for _, post := range mine {
				if err := p.one(ctx, post); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var failed error
	for range publishers {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return failed
}

// one publishes a message, as often as it takes. Without a message id the
// server may store it more than once.
func (p *press) one(ctx context.Context, x post) error {
	wait(ctx, time.Until(p.began.Add(x.at)))
	subject, body := p.encode(x)
	m := nats.NewMsg(subject)
	m.Data = body
	if x.messageID != "" {
		m.Header.Set(jetstream.MsgIDHeader, x.messageID)
	}
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		ack, err := p.js.PublishMsg(try, m, jetstream.WithRetryAttempts(0))
		cancel()
		p.mu.Lock()
		p.tries++
		if err == nil {
			p.acked = append(p.acked, acked{ack.Sequence, string(body)})
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		if !wait(ctx, 50*time.Millisecond) {
			return fmt.Errorf("publish %s: %w", subject, err)
		}
	}
}

// encode is the message of a post.
func (p *press) encode(x post) (subject string, body []byte) {
	var bodies []json.RawMessage
	for _, n := range x.notes {
		s, b := p.encodeNote(n)
		subject, bodies = s, append(bodies, b)
	}
	if len(bodies) == 1 {
		return subject, bodies[0]
	}
	body, err := json.Marshal(bodies)
	if err != nil {
		panic(err) // they are JSON: joins sees to it
	}
	return fmt.Sprintf("usage.v1.%s.%s.batch", vendor, x.notes[0].organization), body
}

// encodeNote is an event as published alone.
func (p *press) encodeNote(n note) (subject string, body []byte) {
	family, tail := "usage", "snapshot"
	switch n.typ {
	case "usage.count.v1":
		tail = "count." + n.account + "." + n.service
	case "catalog.account.v1":
		family, tail = "catalog", "account."+n.account
	case "catalog.service.v1":
		family, tail = "catalog", "service."+n.service
	}
	subject = fmt.Sprintf("%s.v1.%s.%s.%s", family, vendor, n.organization, tail)
	e := envelope{
		SpecVersion: "1.0", ID: n.id, Source: n.source, Type: n.typ, Time: p.day.Add(time.Duration(n.second) * time.Second).Format(time.RFC3339),
		Data: payload{
			VendorID: vendor, OrganizationID: n.organization, AccountID: n.account, ServiceID: n.service,
			UnitCount: json.Number(n.units), Counts: n.counts, Part: n.part, Parts: n.of, SnapshotID: n.snapshot,
		},
	}
	if tail == "snapshot" && e.Data.Counts == nil {
		e.Data.Counts = []snapshotLine{}
	}
	if family == "catalog" {
		e.Data.Name = "Name of " + n.account + n.service
	}
	p.breakIt(&e, n.broken)
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // texts and numbers marshal
	}
	if n.broken == brokenBytes {
		body = slices.Concat(body, []byte("}"))
	}
	return subject, body
}

func (p *press) breakIt(e *envelope, how string) {
	switch how {
	case brokenNoVersion:
		e.SpecVersion = ""
	case brokenVersion:
		e.SpecVersion = "0.9"
	case brokenType:
		e.Type = "usage.count.v0"
	case brokenVendor:
		e.Data.VendorID = vendor + "-old"
	case brokenNegative:
		e.Data.UnitCount = "-" + e.Data.UnitCount
	case brokenOld:
		e.Time = p.day.Add(-100 * 24 * time.Hour).Format(time.RFC3339)
	case brokenAhead:
		e.Time = p.day.Add(48 * time.Hour).Format(time.RFC3339)
	}
}
