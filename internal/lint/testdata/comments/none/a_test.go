// Package none has its only comment in a test, where nobody finds it.
package none
