package p

// Options has fields of every kind.
type Options struct {
	// Size is in bytes; 0 means 10.
	Size int
	// Low and High are the bounds.
	Low, High int
	Name      string // of the thing
	Bare      int
	// want above field Bare

	Two, Three int
	// want above field Two

	Embedded
	// want above field (embedded)

	// Store, Wasm and Worker configure the parts.
	Store  int
	Wasm   int
	Worker int
	Other  int
	// want above field Other
}

// Embedded is another struct.
type Embedded struct {
	Free int
}
