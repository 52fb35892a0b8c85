package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usagebridge/usagebridge/pkg/event"
	"github.com/usagebridge/usagebridge/pkg/vault/transit"
)

// envPrefix begins the name of every environment variable of this program.
const envPrefix = "USAGEBRIDGE"

// Config is what the environment says. The desc of a field is the text of the
// configuration table in deploy/reference.md.
type Config struct {
	NATSURL            string `envconfig:"NATS_URL" secret:"url" desc:"Address of the NATS server, several separated by commas. Empty: a server inside this process, with its data in STORE_DIR."`
	NATSCreds          string `envconfig:"NATS_CREDS" desc:"Path of a NATS credentials file."`
	NATSNKey           string `envconfig:"NATS_NKEY" desc:"Path of a file (mode 0600) with the seed of a NATS user's nkey, SU…; not together with NATS_CREDS."`
	NATSCA             string `envconfig:"NATS_CA" desc:"Path of the certificates, in PEM, of the authorities that sign those of the NATS servers; with it, TLS is a must. Empty: those of the system, where a server wants TLS."`
	NATSCert           string `envconfig:"NATS_CERT" desc:"Path of a client certificate, in PEM, for NATS servers that ask for one; with NATS_KEY."`
	NATSKey            string `envconfig:"NATS_KEY" desc:"Path of the client certificate's key, in PEM (mode 0600)."`
	NATSListen         string `envconfig:"NATS_LISTEN" default:"127.0.0.1:4222" desc:"Loopback address on which the embedded server takes publishers; port 0: any free one."`
	StoreDir           string `envconfig:"STORE_DIR" desc:"Directory of the embedded server and of the master keyset. Empty: usagebridge in the user's data directory."`
	StoreKeyFile       string `envconfig:"STORE_KEY_FILE" desc:"Path of a file with the key that encrypts the embedded store at rest. It can never be changed, added or left out later."`
	MasterKeyset       string `envconfig:"MASTER_KEYSET" secret:"value" desc:"Keyset that seals the partner tokens: a path, or the JSON itself. Empty: master-keyset.json in STORE_DIR, made on first use (mode 0600)."`
	MasterKeyURI       string `envconfig:"MASTER_KEY_URI" desc:"Key of a key management service with which the keyset's file is encrypted, such as hcvault://vault.example:8200/transit/keys/usagebridge (HashiCorp Vault, transit engine, always over TLS). Empty: the keyset is in clear."`
	MasterKeyTokenFile string `envconfig:"MASTER_KEY_TOKEN_FILE" desc:"Path of a file with the token for the service that MASTER_KEY_URI names; it is read again for every call."`
	StatementKeyFile   string `envconfig:"STATEMENT_KEY_FILE" desc:"Path of the private key (ed25519, PKCS #8 in PEM) that signs usage statements. Empty: statement-key.pem in STORE_DIR, made on first use (mode 0600)."`

	Listen           string `envconfig:"LISTEN" default:"127.0.0.1:8080" desc:"Address of metrics, health and ingest."`
	InformSecretFile string `envconfig:"INFORM_SECRET_FILE" desc:"Path of a file with the last part of the Inform webhook's address, /inform/v1/VENDOR/SECRET. Empty: no webhook."`
	APITokenFile     string `envconfig:"API_TOKEN_FILE" desc:"Path of a file with the bearer token of /api/v1/onboardings, which takes and shows onboardings. Empty: no such addresses."`
	WorkerID         string `envconfig:"WORKER_ID" desc:"Name of this worker in leases, dead letters and the sync log. Empty: host name and process id."`

	PartnerRate        float64       `envconfig:"PARTNER_RATE" default:"50" desc:"Calls per second for each integration; 0: no limit."`
	PartnerConcurrency int           `envconfig:"PARTNER_CONCURRENCY" default:"16" desc:"Calls under way at once for each integration, 1 to 1024."`
	PartnerHostRate    float64       `envconfig:"PARTNER_HOST_RATE" default:"0" desc:"Calls per second to one server, for all its integrations on this worker together, which take turns; 0: no limit."`
	PartnerTimeout     time.Duration `envconfig:"PARTNER_TIMEOUT" default:"10s" desc:"Longest time for one call, up to 12s: a worker must be able to end its calls while its lease lasts."`
	PartnerAttempts    int           `envconfig:"PARTNER_ATTEMPTS" default:"2000" desc:"Calls for one figure without a usable answer before it is dead (undeliverable): by default more than three days of trying."`
	RetryMin           time.Duration `envconfig:"RETRY_MIN" default:"1s" desc:"Ceiling of the first wait before a retry; doubled each time, with full jitter."`
	RetryMax           time.Duration `envconfig:"RETRY_MAX" default:"5m" desc:"Ceiling of every wait before a retry."`
	ProbeMin           time.Duration `envconfig:"PROBE_MIN" default:"15m" desc:"First interval at which a held integration is probed with one call; doubled each time."`
	ProbeMax           time.Duration `envconfig:"PROBE_MAX" default:"24h" desc:"Longest interval between probes."`
	FloodLimit         int           `envconfig:"FLOOD_LIMIT" default:"100" desc:"Figures refused for good, one after the other, after which an integration is paused until an operator resumes it; 0: never."`
	ReassertAfter      time.Duration `envconfig:"REASSERT_AFTER" default:"168h" desc:"A count that was delivered so long ago is sent again when there is nothing else to send: the partner cannot be asked what it holds; 0: never."`
	Linger             time.Duration `envconfig:"LINGER" default:"200ms" desc:"How long a changed figure waits for further changes before it is sent; 0: not at all."`

	OEMAPIURL           string        `envconfig:"OEM_API_URL" secret:"url" desc:"Address of MSPCentric's OEM-API, such as https://sub.mspcentric.app/api, to read the status of integrations whose OEM token is known, and to onboard organizations. Empty: it is not called."`
	OEMClientID         string        `envconfig:"OEM_CLIENT_ID" desc:"The vendor's client id at the OEM-API."`
	OEMClientSecretFile string        `envconfig:"OEM_CLIENT_SECRET_FILE" desc:"Path of a file with the vendor's client secret at the OEM-API."`
	OEMPoll             time.Duration `envconfig:"OEM_POLL" default:"15m" desc:"How often statuses are read in the OEM-API; 0: never."`

	FoldBatch   int           `envconfig:"FOLD_BATCH" default:"500" desc:"Messages that are folded together without waiting for more, 1 to 1000; while a partition lags, up to ten times as many."`
	FoldWait    time.Duration `envconfig:"FOLD_WAIT" default:"100ms" desc:"Longest wait for a batch to fill."`
	LagWait     time.Duration `envconfig:"LAG_WAIT" default:"5s" desc:"Longest time for which figures wait to be sent while their partition lags behind its events, since every event folded first may save a call; 0: not at all."`
	TooFarAhead time.Duration `envconfig:"TOO_FAR_AHEAD" default:"5m" desc:"An event whose time is later than this after its arrival is dead (too_far_ahead)."`
	TooOld      time.Duration `envconfig:"TOO_OLD" default:"840h" desc:"An event whose time is earlier than this before its arrival is dead (too_old); 0: no limit."`

	SnapshotZeroShare float64       `envconfig:"SNAPSHOT_ZERO_SHARE" default:"0.2" desc:"Share of the keys in use, 0 to 1, beyond which the zeros of a snapshot wait for approval; 0: no such limit."`
	SnapshotZeroKeys  int           `envconfig:"SNAPSHOT_ZERO_KEYS" default:"100" desc:"Number of keys beyond which the zeros of a snapshot wait for approval; 0: no such limit."`
	SnapshotPatience  time.Duration `envconfig:"SNAPSHOT_PATIENCE" default:"24h" desc:"How long a snapshot waits for missing parts before it is given up: its figures stand, its zeros never come."`
	DeadLetterShare   float64       `envconfig:"DEAD_LETTER_SHARE" default:"0.5" desc:"Share of dead ones among a vendor's last 1000 events, 0 to 1, beyond which the vendor's events are not folded until an operator resumes it; 0: no limit."`

	MetricsOrganizations int `envconfig:"METRICS_ORGANIZATIONS" default:"100" desc:"How many integrations, those furthest behind, have a gauge of their own on each worker, with the organization's id as a label; 0: none."`

	CoreDumps bool `envconfig:"CORE_DUMPS" default:"false" desc:"Whether the system may write an image of the process when it crashes, and whether debuggers may attach: such an image has all secrets in clear. For debugging alone; read when the process starts."`

	LogLevel  string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error."`
	LogFormat string `envconfig:"LOG_FORMAT" default:"auto" desc:"json, text or auto (text on a terminal)."`

	Tracing string `envconfig:"TRACING" default:"none" desc:"Where traces go: none, or otlp (over HTTP), with OpenTelemetry's own variables OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER and so on. See tracing.md."`
}

