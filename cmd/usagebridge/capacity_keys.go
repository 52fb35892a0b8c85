package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// popularity says how the events of an integration fall on its keys: classes
// of keys that are alike.
type popularity []keyClass

// keyClass is a number of keys that share a part of the events evenly.
type keyClass struct{ keys, share float64 }

// zipfShift makes the head of the distribution as flat as the benchmark's load
// has it.
const zipfShift = 8

// zipfPopularity spreads events so that key k, from 0 on, gets a share proportional
// to (8+k)^-s, in classes each reaching twice as far as the one before.
func zipfPopularity(keys int, s float64) popularity {
	weight := func(k int) float64 { return math.Pow(zipfShift+float64(k), -s) }
	p, sum := popularity{}, 0.0
	for from, size := 0, 4; from < keys; from, size = from+size, size*2 {
		to, class := min(from+size, keys), keyClass{}
		for k := from; k < to; k++ {
			class.share += weight(k)
		}
		class.keys = float64(to - from)
		sum += class.share
		p = append(p, class)
	}
	for i := range p {
		p[i].share /= sum
	}
	return p
}

// evenPopularity spreads events evenly over so many keys.
func evenPopularity(keys float64) popularity { return popularity{{keys: keys, share: 1}} }

// distinct is how many different keys so many events are expected to hit.
func (p popularity) distinct(events float64) (sum float64) {
	for _, c := range p {
		sum += c.hit(events, 0)
	}
	return sum
}

// hit is how many more of the class's keys so many events of the integration
// are expected to hit, when so many are hit already.
func (c keyClass) hit(events, already float64) float64 {
	x := events * c.share / c.keys
	if x < 1e-3 { // the same, to within a thousandth, and much sooner
		return (c.keys - already) * x
	}
	return (c.keys - already) * -math.Expm1(-x)
}

// scaled is the popularity of an integration with more keys, or fewer.
func (p popularity) scaled(by float64) popularity {
	q := make(popularity, len(p))
	for i, c := range p {
		q[i] = keyClass{keys: max(c.keys*by, 1e-9), share: c.share}
	}
	return q
}

// parseDistribution reads --distribution: zipf:S, even, or the share of the
// events of a batch that are the first of their key. Then the keys that have
// events are as many as give that share, each as often as the other: batch is
// the events that an integration has in one batch.
func parseDistribution(text string, keys int, batch float64) (popularity, error) {
	if text == "even" {
		return evenPopularity(float64(keys)), nil
	}
	number, zipf := strings.CutPrefix(text, "zipf:")
	x, err := strconv.ParseFloat(number, 64)
	switch {
	case zipf && err == nil && x > 0 && x <= 5:
		return zipfPopularity(keys, x), nil
	case !zipf && err == nil && x > 0 && x <= 1:
		return evenPopularity(activeKeys(x, batch, float64(keys))), nil
	}
	return nil, fmt.Errorf("--distribution %q: want even, zipf:S with S above 0 and at most 5, or a share above 0 and at most 1, such as 0.3", cut(text, 40))
}

// activeKeys is over how many keys events must be spread evenly so that of a
// batch this share are the first of their key; at most all, at least one.
func activeKeys(share, batch, most float64) float64 {
	low, high := 1.0, most
	for range 60 {
		middle := (low + high) / 2
		if evenPopularity(middle).distinct(batch)/batch < share {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// parseChanges reads --changes, the share of keys whose figure changes in an
// hour or a day, as the changes a second of one key: they come at random.
// Empty: every event changes its key's figure, and the rate is 0.
func parseChanges(text string) (perSecond float64, err error) {
	if text == "" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(text, "/")
	seconds := map[string]float64{"h": 3600, "d": 86400}[unit]
	share, err := strconv.ParseFloat(number, 64)
	if err != nil || seconds == 0 || share <= 0 || share >= 1 {
		return 0, fmt.Errorf("--changes %q: want the share of keys that change in an hour or a day, above 0 and below 1, such as 0.2/h or 0.6/d", cut(text, 40))
	}
	return -math.Log1p(-share) / seconds, nil
}
