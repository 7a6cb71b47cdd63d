package tcp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/rdma"
)

func drawToken(t *rapid.T, label string) token {
	return token(rapid.SliceOfN(rapid.Byte(), tokenSize, tokenSize).Draw(t, label))
}

func drawTerms(t *rapid.T) terms {
	return terms{
		depth:   rapid.Uint32Range(1, maxDepth).Draw(t, "depth"),
		timeout: time.Duration(rapid.Uint32().Draw(t, "ms")) * time.Millisecond,
	}
}

func TestAddressRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := address{
			number: rapid.Uint32().Draw(t, "number"),
			token:  drawToken(t, "token"),
			host:   rapid.StringMatching(`([a-z0-9.]{1,200}|\[[0-9a-f:]{2,30}\]):[0-9]{1,5}`).Draw(t, "host"),
		}
		got, err := parseAddress(want.append(nil))
		if err != nil || got != want {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
	})
}

func TestHelloRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hello{
			version: wireVersion, to: rapid.Uint32().Draw(t, "to"), from: rapid.Uint32().Draw(t, "from"),
			token: drawToken(t, "token"), terms: drawTerms(t),
		}
		if got, err := parseHello(h.append(nil)); err != nil || got != h {
			t.Fatalf("%+v became %+v, %v", h, got, err)
		}
		g := greeting{version: wireVersion, verdict: verdictWelcome, token: h.token, terms: h.terms}
		if got, err := parseGreeting(g.append(nil)); err != nil || got != g {
			t.Fatalf("%+v became %+v, %v", g, got, err)
		}
	})
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rdma.WorkRequest{
			Op:         rapid.SampledFrom([]rdma.Opcode{rdma.OpRead, rdma.OpWrite, rdma.OpWriteImm, rdma.OpCAS, rdma.OpFAA}).Draw(t, "op"),
			Local:      rdma.Local{Length: rapid.Uint32Range(0, maxMessage).Draw(t, "length")},
			RemoteAddr: rapid.Uint64().Draw(t, "addr"), CompareAdd: rapid.Uint64().Draw(t, "compare"), Swap: rapid.Uint64().Draw(t, "swap"),
			RKey: rapid.Uint32().Draw(t, "rkey"), Imm: rapid.Uint32().Draw(t, "imm"),
		}
		b := appendRequest(nil, &w)
		if len(b) != headOf(w.Op) || len(b) > maxRequestHead || !isRequest(b[0]) {
			t.Fatalf("%v has a head of %d bytes and kind %d", w.Op, len(b), b[0])
		}
		want := request{op: w.Op, length: w.Local.Length, addr: w.RemoteAddr, rkey: w.RKey}
		if w.Op == rdma.OpWriteImm {
			want.imm = w.Imm
		}
		if w.Op.Atomic() {
			want.compareAdd = w.CompareAdd
		}
		if w.Op == rdma.OpCAS {
			want.swap = w.Swap
		}
		if got, err := parseRequest(b); err != nil || got != want {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
	})
}

func TestResponseRoundTrip(t *testing.T) {
	for _, want := range []response{
		{kind: kindAck, n: 1}, {kind: kindAck, n: 1<<32 - 1}, {kind: kindData}, {kind: kindData, n: maxMessage},
		{kind: kindError, status: rdma.StatusRemoteAccess}, {kind: kindError, status: rdma.StatusRemoteInvalid},
		{kind: kindError, status: rdma.StatusRemoteOperation}, {kind: kindError, status: rdma.StatusReceiverNotReady},
	} {
		b := appendResponse(nil, want)
		if got, err := parseResponse(b); err != nil || got != want || len(b) != responseHeader || isRequest(b[0]) {
			t.Errorf("%+v became %x, then %+v, %v", want, b, got, err)
		}
	}
}

