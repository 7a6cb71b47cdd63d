package lease

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
)

// Worker is the number of a worker in the cluster, 1..MaxWorker; Free is nobody.
type Worker uint16

// Ticket is a place in the chain of one slot in one view. Tickets of one view
// are only ever compared with each other.
type Ticket uint32

const (
	// Free owns slots that nobody holds.
	Free Worker = 0
	// MaxWorker is the largest worker number; the next one is reserved.
	MaxWorker Worker = 1<<ownerBits - 2

	ticketBits = 32
	ownerBits  = 12
	viewBits   = 20
	// MaxView is the last view that a word can name; the cluster is restarted
	// before.
	MaxView base.View = 1<<viewBits - 1
	// TicketAlarm is the ticket at which a home asks for a new view, in which
	// tickets begin at 0 again, long before they wrap.
	TicketAlarm Ticket = 1 << 31
)

// Word is a lease word: 8 bytes in the memory of the slot's home, changed by CAS
// only. It names the tail of the slot's chain.
//
//	63          44 43       32 31                    0
//	[ view : 20   ][ owner:12 ][ ticket : 32          ]
//
// Every CAS adds 1 to the ticket, so no word value repeats within a view, and the
// expected value of a successful CAS is the predecessor.
type Word uint64

// MakeWord packs a word; the parts must be in range.
func MakeWord(v base.View, owner Worker, t Ticket) Word {
	if v > MaxView || owner > MaxWorker {
		panic(fmt.Sprintf("lease: word of view %d and owner %d", v, owner))
	}
	return Word(v)<<(ownerBits+ticketBits) | Word(owner)<<ticketBits | Word(t)
}

// View is the view the word was written in.
func (w Word) View() base.View { return base.View(w >> (ownerBits + ticketBits)) }

// Owner is the tail of the chain, or Free.
func (w Word) Owner() Worker { return Worker(w >> ticketBits & (1<<ownerBits - 1)) }

// Ticket is the place of the tail.
func (w Word) Ticket() Ticket { return Ticket(w) }

// Swung is the word after owner has put itself behind w.
func (w Word) Swung(owner Worker) Word { return MakeWord(w.View(), owner, w.Ticket()+1) }

// newer says whether w is a later word of the same slot and view than o.
func (w Word) newer(o Word) bool {
	return w.View() > o.View() || w.View() == o.View() && w.Ticket() > o.Ticket()
}

// String is view/owner/ticket.
func (w Word) String() string {
	if w.Owner() == Free {
		return fmt.Sprintf("%d/free/%d", w.View(), w.Ticket())
	}
	return fmt.Sprintf("%d/w%d/%d", w.View(), w.Owner(), w.Ticket())
}
