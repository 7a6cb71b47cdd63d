package none // want package none has no comment
