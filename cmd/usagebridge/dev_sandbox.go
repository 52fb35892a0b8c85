package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/usagebridge/usagebridge/pkg/sandbox"
)

// playedPlatform is what dev writes into its store of its sandbox, so that commands
// find the OEM-API as they find the server.
type playedPlatform struct {
	APIURL   string `json:"api_url"`
	ClientID string `json:"oem_client_id"`
}

// Files in the store of dev.
const (
	playedFile       = "sandbox.json"
	playedSecretFile = "sandbox-oem.secret" //nolint:gosec // the name of a file
)

// announceSandbox lets this process and other commands know the sandbox that it
// plays. One that the environment names goes before it.
func (c *Config) announceSandbox(apiURL string, client sandbox.OEM) error {
	text, err := json.Marshal(playedPlatform{APIURL: apiURL, ClientID: client.ClientID})
	if err == nil {
		err = os.WriteFile(filepath.Join(c.StoreDir, playedSecretFile), []byte(client.ClientSecret+"\n"), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(c.StoreDir, playedFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("tell other commands of the sandbox: %w", err)
	}
	return c.readSandbox()
}

// findSandbox takes the OEM-API of the sandbox that a running dev plays on the store
// directory, if the environment names none.
func (c *Config) findSandbox() error {
	_, running, err := c.adoptRunning()
	if err != nil || !running {
		return err
	}
	return c.readSandbox()
}

// readSandbox reads what dev has told of its sandbox, if it plays one on the store
// directory.
func (c *Config) readSandbox() error {
	if c.OEMAPIURL != "" || c.NATSURL != "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(c.StoreDir, playedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var played playedPlatform
	if err == nil {
		err = json.Unmarshal(text, &played)
	}
	if err != nil {
		return fmt.Errorf("read what dev says of its sandbox in %s: %w", c.StoreDir, err)
	}
	c.OEMAPIURL, c.OEMClientID, c.OEMClientSecretFile = played.APIURL, played.ClientID, filepath.Join(c.StoreDir, playedSecretFile)
	return nil
}
