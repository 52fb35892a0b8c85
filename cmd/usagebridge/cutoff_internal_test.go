package main

import (
	"strings"
	"testing"
	"time"
)

func TestTheNextCutoffIsInTheVendorsTimeZone(t *testing.T) {
	tests := []struct{ day, at, zone, now, want string }{
		{"1", "06:00", "UTC", "2026-11-21T12:00:00Z", "2026-12-01T06:00:00Z"},
		{"21", "12:01", "UTC", "2026-11-21T12:00:00Z", "2026-11-21T12:01:00Z"},
		{"21", "12:00", "UTC", "2026-11-21T12:00:00Z", "2026-12-21T12:00:00Z"}, // it has just been
		{"31", "23:30", "Europe/Berlin", "2026-11-21T12:00:00Z", "2026-11-30T22:30:00Z"},
		{"31", "23:30", "Europe/Berlin", "2026-11-30T22:30:00Z", "2026-12-31T22:30:00Z"},
		{"31", "00:00", "America/New_York", "2026-12-31T05:00:01Z", "2027-01-31T05:00:00Z"},
		{"30", "00:00", "UTC", "2028-02-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"1", "00:00", "Pacific/Auckland", "2026-11-30T10:59:59Z", "2026-11-30T11:00:00Z"}, // the first there is the last here
		{"29", "02:30", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"},   // a time that the clocks leave out
	}
	for _, test := range tests {
		c := cutoff{At: test.at, Zone: test.zone}
		for _, digit := range test.day {
			c.Day = 10*c.Day + int(digit-'0')
		}
		now, err := time.Parse(time.RFC3339, test.now)
		if err != nil {
			t.Fatal(err)
		}
		at, err := c.next(now)
		if got := at.UTC().Format(time.RFC3339); err != nil || got != test.want {
			t.Errorf("%s, asked at %s: got %s, %v, want %s", &c, test.now, got, err, test.want)
		}
	}
}

func TestAWrongCutoffSaysAllThatIsWrong(t *testing.T) {
	err := (&cutoff{Day: 32, At: "25:00", Zone: "Mars/Olympus"}).check()
	for _, want := range []string{"--day 32", "1 to 31", `--at "25:00"`, "18:00", `--zone "Mars/Olympus"`, "Europe/Berlin"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %s", err, want)
		}
	}
}
