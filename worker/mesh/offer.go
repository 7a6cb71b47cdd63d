package mesh

import (
	"fmt"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
)

// Offer is what two members tell each other to make a link: the active end's
// offer and the passive end's answer. All fields are plain and travel over the
// control plane; neither side believes any of them.
type Offer struct {
	// From makes the offer or answer, To gets it.
	From, To lease.Member
	// Provider is the name of the provider, Slots and RingBytes are the options:
	// all must be equal on both sides.
	Provider         string
	Slots, RingBytes uint64
	// QueuePair is the address of From's end, at most rdma.MaxAddress bytes.
	QueuePair []byte
	// Stream names the history of messages of this link, and Generation numbers
	// the offers in it, from 1. An answer repeats them.
	Stream, Generation uint64
	// Resumes says, in an offer, that the link was up before in this history, so
	// that the answering side must know it.
	Resumes bool
	// Words is, in an answer, the region of the lease words.
	Words rdma.RemoteRegion
	// Ring is, in an answer, the region that begins with the ring for the messages.
	Ring rdma.RemoteRegion
	// Consumed is, in an answer, up to which position messages of the ring have been
	// consumed.
	Consumed uint64
}

// check says what is wrong with the parts that offers and answers have in common.
func (o *Offer) check(options *Options) error {
	switch {
	case o.To != options.Me:
		return fmt.Errorf("%w offer: it is for worker %d, incarnation %d; this is worker %d, incarnation %d", rdma.ErrInvalid, o.To.Worker, o.To.Incarnation, options.Me.Worker, options.Me.Incarnation)
	case o.Provider != options.Provider.Name():
		return fmt.Errorf("%w offer of worker %d: it uses provider %.20q, this worker %q", rdma.ErrInvalid, o.From.Worker, o.Provider, options.Provider.Name())
	case o.Slots != uint64(options.Slots) || o.RingBytes != uint64(options.RingBytes):
		return fmt.Errorf("%w offer of worker %d: it has %d slots and rings of %d bytes, this worker %d and %d", rdma.ErrInvalid, o.From.Worker, o.Slots, o.RingBytes, options.Slots, options.RingBytes)
	case len(o.QueuePair) == 0 || len(o.QueuePair) > rdma.MaxAddress:
		return fmt.Errorf("%w offer of worker %d: an address of %d bytes, want 1..%d", rdma.ErrInvalid, o.From.Worker, len(o.QueuePair), rdma.MaxAddress)
	case o.Generation == 0:
		return fmt.Errorf("%w offer of worker %d: generation 0", rdma.ErrInvalid, o.From.Worker)
	}
	return nil
}

// checkAnswer says what is wrong with the answer to an offer.
func (o *Offer) checkAnswer(offer *Offer, options *Options) error {
	if err := o.check(options); err != nil {
		return err
	}
	switch {
	case o.From != offer.To || o.Stream != offer.Stream || o.Generation != offer.Generation:
		return fmt.Errorf("%w answer of worker %d, incarnation %d: it is none to offer %d to worker %d, incarnation %d", rdma.ErrInvalid, o.From.Worker, o.From.Incarnation, offer.Generation, offer.To.Worker, offer.To.Incarnation)
	case o.Words.Size < 8*uint64(options.Slots) || o.Words.Addr%8 != 0 || o.Words.Addr+o.Words.Size < o.Words.Addr:
		return fmt.Errorf("%w answer of worker %d: its words are %d bytes at %#x", rdma.ErrInvalid, o.From.Worker, o.Words.Size, o.Words.Addr)
	case o.Ring.Size < uint64(options.RingBytes) || o.Ring.Addr+o.Ring.Size < o.Ring.Addr:
		return fmt.Errorf("%w answer of worker %d: its ring is in %d bytes at %#x", rdma.ErrInvalid, o.From.Worker, o.Ring.Size, o.Ring.Addr)
	}
	return nil
}
