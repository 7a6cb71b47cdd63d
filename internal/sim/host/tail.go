package host

import "bytes"

// tail keeps the last bytes of what is added to it, at least keepOutput of them
// and at most twice as many.
type tail struct{ kept []byte }

func (t *tail) add(p []byte) {
	p = p[max(0, len(p)-keepOutput):]
	if len(t.kept)+len(p) > 2*keepOutput {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-keepOutput:]...)
	}
	t.kept = append(t.kept, p...)
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.add(p)
	return len(p), nil
}

// end returns up to n of the last bytes.
func (t *tail) end(n int) []byte { return t.kept[max(0, len(t.kept)-n):] }

// lastLine returns the last line without its end.
func (t *tail) lastLine() []byte {
	all := bytes.TrimRight(t.end(keepOutput), "\n")
	return all[bytes.LastIndexByte(all, '\n')+1:]
}

// complaint returns up to n bytes from where a Go program begins to say why it
// died, before all the stacks; of another program the last ones.
func (t *tail) complaint(n int) []byte {
	all := t.end(keepOutput)
	for _, begin := range []string{"panic: ", "fatal error: "} {
		if at := bytes.Index(append([]byte("\n"), all...), []byte("\n"+begin)); at >= 0 {
			return all[at:min(len(all), at+n)]
		}
	}
	return t.end(n)
}
