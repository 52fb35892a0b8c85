//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// stopWait bounds how long a process may take to stop in good order.
const stopWait = 15 * time.Second

// process is a program that can be started again after it has ended.
type process struct {
	name string // of its log
	path string
	args []string
	dir  string // of its log, and where it works
	// watched: its number is in a file in dir, so that the watchdog of the servers
	// ends it if this program is killed.
	watched bool

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts the process with these variables.
func (p *process) start(env []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("start %s: it runs already", p.name)
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer func() { _ = log.Close() }()     // the process has its own
	cmd := exec.Command(p.path, p.args...) //nolint:gosec,noctx // our own program and the Prometheus that was named; it lives until end
	cmd.Dir, cmd.Env = p.dir, env
	cmd.Stdout, cmd.Stderr = log, log
	// Not of the terminal's group: an interrupt is for this program, which ends them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	pid := filepath.Join(p.dir, p.name+".pid")
	if p.watched {
		if err := os.WriteFile(pid, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
			return errors.Join(fmt.Errorf("start %s: %w", p.name, err), cmd.Process.Kill(), cmd.Wait())
		}
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		if p.watched {
			_ = os.Remove(pid)
		}
		close(done)
	}()
	return nil
}

func (p *process) log() string { return filepath.Join(p.dir, p.name+".log") }

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal to the process, if it runs, and gives what is closed
// when it ends.
func (p *process) signal(s syscall.Signal) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	_ = p.cmd.Process.Signal(s) // it may be gone by now
	return p.done
}

// kill ends the process as the kernel does when memory is short.
func (p *process) kill() { <-p.signal(syscall.SIGKILL) }

// end ends the process in good order, or not if that takes too long.
func (p *process) end() {
	done := p.signal(syscall.SIGTERM)
	_ = p.signal(syscall.SIGCONT)
	select {
	case <-done:
	case <-time.After(stopWait):
		p.kill()
	}
}

// logEnd is the end of the process's log, for an error.
func (p *process) logEnd() string {
	text, err := os.ReadFile(p.log())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// with is the environment with further variables of usagebridge.
func with(env []string, settings ...string) []string {
	env = slices.Clone(env)
	for _, s := range settings {
		env = append(env, "USAGEBRIDGE_"+s)
	}
	return env
}
