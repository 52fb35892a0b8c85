package browser

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const (
	root = "../.."
	// section is the README's that is played, up to its first block of commands.
	section = "## Onboarding an MSP"
	// patience is for one step on a slow machine.
	patience = time.Minute
)

// TestTheReadmeLeadsFromNothingToAChangedContract plays the README's commands against
// `usagebridge dev`, and the person in the browser.
func TestTheReadmeLeadsFromNothingToAChangedContract(t *testing.T) {
	home := newHome(t)
	commands := commandsOf(t, section)
	said := home.run(t, commands)
	link := regexp.MustCompile(`(?m)^https?://\S+$`).FindString(said)
	if link == "" {
		t.Fatalf("the commands printed\n%s\nwant a link on a line of its own", said)
	}
	b := newBrowser(t, link)

	b.sees("#organization", "Northwind IT")
	b.click(`a[data-test=start]`)
	b.sees("#authentication", "The key was exchanged")
	b.click("#next")
	b.click(`label[data-psa=lantern] input`)
	b.click("#connect-psa")
	b.click("#accept-suggestions") // of accounts, as soon as they are posted
	b.sees("#mapped", "1")
	b.click("#next")
	b.click("#accept-suggestions") // of services
	b.sees("#mapped", "1")
	b.click("#next")
	b.sees("[data-account=a-17]", "Miller Ltd")
	b.click("#accept")

	b.sees(`[data-company=miller][data-psa-service=backup] [data-test=reported]`, "42")
	b.sees(`[data-company=miller][data-psa-service=backup] [data-test=contract]`, "40")
	b.sees(`[data-company=miller][data-psa-service=backup] [data-test=delta]`, "+2")
	home.eventually(t, `acme/northwind +connected +open +3 +3 `, "usagebridge", "sync", "status")
	b.click(`button[data-test=approve][data-company=miller][data-psa-service=backup]`)
	b.sees(`[data-test=approval]`, "Miller Ltd")
	b.sees(`[data-company=miller][data-psa-service=backup] [data-test=contract]`, "42")
	b.sees("#in-step", "Nothing to approve")
}

// commandsOf are the README's, in the first block of shell after a heading.
func commandsOf(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n"+heading)
	_, block, opened := strings.Cut(after, "\n```sh\n")
	block, _, closed := strings.Cut(block, "\n```\n")
	if !found || !opened || !closed {
		t.Fatalf("README.md has no block of commands below %q", heading)
	}
	return block
}

// home is where the commands run: a store of its own, with `usagebridge dev` on it.
type home struct {
	env  []string
	said *logged
}

// logged is what a program in the background has said so far.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newHome(t *testing.T) *home {
	t.Helper()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "usagebridge"), "./cmd/usagebridge")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	h := &home{said: &logged{}, env: append(os.Environ(),
		"PATH="+bin+":"+os.Getenv("PATH"), "USAGEBRIDGE_STORE_DIR="+t.TempDir(),
		"USAGEBRIDGE_NATS_LISTEN=127.0.0.1:0", "USAGEBRIDGE_LISTEN=127.0.0.1:0")}
	dev := exec.Command(filepath.Join(bin, "usagebridge"), "dev", "--sandbox-listen", "127.0.0.1:0")
	dev.Env, dev.Stdout, dev.Stderr = h.env, h.said, h.said
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = dev.Process.Signal(syscall.SIGTERM)
		if err := dev.Wait(); err != nil {
			t.Errorf("dev ended with %v", err)
		}
		if t.Failed() {
			t.Logf("dev said\n%s", h.said)
		}
	})
	for deadline := time.Now().Add(patience); !strings.Contains(h.said.String(), "worker started"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("dev did not start within %v: %s", patience, h.said)
		}
	}
	return h
}

// run runs commands in a shell, and returns what they print. What they say beside
// that is for a person.
func (h *home) run(t *testing.T, commands string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sh := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	var said bytes.Buffer
	sh.Env, sh.Stderr = h.env, &said
	out, err := sh.Output()
	if err != nil {
		t.Fatalf("the README's commands ended with %v\n%s\n%s", err, out, said.String())
	}
	return string(out)
}

// eventually runs a command until what it prints has the pattern.
func (h *home) eventually(t *testing.T, pattern string, command ...string) {
	t.Helper()
	want, out := regexp.MustCompile(pattern), []byte{}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		cmd := exec.CommandContext(t.Context(), "env", command...)
		cmd.Env = h.env
		if out, _ = cmd.CombinedOutput(); want.Match(out) {
			return
		}
	}
	t.Fatalf("%s never said %q; it says\n%s", command, pattern, out)
}

// browser is a tab in which somebody works.
type browser struct {
	t   *testing.T
	ctx context.Context
}

func newBrowser(t *testing.T, link string) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.WindowSize(1280, 1000))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium has none for root
	}
	if path := os.Getenv("CHROMIUM"); path != "" {
		options = append(options, chromedp.ExecPath(path))
	}
	allocated, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(allocated)
	t.Cleanup(closeTab)
	b := &browser{t, ctx}
	if _, err := chromedp.Run(ctx, chromedp.Navigate(link)); err != nil { // without a deadline: the browser would end with it
		t.Fatalf("open the link: %v", err)
	}
	return b
}

// do does one thing, which must take no longer than the patience.
func do[T any](b *browser, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	step, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(step, action)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", what, err, b.page())
	}
	return value
}

// page is what the page says now, for who wants to know why.
func (b *browser) page() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.pathname + '\\n' + document.body.innerText"))
	if err != nil {
		return fmt.Sprint("the page cannot be read: ", err)
	}
	return text
}

func (b *browser) click(selector string) {
	b.t.Helper()
	do(b, "wait for "+selector, chromedp.WaitVisible(chromedp.CSS(selector)))
	do(b, "click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// sees waits until the first element has the text in it. Pages that wait load
// themselves again, and what is asked meanwhile gets no answer.
func (b *browser) sees(selector, want string) {
	b.t.Helper()
	got, script := "", fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](script))
		cancel()
		if err == nil && strings.Contains(text, want) {
			return
		}
		got = text
	}
	b.t.Fatalf("%s says %q, want %q in it\n%s", selector, got, want, b.page())
}
