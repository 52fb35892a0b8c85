package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

const repository = "../.."

func TestEachWayToStartTheCompositionHasItsServers(t *testing.T) {
	for _, tt := range []struct {
		profiles []string
		servers  string
		init     string
	}{
		{nil, "nats", "init"}, // as .env says
		{[]string{"single"}, "nats", "init"},
		{[]string{"cluster"}, "nats-1 nats-2 nats-3", "init-cluster"},
	} {
		c, err := load(t.Context(), repository, tt.profiles...)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.called("nats"), " "); got != tt.servers {
			t.Errorf("profiles %v: called nats: got %s, want %s", tt.profiles, got, tt.servers)
		}
		if _, ok := c.project.Services[tt.init]; !ok {
			t.Errorf("profiles %v: got the services %v, want %s among them", tt.profiles, c.project.ServiceNames(), tt.init)
		}
		if got := strings.Join(c.workers(), " "); got != "worker-1 worker-2" {
			t.Errorf("profiles %v: workers: got %s, want worker-1 worker-2", tt.profiles, got)
		}
	}
}

func TestWhatIsWrongWithAServiceIsFound(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, tt := range []struct {
		service string
		spoil   func(*types.ServiceConfig)
		want    string // a finding has it; empty: none may be about the service
	}{
		{"worker-1", func(*types.ServiceConfig) {}, ""},
		{"billing", func(*types.ServiceConfig) {}, ""},
		{"nats", func(s *types.ServiceConfig) { s.Image = "nats:latest" }, "want a tag with the whole version"},
		{"nats", func(s *types.ServiceConfig) { s.Image = "nats" }, "want a tag with the whole version"},
		{"nats", func(s *types.ServiceConfig) { s.Image = "nats:2" }, "want a tag with the whole version"},
		{"nats", func(s *types.ServiceConfig) { s.ReadOnly = false }, "want read_only: true"},
		{"nats", func(s *types.ServiceConfig) { s.CapDrop = []string{"NET_RAW"} }, "want [ALL]"},
		{"nats", func(s *types.ServiceConfig) { s.CapAdd = []string{"CHOWN"} }, "want none for what keeps running"},
		{"nats", func(s *types.ServiceConfig) { s.SecurityOpt = nil }, "want no-new-privileges"},
		{"nats", func(s *types.ServiceConfig) { s.Privileged = true }, "it shares the host"},
		{"nats", func(s *types.ServiceConfig) { s.NetworkMode = "host" }, "it shares the host"},
		{"nats", func(s *types.ServiceConfig) { s.HealthCheck = nil }, "it has no healthcheck"},
		{"nats", func(s *types.ServiceConfig) { s.HealthCheck = &types.HealthCheckConfig{Disable: true} }, "it has no healthcheck"},
		{"nats", func(s *types.ServiceConfig) {
			s.HealthCheck, s.Extensions = nil, types.Extensions{"x-no-healthcheck": "it has no port"}
		}, ""},
		{"sandbox", func(s *types.ServiceConfig) { s.HealthCheck = nil }, "it has no healthcheck"}, // that of the image asks for a worker
		{"nats", func(s *types.ServiceConfig) { s.Restart = "always" }, "want unless-stopped"},
		{"nats", func(s *types.ServiceConfig) { s.StopGracePeriod = nil }, "it has no stop_grace_period"},
		{"init", func(s *types.ServiceConfig) { s.HealthCheck = nil }, "it ends by itself"},
		{"sandbox", func(s *types.ServiceConfig) { s.Ports[0].HostIP = "" }, `published on "": want 127.0.0.1`},
		{"sandbox", func(s *types.ServiceConfig) { s.Ports[0].HostIP = "0.0.0.0" }, "want 127.0.0.1"},
		{"billing", func(s *types.ServiceConfig) { s.Volumes[0].Source += ".gone" }, "does not exist"},
		{"billing", func(s *types.ServiceConfig) { s.Volumes[0].Source = "/etc/passwd" }, "from outside of the repository"},
		{"billing", func(s *types.ServiceConfig) { s.Volumes[0].ReadOnly = false }, "want :ro"},
		{"worker-1", func(s *types.ServiceConfig) { s.Environment["USAGEBRIDGE_PARTNERRATE"] = text("1") }, "no variable of deploy/reference.md"},
		{"worker-1", func(s *types.ServiceConfig) { delete(s.Environment, "USAGEBRIDGE_MASTER_KEYSET") }, "USAGEBRIDGE_MASTER_KEYSET is \"\""},
		{"worker-1", func(s *types.ServiceConfig) { s.Volumes[0].ReadOnly = false }, "mounted read-only"},
		{"worker-2", func(s *types.ServiceConfig) { s.Volumes[0].Source = "other-keys" }, "with one keyset and a name each"},
		{"worker-2", func(s *types.ServiceConfig) { s.Environment["USAGEBRIDGE_WORKER_ID"] = text("worker-1") }, "with one keyset and a name each"},
		{"worker-2", func(s *types.ServiceConfig) { s.Command = []string{"--help"} }, "job usagebridge asks [worker-1:8080 worker-2:8080]: want [worker-1:8080]"},
	} {
		c, err := load(t.Context(), repository)
		if err != nil {
			t.Fatal(err)
		}
		s := c.project.Services[tt.service]
		tt.spoil(&s)
		c.project.Services[tt.service] = s
		found, err := c.check()
		if err != nil {
			t.Fatal(err)
		}
		expect(t, found, tt.service, tt.want)
	}
}

