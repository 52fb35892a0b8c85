//go:build unix

package vault

import (
	"io/fs"
	"syscall"
)

// ownerOf says whose a file is, where that is known.
func ownerOf(info fs.FileInfo) (uid, gid int, known bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(stat.Uid), int(stat.Gid), true
}
