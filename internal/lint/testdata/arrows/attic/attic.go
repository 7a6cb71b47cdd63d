package attic // want attic is in no room
