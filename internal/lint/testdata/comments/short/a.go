// Package short
package short // want package short has no comment
