package worker

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func memberNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("usagebridge-%d", i)
	}
	return names
}

func loads(owners []string) map[string]int {
	load := map[string]int{}
	for _, o := range owners {
		load[o]++
	}
	return load
}

func moved(before, after []string) (n int) {
	for p := range before {
		if before[p] != after[p] {
			n++
		}
	}
	return n
}

func TestEveryPartitionHasAMemberAndTheLoadIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfNDistinct(rapid.String(), 1, 20, rapid.ID).Draw(t, "members")
		partitions := rapid.IntRange(1, 256).Draw(t, "partitions")
		owners := assign(members, "acme", partitions)
		for p, o := range owners {
			if !slices.Contains(members, o) {
				t.Fatalf("partition %d belongs to %q, want one of %q", p, o, members)
			}
		}
		load, share := loads(owners), partitions/len(members)
		for _, m := range members {
			if n := load[m]; n < share || n > share+1 {
				t.Errorf("%q has %d of %d partitions, want %d or one more", m, n, partitions, share)
			}
		}
		if got := assign(rapid.Permutation(members).Draw(t, "order"), "acme", partitions); !slices.Equal(got, owners) {
			t.Errorf("in another order of members: got %q, want %q", got, owners)
		}
	})
}

func TestWithoutMembersNobodyHasAnything(t *testing.T) {
	if got := assign(nil, "acme", 16); got != nil {
		t.Errorf("got %q, want nothing", got)
	}
}

// A rolling upgrade runs two versions at once: they must not disagree.
func TestTheAssignmentIsTheSameInEveryVersion(t *testing.T) {
	got := assign([]string{"w1", "w2", "w3"}, "acme", 8)
	want := []string{"w3", "w3", "w1", "w1", "w2", "w3", "w2", "w2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFewPartitionsMoveWhenAMemberComesOrGoes(t *testing.T) {
	for _, partitions := range []int{16, 64, 256} {
		for n := 2; n <= 10; n++ {
			names := memberNames(n + 1)
			all, before := 0, assign(names, "acme", partitions)
			for gone := range names { // each of them once
				rest := slices.Delete(slices.Clone(names), gone, gone+1)
				all += moved(before, assign(rest, "acme", partitions))
			}
			// What the one had must move; the bound makes some more move.
			mean, must := float64(all)/float64(n+1), float64(partitions)/float64(n+1)
			if mean > 1.5*must+1.5 {
				t.Errorf("%d partitions, one of %d members goes: %.1f move, want not much more than %.1f", partitions, n+1, mean, must)
			}
		}
	}
}

func TestVendorsAreSpreadDifferently(t *testing.T) {
	const vendors = 200
	names := memberNames(3)
	first := map[string]int{}
	for v := range vendors {
		first[assign(names, fmt.Sprint("vendor-", v), 16)[0]]++
	}
	for _, name := range names {
		if n := first[name]; n < vendors/5 || n > vendors/2 {
			t.Errorf("%s has the first partition of %d of %d vendors, want about a third", name, n, vendors)
		}
	}
}
