package follow

import "errors"

var errLocked = errors.New("locked")
