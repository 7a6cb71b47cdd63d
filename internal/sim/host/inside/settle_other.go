//go:build !linux

package inside

// settle does nothing where there is no host.
func settle() {}
