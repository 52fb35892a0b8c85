package main

import (
	"encoding/json"
	"fmt"
	"slices"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// check holds all objects against our rules, and against each other.
func (o *objects) check() []string {
	var found []string
	add := func(of fmt.Stringer, problems ...string) {
		for _, p := range problems {
			found = append(found, of.String()+": "+p)
		}
	}
	seen := map[string]bool{}
	for _, n := range o.metas {
		add(n, checkName(n)...)
		if seen[n.String()] {
			add(n, "is there twice")
		}
		seen[n.String()] = true
	}
	for _, d := range o.deployments {
		add(named{"Deployment", d}, o.checkDeployment(d)...)
	}
	for _, j := range o.jobs {
		add(named{"Job", j}, checkJob(j)...)
	}
	for _, s := range o.services {
		add(named{"Service", s}, o.checkService(s)...)
	}
	for _, b := range o.budgets {
		add(named{"PodDisruptionBudget", b}, o.checkBudget(b)...)
	}
	for _, p := range o.policies {
		add(named{"NetworkPolicy", p}, o.checkPolicy(p)...)
	}
	for _, s := range o.scalers {
		add(s, o.checkScaler(s)...)
	}
	return append(found, o.checkWatching()...)
}

func checkName(n named) []string {
	found := validation.IsDNS1123Label(n.GetName())
	if n.GetNamespace() == "" {
		found = append(found, "has no namespace: it would depend on who applies it")
	}
	for _, key := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"} {
		if n.GetLabels()[key] == "" {
			found = append(found, "has no label "+key)
		}
	}
	for key, value := range n.GetLabels() {
		for _, wrong := range validation.IsValidLabelValue(value) {
			found = append(found, fmt.Sprintf("label %s: %s", key, wrong))
		}
	}
	return found
}

func (o *objects) checkService(s *core.Service) []string {
	pods := o.podsOf(labels.SelectorFromSet(s.Spec.Selector))
	if len(s.Spec.Selector) == 0 || len(pods) == 0 {
		return []string{"selects no pod"}
	}
	var found []string
	for _, port := range s.Spec.Ports {
		for _, pod := range pods {
			if port.TargetPort.Type != intstr.String || !slices.Contains(portsOf(&pod.spec), port.TargetPort.StrVal) {
				found = append(found, fmt.Sprintf("port %s goes to %s, which is no named port of %s", port.Name, port.TargetPort.String(), pod.owner))
			}
		}
	}
	return found
}

// checkBudget wants that a node can be drained, and not all workers at once.
func (o *objects) checkBudget(b *policy.PodDisruptionBudget) []string {
	selector, err := meta.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return []string{err.Error()}
	}
	replicas := int32(0)
	for _, d := range o.deployments {
		if selector.Matches(labels.Set(d.Spec.Template.Labels)) {
			replicas += o.fewest(d)
		}
	}
	if replicas == 0 {
		return []string{"selects no pod"}
	}
	if b.Spec.MaxUnavailable == nil || b.Spec.MinAvailable != nil {
		return []string{"want maxUnavailable alone, which fits whatever number of workers"}
	}
	most, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(replicas), true)
	switch {
	case err != nil:
		return []string{err.Error()}
	case most < 1:
		return []string{"lets no pod go: a node could never be drained"}
	case most >= int(replicas) && replicas > 1:
		return []string{fmt.Sprintf("lets %d of %d pods go at once: want fewer than all", most, replicas)}
	}
	return nil
}

func (o *objects) checkPolicy(p *networking.NetworkPolicy) []string {
	selector, err := meta.LabelSelectorAsSelector(&p.Spec.PodSelector)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	if selector.Empty() || len(o.podsOf(selector)) == 0 {
		found = append(found, "selects no pod of ours alone")
	}
	if !slices.Contains(p.Spec.PolicyTypes, networking.PolicyTypeIngress) || !slices.Contains(p.Spec.PolicyTypes, networking.PolicyTypeEgress) {
		found = append(found, "want both Ingress and Egress as policyTypes")
	}
	for _, rule := range p.Spec.Ingress {
		if len(rule.From) == 0 || len(rule.Ports) == 0 {
			found = append(found, "a rule lets everybody in, or to every port")
		}
	}
	for _, rule := range p.Spec.Egress {
		if len(rule.Ports) == 0 {
			found = append(found, "a rule lets out to every port")
		}
	}
	return found
}

func (o *objects) checkScaler(s scaler) []string {
	var found []string
	at := slices.IndexFunc(o.deployments, func(d *apps.Deployment) bool { return d.Name == s.target })
	switch {
	case at < 0:
		found = append(found, fmt.Sprintf("scales %q, which there is not", s.target))
	case o.deployments[at].Spec.Replicas != nil:
		found = append(found, "the Deployment has a number of replicas, too: each upgrade would set it back")
	}
	if s.min < 1 || s.max < s.min {
		found = append(found, fmt.Sprintf("scales from %d to %d", s.min, s.max))
	}
	return found
}

// fewest is the number of pods that a Deployment has at least.
func (o *objects) fewest(d *apps.Deployment) int32 {
	for _, s := range o.scalers {
		if s.target == d.Name {
			return s.min
		}
	}
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

// checkWatching is about what Prometheus and Grafana read.
func (o *objects) checkWatching() []string {
	var found []string
	for _, m := range o.monitors {
		selector, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
		at := slices.IndexFunc(o.services, func(s *core.Service) bool { return err == nil && selector.Matches(labels.Set(s.Labels)) })
		if at < 0 {
			found = append(found, fmt.Sprintf("ServiceMonitor %s: selects no Service", m.Name))
			continue
		}
		for _, endpoint := range m.Spec.Endpoints {
			if !slices.ContainsFunc(o.services[at].Spec.Ports, func(p core.ServicePort) bool { return p.Name == endpoint.Port }) {
				found = append(found, fmt.Sprintf("ServiceMonitor %s: Service %s has no port %q", m.Name, o.services[at].Name, endpoint.Port))
			}
		}
	}
	for _, r := range o.rules {
		if len(r.Spec.Groups) == 0 {
			found = append(found, fmt.Sprintf("PrometheusRule %s: has no groups", r.Name))
		}
		for _, group := range r.Spec.Groups {
			for n, rule := range group.Rules {
				if rule.Expr.String() == "" || (rule.Alert == "") == (rule.Record == "") {
					found = append(found, fmt.Sprintf("PrometheusRule %s: rule %d of %s: want an expression, and an alert or a record", r.Name, n, group.Name))
				}
			}
		}
	}
	for _, c := range o.configMaps {
		for key, text := range c.Data {
			if !json.Valid([]byte(text)) {
				found = append(found, fmt.Sprintf("ConfigMap %s: %s is no JSON", c.Name, key))
			}
		}
	}
	return found
}
