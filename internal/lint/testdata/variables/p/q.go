package p

var other error

func init() { other = nil } // want variable other
