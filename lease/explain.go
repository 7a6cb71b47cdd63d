package lease

import (
	"fmt"
	"strings"

	"github.com/tenure-faas/tenure/base"
)

// Knowledge is what one worker knows of a slot, for people.
type Knowledge struct {
	// View is the installed view, Home the worker whose memory has the word.
	View base.View
	Home Worker
	// Word is the newest that was seen in this view; 0 if none.
	Word Word
	// State is that of this worker's place in the chain: casing, maybe, waiting,
	// loading, held, releasing or limbo; "copy" for a shared copy, empty for none.
	State string
	// Ticket is that place.
	Ticket Ticket
	// Successor waits for the lease; Free if none is known.
	Successor Worker
	// Users have a turn here, Writers of them may write; Queue waits for one.
	Users, Writers, Queue int
	// Readers elsewhere may have a copy.
	Readers []Worker
	// Blocked says that the home cannot be asked now.
	Blocked bool
	// Undurable says that the disk is waited for before the lease is handed on.
	Undurable bool
}

// Explain returns what this worker knows of a slot of this part.
func (c *Core) Explain(id base.Slot) Knowledge {
	k := Knowledge{View: c.View(), Word: c.words[c.place(id)]}
	if c.members != nil {
		k.Home = c.members.Home(id)
	}
	s := c.at(id)
	if s == nil {
		return k
	}
	k.Users, k.Writers, k.Blocked, k.Undurable = int(s.users), int(s.writers), s.blocked, s.undurable
	for u := s.queue.first; u != nil; u = u.next {
		k.Queue++
	}
	if s.shared != nil {
		k.State = "copy"
		k.Users = len(s.shared.pins)
	}
	for n := s.nodes; n != nil; n = n.next {
		if n.inert {
			continue
		}
		k.State, k.Ticket, k.Successor = n.state.String(), n.ticket, n.succ.worker
		for _, x := range n.readers {
			k.Readers = append(k.Readers, x.worker)
		}
		break
	}
	return k
}

// String says it in a line.
func (k Knowledge) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "view %d, home w%d", k.View, k.Home)
	switch k.State {
	case "":
		b.WriteString(", not here")
	case "copy":
		fmt.Fprintf(&b, ", a shared copy with %d users", k.Users)
	default:
		fmt.Fprintf(&b, ", %s with ticket %d, %d users (%d may write)", k.State, k.Ticket, k.Users, k.Writers)
	}
	if k.Queue > 0 {
		fmt.Fprintf(&b, ", %d wait here", k.Queue)
	}
	if k.Successor != Free {
		fmt.Fprintf(&b, ", w%d waits for it", k.Successor)
	}
	if len(k.Readers) > 0 {
		fmt.Fprintf(&b, ", copies at %v", k.Readers)
	}
	if k.Blocked {
		b.WriteString(", its home cannot be asked now")
	}
	if k.Undurable {
		b.WriteString(", the disk is waited for")
	}
	if k.Word != 0 {
		fmt.Fprintf(&b, "; newest word seen %v", k.Word)
	}
	return b.String()
}
