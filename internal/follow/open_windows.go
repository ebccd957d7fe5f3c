package follow

import (
	"os"

	"github.com/nxadm/tail/winfile"
)

// openFile lets others rename and delete the file while it is open, which os.Open does not.
func openFile(name string) (*os.File, error) {
	f, err := winfile.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err} // winfile gives the bare number
	}
	return f, nil
}
