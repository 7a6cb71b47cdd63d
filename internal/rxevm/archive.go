package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
)

// tree is what an archive has, by absolute path. Directories come with what is
// in them.
type tree map[string]entry

// entry is one file, link or directory of a tree.
type entry struct {
	// mode is type and permissions: a regular file, a link or a directory.
	mode fs.FileMode
	// source is the file on this machine that has the content; empty means that
	// content has it.
	source string
	// content is that of a file, or the target of a link.
	content string
}

// file adds a file with the content of source.
func (t tree) file(name, source string, perm fs.FileMode) {
	t[name] = entry{mode: perm.Perm(), source: source}
}

// text adds a file with the given content.
func (t tree) text(name, content string, perm fs.FileMode) {
	t[name] = entry{mode: perm.Perm(), content: content}
}

// link adds a symbolic link.
func (t tree) link(name, target string) {
	t[name] = entry{mode: fs.ModeSymlink | 0o777, content: target}
}

// directory adds a directory that may stay empty.
func (t tree) directory(name string) { t[name] = entry{mode: fs.ModeDir | 0o755} }

// writeTo writes the tree as a cpio archive in the format "newc", which the
// kernel reads: sorted, with directories before what is in them, all owned by
// root, so that equal trees make equal archives.
func (t tree) writeTo(out io.Writer) error {
	whole := maps.Clone(t)
	for name := range t {
		if !path.IsAbs(name) || path.Clean(name) != name {
			return fmt.Errorf("archive: %q is not a clean absolute path", name)
		}
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			if e, ok := whole[dir]; ok && !e.mode.IsDir() {
				return fmt.Errorf("archive: %s is a file and has %s in it", dir, name)
			}
			whole.directory(dir)
		}
	}
	w := &cpioWriter{out: bufio.NewWriterSize(out, 1<<20)}
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		if err := w.add(strings.TrimPrefix(name, "/"), whole[name]); err != nil {
			return fmt.Errorf("archive: %s: %w", name, err)
		}
	}
	return w.close()
}

// Types of files in the mode of a cpio header.
const (
	cpioFile      = 0o100000
	cpioDirectory = 0o040000
	cpioLink      = 0o120000
	cpioTrailer   = "TRAILER!!!"
)

// cpioWriter writes entries one after another.
type cpioWriter struct {
	out   *bufio.Writer
	inode uint32
}

// add writes one entry. A source must not change its size meanwhile.
func (w *cpioWriter) add(name string, e entry) error {
	mode := uint32(e.mode.Perm())
	switch {
	case e.mode.IsDir():
		return w.write(name, mode|cpioDirectory, 2, 0, strings.NewReader(""))
	case e.mode&fs.ModeSymlink != 0:
		return w.write(name, mode|cpioLink, 1, int64(len(e.content)), strings.NewReader(e.content))
	case e.source == "":
		return w.write(name, mode|cpioFile, 1, int64(len(e.content)), strings.NewReader(e.content))
	}
	source, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	return w.write(name, mode|cpioFile, 1, info.Size(), source)
}

// write writes header, name and size bytes of content, each padded to four
// bytes.
func (w *cpioWriter) write(name string, mode, links uint32, size int64, content io.Reader) error {
	if size > math.MaxUint32 {
		return fmt.Errorf("%d bytes are more than the format can say", size)
	}
	w.inode++
	head := fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		w.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if _, err := w.out.Write(padded(head, len(head))); err != nil {
		return err
	}
	// One byte more than said would show that the file has grown.
	copied, err := io.Copy(w.out, io.LimitReader(content, size+1))
	if err != nil {
		return err
	}
	if copied != size {
		return fmt.Errorf("the file changed its size of %d bytes while it was read", size)
	}
	_, err = w.out.Write(padded(nil, int(size%4)))
	return err
}

// close writes the end of the archive.
func (w *cpioWriter) close() error {
	if err := w.write(cpioTrailer, 0, 1, 0, strings.NewReader("")); err != nil {
		return err
	}
	return w.out.Flush()
}

// padded appends the zeros that n lacks to a multiple of four.
func padded(b []byte, n int) []byte { return append(b, make([]byte, (4-n%4)%4)...) }
