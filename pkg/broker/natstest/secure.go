//go:build unix

package natstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

// Secrets are the certificates and nkeys of a cluster started with Secure, as
// paths of files that clients may be given.
type Secrets struct {
	// CA is what signed all certificates, in PEM.
	CA string
	// Cert and Key are a certificate that the servers have, too, and clients
	// may show.
	Cert, Key string
	// Operator, Worker and Acme are the seeds of the users of
	// deploy/nats/auth.conf, mode 0600.
	Operator, Worker, Acme string

	environment []string // for the servers
}

func makeSecrets(dir string) (*Secrets, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make secrets: %w", err)
	}
	s := &Secrets{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node.key"),
		Operator: filepath.Join(dir, "operator.nk"), Worker: filepath.Join(dir, "worker.nk"), Acme: filepath.Join(dir, "acme.nk"),
	}
	s.environment = []string{"NATS_TLS_CA=" + s.CA, "NATS_TLS_CERT=" + s.Cert, "NATS_TLS_KEY=" + s.Key}
	err := s.certify()
	for _, user := range []struct{ variable, path string }{
		{"NATS_NKEY_OPERATOR", s.Operator}, {"NATS_NKEY_WORKER", s.Worker}, {"NATS_NKEY_ACME", s.Acme},
	} {
		public, userErr := makeUser(user.path)
		err = errors.Join(err, userErr)
		s.environment = append(s.environment, user.variable+"="+public)
	}
	if err != nil {
		return nil, fmt.Errorf("make secrets: %w", err)
	}
	return s, nil
}

// makeUser writes the seed of a new user and gives its public key.
func makeUser(path string) (string, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	seed, err := pair.Seed()
	if err != nil {
		return "", err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return "", err
	}
	return public, os.WriteFile(path, append(seed, '\n'), 0o600)
}

// certify makes a CA and one certificate for all nodes, which are on one host.
func (s *Secrets) certify() error {
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "natstest CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	node := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	nodeKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	nodeDER, err := x509.CreateCertificate(rand.Reader, node, ca, &nodeKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(nodeKey)
	if err != nil {
		return err
	}
	return errors.Join(writePEM(s.CA, "CERTIFICATE", caDER), writePEM(s.Cert, "CERTIFICATE", nodeDER), writePEM(s.Key, "PRIVATE KEY", keyDER))
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// configureSecurely gives the server the files of deploy/nats, with another
// sync_interval if the test wants one, and what they ask of the environment.
func (s *Server) configureSecurely(c Config, routes []string, secrets *Secrets) error {
	deploy, err := deployDir()
	if err != nil {
		return fmt.Errorf("configure %s: %w", s.name, err)
	}
	for _, name := range []string{"cluster.conf", "auth.conf"} {
		data, err := os.ReadFile(filepath.Join(deploy, name))
		if err != nil {
			return fmt.Errorf("configure %s: %w", s.name, err)
		}
		text := strings.Replace(string(data), "\n  sync_interval: always\n", "\n  sync_interval: "+c.Sync+"\n", 1)
		if name == "cluster.conf" && !strings.Contains(text, "\n  sync_interval: "+c.Sync+"\n") {
			return fmt.Errorf("configure %s: %s has no line %q", s.name, filepath.Join(deploy, name), "  sync_interval: always")
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure %s: %w", s.name, err)
		}
	}
	s.config = filepath.Join(s.dir, "cluster.conf")
	s.environment = append([]string{
		"NATS_SERVER_NAME=" + s.name,
		"NATS_LISTEN=" + s.Addr(),
		"NATS_ADVERTISE=" + s.Addr(),
		fmt.Sprintf("NATS_MONITOR=127.0.0.1:%d", s.monitor),
		fmt.Sprintf("NATS_CLUSTER_LISTEN=127.0.0.1:%d", s.cluster),
		"NATS_ROUTES=[" + strings.Join(routes, ", ") + "]",
		"NATS_STORE_DIR=" + s.DataDir(),
	}, secrets.environment...)
	return nil
}

// deployDir is deploy/nats of the module that the test is in.
func deployDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return filepath.Join(at, "deploy", "nats"), nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod above %s: run it inside the module, whose deploy/nats is used", dir)
		}
	}
}
