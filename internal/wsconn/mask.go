package wsconn

import (
	"encoding/binary"
	"math/bits"
)

// unmask takes the mask off p, in place, and returns the key for the byte after it. The lowest byte of the key is that for p[0].
func unmask(p []byte, key uint32) uint32 {
	if len(p) >= 8 {
		wide := uint64(key)<<32 | uint64(key)
		for len(p) >= 32 {
			binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
			binary.LittleEndian.PutUint64(p[8:], binary.LittleEndian.Uint64(p[8:])^wide)
			binary.LittleEndian.PutUint64(p[16:], binary.LittleEndian.Uint64(p[16:])^wide)
			binary.LittleEndian.PutUint64(p[24:], binary.LittleEndian.Uint64(p[24:])^wide)
			p = p[32:]
		}
		for len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
			p = p[8:]
		}
	}
	for i := range p {
		p[i] ^= byte(key)
		key = bits.RotateLeft32(key, -8)
	}
	return key
}
