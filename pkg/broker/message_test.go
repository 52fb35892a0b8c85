package broker_test

import (
	"testing"

	"github.com/usagebridge/usagebridge/pkg/broker"
)

func TestStatusSubjectsEscapeTheIds(t *testing.T) {
	if got, want := broker.StatusSubject("acme", "msp 1.x"), "status.v1.acme.msp=201=2Ex"; got != want {
		t.Errorf("subject: got %s, want %s", got, want)
	}
}
