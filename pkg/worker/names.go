package worker

import (
	"strings"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// spot is a key in numbers, which only the names that gave them out can read.
type spot struct {
	organization, account, service uint32
	kind                           ledger.Kind
}

// names gives every id of a partition a number, so that a million keys do not
// keep three texts each. An id is never forgotten: there are no more of them
// than an integration has ever had.
type names struct {
	numbers map[string]uint32
	texts   []string // by number; 0 is the empty one
}

func newNames() names {
	return names{numbers: map[string]uint32{"": 0}, texts: []string{""}}
}

// find is the key in numbers; known is false when an id has none yet.
func (n *names) find(key ledger.Key) (at spot, known bool) {
	organization, ok := n.numbers[key.Organization]
	account, okAccount := n.numbers[key.Account]
	service, okService := n.numbers[key.Service]
	return spot{organization, account, service, key.Kind}, ok && okAccount && okService
}

// add is the key in numbers, given out where there are none yet.
func (n *names) add(key ledger.Key) spot {
	return spot{n.number(key.Organization), n.number(key.Account), n.number(key.Service), key.Kind}
}

func (n *names) number(id string) uint32 {
	number, known := n.numbers[id]
	if !known {
		id = strings.Clone(id)        // it may be a piece of a larger text
		number = uint32(len(n.texts)) //nolint:gosec // memory ends long before
		n.numbers[id] = number
		n.texts = append(n.texts, id)
	}
	return number
}

// key is the key that has the numbers.
func (n *names) key(at spot) ledger.Key {
	return ledger.Key{Organization: n.texts[at.organization], Account: n.texts[at.account], Service: n.texts[at.service], Kind: at.kind}
}
