package main

import (
	"strings"
	"testing"
	"time"
)

func TestTheEnvironmentIsCheckedAsAWhole(t *testing.T) {
	t.Setenv("USAGEBRIDGE_PARTNER_RATE", "-1")
	t.Setenv("USAGEBRIDGE_PARTNER_TIMEOUT", "1m")
	t.Setenv("USAGEBRIDGE_FOLD_BATCH", "0")
	t.Setenv("USAGEBRIDGE_LOG_LEVEL", "loud")
	t.Setenv("USAGEBRIDGE_LISTEN", "8080")
	t.Setenv("USAGEBRIDGE_NATS_CREDS", "a")
	t.Setenv("USAGEBRIDGE_NATS_NKEY", "b")
	t.Setenv("USAGEBRIDGE_NATS_KEY", "c")
	_, err := loadConfig()
	if err == nil {
		t.Fatal("got no error, want one that names seven variables")
	}
	for _, want := range []string{"NATS_NKEY", "NATS_CERT", "PARTNER_RATE", "PARTNER_TIMEOUT", "FOLD_BATCH", "LOG_LEVEL", "LISTEN"} {
		if !strings.Contains(err.Error(), "USAGEBRIDGE_"+want) {
			t.Errorf("error: got %q, want it to name %s too", err, want)
		}
	}
	if got := exitCode(err); got != exitUsage {
		t.Errorf("exit code: got %d, want %d", got, exitUsage)
	}
}

func TestAValueThatIsNoDurationIsNamedWithWhatWouldBeRight(t *testing.T) {
	t.Setenv("USAGEBRIDGE_LINGER", "soon")
	_, err := loadConfig()
	want := `USAGEBRIDGE_LINGER: "soon" is no duration such as 200ms, 15m or 24h`
	if err == nil || err.Error() != want {
		t.Errorf("error: got %v, want %s", err, want)
	}
}

func TestTheDefaultsAreThoseOfTheDesign(t *testing.T) {
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.PartnerRate != 50 || c.PartnerConcurrency != 16 || c.Linger != 200*time.Millisecond || c.FoldBatch != 500 ||
		c.FoldWait != 100*time.Millisecond || c.TooFarAhead != 5*time.Minute || c.TooOld != 35*24*time.Hour {
		t.Errorf("defaults: got %+v", c)
	}
	if c.WorkerID == "" || c.StoreDir == "" {
		t.Errorf("worker id and store directory: got %q and %q, want both filled in", c.WorkerID, c.StoreDir)
	}
}

func TestSecretsAreMaskedInTheConfiguration(t *testing.T) {
	t.Setenv("USAGEBRIDGE_NATS_URL", "nats://user:hunter2@nats.example:4222,nats://b.example:4222")
	t.Setenv("USAGEBRIDGE_MASTER_KEYSET", `{"primaryKeyId":1,"key":"hunter2"}`)
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.settings() {
		if strings.Contains(s.Value, "hunter2") {
			t.Errorf("%s shows a secret: %s", s.Name, s.Value)
		}
		if s.Name == "USAGEBRIDGE_NATS_URL" && (!strings.Contains(s.Value, "nats.example:4222") || s.Source != "environment") {
			t.Errorf("%s: got %q from %s, want the hosts, from the environment", s.Name, s.Value, s.Source)
		}
		if s.Desc == "" {
			t.Errorf("%s has no description", s.Name)
		}
	}
}
