package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nats-io/nats.go"
)

// The names of the settings that errors tell people to set.
const (
	settingCreds = "USAGEBRIDGE_NATS_CREDS" //nolint:gosec // the name of a setting, not its value
	settingNKey  = "USAGEBRIDGE_NATS_NKEY"
	settingCA    = "USAGEBRIDGE_NATS_CA"
	settingCert  = "USAGEBRIDGE_NATS_CERT"
	settingKey   = "USAGEBRIDGE_NATS_KEY"
)

// credentials gives the options that prove who we are and who the server is.
// It reads every file once, so that all that is wrong is said at once; the
// client reads them again whenever it reconnects.
func (c *Config) credentials() ([]nats.Option, error) {
	var options []nats.Option
	var errs []error
	if c.CredsFile != "" && c.NKeyFile != "" {
		errs = append(errs, fmt.Errorf("%s and %s are both set: want one of them", settingCreds, settingNKey))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, fmt.Errorf("only one of %s and %s is set: want both, or none", settingCert, settingKey))
	}
	use := func(setting, path string, check func(string) (nats.Option, error)) {
		if path == "" {
			return
		}
		option, err := check(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", setting, err))
			return
		}
		options = append(options, option)
	}
	use(settingCreds, c.CredsFile, credsOption)
	exposed := c.Exposed
	if exposed == nil {
		exposed = func(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
	}
	use(settingNKey, c.NKeyFile, func(path string) (nats.Option, error) { return nkeyOption(path, exposed) })
	use(settingCA, c.CAFile, caOption)
	if c.CertFile != "" && c.KeyFile != "" {
		use(settingKey, c.KeyFile, func(string) (nats.Option, error) { return certOption(c.CertFile, c.KeyFile, exposed) })
	}
	return options, errors.Join(errs...)
}

func credsOption(path string) (nats.Option, error) {
	_, err := readCredential(path, nil)
	return nats.UserCredentials(path), err
}

// nkeyOption keeps what is in the file out of its error.
func nkeyOption(path string, exposed func(fs.FileInfo) bool) (nats.Option, error) {
	if _, err := readCredential(path, exposed); err != nil {
		return nil, err
	}
	option, err := nats.NkeyOptionFromSeed(path)
	if err != nil {
		return nil, fmt.Errorf("file %q holds no seed of a user's nkey: want one line that begins with SU", path)
	}
	return option, nil
}

func caOption(path string) (nats.Option, error) {
	data, err := readCredential(path, nil)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("file %q holds no certificate: want those of the authorities that sign the servers' certificates, in PEM", path)
	}
	return nats.RootCAs(path), nil
}

func certOption(cert, key string, exposed func(fs.FileInfo) bool) (nats.Option, error) {
	certPEM, err := readCredential(cert, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", settingCert, err)
	}
	keyPEM, err := readCredential(key, exposed)
	if err != nil {
		return nil, err
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return nil, fmt.Errorf("file %q is not the key of the certificate in %q: %w", key, cert, err)
	}
	return nats.ClientCert(cert, key), nil
}

// readCredential reads a file. exposed, which is not nil for a secret one, says
// whether others may use it, too.
func readCredential(path string, exposed func(fs.FileInfo) bool) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("file %q does not exist", path)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // before opening: a pipe would block
		return nil, fmt.Errorf("%q is not a regular file (%s)", path, info.Mode())
	case exposed != nil && exposed(info):
		return nil, fmt.Errorf("file %q may be used by others than its owner (mode %04o); run chmod 600 on it", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}

// refusedBy says what to set when the first connection is refused.
func (c *Config) refusedBy(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var alert tls.AlertError
	switch {
	case errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked):
		switch {
		case c.NKeyFile != "":
			return fmt.Errorf("%w: the server knows no user with the nkey in %q (%s): its public key belongs into the server's configuration", err, c.NKeyFile, settingNKey)
		case c.CredsFile != "":
			return fmt.Errorf("%w: the server does not take the credentials in %q (%s)", err, c.CredsFile, settingCreds)
		}
		return fmt.Errorf("%w: set %s to the seed of a user whom the server knows, or %s to a credentials file, or name user and password in USAGEBRIDGE_NATS_URL", err, settingNKey, settingCreds)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: set %s to the certificate of the authority that signed the server's", err, settingCA)
	case errors.As(err, &name):
		return fmt.Errorf("%w: use an address in USAGEBRIDGE_NATS_URL that the server's certificate names", err)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%w: %s or an address that begins with tls:// asks for it; use nats:// and no %s if that is meant", err, settingCA, settingCA)
	case errors.As(err, &alert):
		return fmt.Errorf("%w: the server wants another client certificate than it got: set %s and %s", err, settingCert, settingKey)
	}
	return err
}
