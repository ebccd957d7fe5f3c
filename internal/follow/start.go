package follow

import "bytes"

// offset finds where to begin in a file that is there already: always where a line begins.
func (s Start) offset(h *handle) (int64, error) {
	if s == FromStart {
		return 0, nil
	}
	size, err := h.size()
	if err != nil {
		return 0, err
	}
	return lineStart(h, size, int(s))
}

// lineStart goes back from size to the first byte after the newline that n more newlines follow. What comes after the last
// newline is the beginning of a line and counts for nothing.
func lineStart(file file, size int64, n int) (int64, error) {
	buf := make([]byte, min(size, 64<<10))
	for size > 0 {
		b := buf[:min(int64(len(buf)), size)]
		size -= int64(len(b))
		if _, err := file.ReadAt(b, size); err != nil {
			return 0, err
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b[:i], '\n') {
			if n == 0 {
				return size + int64(i) + 1, nil
			}
			n--
		}
	}
	return 0, nil
}