// TestLayout holds the bytes to those of version 1: who changes them raises
// wireVersion.
func TestLayout(t *testing.T) {
	tok := token{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	w := rdma.WorkRequest{
		Local: rdma.Local{Length: 8}, RemoteAddr: 0x1112131415161718, RKey: 0x21222324, Imm: 0x31323334,
		CompareAdd: 0x4142434445464748, Swap: 0x5152535455565758,
	}
	as := func(op rdma.Opcode) []byte { w.Op = op; return appendRequest(nil, &w) }
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"address", (&address{7, tok, "h:1"}).append(nil), "74516131 07000000 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 683a31"},
		{"hello", (&hello{1, 2, 3, tok, terms{4, 5 * time.Second}}).append(nil), "74516831 01000000 02000000 03000000 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 04000000 88130000"},
		{"greeting", (&greeting{1, 3, tok, terms{4, time.Second}}).append(nil), "74517731 01000000 03000000 00000000 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 04000000 e8030000"},
		{"READ", as(rdma.OpRead), "01000000 08000000 1817161514131211 24232221 00000000"},
		{"WRITE", as(rdma.OpWrite), "02000000 08000000 1817161514131211 24232221 00000000"},
		{"WRITE_IMM", as(rdma.OpWriteImm), "03000000 08000000 1817161514131211 24232221 34333231"},
		{"CAS", as(rdma.OpCAS), "04000000 08000000 1817161514131211 24232221 00000000 4847464544434241 5857565554535251"},
		{"FAA", as(rdma.OpFAA), "05000000 08000000 1817161514131211 24232221 00000000 4847464544434241"},
		{"ACK", ack(3), "81000000 03000000"},
		{"DATA", data(9, 8), "82000000 02000000 0908"},
		{"DATA of an atomic", appendData64(nil, 0x6162636465666768), "82000000 08000000 6867666564636261"},
		{"ERROR", failure(rdma.StatusRemoteAccess), "83030000 00000000"},
	} {
		if got := hex.EncodeToString(c.got); got != strings.ReplaceAll(c.want, " ", "") {
			t.Errorf("%s is %s, want %s", c.name, got, c.want)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	good := (&address{number: 1, host: "127.0.0.1:80"}).append(nil)
	for name, b := range map[string][]byte{
		"nothing":            nil,
		"another magic":      append([]byte("shm1"), good[4:]...),
		"no host":            good[:addressFixed],
		"a host alone":       append(bytes.Clone(good[:addressFixed]), "localhost"...),
		"a port alone":       append(bytes.Clone(good[:addressFixed]), ":80"...),
		"a host and a colon": append(bytes.Clone(good[:addressFixed]), "localhost:"...),
		"513 bytes":          append(bytes.Clone(good[:addressFixed]), strings.Repeat("a", rdma.MaxAddress-addressFixed-2)+":80"...),
	} {
		if a, err := parseAddress(b); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("%s gives %+v, %v, want ErrInvalid", name, a, err)
		}
	}
}

func TestParseResponseRefuses(t *testing.T) {
	for name, r := range map[string]response{
		"ACK of nothing":           {kind: kindAck},
		"ACK with a status":        {kind: kindAck, n: 1, status: rdma.StatusFlushed},
		"DATA longer than allowed": {kind: kindData, n: maxMessage + 1},
		"DATA with a status":       {kind: kindData, status: rdma.StatusRemoteAccess},
		"ERROR that is none":       {kind: kindError, status: rdma.StatusOK},
		"ERROR of ours":            {kind: kindError, status: rdma.StatusUnreachable},
		"ERROR with a number":      {kind: kindError, status: rdma.StatusRemoteAccess, n: 1},
		"an unknown kind":          {kind: 0x84, n: 1},
	} {
		if got, err := parseResponse(appendResponse(nil, r)); err == nil {
			t.Errorf("%s is taken as %+v", name, got)
		}
	}
}

// FuzzAddress: what is taken for an address is exactly what is encoded as one.
func FuzzAddress(f *testing.F) {
	f.Add((&address{number: 3, token: token{1}, host: "127.0.0.1:4711"}).append(nil))
	f.Add((&address{number: 1 << 31, host: "[::1]:1"}).append(nil))
	f.Add([]byte("tQa1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAddress(b)
		if err != nil {
			if !errors.Is(err, rdma.ErrInvalid) {
				t.Errorf("%v is not ErrInvalid", err)
			}
			return
		}
		if got := a.append(nil); !bytes.Equal(got, b) || len(b) > rdma.MaxAddress {
			t.Errorf("%x was taken for %+v, which is %x", b, a, got)
		}
	})
}

// FuzzHello: the same for both sides of the handshake.
func FuzzHello(f *testing.F) {
	t := terms{depth: 8, timeout: time.Second}
	f.Add((&hello{version: wireVersion, to: 1, from: 2, token: token{9}, terms: t}).append(nil))
	f.Add((&greeting{version: wireVersion, token: token{9}, terms: t}).append(nil))
	f.Add((&greeting{version: 2, verdict: verdictVersion}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil && h.version == wireVersion && (!bytes.Equal(h.append(nil), b) || h.terms.depth > maxDepth || h.terms.depth == 0) {
			t.Errorf("%x was taken for %+v", b, h)
		}
		if g, err := parseGreeting(b); err == nil && g.verdict == verdictWelcome && !bytes.Equal(g.append(nil), b) {
			t.Errorf("%x was taken for %+v", b, g)
		}
	})
}
