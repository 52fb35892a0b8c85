package worker

import (
	"encoding/binary"
	"strings"

	"github.com/usagebridge/usagebridge/pkg/ledger"
)

// spot is a key in numbers, which only the names that gave them out can read.
type spot struct {
	holder uint32 // of the organization and the account
	what   uint32 // of the service, with the kind in the last bits
}

// kindBits is how many bits of spot.what are the kind.
const kindBits = 3

func (s spot) kind() ledger.Kind { return ledger.Kind(s.what & (1<<kindBits - 1)) }

// names gives the ids of a partition numbers, so that a million keys do not
// keep three texts each. A number is never given back: there are no more ids
// than the integrations have ever had.
type names struct {
	holders map[string]uint32 // by joined organization and account
	held    []holder          // by number
	numbers map[string]uint32 // of organizations and services
	texts   []string          // by number
}

// holder is an account, or an organization where the account is empty.
type holder struct {
	account      string
	organization uint32
}

func newNames() names {
	return names{holders: map[string]uint32{}, numbers: map[string]uint32{}}
}

// joined is the organization and the account as one text. Ids may have any
// character: the length tells where the first one ends.
func joined(room []byte, organization, account string) []byte {
	room = binary.AppendUvarint(room, uint64(len(organization)))
	return append(append(room, organization...), account...)
}

// find is the key in numbers; known is false when an id has none yet.
func (n *names) find(key ledger.Key) (at spot, known bool) {
	holder, held := n.holder(key.Organization, key.Account)
	service, served := n.numbers[key.Service]
	return spot{holder, service<<kindBits | uint32(key.Kind)}, held && served
}

func (n *names) holder(organization, account string) (number uint32, known bool) {
	var room [128]byte
	number, known = n.holders[string(joined(room[:0], organization, account))]
	return number, known
}

// add is the key in numbers, given out where there are none yet.
func (n *names) add(key ledger.Key) spot {
	var room [128]byte
	text := joined(room[:0], key.Organization, key.Account)
	number, known := n.holders[string(text)]
	if !known {
		whole := string(text)
		number = uint32(len(n.held))
		n.holders[whole] = number
		n.held = append(n.held, holder{account: whole[len(whole)-len(key.Account):], organization: n.number(key.Organization)})
	}
	return spot{number, n.number(key.Service)<<kindBits | uint32(key.Kind)}
}

func (n *names) number(id string) uint32 {
	number, known := n.numbers[id]
	if !known {
		id = strings.Clone(id) // it may be a piece of a larger text
		number = uint32(len(n.texts))
		n.numbers[id] = number
		n.texts = append(n.texts, id)
	}
	return number
}

// organization is the number of the spot's organization.
func (n *names) organization(at spot) uint32 { return n.held[at.holder].organization }

// key is the key that has the numbers.
func (n *names) key(at spot) ledger.Key {
	h := n.held[at.holder]
	return ledger.Key{Organization: n.texts[h.organization], Account: h.account, Service: n.texts[at.what>>kindBits], Kind: at.kind()}
}
