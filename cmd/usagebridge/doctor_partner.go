package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usagebridge/usagebridge/consumers/status"
	"github.com/usagebridge/usagebridge/pkg/ledger"
	"github.com/usagebridge/usagebridge/pkg/vendorapi"
)

const (
	// reachTimeout bounds the look at one host.
	reachTimeout = 5 * time.Second
	reachAtOnce  = 8
	// certificateSoon is how long before its end a certificate should have been
	// renewed: those of Let's Encrypt are, 30 days before.
	certificateSoon = 14 * 24 * time.Hour
)

// hostFacts is one server of the partner.
type hostFacts struct {
	address string // scheme and host
	users   []string
	status  int // of its answer; 0: none
	took    time.Duration
	expires time.Time // of its certificate; zero: plain HTTP
	err     error
}

func integrationChecks() []check {
	return []check{
		{
			id: "integrations.gates", title: "integrations", needs: needTopology,
			why:   "Nothing is sent for an integration whose gate is closed; its newest figures wait.",
			judge: judgeGates,
		},
		{
			id: "integrations.figures", title: "figures", needs: needTopology,
			why:   "A figure that the partner has not accepted is missing on the invoice.",
			judge: judgeFigures,
		},
		{
			id: "partner.reachable", title: "partner reachable", needs: needPartner,
			why:   "Figures are kept and sent again until the partner answers; meanwhile its invoices have the older ones.",
			judge: judgeHosts,
		},
		{
			id: "partner.encrypted", title: "partner certificates", needs: needPartner,
			why:   "Tokens travel with every call: without a valid certificate no call is made, and in plain HTTP anybody on the way reads them.",
			judge: judgeCertificates,
		},
	}
}

func judgeGates(e *evidence) []symptom {
	switch {
	case e.recordsErr != nil:
		return one(stepFailed, "mend the streams first; else run the version that wrote the records (this is "+version()+")", "%v", e.recordsErr)
	case len(e.integrations) == 0:
		return one(stepSkipped, "", "no integration has been added")
	}
	var found []symptom
	for n := range e.integrations {
		if f, closed := judgeIntegration(&e.integrations[n], e.now); closed {
			found = append(found, f)
		}
	}
	return orFine(found, "%s open", plural(len(e.integrations), "gate is", "gates are"))
}

func judgeIntegration(i *status.Integration, now time.Time) (f symptom, closed bool) {
	f = symptom{verdict: stepWarning, object: i.Name()}
	switch {
	case i.Paused:
		f.observed = "paused: " + cmp.Or(i.PausedWhy, "no reason given")
		f.mend = "`usagebridge integrations resume " + i.Name() + "`"
	case i.Hold == string(ledger.Unauthorized):
		f.verdict = stepFailed
		f.observed = "the partner refused the tokens " + ago(i.HoldSince, now)
		f.mend = "get new ones, then `usagebridge integrations credentials set " + i.Name() + " …`"
	case i.Hold != "":
		f.verdict = stepFailed
		f.observed = fmt.Sprintf("held (%s) %s: %s", i.Hold, ago(i.HoldSince, now), cut(i.HoldMessage, 80))
		f.mend = "check its address with `usagebridge integrations test " + i.Name() + "`, or ask the platform"
	case i.Overlapping(now) && !i.Previous.Used.IsZero():
		f.observed = "the partner refuses the new tokens; calls go with the former ones until " + i.Previous.Until.UTC().Format(time.RFC3339)
		f.mend = "ask the platform when it will know the new ones, or `usagebridge integrations credentials set " + i.Name() + " …` with others"
	case !i.Status.Ready():
		f.observed = fmt.Sprintf("status %s (%s): its counts wait", i.Status, ago(i.Since, now))
		f.mend = "`usagebridge integrations show " + i.Name() + "` says who has to do what"
	default:
		return f, false
	}
	return f, true
}

func judgeFigures(e *evidence) []symptom {
	if e.syncErr != nil {
		return one(stepSkipped, "", "the ledgers cannot be read")
	}
	var found []symptom
	keys, synced := 0, 0
	for n := range e.sync {
		v := &e.sync[n]
		keys, synced = keys+v.Keys, synced+v.States[ledger.Synced]
		note := func(bad bool, mend, format string, args ...any) {
			if bad {
				found = append(found, symptom{verdict: stepWarning, object: v.Integration, observed: fmt.Sprintf(format, args...), mend: mend})
			}
		}
		note(v.Status == "" && v.Keys > 0, "`usagebridge integrations add "+v.Integration+" …`, or stop publishing for it",
			"%s for an organization that nobody has added", plural(v.Keys, "figure came", "figures came"))
		note(v.Held[ledger.Unmapped] > 0, "someone at the MSP must map what `usagebridge integrations mapping "+v.Integration+"` lists",
			"%s unmapped", plural(v.Held[ledger.Unmapped], "count is", "counts are"))
		note(v.Held[ledger.AwaitingCatalog] > 0, "publish the accounts and services that they name, if nobody has",
			"%s for an account or a service", plural(v.Held[ledger.AwaitingCatalog], "count waits", "counts wait"))
		note(v.Held[ledger.Approval] > 0, "`usagebridge approvals ls --integration "+v.Integration+"`",
			"%s for a person's word", plural(v.Held[ledger.Approval], "figure waits", "figures wait"))
		note(v.States[ledger.Failed] > 0, "`usagebridge dlq ls`; a newer figure starts afresh",
			"%s refused for good", plural(v.States[ledger.Failed], "figure was", "figures were"))
	}
	if synced < keys {
		return orFine(found, "the partner has %d of %d, the others are on their way", synced, keys)
	}
	return orFine(found, "the partner has all %d", keys)
}

