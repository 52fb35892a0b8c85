package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNoImageOfAProcessWithSecretsIsWritten(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ allowed, want string }{{"", "0"}, {"false", "0"}, {"true", "4096"}} {
		path, err := exec.LookPath("usagebridge")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -S -c 8; exec "$0" sandbox --listen 127.0.0.1:0`, path)
		cmd.Env = append(os.Environ(), "USAGEBRIDGE_CORE_DUMPS="+test.allowed)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		limit := ""
		eventuallyTrue(t, 10*time.Second, "CORE_DUMPS="+test.allowed+": the limit is "+test.want, func() bool {
			limits, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/limits")
			if err != nil {
				return false
			}
			for line := range strings.Lines(string(limits)) {
				if rest, found := strings.CutPrefix(line, "Max core file size"); found {
					limit = strings.Fields(rest)[0]
				}
			}
			return limit == test.want
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func TestNobodyLooksIntoAProcessWithSecrets(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0) }()
	if err := hideMemory(); err != nil {
		t.Fatal(err)
	}
	if got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || got != 0 {
		t.Errorf("got dumpable %d and error %v, want 0", got, err)
	}
}
