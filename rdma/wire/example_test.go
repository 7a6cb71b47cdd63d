package wire_test

import (
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/tenure-faas/tenure/rdma/wire"
)

// Count what passes eth0 until somebody interrupts, then print a table.
func ExampleAttach() {
	counter, err := wire.Attach("eth0", wire.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer counter.Close()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	<-interrupted
	snapshot, err := counter.Read()
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Print(snapshot.String())
}

// Read the headers of a captured CAS request.
func ExampleDecode() {
	frame := []byte{
		0x52, 0x54, 0, 0x77, 0, 2, 0x52, 0x54, 0, 0x77, 0, 1, 0x08, 0x00, // Ethernet: IPv4
		0x45, 0, 0, 72, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2, // IPv4: UDP
		0xc1, 0x23, 0x12, 0xb7, 0, 52, 0, 0, // UDP: port 4791
		0x13, 0x40, 0xff, 0xff, 0, 0, 0, 0x12, 0x80, 0, 0, 0x05, // base transport header
		// 28 bytes of an atomic request and 4 of a checksum follow.
	}
	p, err := wire.Decode(frame)
	fmt.Println(p.Opcode, p.Source, p.Destination, p.QP, p.PSN, err)
	// Output: COMPARE_SWAP 10.77.0.1 10.77.0.2 18 5 <nil>
}
