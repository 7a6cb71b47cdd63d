package p

func init() {} // want init function

type t struct{}

func (t) init() {}
