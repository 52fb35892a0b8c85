package event_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/usagebridge/usagebridge/pkg/event"
)

func TestUnitsAreExactInEverySpelling(t *testing.T) {
	for text, want := range map[string]event.Units{
		"0": 0, "-0": 0, "-0.000e7": 0, "0e999999999999999999999": 0,
		"42": 42_000_000, "4.2e1": 42_000_000, "4.2E+1": 42_000_000, "42.000000": 42_000_000, "42.0000000": 42_000_000, "42000000e-6": 42_000_000,
		"0.1": 100_000, "0.000001": 1, "1e-6": 1, "10e-7": 1, "100.05": 100_050_000,
		"1e12": event.MaxUnits, "1E2": 100_000_000, "1000000000000.000000": event.MaxUnits, "999999999999.999999": event.MaxUnits - 1,
		"0." + strings.Repeat("0", 500) + "7e501": 7_000_000,
	} {
		if got, err := event.ParseUnits(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d millionths", text, got, err, want)
		}
	}
}

func TestUnitsOutsideOfTheContractAreRefused(t *testing.T) {
	for want, texts := range map[string][]string{
		"not a JSON number":    {"", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x10", "1_000", " 1", "1 ", "NaN", "Infinity", "1,5", "٣"},
		"negative":             {"-1", "-0.000001", "-1e-999999999", "-1e999999999"},
		"more than 6 decimals": {"0.0000001", "1.2345678", "1e-7", "1e-999999999", "1e-99999999999999999999999999"},
		"more than 1e12":       {"1000000000000.000001", "1e13", "1e999999999", "1e99999999999999999999999999", "99999999999999999999", "18446744073709551616e-6"},
	} {
		for _, text := range texts {
			if got, err := event.ParseUnits(text); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %d, %v, want an error that says %s", text, got, err, want)
			}
		}
	}
}

func TestUnitsAreReadAsTheyAreWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := event.Units(rapid.Int64Range(0, int64(event.MaxUnits)).Draw(t, "units"))
		got, err := event.ParseUnits(want.String())
		if err != nil || got != want {
			t.Fatalf("%d is written %s and read as %d, %v", want, want, got, err)
		}
		if text := (-want).String(); want > 0 && text != "-"+want.String() {
			t.Fatalf("-%d: got %s, want -%s", want, text, want)
		}
	})
}

func FuzzParseUnits(f *testing.F) {
	for _, seed := range []string{"0", "-0", "42", "4.2e1", "10000000e-6", "1e12", "1000000000000.000001", "1e-400", "0.0000001", "01", "1e"} {
		f.Add(seed)
	}
	million, limit := big.NewRat(1_000_000, 1), big.NewRat(1_000_000_000_000, 1)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := event.ParseUnits(text)
		var number json.Number
		isNumber := json.Unmarshal([]byte(text), &number) == nil && number.String() == text
		if !isNumber {
			if err == nil {
				t.Errorf("%q: got %d, want an error: it is no JSON number", text, got)
			}
			return
		}
		if _, exponent, ok := strings.Cut(strings.ToLower(text), "e"); ok && len(exponent) > 4 {
			return // math/big would take the exponent at its word
		}
		exact, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%q: math/big cannot read it", text)
		}
		scaled := new(big.Rat).Mul(exact, million)
		legal := exact.Sign() >= 0 && exact.Cmp(limit) <= 0 && scaled.IsInt()
		if legal != (err == nil) {
			t.Fatalf("%q: got %d, %v, want ok %t", text, got, err, legal)
		}
		if legal && scaled.Num().Int64() != int64(got) {
			t.Errorf("%q: got %d, want %v millionths", text, got, scaled.Num())
		}
	})
}
