package ledger

// Shelf is a Book in memory.
type Shelf map[Key]Entry

// Entry is the key's entry, with nothing but its key if there is none.
func (s Shelf) Entry(key Key) Entry {
	if e, ok := s[key]; ok {
		return e
	}
	return Entry{Key: key}
}

// Put replaces an entry.
func (s Shelf) Put(e Entry) { s[e.Key] = e }

// Counts yields the key of every count in the scope. An entry may be Put while
// it does.
func (s Shelf) Counts(scope Key, yield func(Key)) {
	var keys []Key
	for key := range s {
		if key.In(scope) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		yield(key)
	}
}
