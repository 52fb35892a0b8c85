package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAStoreThatStaysStuckEndsTheProcessAndAHiccupDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space left on device")
		begun := time.Now()
		err := endWhenStuck(t.Context(), func() error {
			if past := time.Since(begun); past > 30*time.Second && past < 80*time.Second || past > 5*time.Minute {
				return full
			}
			return nil
		})
		if !errors.Is(err, full) || !strings.Contains(err.Error(), "restart") {
			t.Errorf("got %v, want the cause and what mends it", err)
		}
		if past := time.Since(begun); past < 6*time.Minute || past > 7*time.Minute {
			t.Errorf("ended after %v, want a minute after the store was stuck for good", past)
		}
	})
}

func TestAStopIsNotTakenForAStuckStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		if err := endWhenStuck(ctx, func() error { return errors.New("stopping") }); err != nil {
			t.Errorf("got %v, want none", err)
		}
	})
}
