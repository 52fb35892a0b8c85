package main

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// playVault starts a server that encrypts with the key transit/keys/bridge for
// who has the token s3cret, and sets VAULT to its address and SSL_CERT_FILE to
// its certificate.
func playVault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: vault")
	}
	played := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("X-Vault-Token") != "s3cret" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"errors":["permission denied"]}`))
			return
		}
		data := map[string]string{}
		switch r.URL.Path {
		case "/v1/transit/encrypt/bridge":
			data["ciphertext"] = "vault:v1:" + body["plaintext"]
		case "/v1/transit/decrypt/bridge":
			data["plaintext"] = strings.TrimPrefix(body["ciphertext"], "vault:v1:")
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}))
	ts.Defer(played.Close)
	certificate := ts.MkAbs("vault.pem")
	ts.Check(os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: played.Certificate().Raw}), 0o600))
	ts.Setenv("SSL_CERT_FILE", certificate)
	ts.Setenv("VAULT", strings.TrimPrefix(played.URL, "https://"))
}
