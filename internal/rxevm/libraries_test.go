package main

import (
	"debug/elf"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const amd64 = elf.EM_X86_64

func TestNeeded(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	write := func(name string, e elfFile) { writeFile(t, e.bytes(), root, name) }
	write("ld.so", elfFile{machine: amd64})
	write("lib/libc.so", elfFile{machine: amd64})
	write("lib/libverbs.so", elfFile{machine: amd64, needed: []string{"libnl.so", "libc.so"}})
	write("wrong/libnl.so", elfFile{machine: elf.EM_AARCH64})
	write("lib/libnl.so", elfFile{machine: amd64, needed: []string{"libc.so", "libverbs.so"}})
	write("bin/private/libown.so", elfFile{machine: amd64})
	write("static", elfFile{machine: amd64})
	write("program", elfFile{machine: amd64, interpreter: at("ld.so") + "\x00", needed: []string{"libverbs.so", "libc.so"}})
	write("bin/own", elfFile{machine: amd64, needed: []string{"libown.so"}, runpath: at("nowhere") + ":$ORIGIN/private"})
	write("path", elfFile{machine: amd64, needed: []string{at("bin/private/libown.so")}})
	write("lost", elfFile{machine: amd64, needed: []string{"libgone.so"}})
	writeFile(t, []byte("#!/bin/sh\n"), root, "script")
	writeFile(t, []byte("\x7fE"), root, "short")
	writeFile(t, []byte("\x7fELF and no more"), root, "broken")
	l := loader{[]string{at("absent"), at("wrong"), at("lib")}}

	for _, c := range []struct {
		program string
		want    []string
		fault   string
	}{
		{program: "static"},
		{program: "script"},
		{program: "short"},
		{program: "program", want: []string{"ld.so", "lib/libc.so", "lib/libnl.so", "lib/libverbs.so"}},
		{program: "bin/own", want: []string{"bin/private/libown.so"}},
		{program: "path", want: []string{"bin/private/libown.so"}},
		{program: "lost", fault: "libgone.so"},
		{program: "broken", fault: "broken"},
		{program: "absent", fault: "absent"},
	} {
		t.Run(c.program, func(t *testing.T) {
			got, err := l.needed(at(c.program))
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("the error is %v, want one with %s", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.want {
				c.want[i] = at(c.want[i])
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("it needs %v, want %v", got, c.want)
			}
		})
	}
}

func TestConfDirs(t *testing.T) {
	root := t.TempDir()
	conf := writeFile(t, []byte("# a comment\ninclude conf.d/*.conf\n/opt/lib # another\n\nhwcap 1 nosegneg\n"), root, "ld.so.conf")
	writeFile(t, []byte("/usr/local/lib/\n"), root, "conf.d/a.conf")
	writeFile(t, []byte("include "+filepath.Join(root, "more")+"\n"), root, "conf.d/b.conf")
	writeFile(t, []byte("/srv/lib\n"), root, "more")
	l, err := newLoader(conf)
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]string{"/usr/local/lib", "/srv/lib", "/opt/lib"}, builtinDirs...); !slices.Equal(l.dirs, want) {
		t.Errorf("directories %v, want %v", l.dirs, want)
	}

	if l, err = newLoader(filepath.Join(root, "absent")); err != nil || !slices.Equal(l.dirs, builtinDirs) {
		t.Errorf("without a configuration: %v, %v", l.dirs, err)
	}
	loop := writeFile(t, []byte("include loop\n"), root, "loop")
	if _, err := newLoader(loop); err == nil {
		t.Error("a configuration that includes itself is accepted")
	}
}
