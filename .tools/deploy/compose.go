package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// loopback is the only address on which a port may be published.
const loopback = "127.0.0.1"

// composition is docker-compose.yml with some profiles.
type composition struct {
	root    string
	project *types.Project
	known   map[string]bool // variables of usagebridge, as deploy/reference.md lists them
}

// load reads docker-compose.yml as `docker compose` does, with .env; no profile stands for none on
// the command line.
func load(ctx context.Context, root string, profiles ...string) (*composition, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithWorkingDirectory(root), cli.WithEnvFiles(), cli.WithDotEnv, cli.WithDefaultProfiles(profiles...))
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return nil, fmt.Errorf("docker-compose.yml: %w", err)
	}
	reference, err := os.ReadFile(filepath.Join(root, "deploy", "reference.md"))
	if err != nil {
		return nil, err
	}
	c := &composition{root: root, project: project, known: map[string]bool{}}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(string(reference), -1) {
		c.known["USAGEBRIDGE_"+m[1]] = true
	}
	return c, nil
}

// checkComposition checks every profile that somebody may start.
func checkComposition(ctx context.Context, root string) (findings, error) {
	var all findings
	for _, way := range []struct {
		profiles []string
		servers  int
	}{
		{nil, 1},
		{[]string{"cluster"}, 3},
		{[]string{"*"}, 4},
	} {
		c, err := load(ctx, root, way.profiles...)
		if err != nil {
			return nil, err
		}
		if got := c.called("nats"); len(got) != way.servers {
			all.add("docker-compose.yml", "with the profiles %v %d services are called nats on the network (%s): want %d", way.profiles, len(got), strings.Join(got, ", "), way.servers)
		}
		found, err := c.check()
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// called lists the services that have the name or the alias.
func (c *composition) called(name string) []string {
	var all []string
	for _, service := range c.project.Services {
		found := service.Name == name
		for _, network := range service.Networks {
			found = found || network != nil && slices.Contains(network.Aliases, name)
		}
		if found {
			all = append(all, service.Name)
		}
	}
	slices.Sort(all)
	return all
}

func (c *composition) check() (findings, error) {
	var found findings
	for _, name := range slices.Sorted(maps.Keys(c.project.Services)) {
		service := c.project.Services[name]
		c.checkRights(&found, &service)
		c.checkLife(&found, &service)
		c.checkMounts(&found, &service)
		c.checkEnvironment(&found, &service)
	}
	c.checkKeyset(&found)
	return found, c.checkScrapes(&found)
}

var tag = regexp.MustCompile(`^[^@]+:v?\d+(\.\d+)+(-[\w.]+)?(@sha256:[0-9a-f]{64})?$`)

// checkRights: as few as there can be.
func (c *composition) checkRights(found *findings, s *types.ServiceConfig) {
	if s.Build == nil && !tag.MatchString(s.Image) {
		found.add(s.Name, "image %q: want a tag with the whole version", s.Image)
	}
	if !s.ReadOnly {
		found.add(s.Name, "its root file system can be written: want read_only: true")
	}
	if !slices.Equal(s.CapDrop, []string{"ALL"}) {
		found.add(s.Name, "cap_drop is %v: want [ALL]", s.CapDrop)
	}
	if len(s.CapAdd) > 0 && longRunning(s) {
		found.add(s.Name, "cap_add is %v: want none for what keeps running", s.CapAdd)
	}
	if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
		found.add(s.Name, "security_opt is %v: want no-new-privileges:true", s.SecurityOpt)
	}
	if s.Privileged || s.Pid != "" || s.Ipc != "" || s.NetworkMode == "host" {
		found.add(s.Name, "it shares the host: want neither privileged nor pid, ipc or network of the host")
	}
	for _, port := range s.Ports {
		if port.HostIP != loopback {
			found.add(s.Name, "port %s is published on %q: want %s", port.Published, port.HostIP, loopback)
		}
	}
}

func longRunning(s *types.ServiceConfig) bool { return s.Restart != "no" }

// checkLife: what keeps running says how it is, and has the time to stop.
func (c *composition) checkLife(found *findings, s *types.ServiceConfig) {
	check := s.HealthCheck
	if !longRunning(s) {
		if check == nil || !check.Disable {
			found.add(s.Name, "it ends by itself: want healthcheck: { disable: true }")
		}
		return
	}
	if s.Restart != types.RestartPolicyUnlessStopped {
		found.add(s.Name, "restart is %q: want unless-stopped, or \"no\" for what ends by itself", s.Restart)
	}
	ours := s.Build != nil && s.Build.Target == "" && len(s.Command) > 0 && s.Command[0] == "run" // as the Dockerfile has it
	reason, _ := s.Extensions["x-no-healthcheck"].(string)
	if reason == "" && (check == nil && !ours || check != nil && (check.Disable || len(check.Test) < 2)) {
		found.add(s.Name, "it has no healthcheck: want one, or the reason in x-no-healthcheck")
	}
	if s.StopGracePeriod == nil {
		found.add(s.Name, "it has no stop_grace_period: want the time that it needs at most")
	}
}

// checkMounts: what is mounted from here is here, and stays as it is.
func (c *composition) checkMounts(found *findings, s *types.ServiceConfig) {
	for _, m := range s.Volumes {
		if m.Type != types.VolumeTypeBind {
			continue
		}
		path, err := filepath.Rel(c.root, m.Source)
		if err != nil || strings.HasPrefix(path, "..") {
			found.add(s.Name, "%s is mounted from outside of the repository", m.Source)
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			found.add(s.Name, "%s is mounted and does not exist", path)
		}
		if !m.ReadOnly {
			found.add(s.Name, "%s can be written: want :ro", path)
		}
	}
}

// checkEnvironment: a variable that nobody reads is a setting that is not in force.
func (c *composition) checkEnvironment(found *findings, s *types.ServiceConfig) {
	for _, name := range slices.Sorted(maps.Keys(s.Environment)) {
		if strings.HasPrefix(name, "USAGEBRIDGE_") && !c.known[name] {
			found.add(s.Name, "%s is no variable of deploy/reference.md", name)
		}
	}
}

// workers are the services that run one.
func (c *composition) workers() []string {
	var all []string
	for name, s := range c.project.Services {
		if len(s.Command) > 0 && s.Command[0] == "run" {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// checkKeyset: workers can open each other's tokens only with the same keyset, which none of them
// makes. Each has a name of its own.
func (c *composition) checkKeyset(found *findings) {
	places, names := map[string]bool{}, map[string]bool{}
	workers := c.workers()
	for _, name := range workers {
		s := c.project.Services[name]
		value := func(variable string) string {
			if v := s.Environment["USAGEBRIDGE_"+variable]; v != nil {
				return *v
			}
			return ""
		}
		path, place := value("MASTER_KEYSET"), ""
		for _, m := range s.Volumes {
			if rest, ok := strings.CutPrefix(path, m.Target+"/"); ok && m.ReadOnly {
				place = m.Source + "/" + rest
			}
		}
		if place == "" {
			found.add(name, "USAGEBRIDGE_MASTER_KEYSET is %q: want a path in a volume that is mounted read-only", path)
		}
		places[place], names[value("WORKER_ID")] = true, true
	}
	if len(workers) < 2 || len(places) != 1 || len(names) != len(workers) {
		found.add("docker-compose.yml", "workers %v, keysets %v, names %v: want two workers or more with one keyset and a name each",
			workers, slices.Sorted(maps.Keys(places)), slices.Sorted(maps.Keys(names)))
	}
}

// checkScrapes: Prometheus asks the workers that there are, and has the rules that it is told of.
func (c *composition) checkScrapes(found *findings) error {
	const file = "deploy/prometheus/prometheus.yml"
	data, err := os.ReadFile(filepath.Join(c.root, file))
	if err != nil {
		return err
	}
	var config struct {
		Rules []string `yaml:"rule_files"`
		Jobs  []struct {
			Name    string `yaml:"job_name"`
			Statics []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, rule := range config.Rules {
		if _, err := os.Stat(filepath.Join(c.root, filepath.Dir(file), rule)); err != nil {
			found.add(file, "rule file %s does not exist", rule)
		}
	}
	var asked []string
	for _, job := range config.Jobs {
		for _, static := range job.Statics {
			if job.Name == "usagebridge" {
				asked = append(asked, static.Targets...)
			}
		}
	}
	var want []string
	for _, worker := range c.workers() {
		want = append(want, worker+":8080") // the listener of the image
	}
	if slices.Sort(asked); !slices.Equal(asked, want) {
		found.add(file, "job usagebridge asks %v: want %v", asked, want)
	}
	return nil
}
