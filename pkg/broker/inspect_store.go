package broker

import (
	"os"
	"path/filepath"
)

// StoreFacts is what the directory of an embedded server shows without one.
type StoreFacts struct {
	Dir    string
	Exists bool   // a server has used it
	URL    string // of the server that another process runs on it; empty: none
	// KeyErr says that a server would refuse to start with the store key.
	KeyErr error
	Err    error // why it could not be looked at
}

// InspectStore looks at a store directory, and neither makes nor changes
// anything in it.
func InspectStore(dir, key string) StoreFacts {
	f := StoreFacts{Dir: dir, Exists: StoreExists(dir)}
	if !f.Exists {
		// Data without the record of its key, or nothing at all.
		_, err := os.Stat(filepath.Join(dir, "jetstream"))
		f.Exists = err == nil
	}
	if !f.Exists {
		return f
	}
	f.KeyErr = checkStoreKey(dir, key)
	f.URL, _, f.Err = FindEmbedded(dir)
	return f
}