// loadConfig reads the environment and checks all of it at once. With an error
// the configuration is that of the variables that could be read.
func loadConfig() (Config, error) {
	var c Config
	unread, errs := c.parse()
	if c.StoreDir == "" {
		dir, err := dataDir()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s_STORE_DIR is not set and no data directory is known: %w", envPrefix, err))
		}
		c.StoreDir = dir
	}
	if c.WorkerID == "" {
		c.WorkerID = defaultWorkerID()
	}
	errs = append(errs, withoutEchoes(c.check(), unread)...)
	if err := errors.Join(errs...); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

func plainType(name string) string {
	switch name {
	case "time.Duration":
		return "duration such as 200ms, 15m or 24h"
	case "int", "float64":
		return "number"
	}
	return name
}

func dataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "usagebridge"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "share", "usagebridge"), nil
}

func defaultWorkerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "worker"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

// check lists everything that is wrong with the configuration.
func (c *Config) check() []error {
	var errs []error
	complain := func(bad bool, name, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("%s_%s: "+format, append([]any{envPrefix, name}, args...)...))
		}
	}
	complain(!areAddresses(c.NATSURL), "NATS_URL", "want an address such as nats://nats.example:4222")
	complain(c.NATSCreds != "" && c.NATSNKey != "", "NATS_NKEY", "%s_NATS_CREDS is set as well: want one of them", envPrefix)
	complain((c.NATSCert == "") != (c.NATSKey == ""), "NATS_CERT", "want it and %s_NATS_KEY, or none of them", envPrefix)
	complain(!isListenAddress(c.Listen), "LISTEN", "%q: want host:port", c.Listen)
	complain(!isListenAddress(c.NATSListen), "NATS_LISTEN", "%q: want host:port", c.NATSListen)
	complain(!isRate(c.PartnerRate), "PARTNER_RATE", "%v: want calls per second, or 0 for no limit", c.PartnerRate)
	complain(c.PartnerConcurrency < 1 || c.PartnerConcurrency > 1024, "PARTNER_CONCURRENCY", "%d: want 1 to 1024", c.PartnerConcurrency)
	complain(c.PartnerTimeout <= 0 || c.PartnerTimeout > 12*time.Second, "PARTNER_TIMEOUT", "%v: want more than 0, at most 12s", c.PartnerTimeout)
	complain(c.PartnerAttempts < 1, "PARTNER_ATTEMPTS", "%d: want 1 or more", c.PartnerAttempts)
	complain(c.RetryMin <= 0 || c.RetryMax < c.RetryMin, "RETRY_MIN", "%v up to RETRY_MAX %v: want 0 < min ≤ max", c.RetryMin, c.RetryMax)
	complain(c.ProbeMin <= 0 || c.ProbeMax < c.ProbeMin, "PROBE_MIN", "%v up to PROBE_MAX %v: want 0 < min ≤ max", c.ProbeMin, c.ProbeMax)
	complain(!isRate(c.PartnerHostRate), "PARTNER_HOST_RATE", "%v: want calls per second, or 0 for no limit", c.PartnerHostRate)
	complain(!(c.SnapshotZeroShare >= 0 && c.SnapshotZeroShare <= 1), "SNAPSHOT_ZERO_SHARE", "%v: want a share from 0 to 1", c.SnapshotZeroShare)
	complain(c.SnapshotZeroKeys < 0, "SNAPSHOT_ZERO_KEYS", "%d: want a number of keys, or 0 for no limit", c.SnapshotZeroKeys)
	complain(c.SnapshotPatience < time.Second, "SNAPSHOT_PATIENCE", "%s: want at least 1s", c.SnapshotPatience)
	complain(!(c.DeadLetterShare >= 0 && c.DeadLetterShare <= 1), "DEAD_LETTER_SHARE", "%v: want a share from 0 to 1", c.DeadLetterShare)
	complain(c.FloodLimit < 0, "FLOOD_LIMIT", "%d: want how many refusals in a row, or 0 for no limit", c.FloodLimit)
	complain(c.ReassertAfter < 0, "REASSERT_AFTER", "%v: want 0 or more", c.ReassertAfter)
	complain(c.Linger < 0, "LINGER", "%v: want 0 or more", c.Linger)
	complain(c.MasterKeyURI != "" && !transit.Supports(c.MasterKeyURI), "MASTER_KEY_URI", "%q: want %s", c.MasterKeyURI, transit.WantURI)
	complain((c.MasterKeyURI == "") != (c.MasterKeyTokenFile == ""), "MASTER_KEY_TOKEN_FILE", "want it and %s_MASTER_KEY_URI, or none of them", envPrefix)
	complain(c.OEMAPIURL != "" && c.OEMClientID == "", "OEM_CLIENT_ID", "want the vendor's client id, because %s_OEM_API_URL is set", envPrefix)
	complain(c.OEMAPIURL != "" && c.OEMClientSecretFile == "", "OEM_CLIENT_SECRET_FILE", "want a path, because %s_OEM_API_URL is set", envPrefix)
	complain(c.OEMPoll < 0, "OEM_POLL", "%v: want 0 or more", c.OEMPoll)
	complain(c.FoldBatch < 1 || c.FoldBatch > 1000, "FOLD_BATCH", "%d: want 1 to 1000", c.FoldBatch)
	complain(c.FoldWait <= 0, "FOLD_WAIT", "%v: want more than 0", c.FoldWait)
	complain(c.LagWait < 0 || c.LagWait > time.Minute, "LAG_WAIT", "%v: want 0 to 1m", c.LagWait)
	complain(c.TooFarAhead <= 0, "TOO_FAR_AHEAD", "%v: want more than 0", c.TooFarAhead)
	complain(c.TooOld < 0, "TOO_OLD", "%v: want 0 or more", c.TooOld)
	complain(c.MetricsOrganizations < 0 || c.MetricsOrganizations > 10_000, "METRICS_ORGANIZATIONS", "%d: want 0 to 10000", c.MetricsOrganizations)
	_, err := logLevel(c.LogLevel)
	complain(err != nil, "LOG_LEVEL", "%q: want debug, info, warn or error", c.LogLevel)
	complain(c.LogFormat != "json" && c.LogFormat != "text" && c.LogFormat != "auto", "LOG_FORMAT", "%q: want json, text or auto", c.LogFormat)
	return append(errs, checkTracing(c.Tracing)...)
}

