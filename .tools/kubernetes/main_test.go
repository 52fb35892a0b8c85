package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

const (
	hpa = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: scaler
  namespace: billing
  labels: {app.kubernetes.io/name: bridge, app.kubernetes.io/instance: a, app.kubernetes.io/component: worker}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: bridge}
  minReplicas: 2
  maxReplicas: 8
`
	keda = `
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: scaler
  namespace: billing
  labels: {app.kubernetes.io/name: bridge, app.kubernetes.io/instance: a, app.kubernetes.io/component: worker}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: bridge}
  minReplicaCount: 2
  maxReplicaCount: 8
  triggers: [{type: prometheus, metricType: AverageValue, metadata: {serverAddress: "http://p", query: up, threshold: "1"}}]
`
)

func good(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func verdict(manifests string) (code int, said string) {
	var w bytes.Buffer
	code = run(strings.NewReader(manifests), &w)
	return code, w.String()
}

func TestObjectsAsTheyShouldBePass(t *testing.T) {
	unscaled := good(t)
	scaled := strings.Replace(unscaled, "  replicas: 2\n", "", 1)
	for name, manifests := range map[string]string{
		"a fixed number": unscaled, "an HPA": scaled + "---" + hpa, "a ScaledObject": scaled + "---" + keda, "comments": "# nothing\n---\n" + unscaled,
	} {
		if code, said := verdict(manifests); code != 0 || !strings.Contains(said, "nothing is wrong") {
			t.Errorf("%s: got %d and %q, want 0 and that nothing is wrong", name, code, said)
		}
	}
}

func TestOneThingThatIsWrongIsFound(t *testing.T) {
	for _, test := range []struct{ old, broken, want string }{
		{"replicas: 2", "replicas: 2\n  replica: 2", `unknown field "spec.replica"`},
		{"readOnlyRootFilesystem: true", "readonlyRootFilesystem: true", `unknown field "spec.template.spec.containers[0].securityContext.readonlyRootFilesystem"`},
		{"replicas: 2", "replicas: two", "cannot unmarshal string"},
		{"replicas: 2", "replicas: 2\n  replicas: 2", `key "replicas" already set`},
		{"endpoints: [{port: web}]", "endpoints: [{ports: web}]", `unknown field "spec.endpoints[0].ports"`},
		{"kind: ConfigMap", "kind: Secret", "no business with this kind"},
		{"name: bridge\n", "name: Bridge_1\n", "RFC 1123 label"},
		{"  namespace: billing\n", "", "has no namespace"},
		{"app.kubernetes.io/name: bridge, ", "", "no label app.kubernetes.io/name"},
		{"app.kubernetes.io/instance: a", "app.kubernetes.io/instance: a b", "label app.kubernetes.io/instance"},
		{"name: init\n  namespace", "name: bridge\n  namespace", ""}, // of another kind
		{"replicas: 2", "replicas: 0", "has no replicas"},
		{"selector: {matchLabels: {app.kubernetes.io/component: worker}}\n  template", "selector: {matchLabels: {app.kubernetes.io/component: other}}\n  template", "does not find its own pods"},
		{"labelSelector: {matchLabels: {app.kubernetes.io/component: worker}}", "labelSelector: {matchLabels: {a: b}}", "the spread over zone"},
		{"automountServiceAccountToken: false", "automountServiceAccountToken: true", "mounts a token"},
		{"enableServiceLinks: false", "hostNetwork: false", "enableServiceLinks is not false"},
		{"enableServiceLinks: false", "enableServiceLinks: false\n      hostPID: true", "namespace of the host"},
		{"runAsNonRoot: true, ", "", "runAsNonRoot"},
		{"runAsUser: 65532", "runAsUser: 0", "runAsUser"},
		{"type: RuntimeDefault", "type: Unconfined", "seccompProfile"},
		{"emptyDir: {}", "hostPath: {path: /}", "path of the host"},
		{"name: secrets, emptyDir", "name: other, emptyDir", "there is no volume secrets"},
		{"bridge:1.2.3", "bridge:latest", "want a tag other than latest"},
		{"bridge:1.2.3", "bridge", "want a tag other than latest"},
		{"bridge@sha256:", "bridge@md5:", "want a tag other than latest"},
		{"cpu: 100m, ", "", "want requests of cpu and memory"},
		{", limits: {memory: 1Gi}", "", "want a limit of memory"},
		{"limits: {memory: 128Mi}", "limits: {memory: 32Mi}", "below what it requests"},
		{"value: 900MiB", "value: 1GiB", "leaves less than 5 %"},
		{"value: 900MiB", "value: much", "GOMEMLIMIT"},
		{"value: 900MiB}", "value: 900MiB}, {name: URL, value: 'nats://me:secret@nats'}", "want it from a Secret"},
		{"value: 900MiB}", "value: 900MiB}, {name: GOMEMLIMIT, value: 900MiB}", "is there twice"},
		{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation is not false"},
		{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem is not true"},
		{"capabilities: {drop: [ALL]}", "capabilities: {drop: [ALL], add: [NET_ADMIN]}", "want ALL dropped, none added"},
		{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: true, privileged: true", "is privileged"},
		{"        livenessProbe: {httpGet: {path: /livez, port: http}}\n", "", "has no livenessProbe"},
		{"path: /readyz, port: http", "path: /readyz, port: web", "no named port over HTTP"},
		{"terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 24", "has 19 s to stop, want 20 or more"},
		{"  backoffLimit: 10\n", "", "want activeDeadlineSeconds and backoffLimit"},
		{"restartPolicy: Never", "restartPolicy: OnFailure", "needs restartPolicy Never"},
		{"values: [2, 3]", "values: [3, 2]", "in order"},
		{"selector: {app.kubernetes.io/component: worker}", "selector: {app.kubernetes.io/component: nobody}", "Service bridge: selects no pod"},
		{"targetPort: http", "targetPort: metrics", "no named port"},
		{"maxUnavailable: 1", "maxUnavailable: 0", "could never be drained"},
		{"maxUnavailable: 1", "maxUnavailable: 2", "lets 2 of 2 pods go at once"},
		{"maxUnavailable: 1", "maxUnavailable: 100%", "lets 2 of 2 pods go at once"},
		{"maxUnavailable: 1", "minAvailable: 2", "want maxUnavailable alone"},
		{"{app.kubernetes.io/component: worker}} # budget", "{a: b}}", "PodDisruptionBudget bridge: selects no pod"},
		{"podSelector: {matchLabels: {app.kubernetes.io/component: worker}}", "podSelector: {}", "selects no pod of ours alone"},
		{"policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]", "want both Ingress and Egress"},
		{"from: [{podSelector: {}}], ", "", "lets everybody in"},
		{"egress: [{ports: [{port: 443}]}]", "egress: [{}]", "lets out to every port"},
		{"matchLabels: {app.kubernetes.io/name: bridge}", "matchLabels: {a: b}", "ServiceMonitor bridge: selects no Service"},
		{"endpoints: [{port: web}]", "endpoints: [{port: http}]", `has no port "http"`},
		{"groups: [{name: g, rules: [{alert: A, expr: vector(1)}]}]", "groups: []", "has no groups"},
		{"alert: A, ", "", "want an expression, and an alert or a record"},
		{`'{"title": "Bridge"}'`, `'{"title": }'`, "board.json is no JSON"},
	} {
		text := good(t)
		broken := strings.Replace(text, test.old, test.broken, 1)
		if broken == text {
			t.Errorf("%q is not in testdata/good.yaml", test.old)
			continue
		}
		code, said := verdict(broken)
		if test.want == "" {
			if code != 0 {
				t.Errorf("with %q: got %d and\n%swant 0", test.broken, code, said)
			}
			continue
		}
		if code != 1 || !strings.Contains(said, test.want) {
			t.Errorf("with %q for %q: got %d and\n%swant 1 and %q", test.broken, test.old, code, said, test.want)
		}
	}
}

func TestAScalerThatCannotScaleIsFound(t *testing.T) {
	for _, test := range []struct{ replicas, scaler, old, broken, want string }{
		{"  replicas: 2\n", hpa, "", "", "has a number of replicas, too"},
		{"", hpa, "name: bridge}", "name: other}", `scales "other", which there is not`},
		{"", hpa, "maxReplicas: 8", "maxReplicas: 1", "scales from 2 to 1"},
		{"", keda, "minReplicaCount: 2", "minReplicaCount: 0", "scales from 0 to 8"},
		{"", keda, "threshold:", "treshold:", `unknown field "spec.triggers[0].metadata.treshold"`},
	} {
		manifests := strings.Replace(good(t), "  replicas: 2\n", test.replicas, 1) + "---" + strings.Replace(test.scaler, test.old, test.broken, 1)
		if code, said := verdict(manifests); code != 1 || !strings.Contains(said, test.want) {
			t.Errorf("with %q: got %d and\n%swant 1 and %q", test.broken, code, said, test.want)
		}
	}
}

func TestTheSameObjectTwiceAndNoneAtAllAreFound(t *testing.T) {
	text := good(t)
	if code, said := verdict(text + "---\n" + text); code != 1 || !strings.Contains(said, "Service bridge: is there twice") {
		t.Errorf("twice: got %d and %q, want 1 and that it is there twice", code, said)
	}
	if code, said := verdict("# only words\n"); code != 1 || !strings.Contains(said, "no object was rendered") {
		t.Errorf("none: got %d and %q, want 1 and that there is none", code, said)
	}
}
