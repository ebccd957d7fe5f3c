package follow

import "syscall"

// remote reports whether a directory is on a file system where others may write without the kernel's knowledge.
func remote(dir string) bool {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return false
	}
	switch uint32(s.Type) {
	case 0x6969, // NFS
		0x517b, 0xff534d42, 0xfe534d42, // SMB, CIFS, SMB2
		0x65735546,             // FUSE, and virtiofs
		0x01021997,             // 9P
		0x5346414f, 0x6b414653, // AFS
		0x73757245, // Coda
		0x00c36400, // Ceph
		0x0bd00bd0, // Lustre
		0x7461636f, // OCFS2
		0x01161970: // GFS2
		return true
	}
	return false
}
