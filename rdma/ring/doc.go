// Package ring sends messages of any length to one peer by one-sided WRITEs into
// a ring in its memory. Leases, and the values that come with them, travel in it.
//
//	sender's region                          receiver's region
//	┌ staging: mirror of the ring ┐ WRITE_IMM ┌ ring                      ┐
//	│ m7     │ m8 │ m9   │ free   │ ────────► │ m7     │ m8 │ m9   │ ...   │
//	└─────────────────────────────┘  (units)  └───────────────────────────┘
//	                                ◄────────
//	                                WRITE_IMM of no bytes (units consumed)
//
// The ring is counted in units of 64 bytes. A message takes whole units in a row:
//
//	0        4      5        8
//	│ crc32c │ kind │ length │ payload │ (rest of the last unit: anything)
//
// If it does not fit before the end of the ring, it begins at 0 and the units
// before the end are skipped: they count as sent and consumed. The position of a
// message, in units since the beginning of time, is its number. The checksum
// covers kind, length, payload and the number, so that what is torn, not there
// yet, or of an earlier lap is not the message; a wrong one passes with a
// probability of 2^-32.
//
// Every message is one doorbell, whose immediate value is its number of units, so
// the receiver never scans: for each doorbell it calls Next, once. The receiver
// tells how much it has consumed by a doorbell too, whose immediate value is the
// low half of the count: a sender that waits for room must wake up, so a doorbell it
// takes in any case, and a doorbell is never torn.
//
// Invariants:
//   - The sender overwrites neither what the receiver has not consumed, nor
//     staging of which a WRITE may still be under way: a unit is free when it is
//     both consumed (Credit, Resume) and done (Done, Resume).
//   - Repeating a message is harmless: the same number has the same content. After
//     a queue pair broke, Resume says what to repeat on the next.
//   - At most as many messages as the ring has units are on the way; so a queue
//     pair whose ReceiveDepth is at least Units never lacks a place for a doorbell.
//   - Everything that is read from the ring, and every immediate value, was written
//     by a peer and is not trusted: the worst a peer can do is to send wrong
//     messages in its own name.
//
// Sender and Receiver only build and interpret memory: whoever uses them posts
// the requests, in order. Neither is safe for concurrent use, and neither
// allocates, but for Resume.
package ring
