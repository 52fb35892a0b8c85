//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// prometheus is a real one that scrapes the workers and evaluates the rules.
type prometheus struct {
	process *process
	url     string
	client  *http.Client
}

// instance is a worker as Prometheus is to see it.
type instance struct{ name, address string }

// startPrometheus starts a Prometheus that scrapes the workers every second and
// evaluates the rules of the file as often.
func startPrometheus(ctx context.Context, path, dir, rules string, workers []instance) (*prometheus, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	var targets strings.Builder
	for _, w := range workers {
		say(&targets, "      - targets: [%q]\n        labels: {instance: %s}\n", w.address, w.name)
	}
	config := filepath.Join(dir, "prometheus.yaml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}\nrule_files: [%q]\n"+
		"scrape_configs:\n  - job_name: usagebridge\n    static_configs:\n%s", rules, targets.String())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("start Prometheus: %w", err)
	}
	address := fmt.Sprint("127.0.0.1:", ports[0])
	p := &prometheus{url: "http://" + address, client: &http.Client{Timeout: 10 * time.Second}}
	p.process = &process{name: "prometheus", path: path, dir: dir, args: []string{
		"--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "prometheus"), "--web.listen-address", address, "--log.level", "warn",
	}}
	if err := p.process.start(os.Environ()); err != nil {
		return nil, err
	}
	if err := p.await(ctx); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// await waits until Prometheus answers.
func (p *prometheus) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		body, err := p.get(ctx, "/-/ready", nil)
		if err == nil {
			return body.Close()
		}
		select {
		case <-p.process.done:
			return fmt.Errorf("start Prometheus: it has ended: %s", p.process.logEnd())
		default:
		}
		if !wait(ctx, 100*time.Millisecond) {
			return fmt.Errorf("start Prometheus: %w: %s", err, p.process.logEnd())
		}
	}
}

func (p *prometheus) close() {
	p.client.CloseIdleConnections()
	p.process.end()
}

func (p *prometheus) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // it is for people
		return nil, errors.Join(fmt.Errorf("%s: %s: %s", path, answer.Status, text), answer.Body.Close())
	}
	return answer.Body, nil
}

// firing is one alert of a rule as Prometheus has rendered it.
type firing struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"`
	Value       string            `json:"value"`
}

// seenRule is what Prometheus says of an alert's rule.
type seenRule struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Alerts    []firing          `json:"alerts"`
	Health    string            `json:"health"`
	LastError string            `json:"lastError"`
}

// rules asks for all alerts, by the ids of their rules.
func (p *prometheus) rules(ctx context.Context) (map[string]seenRule, error) {
	body, err := p.get(ctx, "/api/v1/rules", url.Values{"type": {"alert"}})
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus for its alerts: %w", err)
	}
	defer func() { _ = body.Close() }() // it is read whole or not at all
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []seenRule `json:"rules"`
			} `json:"groups"`
		} `json:"data"`
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("ask Prometheus for its alerts: %w", err)
	}
	all := map[string]seenRule{}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			all[ruleID(r.Name, r.Labels)] = r
		}
	}
	return all, nil
}

// freePorts finds ports that are free now.
func freePorts(ctx context.Context, n int) (ports []int, err error) {
	var open []net.Listener // until all are found, so that none is found twice
	defer func() {
		for _, l := range open {
			_ = l.Close() // nothing was accepted
		}
	}()
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		open = append(open, l)
		at, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("find a free port: %v is none", l.Addr())
		}
		ports = append(ports, at.Port)
	}
	return ports, nil
}
