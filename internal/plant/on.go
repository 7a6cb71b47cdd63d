//go:build plant

package plant

import "os"

var active = Bug(os.Getenv("TENURE_PLANT"))

// Is reports whether a bug is planted.
func Is(b Bug) bool { return b == active }