// areAddresses says whether the text is addresses of servers, separated by
// commas, or nothing.
func areAddresses(text string) bool {
	for address := range strings.SplitSeq(text, ",") {
		if u, err := url.Parse(address); address != "" && (err != nil || u.Host == "") {
			return false
		}
	}
	return true
}

// isListenAddress says whether a listener could be asked for there.
func isListenAddress(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	_, err = (&net.Resolver{}).LookupPort(context.Background(), "tcp", port)
	return err == nil
}

// isRate says whether so many calls per second can be counted; NaN compares as
// neither less nor more than anything.
func isRate(perSecond float64) bool { return perSecond >= 0 && perSecond <= math.MaxFloat64 }

// limits bound the times of events, the same wherever one is judged.
func (c *Config) limits() event.Limits {
	return event.Limits{Ahead: c.TooFarAhead, Lateness: c.TooOld}
}

// setting is one variable of the configuration, for people.
type setting struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Source  string `json:"source"` // where Value comes from
	Desc    string `json:"description"`
}

// The sources of a setting's value.
const (
	fromEnvironment = "environment"
	fromDefault     = "default"
	fromOthers      = "derived" // computed from other settings, or from the machine
)

// settings lists every variable with its effective value; secrets are masked.
func (c *Config) settings() []setting {
	derived := map[string]string{
		"STORE_DIR":          c.StoreDir,
		"WORKER_ID":          c.WorkerID,
		"MASTER_KEYSET":      filepath.Join(c.StoreDir, "master-keyset.json"),
		"STATEMENT_KEY_FILE": filepath.Join(c.StoreDir, "statement-key.pem"),
	}
	var list []setting
	value := reflect.ValueOf(c).Elem()
	for i := range value.NumField() {
		field := value.Type().Field(i)
		name := field.Tag.Get("envconfig")
		s := setting{
			Name:    envPrefix + "_" + name,
			Value:   mask(fmt.Sprint(value.Field(i).Interface()), field.Tag.Get("secret")),
			Default: field.Tag.Get("default"),
			Source:  fromDefault,
			Desc:    field.Tag.Get("desc"),
		}
		given, set := os.LookupEnv(s.Name)
		if set {
			s.Source = fromEnvironment
		}
		if computed, ok := derived[name]; ok && given == "" {
			s.Value, s.Source = computed, fromOthers
		}
		list = append(list, s)
	}
	return list
}

// differs says whether a value was given that is not the default.
func (s *setting) differs() bool {
	if s.Source != fromEnvironment {
		return false
	}
	given, err := time.ParseDuration(s.Value)
	usual, usualErr := time.ParseDuration(s.Default)
	if err == nil && usualErr == nil {
		return given != usual // 168h and 168h0m0s are the same
	}
	return s.Value != s.Default
}

// mask hides what is secret in a value: all of it, or the user info of URLs.
func mask(value, secret string) string {
	switch {
	case value == "" || secret == "":
		return value
	case secret == "url":
		var shown []string
		for address := range strings.SplitSeq(value, ",") {
			u, err := url.Parse(address)
			if err != nil {
				return "***"
			}
			if u.User != nil {
				u.User = nil
				shown = append(shown, u.Scheme+"://***@"+u.Host+u.Path)
				continue
			}
			shown = append(shown, u.String())
		}
		return strings.Join(shown, ",")
	case strings.HasPrefix(strings.TrimSpace(value), "{"):
		return "***"
	}
	return value // a path
}

// cut shortens a text to at most n bytes, at the border of a character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