func TestAFileThatComposeWouldRefuseIsAnError(t *testing.T) {
	dir := t.TempDir()
	text := "services:\n  a:\n    image: a:1.2\n    depends_on: [nobody]\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-compose.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v, want an error that names the service that is missing", err)
	}
}

// expect wants a finding with the text, or with an empty one none about where.
func expect(t *testing.T, found findings, where, want string) {
	t.Helper()
	for _, f := range found {
		switch {
		case want == "" && f.where == where:
			t.Errorf("got %q, want nothing about %s", f, where)
		case want != "" && strings.Contains(f.what, want):
			return
		}
	}
	if want != "" {
		t.Errorf("%s: got %q, want a finding with %q", where, found, want)
	}
}

func TestWhatIsWrongWithTheDockerfileIsFound(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	dockerfile, module, makefile := read("deploy/Dockerfile"), read("go.mod"), read("Makefile")
	for _, tt := range []struct{ old, new, want string }{
		{"", "", ""},
		{"GO_VERSION=1.26.8", "GO_VERSION=1.25.1", "want the whole version of Go"},
		{"GO_VERSION=1.26.8", "GO_VERSION=1.26", "want the whole version of Go"},
		{"static-debian12:nonroot", "static-debian12", "want a tag, and not latest"},
		{"static-debian12:nonroot", "static-debian12:latest", "want a tag, and not latest"},
		{"USER 65532:65532", "USER nonroot", "the last stage has USER [nonroot]"},
		{"USER 65532:65532", "USER 0:0", "the last stage has USER [0:0]"},
		{"USER 65532:65532\n", "\n", "the last stage has USER []"},
		{`CMD ["/usagebridge", "healthcheck"]`, "CMD /usagebridge healthcheck", "the last stage has HEALTHCHECK"},
		{`--interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usagebridge", "healthcheck"]`, "NONE", "the last stage has HEALTHCHECK [NONE"},
		{`ENTRYPOINT ["/usagebridge"]`, "ENTRYPOINT /usagebridge", "ENTRYPOINT needs a shell"},
		{`CMD ["run"]`, "CMD run", "CMD needs a shell"},
		{"--chown=65532:65532", "--chown=nonroot", "want numbers that are not 0"},
		{"COPY . .", "ADD . .", "want COPY"},
		{"EXPOSE 8080", "RUN chmod 755 /usagebridge", "RUN in the last stage"},
		{"EXPOSE 8080", "ENV VENDOR_TOKEN=x", "whoever has the image has its secrets"},
		{"ARG REVISION=unknown", "ARG NPM_TOKEN", "whoever has the image has its secrets"},
		{"-trimpath -buildvcs=true", "-buildvcs=true", "the build has no -trimpath"},
		{"-trimpath -buildvcs=true", "-trimpath", "the build has no -buildvcs=true"},
		{"CGO_ENABLED=0 GOOS", "GOOS", "the build has no CGO_ENABLED=0"},
		{"image.licenses", "image.authors", "the last stage has LABEL"},
	} {
		if !strings.Contains(dockerfile, tt.old) {
			t.Fatalf("deploy/Dockerfile has no %q", tt.old)
		}
		found, err := judgeDockerfile([]byte(strings.Replace(dockerfile, tt.old, tt.new, 1)), module, makefile)
		if err != nil {
			t.Fatal(err)
		}
		if tt.want == "" && len(found) > 0 {
			t.Errorf("got %q, want nothing wrong with the file as it is", found)
		}
		expect(t, found, tt.new, tt.want)
	}
}

func TestTheBuildGetsWhatIsTrackedAndNoSecrets(t *testing.T) {
	good := []string{"bin", "dist", "**/master-keyset.json", "**/statement-key.pem", "**/*.nk", "**/*.key", "**/*.token", "**/store*.tar*"}
	tracked := []string{"go.mod", ".env", ".git/HEAD", "cmd/usagebridge/main.go"}
	for _, tt := range []struct {
		patterns []string
		want     string
	}{
		{good, ""},
		{good[2:], "bin/usagebridge would get into the build"},
		{append([]string{".*"}, good...), ".git/HEAD is tracked and left out"},
		{append([]string{"**/*.go"}, good...), "cmd/usagebridge/main.go is tracked and left out"},
		{append(good[:4:4], good[5:]...), "worker.nk would get into the build"},
	} {
		found, err := judgeIgnored(tt.patterns, tracked)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, found, ".dockerignore", tt.want)
	}
}
