package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEveryWrongValueIsNamedAtOnce(t *testing.T) {
	for _, test := range []struct {
		name        string
		environment map[string]string
		want        []string
	}{
		{"values of the wrong type", map[string]string{"PARTNER_CONCURRENCY": "many", "LINGER": "soon", "FOLD_BATCH": "1.5", "DEAD_LETTER_SHARE": "half"}, []string{
			`USAGEBRIDGE_PARTNER_CONCURRENCY: "many" is no number`,
			`USAGEBRIDGE_LINGER: "soon" is no duration such as 200ms, 15m or 24h`,
			`USAGEBRIDGE_FOLD_BATCH: "1.5" is no number`,
			`USAGEBRIDGE_DEAD_LETTER_SHARE: "half" is no number`,
		}},
		{"one of the wrong type, one out of range", map[string]string{"RETRY_MAX": "later", "RETRY_MIN": "10m", "PARTNER_RATE": "-1"}, []string{
			`USAGEBRIDGE_RETRY_MAX: "later" is no duration such as 200ms, 15m or 24h`,
			`USAGEBRIDGE_PARTNER_RATE: -1: want calls per second, or 0 for no limit`,
		}},
		{"an empty value", map[string]string{"OEM_POLL": ""}, []string{`USAGEBRIDGE_OEM_POLL: "" is no duration such as 200ms, 15m or 24h`}},
		{"numbers that are none", map[string]string{"PARTNER_RATE": "NaN", "PARTNER_HOST_RATE": "+Inf"}, []string{
			`USAGEBRIDGE_PARTNER_RATE: NaN: want calls per second, or 0 for no limit`,
			`USAGEBRIDGE_PARTNER_HOST_RATE: +Inf: want calls per second, or 0 for no limit`,
		}},
		{"ports that there are not", map[string]string{"LISTEN": "127.0.0.1:99999", "NATS_LISTEN": "localhost:nats?"}, []string{
			`USAGEBRIDGE_LISTEN: "127.0.0.1:99999": want host:port`,
			`USAGEBRIDGE_NATS_LISTEN: "localhost:nats?": want host:port`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.environment {
				t.Setenv("USAGEBRIDGE_"+name, value)
			}
			_, err := loadConfig()
			if got, want := linesOf(err), strings.Join(test.want, "\n"); got != want {
				t.Errorf("problems:\ngot\n%s\nwant\n%s", got, want)
			}
			if got := exitCode(err); got != exitUsage {
				t.Errorf("exit code: got %d, want %d", got, exitUsage)
			}
		})
	}
}

func linesOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestAWrongValueKeepsNoOtherFromBeingRead(t *testing.T) {
	t.Setenv("USAGEBRIDGE_LINGER", "soon")
	t.Setenv("USAGEBRIDGE_OEM_POLL", "3m")
	c, err := loadConfig()
	if err == nil {
		t.Fatal("got no error, want one about LINGER")
	}
	if c.OEMPoll != 3*time.Minute {
		t.Errorf("OEM_POLL: got %s, want 3m", c.OEMPoll)
	}
}

func TestAVariableWithoutThePrefixIsNotOurs(t *testing.T) {
	t.Setenv("NATS_URL", "nats://elsewhere.example:4222")
	t.Setenv("LOG_LEVEL", "trace")
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.NATSURL != "" || c.LogLevel != "info" {
		t.Errorf("NATS_URL and LOG_LEVEL: got %q and %q, want the defaults", c.NATSURL, c.LogLevel)
	}
}

func TestASettingSaysWhereItsValueComesFrom(t *testing.T) {
	store := t.TempDir()
	t.Setenv("USAGEBRIDGE_STORE_DIR", store)
	t.Setenv("USAGEBRIDGE_PARTNER_RATE", "50.0")
	t.Setenv("USAGEBRIDGE_LINGER", "0.2s")
	t.Setenv("USAGEBRIDGE_FOLD_BATCH", "7")
	t.Setenv("USAGEBRIDGE_WORKER_ID", "")
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		value, source string
		differs       bool
	}{
		"STORE_DIR":          {store, fromEnvironment, true},
		"MASTER_KEYSET":      {filepath.Join(store, "master-keyset.json"), fromOthers, false},
		"STATEMENT_KEY_FILE": {filepath.Join(store, "statement-key.pem"), fromOthers, false},
		"WORKER_ID":          {defaultWorkerID(), fromOthers, false},
		"PARTNER_RATE":       {"50", fromEnvironment, false},
		"LINGER":             {"200ms", fromEnvironment, false},
		"FOLD_BATCH":         {"7", fromEnvironment, true},
		"RETRY_MAX":          {"5m0s", fromDefault, false},
		"NATS_URL":           {"", fromDefault, false},
	}
	for _, s := range c.settings() {
		name := strings.TrimPrefix(s.Name, "USAGEBRIDGE_")
		if w, ok := want[name]; ok && (s.Value != w.value || s.Source != w.source || s.differs() != w.differs) {
			t.Errorf("%s: got %q from %s, differs %t; want %q from %s, differs %t", name, s.Value, s.Source, s.differs(), w.value, w.source, w.differs)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("the configuration has no %v", want)
	}
}

