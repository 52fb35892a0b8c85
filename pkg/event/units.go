package event

import (
	"errors"
	"strconv"
)

// Units is a unit count in millionths: the contract allows six decimals and
// at most 1e12 units, which fits. Never a float: invoices are exact.
type Units int64

// UnitsScale is one unit in Units.
const UnitsScale Units = 1_000_000

// MaxUnits is the largest unit count of the contract, 1e12 units.
const MaxUnits = 1_000_000_000_000 * UnitsScale

// String writes the shortest exact decimal, "42" or "0.5".
func (u Units) String() string { return string(u.Append(nil)) }

// Append appends what String writes to dst.
func (u Units) Append(dst []byte) []byte {
	if u < 0 {
		dst = append(dst, '-')
	}
	dst = strconv.AppendUint(dst, magnitude(u/UnitsScale), 10)
	frac := magnitude(u % UnitsScale)
	if frac == 0 {
		return dst
	}
	dst = append(dst, '.')
	for scale := uint64(UnitsScale) / 10; frac > 0; scale /= 10 {
		dst = append(dst, byte('0'+frac/scale))
		frac %= scale
	}
	return dst
}

func magnitude(u Units) uint64 {
	if u < 0 {
		return uint64(-u)
	}
	return uint64(u)
}

// Errors of ParseUnits. Each says what is wrong with the number.
var (
	errNotNumber  = errors.New("is not a JSON number")
	errNegative   = errors.New("is negative")
	errDecimals   = errors.New("has more than 6 decimals")
	errOutOfRange = errors.New("is more than 1e12")
)

// ParseUnits reads a number in any spelling JSON has for it, 42, 4.2e1 or
// 42000000e-6, exactly: no float is involved. It refuses negative numbers,
// more than six decimals and more than 1e12 (event contract, usage.count.v1).
// What counts is the value, so 1.0000000 has no decimals and -0 is 0. The
// time it takes depends on the length of the text, never on the exponent.
func ParseUnits(text string) (Units, error) { return parseUnits(text) }

func parseUnits[T string | []byte](text T) (Units, error) {
	if len(text) == 0 || numberEnd(text, 0) != len(text) {
		return 0, errNotNumber
	}
	n := splitNumber(text)
	switch {
	case n.digits == 0:
		return 0, nil
	case n.negative:
		return 0, errNegative
	case n.exponent < -6:
		return 0, errDecimals
	case n.digits+n.exponent > 13: // 1e12 has thirteen digits
		return 0, errOutOfRange
	}
	units := n.significand
	for range n.exponent + 6 {
		units *= 10
	}
	if units > uint64(MaxUnits) {
		return 0, errOutOfRange
	}
	return Units(units), nil
}

// number is a decimal as significand × 10^exponent, with no zero at either
// end of the significand. The significand is exact up to nineteen digits.
type number struct {
	negative    bool
	significand uint64
	digits      int64
	exponent    int64
}

// splitNumber takes a number apart that numberEnd has accepted.
func splitNumber[T string | []byte](text T) number {
	var n number
	zeros := int64(0) // seen, and in front of the next digit that is none
	fraction := false
	for i := range len(text) {
		switch c := text[i]; c {
		case '-':
			n.negative = true
		case '.':
			fraction = true
		case 'e', 'E':
			n.exponent += zeros + parseExponent(text[i+1:])
			return n
		default:
			if fraction {
				n.exponent--
			}
			if c == '0' {
				zeros += min(n.digits, 1)
				continue
			}
			n.push(zeros, c)
			zeros = 0
		}
	}
	n.exponent += zeros
	return n
}

// push appends zeros and then the digit c.
func (n *number) push(zeros int64, c byte) {
	n.digits += zeros + 1
	if n.digits > 19 {
		return // out of range or too many decimals, whatever the exponent
	}
	for range zeros {
		n.significand *= 10
	}
	n.significand = n.significand*10 + uint64(c-'0')
}

// maxExponent is where exponents stop counting: far above what any text could
// make up for with zeros.
const maxExponent = 1 << 50

func parseExponent[T string | []byte](text T) int64 {
	sign, value := int64(1), int64(0)
	for i := range len(text) {
		switch c := text[i]; {
		case c == '-':
			sign = -1
		case c == '+':
		case value < maxExponent:
			value = value*10 + int64(c-'0')
		}
	}
	return sign * value
}

// numberEnd is the offset behind the JSON number that starts at offset at, or
// -1 when none does (RFC 8259, section 6).
func numberEnd[T string | []byte](text T, at int) int {
	i := at
	if i < len(text) && text[i] == '-' {
		i++
	}
	whole := digitsEnd(text, i)
	if whole == i || text[i] == '0' && whole > i+1 {
		return -1
	}
	i = whole
	if i < len(text) && text[i] == '.' {
		end := digitsEnd(text, i+1)
		if end == i+1 {
			return -1
		}
		i = end
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		end := digitsEnd(text, i)
		if end == i {
			return -1
		}
		i = end
	}
	return i
}

func digitsEnd[T string | []byte](text T, i int) int {
	for i < len(text) && text[i] >= '0' && text[i] <= '9' {
		i++
	}
	return i
}
