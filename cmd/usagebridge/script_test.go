package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usagebridge/usagebridge/pkg/broker"
	"github.com/usagebridge/usagebridge/pkg/broker/natstest"
	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"usagebridge": main})
}

// TestScripts runs the commands as a person does. Each script has a store of
// its own, and a partner of its own at $PARTNER with the integration acme/msp-1.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               furnishScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually,
			"exits":      exits,
			"serving":    serving,
			"append":     appendMessage,
			"partner":    callPartner,
			"vault":      playVault,
			"cluster":    startCluster,
			"freeport":   freePort,
			"platform":   playPlatform,
			"learns":     learns,
			"oem":        playOEM,
		},
	})
}

func furnishScript(env *testscript.Env) error {
	played := sandbox.New(sandbox.Config{
		Human: sandbox.HumanAuto, HumanDelay: 10 * time.Millisecond,
		Integrations: []sandbox.Integration{{Name: "acme/msp-1", VendorToken: "v-token", PartnerToken: "p-token"}},
	})
	server := httptest.NewServer(played.Handler())
	env.Defer(func() {
		played.Close()
		server.Close()
	})
	env.Values[platformKey{}] = &platformOf{}
	for name, value := range map[string]string{
		"PARTNER":                 server.URL,
		"USAGEBRIDGE_STORE_DIR":   filepath.Join(env.WorkDir, "store"),
		"USAGEBRIDGE_NATS_LISTEN": "127.0.0.1:0",
		"USAGEBRIDGE_LISTEN":      "127.0.0.1:0",
		"USAGEBRIDGE_WORKER_ID":   "worker-1",
		"USAGEBRIDGE_LINGER":      "10ms",
		"USAGEBRIDGE_PROBE_MIN":   "200ms",
		"USAGEBRIDGE_PROBE_MAX":   "200ms",
		"USAGEBRIDGE_TOO_OLD":     "0", // the times in scripts are fixed
		// Else each command of a race build ends with a second of sleep.
		"GORACE": "atexit_sleep_ms=0 " + os.Getenv("GORACE"),
	} {
		env.Setenv(name, value)
	}
	return furnishOEM(env)
}

const (
	patience = 20 * time.Second
	pause    = 50 * time.Millisecond
)

// poll asks done again and again until it is.
func poll(ts *testscript.TestScript, done func() bool, otherwise string, args ...any) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !done(); <-ticker.C {
		if time.Now().After(deadline) {
			ts.Fatalf(otherwise, args...)
		}
	}
}

// eventually PATTERN COMMAND… runs the command until its output matches.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND…")
	}
	pattern := regexp.MustCompile(args[0])
	poll(ts, func() bool {
		_ = ts.Exec(args[1], args[2:]...) // what it says counts
		return pattern.MatchString(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	}, "%q never said %q", args[1:], args[0])
}

// exits CODE COMMAND… runs the command, which must end with the exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var failed *exec.ExitError
		if !errors.As(err, &failed) {
			ts.Fatalf("%q: %v", args[1:], err)
		}
		code = failed.ExitCode()
	}
	if got := strconv.Itoa(code); got != args[0] {
		ts.Fatalf("%q ended with %s, want %s", args[1:], got, args[0])
	}
}

// serving waits until a worker in the background has opened the store: before,
// any other command would open it itself.
func serving(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: serving")
	}
	poll(ts, func() bool {
		_, running, err := broker.FindEmbedded(ts.Getenv("USAGEBRIDGE_STORE_DIR"))
		return err == nil && running
	}, "no worker opened the store")
}

// freeport NAME sets the variable to a port of the loopback that is free now.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)) //nolint:forcetypeassert // what a TCP listener has
	ts.Check(listener.Close())
}

// cluster starts three nats-servers with the configuration of deploy/nats, and
// sets OPERATOR and WORKER to the files of these users' nkeys.
func startCluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: cluster")
	}
	dir := ts.MkAbs("cluster")
	ts.Check(os.Mkdir(dir, 0o700))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster, err := natstest.Start(ctx, natstest.Config{Dir: dir, Servers: 3, Secure: true, Sync: "1m"})
	ts.Check(err)
	ts.Defer(cluster.Close)
	ts.Setenv("USAGEBRIDGE_NATS_URL", cluster.URL())
	ts.Setenv("USAGEBRIDGE_NATS_CA", cluster.Secrets().CA)
	ts.Setenv("OPERATOR", cluster.Secrets().Operator)
	ts.Setenv("WORKER", cluster.Secrets().Worker)
}

// append SUBJECT FILE publishes the file as it is, as any NATS client can.
func appendMessage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: append SUBJECT FILE")
	}
	url, _, err := broker.FindEmbedded(ts.Getenv("USAGEBRIDGE_STORE_DIR"))
	ts.Check(err)
	b, err := broker.Connect(context.Background(), broker.Config{URL: url})
	ts.Check(err)
	defer b.Close()
	ts.Check(b.Append(context.Background(), args[0], nil, []byte(ts.ReadFile(args[1])), ""))
}

// partner METHOD PATH [FILE] calls the partner's control API, with the file as
// the body; path is what comes after /sandbox/.
func callPartner(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: partner METHOD PATH [FILE]")
	}
	var body []byte
	if len(args) == 3 {
		body = []byte(ts.ReadFile(args[2]))
	}
	request, err := http.NewRequestWithContext(context.Background(), args[0], ts.Getenv("PARTNER")+"/sandbox/"+args[1], bytes.NewReader(body))
	ts.Check(err)
	answer, err := http.DefaultClient.Do(request)
	ts.Check(err)
	ts.Check(answer.Body.Close())
	if answer.StatusCode/100 != 2 {
		ts.Fatalf("the partner answered %s to %s", answer.Status, args)
	}
}