func TestNoDefaultDiffersFromItself(t *testing.T) {
	for _, s := range (&Config{}).settings() {
		if s.Default != "" {
			t.Setenv(s.Name, s.Default)
		}
	}
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.settings() {
		if s.differs() {
			t.Errorf("%s: %q, set to its default %q, is said to differ from it", s.Name, s.Value, s.Default)
		}
	}
}

func TestAnUnknownVariableIsToldWithTheNearestKnownOne(t *testing.T) {
	want := map[string]string{
		"USAGEBRIDGE_PARTNER_RAET": "USAGEBRIDGE_PARTNER_RATE",
		"USAGEBRIDGE_NATSURL":      "USAGEBRIDGE_NATS_URL",
		"USAGEBRIDGE_NATS_CERTS":   "USAGEBRIDGE_NATS_CERT",
		"USAGEBRIDGE_LOGLEVEL":     "USAGEBRIDGE_LOG_LEVEL",
		"USAGEBRIDGE_LISTENER":     "USAGEBRIDGE_LISTEN",
		"USAGEBRIDGE_TOO_YOUNG":    "",
		"USAGEBRIDGE_X":            "",
		"USAGEBRIDGE_":             "",
	}
	for name := range want {
		t.Setenv(name, "hunter2")
	}
	t.Setenv("USAGEBRIDGE_PARTNER_RATE", "5")
	t.Setenv("USAGEBRIDGES", "5")
	got := unknownVariables()
	for n, u := range got {
		nearest, ok := want[u.name]
		if !ok || u.nearest != nearest {
			t.Errorf("unknown variable %s: got nearest %q, want %q (expected at all: %t)", u.name, u.nearest, nearest, ok)
		}
		if n > 0 && u.name < got[n-1].name {
			t.Errorf("unknown variables: %s comes after %s, want them by name", u.name, got[n-1].name)
		}
		delete(want, u.name)
	}
	if len(want) > 0 {
		t.Errorf("unknown variables: %v are missing", want)
	}
}

func TestTheDistanceOfTwoNamesIsTheNumberOfSlips(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"RATE", "RATE", 0}, {"RATE", "", 4}, {"", "RATE", 4},
		{"RAET", "RATE", 1}, {"RAT", "RATE", 1}, {"RRATE", "RATE", 1}, {"RITE", "RATE", 1},
		{"TOO_YOUNG", "TOO_OLD", 4}, {"AB", "BA", 1},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance of %q and %q: got %d, want %d", test.a, test.b, got, test.want)
		}
		if got := distance(test.b, test.a); got != test.want {
			t.Errorf("distance of %q and %q: got %d, want %d", test.b, test.a, got, test.want)
		}
	}
}

func TestFilesThatCannotBeReadAreNamedAtOnce(t *testing.T) {
	dir := t.TempDir()
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	for path, text := range map[string]string{empty: "", full: "text"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(dir, "missing")
	for name, value := range map[string]string{
		"NATS_CREDS": missing, "NATS_CA": dir, "NATS_CERT": full, "NATS_KEY": full, "STORE_KEY_FILE": empty,
		"INFORM_SECRET_FILE": missing, "OEM_CLIENT_SECRET_FILE": missing, "STATEMENT_KEY_FILE": missing, "MASTER_KEYSET": " " + missing,
	} {
		t.Setenv("USAGEBRIDGE_"+name, value)
	}
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, err := range c.checkFiles() {
		got = append(got, strings.NewReplacer(missing, "MISSING", empty, "EMPTY", dir, "DIR").Replace(err.Error()))
	}
	want := []string{
		`USAGEBRIDGE_NATS_CREDS: file "MISSING" does not exist`,
		`USAGEBRIDGE_NATS_CA: DIR is no regular file (drwxr-xr-x)`,
		`USAGEBRIDGE_STORE_KEY_FILE: file "EMPTY" is empty`,
		`USAGEBRIDGE_STATEMENT_KEY_FILE: file "MISSING" does not exist`,
		`USAGEBRIDGE_INFORM_SECRET_FILE: file "MISSING" does not exist`,
		`USAGEBRIDGE_OEM_CLIENT_SECRET_FILE: file "MISSING" does not exist`,
		`USAGEBRIDGE_MASTER_KEYSET: file "MISSING" does not exist`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("problems:\ngot\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAnInlineKeysetAndAMissingOneThatIsMadeAreNoProblem(t *testing.T) {
	for _, value := range []string{"", `{"primaryKeyId":1}`} {
		t.Setenv("USAGEBRIDGE_MASTER_KEYSET", value)
		c, err := loadConfig()
		if err != nil {
			t.Fatal(err)
		}
		if errs := c.checkFiles(); len(errs) > 0 {
			t.Errorf("MASTER_KEYSET %q: got %v, want no problem", value, errs)
		}
	}
}
