package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unpack reads an archive of the format newc as the kernel does, and returns a
// line for each entry.
func unpack(t *testing.T, archive []byte) (lines []string) {
	t.Helper()
	take := func(n int) []byte {
		if n > len(archive) {
			t.Fatalf("the archive ends where %d more bytes should come", n)
		}
		b := archive[:n]
		archive = archive[n:]
		return b
	}
	inodes := map[int64]bool{}
	for {
		before := len(archive)
		header := take(110)
		if string(header[:6]) != "070701" {
			t.Fatalf("a header begins with %q", header[:6])
		}
		field := func(i int) int64 {
			v, err := strconv.ParseInt(string(header[6+8*i:14+8*i]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		name := string(take(int(field(11))))
		take((4 - (before-len(archive))%4) % 4)
		content := string(take(int(field(6))))
		take((4 - int(field(6))%4) % 4)
		if !strings.HasSuffix(name, "\x00") {
			t.Fatalf("the name %q has no end", name)
		}
		if name == "TRAILER!!!\x00" {
			if len(archive) != 0 {
				t.Errorf("%d bytes follow the end", len(archive))
			}
			return lines
		}
		if inodes[field(0)] {
			t.Errorf("%q has the inode of another file", name)
		}
		inodes[field(0)] = true
		lines = append(lines, fmt.Sprintf("%o %s %q", field(1), strings.TrimSuffix(name, "\x00"), content))
	}
}

func TestArchive(t *testing.T) {
	source := writeFile(t, []byte("from a file"), t.TempDir(), "source")
	for _, c := range []struct {
		name string
		make func(tree)
		want []string
	}{
		{"empty", func(tree) {}, nil},
		{"directories come first", func(tr tree) {
			tr.text("/a/b/c", "x", 0o644)
			tr.directory("/tmp")
		}, []string{`40755 a ""`, `40755 a/b ""`, `100644 a/b/c "x"`, `40755 tmp ""`}},
		{"modes and sources", func(tr tree) {
			tr.file("/bin/program", source, 0o755)
			tr.link("/sbin", "bin")
			tr.text("/empty", "", 0o600)
		}, []string{`40755 bin ""`, `100755 bin/program "from a file"`, `100600 empty ""`, `120777 sbin "bin"`}},
		{"padding of names and contents", func(tr tree) {
			for n := range 5 {
				tr.text("/"+strings.Repeat("n", n+1), strings.Repeat("c", n), 0o644)
			}
		}, []string{`100644 n ""`, `100644 nn "c"`, `100644 nnn "cc"`, `100644 nnnn "ccc"`, `100644 nnnnn "cccc"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := tree{}
			c.make(tr)
			var out bytes.Buffer
			if err := tr.writeTo(&out); err != nil {
				t.Fatal(err)
			}
			if got := unpack(t, out.Bytes()); !slices.Equal(got, c.want) {
				t.Errorf("the archive has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			listed(t, out.Bytes(), len(c.want))
		})
	}
}

// listed asks cpio, where there is one, what it makes of the archive.
func listed(t *testing.T, archive []byte, want int) {
	t.Helper()
	program, err := exec.LookPath("cpio")
	if err != nil {
		return
	}
	cmd := exec.Command(program, "-t", "--quiet")
	cmd.Stdin = bytes.NewReader(archive)
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(out, []byte("\n")) != want {
		t.Errorf("cpio lists (%v)\n%s\nwant %d names", err, out, want)
	}
}

func TestArchiveRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, make := range map[string]func(tree){
		"a relative path":       func(tr tree) { tr.text("a", "", 0o644) },
		"a path that goes back": func(tr tree) { tr.text("/a/../b", "", 0o644) },
		"a file in a file":      func(tr tree) { tr.text("/a", "", 0o644); tr.text("/a/b", "", 0o644) },
		"a missing source":      func(tr tree) { tr.file("/a", filepath.Join(dir, "absent"), 0o644) },
	} {
		tr := tree{}
		make(tr)
		if err := tr.writeTo(new(bytes.Buffer)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	// A reader with more or less than was said stands for a file that changes.
	for _, content := range []string{"abc", "abcde"} {
		w := &cpioWriter{out: bufio.NewWriter(new(bytes.Buffer))}
		if err := w.write("name", 0o100644, 1, 4, strings.NewReader(content)); err == nil {
			t.Errorf("%d bytes are accepted where 4 were said", len(content))
		}
	}
}
