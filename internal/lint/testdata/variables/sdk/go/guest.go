package tenure

var handlers = map[string]func(){}

func Register(name string, h func()) { handlers[name] = h }
