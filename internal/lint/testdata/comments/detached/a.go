// Package detached has a comment that an empty line cuts off.

package detached // want package detached has no comment
