package main

import (
	"fmt"
	"slices"
	"strings"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// workload is a pod with the object that makes it.
type workload struct {
	owner string
	spec  core.PodSpec
}

// podsOf are the pods that a selector finds.
func (o *objects) podsOf(selector labels.Selector) []workload {
	var list []workload
	add := func(owner named, template *core.PodTemplateSpec) {
		if selector.Matches(labels.Set(template.Labels)) {
			list = append(list, workload{owner.String(), template.Spec})
		}
	}
	for _, d := range o.deployments {
		add(named{"Deployment", d}, &d.Spec.Template)
	}
	for _, j := range o.jobs {
		add(named{"Job", j}, &j.Spec.Template)
	}
	return list
}

func portsOf(spec *core.PodSpec) []string {
	var names []string
	for n := range spec.Containers {
		for _, port := range spec.Containers[n].Ports {
			names = append(names, port.Name)
		}
	}
	return names
}

func (o *objects) checkDeployment(d *apps.Deployment) []string {
	found := checkPod(&d.Spec.Template.Spec)
	selector, err := meta.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || selector.Empty() || !selector.Matches(labels.Set(d.Spec.Template.Labels)) {
		found = append(found, "its selector does not find its own pods")
	}
	for _, other := range o.deployments {
		if other != d && err == nil && selector.Matches(labels.Set(other.Spec.Template.Labels)) {
			found = append(found, "its selector finds the pods of "+other.Name+" as well")
		}
	}
	for _, spread := range d.Spec.Template.Spec.TopologySpreadConstraints {
		if s, err := meta.LabelSelectorAsSelector(spread.LabelSelector); err != nil || !s.Matches(labels.Set(d.Spec.Template.Labels)) {
			found = append(found, "the spread over "+spread.TopologyKey+" does not count its own pods")
		}
	}
	for n := range d.Spec.Template.Spec.Containers {
		found = append(found, checkProbes(&d.Spec.Template.Spec, &d.Spec.Template.Spec.Containers[n])...)
	}
	if o.fewest(d) < 1 {
		found = append(found, "has no replicas")
	}
	return found
}

func checkJob(j *batch.Job) []string {
	found := checkPod(&j.Spec.Template.Spec)
	if j.Spec.ActiveDeadlineSeconds == nil || j.Spec.BackoffLimit == nil {
		found = append(found, "want activeDeadlineSeconds and backoffLimit: an installation waits for it")
	}
	if policy := j.Spec.PodFailurePolicy; policy != nil {
		if j.Spec.Template.Spec.RestartPolicy != core.RestartPolicyNever {
			found = append(found, "podFailurePolicy needs restartPolicy Never")
		}
		for _, rule := range policy.Rules {
			if rule.OnExitCodes != nil && !slices.IsSorted(rule.OnExitCodes.Values) {
				found = append(found, "the exit codes of podFailurePolicy must be in order")
			}
		}
	}
	return found
}

// checkPod is what the Restricted standard for pods asks, and we on top of it.
func checkPod(spec *core.PodSpec) []string {
	var found []string
	complain := func(bad bool, format string, args ...any) {
		if bad {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	complain(spec.HostNetwork || spec.HostPID || spec.HostIPC, "uses a namespace of the host")
	complain(spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken, "mounts a token of Kubernetes that nobody uses")
	complain(spec.EnableServiceLinks == nil || *spec.EnableServiceLinks, "enableServiceLinks is not false: Services would become variables with our prefix")
	s := spec.SecurityContext
	complain(s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot, "securityContext.runAsNonRoot is not true")
	complain(s == nil || s.RunAsUser == nil || *s.RunAsUser == 0, "securityContext.runAsUser is not a number other than 0")
	complain(s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault, "securityContext.seccompProfile is not RuntimeDefault")
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		complain(v.HostPath != nil, "volume %s is a path of the host", v.Name)
		complain(volumes[v.Name], "volume %s is there twice", v.Name)
		volumes[v.Name] = true
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, problem := range checkContainer(&c) {
			complain(true, "container %s: %s", c.Name, problem)
		}
		for _, m := range c.VolumeMounts {
			complain(!volumes[m.Name], "container %s: there is no volume %s", c.Name, m.Name)
		}
	}
	return found
}

func checkContainer(c *core.Container) []string {
	var found []string
	complain := func(bad bool, format string, args ...any) {
		if bad {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	complain(!isPinned(c.Image), "image %q: want a tag other than latest, or a digest", c.Image)
	complain(c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero(), "want requests of cpu and memory")
	limit := c.Resources.Limits.Memory()
	complain(limit.IsZero(), "want a limit of memory")
	complain(!limit.IsZero() && limit.Cmp(*c.Resources.Requests.Memory()) < 0, "its limit of memory is below what it requests")
	s := c.SecurityContext
	complain(s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation, "securityContext.allowPrivilegeEscalation is not false")
	complain(s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "securityContext.readOnlyRootFilesystem is not true")
	complain(s == nil || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") || len(s.Capabilities.Add) > 0, "securityContext.capabilities: want ALL dropped, none added")
	complain(s != nil && s.Privileged != nil && *s.Privileged, "is privileged")
	seen := map[string]bool{}
	for _, e := range c.Env {
		complain(seen[e.Name], "variable %s is there twice", e.Name)
		seen[e.Name] = true
		complain(e.Value != "" && strings.Contains(e.Value, "@") && strings.Contains(e.Value, "://"), "variable %s has an address with user and password: want it from a Secret", e.Name)
		if e.Name == "GOMEMLIMIT" {
			found = append(found, checkMemoryLimit(e.Value, limit)...)
		}
	}
	return found
}

// checkMemoryLimit wants that Go collects before the kernel kills.
func checkMemoryLimit(value string, limit *resource.Quantity) []string {
	soft, err := resource.ParseQuantity(strings.TrimSuffix(value, "B")) // 900MiB is 900Mi
	if err != nil {
		return []string{fmt.Sprintf("GOMEMLIMIT %q: %v", value, err)}
	}
	if float64(soft.Value()) > 0.95*float64(limit.Value()) {
		return []string{fmt.Sprintf("GOMEMLIMIT %s leaves less than 5 %% below the limit of memory, %s", value, limit)}
	}
	return nil
}

// isPinned says whether an image is the same tomorrow, as far as a name can say.
func isPinned(image string) bool {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return strings.HasPrefix(digest, "sha256:")
	}
	_, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return ok && tag != "" && tag != "latest"
}

// leastGrace is what a worker needs to stop, in seconds: calls of up to 12 s,
// their records, and its leases.
const leastGrace = 20

func checkProbes(spec *core.PodSpec, c *core.Container) []string {
	var found []string
	for name, probe := range map[string]*core.Probe{"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe} {
		if probe == nil {
			found = append(found, fmt.Sprintf("container %s: has no %s", c.Name, name))
		}
	}
	for _, probe := range []*core.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if probe != nil && (probe.HTTPGet == nil || !slices.Contains(portsOf(spec), probe.HTTPGet.Port.StrVal)) {
			found = append(found, fmt.Sprintf("container %s: a probe asks for no named port over HTTP", c.Name))
		}
	}
	pause := int64(0)
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep != nil {
		pause = c.Lifecycle.PreStop.Sleep.Seconds
	}
	grace := int64(core.DefaultTerminationGracePeriodSeconds)
	if spec.TerminationGracePeriodSeconds != nil {
		grace = *spec.TerminationGracePeriodSeconds
	}
	if grace-pause < leastGrace {
		found = append(found, fmt.Sprintf("container %s: has %d s to stop, want %d or more", c.Name, grace-pause, leastGrace))
	}
	return found
}
