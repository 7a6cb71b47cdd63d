package p

func test() { count = 7 }
