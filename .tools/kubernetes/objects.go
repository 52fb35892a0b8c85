package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamlreader "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// objects are what was rendered, by kind.
type objects struct {
	count       int
	metas       []named
	deployments []*apps.Deployment
	jobs        []*batch.Job
	services    []*core.Service
	configMaps  []*core.ConfigMap
	budgets     []*policy.PodDisruptionBudget
	policies    []*networking.NetworkPolicy
	scalers     []scaler
	monitors    []*monitoring.ServiceMonitor
	rules       []*monitoring.PrometheusRule
}

// named is what every object has.
type named struct {
	kind string
	meta.Object
}

func (n named) String() string { return n.kind + " " + n.GetName() }

// scaler is either of the two that set the number of workers.
type scaler struct {
	named
	target   string
	min, max int32
}

// scaledObject is KEDA's, as far as the chart uses it: its own module brings
// the whole of its controller. The fields are those of keda.sh/v1alpha1.
type scaledObject struct {
	meta.TypeMeta
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		ScaleTargetRef  autoscaling.CrossVersionObjectReference `json:"scaleTargetRef"`
		PollingInterval int32                                   `json:"pollingInterval"`
		MinReplicaCount int32                                   `json:"minReplicaCount"`
		MaxReplicaCount int32                                   `json:"maxReplicaCount"`
		Fallback        struct {
			FailureThreshold int32  `json:"failureThreshold"`
			Replicas         int32  `json:"replicas"`
			Behavior         string `json:"behavior"`
		} `json:"fallback"`
		Advanced struct {
			HorizontalPodAutoscalerConfig struct {
				Behavior autoscaling.HorizontalPodAutoscalerBehavior `json:"behavior"`
			} `json:"horizontalPodAutoscalerConfig"`
		} `json:"advanced"`
		Triggers []struct {
			Type       string                       `json:"type"`
			MetricType autoscaling.MetricTargetType `json:"metricType"`
			Metadata   struct {
				ServerAddress string `json:"serverAddress"`
				Query         string `json:"query"`
				Threshold     string `json:"threshold"`
			} `json:"metadata"`
		} `json:"triggers"`
	} `json:"spec"`
}

// decode reads a stream of YAML documents. One that cannot be decoded is a
// problem, and the others are read all the same.
func decode(r io.Reader) (all objects, problems []string) {
	reader := yamlreader.NewYAMLReader(bufio.NewReader(r))
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = all.add(document)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("document %d: %v", n, err))
		}
	}
	if all.count == 0 {
		problems = append(problems, "no object was rendered")
	}
	return all, problems
}

// add decodes one document, unless it holds comments alone.
func (o *objects) add(document []byte) error {
	data, err := yaml.YAMLToJSONStrict(document) // a key that is there twice is an error
	if err != nil {
		return err
	}
	if string(data) == "null" {
		return nil
	}
	var t meta.TypeMeta
	if err := json.UnmarshalCaseSensitivePreserveInts(data, &t); err != nil {
		return err
	}
	o.count++
	switch t.APIVersion + " " + t.Kind {
	case "apps/v1 Deployment":
		return add(o, &o.deployments, data, t.Kind, new(apps.Deployment))
	case "batch/v1 Job":
		return add(o, &o.jobs, data, t.Kind, new(batch.Job))
	case "v1 Service":
		return add(o, &o.services, data, t.Kind, new(core.Service))
	case "v1 ConfigMap":
		return add(o, &o.configMaps, data, t.Kind, new(core.ConfigMap))
	case "v1 ServiceAccount":
		return add(o, new([]*core.ServiceAccount), data, t.Kind, new(core.ServiceAccount))
	case "policy/v1 PodDisruptionBudget":
		return add(o, &o.budgets, data, t.Kind, new(policy.PodDisruptionBudget))
	case "networking.k8s.io/v1 NetworkPolicy":
		return add(o, &o.policies, data, t.Kind, new(networking.NetworkPolicy))
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return add(o, &o.monitors, data, t.Kind, new(monitoring.ServiceMonitor))
	case "monitoring.coreos.com/v1 PrometheusRule":
		return add(o, &o.rules, data, t.Kind, new(monitoring.PrometheusRule))
	case "autoscaling/v2 HorizontalPodAutoscaler", "keda.sh/v1alpha1 ScaledObject":
		return o.addScaler(data, t.Kind)
	}
	return fmt.Errorf("%s %s: the chart has no business with this kind", t.APIVersion, t.Kind)
}

// add decodes strictly: an unknown field, or one in other capitals, is an error.
func add[T meta.Object](o *objects, list *[]T, data []byte, kind string, object T) error {
	strict, err := json.UnmarshalStrict(data, object)
	if err := errors.Join(append(strict, err)...); err != nil {
		return fmt.Errorf("%s %s: %w", kind, object.GetName(), err)
	}
	*list = append(*list, object)
	o.metas = append(o.metas, named{kind, object})
	return nil
}

func (o *objects) addScaler(data []byte, kind string) error {
	s := scaler{named: named{kind: kind}}
	if kind == "ScaledObject" {
		var list []*scaledObject
		if err := add(o, &list, data, kind, new(scaledObject)); err != nil {
			return err
		}
		spec := list[0].Spec
		s.Object, s.target, s.min, s.max = list[0], spec.ScaleTargetRef.Name, spec.MinReplicaCount, spec.MaxReplicaCount
		o.scalers = append(o.scalers, s)
		return nil
	}
	var list []*autoscaling.HorizontalPodAutoscaler
	if err := add(o, &list, data, kind, new(autoscaling.HorizontalPodAutoscaler)); err != nil {
		return err
	}
	spec := list[0].Spec
	s.Object, s.target, s.max = list[0], spec.ScaleTargetRef.Name, spec.MaxReplicas
	if s.min = 1; spec.MinReplicas != nil {
		s.min = *spec.MinReplicas
	}
	o.scalers = append(o.scalers, s)
	return nil
}
