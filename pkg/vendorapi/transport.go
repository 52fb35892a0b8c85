package vendorapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

const maxHeaderBytes = 64 << 10

// NewTransport makes the connection pool that all clients of a process share.
// idle (at least 1) is how many connections to one host are kept open between
// calls: about as many as there are calls in flight to it at a time, of all
// clients together.
//
// There is no hard limit on connections: a call that queued for one inside the
// transport would spend its timeout waiting and look like a network failure.
// The callers limit themselves.
func NewTransport(idle int) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConnsPerHost:    max(idle, 1),
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  maxTimeout, // above every call's own timeout
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // answers are a sentence long, lists are rare
		// An HTTP/2 connection that died silently would fail every call until
		// the kernel notices, minutes later.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}
