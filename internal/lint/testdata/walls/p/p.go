package p

import "C"      // want import of "C"
import "unsafe" // want import of "unsafe"

var size = unsafe.Sizeof(0)
