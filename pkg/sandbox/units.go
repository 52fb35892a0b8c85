package sandbox

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Bounds of a figure that is reckoned with: more digits than any contract has, and few enough
// that no exponent makes a number that fills the memory.
const (
	maxUnitsText     = 128
	maxUnitsExponent = 40
	maxUnitsFraction = 30 // digits after the point
)

// parseUnits reads a decimal exactly: units and prices are never a float.
func parseUnits(text string) (*big.Rat, error) {
	_, exponent, scientific := strings.Cut(strings.ToLower(text), "e")
	n, err := strconv.Atoi(exponent)
	if scientific && (err != nil || n > maxUnitsExponent || n < -maxUnitsExponent) {
		return nil, fmt.Errorf("figure %.32q: its exponent is not within ±%d", text, maxUnitsExponent)
	}
	if text == "" || len(text) > maxUnitsText || strings.Trim(text, "0123456789.eE+-") != "" {
		return nil, fmt.Errorf("figure %.32q: want a decimal of at most %d characters, such as 42.5", text, maxUnitsText)
	}
	value, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, fmt.Errorf("figure %.32q: want a decimal such as 42.5", text)
	}
	if digits, _ := value.FloatPrec(); digits > maxUnitsFraction {
		return nil, fmt.Errorf("figure %.32q: want at most %d digits after the point", text, maxUnitsFraction)
	}
	return value, nil
}

// mustUnits reads a figure that was validated before.
func mustUnits(text json.Number) *big.Rat {
	value, err := parseUnits(text.String())
	if err != nil {
		panic("sandbox: a validated " + err.Error())
	}
	return value
}

// unitsText writes a decimal with all its digits and no more.
func unitsText(value *big.Rat) string {
	digits, _ := value.FloatPrec() // exact: sums and products of decimals are decimals
	return value.FloatString(digits)
}

// signedText is unitsText with its sign, which is none for 0.
func signedText(value *big.Rat) string { return sign(value) + unitsText(new(big.Rat).Abs(value)) }

// signedMoney is what is added to an invoice, or taken from it.
func signedMoney(currency string, amount *big.Rat) string {
	return sign(amount) + money(currency, new(big.Rat).Abs(amount))
}

// money is an amount with two digits after the point, as an invoice has it.
func money(currency string, amount *big.Rat) string { return currency + " " + amount.FloatString(2) }

func sign(value *big.Rat) string { return []string{"−", "", "+"}[value.Sign()+1] }