func judgeHosts(e *evidence) []symptom {
	var found []symptom
	slowest := time.Duration(0)
	for n := range e.hosts {
		h := &e.hosts[n]
		slowest = max(slowest, h.took)
		if h.err == nil {
			continue
		}
		found = append(found, symptom{
			verdict: stepFailed, object: h.address,
			observed: fmt.Sprintf("%v (needed by %s)", h.err, listed(h.users, 3)),
			mend:     "`curl -sv -o /dev/null " + h.address + "` from here: DNS, firewall, proxy (HTTPS_PROXY) and certificate must be right",
		})
	}
	return orFine(found, "%s answered within %s", plural(len(e.hosts), "host", "hosts"), briefly(slowest))
}

func judgeCertificates(e *evidence) []symptom {
	var found []symptom
	var soonest time.Time
	for n := range e.hosts {
		h := &e.hosts[n]
		if !h.expires.IsZero() && (soonest.IsZero() || h.expires.Before(soonest)) {
			soonest = h.expires
		}
		left := h.expires.Sub(e.now)
		switch {
		case h.expires.IsZero() && strings.HasPrefix(h.address, "http://") && !onThisMachine(h.address):
			found = append(found, symptom{
				verdict: stepWarning, object: h.address, observed: "plain HTTP, used by " + listed(h.users, 3),
				mend: "`usagebridge integrations credentials set …` with --api-url https://… and new tokens",
			})
		case !h.expires.IsZero() && left < certificateSoon:
			found = append(found, symptom{
				verdict: stepWarning, object: h.address,
				observed: certificateText(h.expires, left),
				mend:     "tell whoever runs the host: no call is made once it has ended",
			})
		}
	}
	if len(found) == 0 && soonest.IsZero() {
		return one(stepSkipped, "", "no host has shown one")
	}
	return orFine(found, "good until %s at least", soonest.UTC().Format(time.DateOnly))
}

// onThisMachine says whether an address is that of a loopback interface.
func onThisMachine(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// hostsOf lists the distinct hosts that the integrations, and the configuration
// for the OEM-API, name.
func hostsOf(c *Config, integrations []status.Integration) []hostFacts {
	var hosts []hostFacts
	add := func(address, user string) {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" {
			return // refused when it was given
		}
		name := u.Scheme + "://" + u.Host
		at := slices.IndexFunc(hosts, func(h hostFacts) bool { return h.address == name })
		if at < 0 {
			at = len(hosts)
			hosts = append(hosts, hostFacts{address: name})
		}
		hosts[at].users = append(hosts[at].users, user)
	}
	for n := range integrations {
		add(integrations[n].APIURL, integrations[n].Name())
	}
	if c.OEMAPIURL != "" {
		add(c.OEMAPIURL, "the OEM-API")
	}
	return hosts
}

// callHosts asks every host for nothing, without tokens: any answer will do. It
// goes the way that workers go, proxies included.
func callHosts(ctx context.Context, hosts []hostFacts) {
	transport := vendorapi.NewTransport(1)
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		Timeout:       reachTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var group errgroup.Group
	group.SetLimit(reachAtOnce)
	for n := range hosts {
		group.Go(func() error {
			hosts[n].reach(ctx, client)
			return nil
		})
	}
	_ = group.Wait() // each has its own error
}

func (h *hostFacts) reach(ctx context.Context, client *http.Client) {
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, h.address+"/", http.NoBody)
	if err != nil {
		h.err = err
		return
	}
	begun := time.Now()
	answer, err := client.Do(request)
	h.took = time.Since(begun)
	if err != nil {
		if failure, ok := errors.AsType[*url.Error](err); ok {
			err = failure.Err // the address is known, and may be long
		}
		h.err = err
		return
	}
	_ = answer.Body.Close()
	h.status = answer.StatusCode
	if answer.TLS != nil && len(answer.TLS.PeerCertificates) > 0 {
		h.expires = answer.TLS.PeerCertificates[0].NotAfter
	}
}
