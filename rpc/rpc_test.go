package rpc

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/base"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// acceptor answers with its offer or its error, and keeps what it got.
type acceptor struct {
	answer Offer
	err    error
	got    Offer
}

func (a *acceptor) Accept(_ context.Context, offer Offer) (Offer, error) {
	a.got = offer
	return a.answer, a.err
}

// serve runs a server with the acceptor and returns its address.
func serve(t *testing.T, provider string, a Acceptor) string {
	t.Helper()
	l, err := Listen("127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Options{})
	ServeRendezvous(s, provider, a)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { s.Stop(); wg.Wait() })
	return l.Addr().String()
}

func exchange(t *testing.T, address string, offer Offer) (Offer, error) {
	t.Helper()
	conn, err := Dial(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return Exchange(ctx, conn, offer)
}

func TestExchange(t *testing.T) {
	a := &acceptor{answer: Offer{Node: "b", Provider: "tcp", QueuePair: []byte{3}, Regions: []Region{{Name: "words", Addr: 1 << 63, Size: 8, RKey: 1<<32 - 1}}}}
	offer := Offer{Node: "a", Provider: "tcp", QueuePair: []byte{1, 2}, Regions: []Region{{Name: "ring", Addr: 4096, Size: 64, RKey: 7}, {Name: "values"}}}
	answer, err := exchange(t, serve(t, "tcp", a), offer)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(answer, a.answer) || !reflect.DeepEqual(a.got, offer) {
		t.Errorf("got %+v and %+v, want %+v and %+v", a.got, answer, offer, a.answer)
	}
}

func TestExchangeRefusesBadOffers(t *testing.T) {
	good := Offer{Node: "a", Provider: "tcp", QueuePair: []byte{1}}
	for name, change := range map[string]func(*Offer){
		"no node":          func(o *Offer) { o.Node = "" },
		"long node":        func(o *Offer) { o.Node = strings.Repeat("a", 65) },
		"another provider": func(o *Offer) { o.Provider = "shm" },
		"no address":       func(o *Offer) { o.QueuePair = nil },
		"long address":     func(o *Offer) { o.QueuePair = make([]byte, 513) },
		"many regions":     func(o *Offer) { o.Regions = make([]Region, 65) },
	} {
		t.Run(name, func(t *testing.T) {
			a := &acceptor{answer: good}
			offer := good
			change(&offer)
			_, err := exchange(t, serve(t, "tcp", a), offer)
			var e *base.Error
			if !errors.As(err, &e) || e.Word() != "invalid-offer" || e.Unknown {
				t.Errorf("error %v, want invalid-offer", err)
			}
			if a.got.Node != "" {
				t.Errorf("the acceptor saw %+v", a.got)
			}
		})
	}
	t.Run("bad answer", func(t *testing.T) {
		if _, err := exchange(t, serve(t, "tcp", &acceptor{}), good); base.KindOf(err) != base.Invalid {
			t.Errorf("error %v, want invalid", err)
		}
	})
}

func TestErrorsKeepTheirKind(t *testing.T) {
	for word := range 16 {
		kind := base.Kind(word)
		sent := &base.Error{Kind: kind, Subject: "x", Detail: "d", Reason: "r", Unknown: word%2 == 0, RetryAfter: 1500 * time.Millisecond, Err: errors.New("cause")}
		_, err := exchange(t, serve(t, "tcp", &acceptor{err: sent}), Offer{Node: "a", Provider: "tcp", QueuePair: []byte{1}})
		want := &base.Error{Kind: kind, Subject: "x", Detail: "d: cause", Reason: "r", Unknown: sent.Unknown, RetryAfter: sent.RetryAfter}
		if !reflect.DeepEqual(err, error(want)) {
			t.Errorf("%v: got %#v, want %#v", kind, err, want)
		}
	}
	_, err := exchange(t, serve(t, "tcp", &acceptor{err: errors.New("boom")}), Offer{Node: "a", Provider: "tcp", QueuePair: []byte{1}})
	if base.KindOf(err) != base.Internal || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v, want internal: boom", err)
	}
}

// TestNoServer: a call that may not have arrived is unavailable and unknown.
func TestNoServer(t *testing.T) {
	l, err := Listen("127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = exchange(t, l.Addr().String(), Offer{Node: "a", Provider: "tcp", QueuePair: []byte{1}})
	var e *base.Error
	if !errors.As(err, &e) || e.Kind != base.Unavailable || !e.Unknown {
		t.Errorf("got %v, want unavailable with an unknown outcome", err)
	}
}

func TestPlainBeyondTheHost(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true,
		"10.0.0.1:1": false, "0.0.0.0:1": false, ":1": false, "example.org:1": false, "nonsense": false,
	} {
		conn, err := Dial(address, Options{})
		if (err == nil) != ok {
			t.Errorf("dial %s: %v", address, err)
		}
		if conn != nil {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := Listen(address, Options{}); err == nil && !ok {
			t.Errorf("listen on %s was allowed", address)
		}
	}
	conn, err := Dial("10.0.0.1:1", Options{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
