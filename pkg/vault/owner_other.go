//go:build !unix

package vault

import "io/fs"

// ownerOf says whose a file is, where that is known.
func ownerOf(fs.FileInfo) (uid, gid int, known bool) { return 0, 0, false }
