package p

func test() { go bare() }
