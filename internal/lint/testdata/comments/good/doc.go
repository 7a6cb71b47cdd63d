// Package good says what it is for, in one of its files.
package good
