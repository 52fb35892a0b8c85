package worker

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// assign says which member is to own each partition of a vendor: the owner of
// partition p is at place p; nil when there is no member. Whoever knows the
// same members comes to the same result, in whatever order he knows them.
//
// It is rendezvous hashing with a bound: each partition belongs to the member
// that scores highest for it and does not have its even share already. No two
// members' loads differ by more than one, and when a member comes or goes
// hardly more partitions move than must.
func assign(members []string, vendor string, partitions int) []string {
	if len(members) == 0 {
		return nil
	}
	type bid struct {
		score     uint64
		partition int
		member    string
	}
	bids := make([]bid, 0, len(members)*partitions)
	for _, m := range members {
		seed := seedOf(m, vendor)
		for p := range partitions {
			bids = append(bids, bid{scatter(seed + uint64(p)*golden), p, m})
		}
	}
	slices.SortFunc(bids, func(a, b bid) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.partition, b.partition), cmp.Compare(a.member, b.member))
	})
	share, rest := partitions/len(members), partitions%len(members)
	owners, load := make([]string, partitions), map[string]int{}
	for _, b := range bids {
		if owners[b.partition] != "" || load[b.member] > share || load[b.member] == share && rest == 0 {
			continue
		}
		if load[b.member] == share {
			rest--
		}
		owners[b.partition] = b.member
		load[b.member]++
	}
	return owners
}

// seedOf is the same in every process and every version of the program.
func seedOf(member, vendor string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(member)) // never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(vendor))
	return h.Sum64()
}

// golden is 2^64 divided by the golden ratio, odd: its multiples lie far apart.
const golden = 0x9e3779b97f4a7c15

// scatter makes of numbers that are alike numbers that are not: FNV alone
// leaves names that differ in their last letter close together. It is the
// finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
// Number Generators, 2014).
func scatter(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
