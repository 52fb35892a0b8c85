package delivery

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// fullJitter is the wait before attempt n+1 after n failures: uniform between
// 0 and the exponentially growing ceiling, which starts at least and stops at
// most. Drawing from the whole range keeps keys that failed together from
// coming back together.
func fullJitter(n int, least, most time.Duration) time.Duration {
	return exponential(n, least/2, most/2, 1)
}

// halfJitter is the wait of a whole lane after n failures: within ±50 % of
// the exponentially growing interval, never near zero, because what comes
// next is one call that decides for all keys.
func halfJitter(n int, least, most time.Duration) time.Duration {
	return exponential(n, least, most, 0.5)
}

func exponential(n int, least, most time.Duration, jitter float64) time.Duration {
	b := backoff.ExponentialBackOff{
		InitialInterval:     least,
		RandomizationFactor: jitter,
		Multiplier:          2,
		MaxInterval:         most,
		MaxElapsedTime:      0,
		Stop:                backoff.Stop,
		Clock:               backoff.SystemClock,
	}
	b.Reset()
	// The interval has reached any maximum after 63 doublings.
	for range min(n, 63) - 1 {
		b.NextBackOff()
	}
	return b.NextBackOff()
}
