package event

import (
	"testing"
	"time"
)

func TestATimeIsThatOfRFC3339InUTC(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2026-11-20T12:00:00Z":           time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		"2026-11-20t12:00:00z":           time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		"2026-11-20T12:00:00.5+01:30":    time.Date(2026, 11, 20, 10, 30, 0, 500_000_000, time.UTC),
		"2026-11-20T23:00:00-02:00":      time.Date(2026, 11, 21, 1, 0, 0, 0, time.UTC),
		"2024-02-29T00:00:00.000000001Z": time.Date(2024, 2, 29, 0, 0, 0, 1, time.UTC),
		"2026-11-20T12:00:00-00:00":      time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
	} {
		if got, err := parseTime(text); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestATimeThatIsNoneIsRefused(t *testing.T) {
	for _, test := range []struct {
		text string
		want error
	}{
		{"", errNotTime},
		{"2026-11-20", errNotTime},
		{"2026-11-20T12:00:00", errNotTime},
		{"2026-11-20 12:00:00Z", errNotTime},
		{"2026-11-20T12:00:00,5Z", errNotTime},
		{"2026-11-20T12:00:00.Z", errNotTime},
		{"2026-11-20T12:00:00.1234567891Z", errNotTime},
		{"2026-11-20T12:00:00+0100", errNotTime},
		{"2026-11-20T12:00:00+24:00", errNotTime},
		{"2026-11-20T12:00:00+01:60", errNotTime},
		{"2026-11-20T1:00:00.00Z", errNotTime},
		{"2026-11-20T12:00:00ZZ", errNotTime},
		{"2026-11-20T12:00:0٣Z", errNotTime},
		{"2026-02-29T12:00:00Z", errDay},
		{"2026-13-01T12:00:00Z", errDay},
		{"2026-00-10T12:00:00Z", errDay},
		{"2026-11-00T12:00:00Z", errDay},
		{"2026-11-20T24:00:00Z", errClock},
		{"2026-11-20T12:60:00Z", errClock},
		{"2016-12-31T23:59:60Z", errClock},
		{"1969-12-31T23:59:59Z", errYearRange},
	} {
		if got, err := parseTime(test.text); err != test.want { //nolint:errorlint // the very value, wrapped in nothing
			t.Errorf("%q: got %v, %v, want %q", test.text, got, err, test.want)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"2026-11-20T12:00:00Z", "2026-11-20t13:00:00.5+01:00", "2016-12-31T23:59:60Z", "2026-02-29T12:00:00-23:59"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseTime(text)
		if err != nil {
			return
		}
		upper := []byte(text)
		upper[10] = 'T'
		if upper[len(upper)-1] == 'z' {
			upper[len(upper)-1] = 'Z'
		}
		want, err := time.Parse(time.RFC3339Nano, string(upper))
		if err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%q: got %v, package time reads %v, %v", text, got, want, err)
		}
	})
}
