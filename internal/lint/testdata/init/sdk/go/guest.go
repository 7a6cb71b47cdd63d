package tenure

func init() {}
