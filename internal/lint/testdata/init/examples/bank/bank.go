package bank

func init() {} // want init function
