package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// elfFile is what the tests need of an ELF file.
type elfFile struct {
	machine elf.Machine
	// interpreter, needed and runpath are those of a program; empty means none.
	interpreter string
	needed      []string
	runpath     string
	// modinfo is that of a kernel module, notes those of a kernel.
	modinfo string
	notes   string
}

// bytes returns the file: header, segments, sections, and the two tables.
func (e elfFile) bytes() []byte {
	type section struct {
		name string
		kind elf.SectionType
		link uint32
		data []byte
	}
	names := "\x00"
	dynamic := new(bytes.Buffer)
	tag := func(t elf.DynTag, value string) {
		_ = binary.Write(dynamic, binary.LittleEndian, []uint64{uint64(t), uint64(len(names))})
		names += value + "\x00"
	}
	for _, n := range e.needed {
		tag(elf.DT_NEEDED, n)
	}
	if e.runpath != "" {
		tag(elf.DT_RUNPATH, e.runpath)
	}
	_ = binary.Write(dynamic, binary.LittleEndian, []uint64{0, 0})
	sections := []section{
		{}, {".dynstr", elf.SHT_STRTAB, 0, []byte(names)}, {".dynamic", elf.SHT_DYNAMIC, 1, dynamic.Bytes()},
	}
	if e.modinfo != "" {
		sections = append(sections, section{".modinfo", elf.SHT_PROGBITS, 0, []byte(e.modinfo)})
	}
	sections = append(sections, section{".shstrtab", elf.SHT_STRTAB, 0, nil})
	var sectionNames []byte
	for i := range sections {
		sections[i].link |= uint32(len(sectionNames)) << 16 // for the table below
		sectionNames = append(sectionNames, sections[i].name+"\x00"...)
	}
	sections[len(sections)-1].data = sectionNames

	const headerSize, progSize = 64, 56
	body := new(bytes.Buffer)
	at := func() uint64 { return headerSize + 2*progSize + uint64(body.Len()) }
	var progs []elf.Prog64
	for _, p := range []struct {
		kind elf.ProgType
		data string
	}{{elf.PT_INTERP, e.interpreter}, {elf.PT_NOTE, e.notes}} {
		prog := elf.Prog64{Type: uint32(p.kind), Off: at(), Filesz: uint64(len(p.data)), Memsz: uint64(len(p.data))}
		if p.data == "" {
			prog.Type = uint32(elf.PT_NULL)
		}
		progs = append(progs, prog)
		body.WriteString(p.data)
	}
	var table []elf.Section64
	for _, s := range sections {
		table = append(table, elf.Section64{
			Name: s.link >> 16, Type: uint32(s.kind), Link: s.link & 0xffff, Off: at(), Size: uint64(len(s.data)),
		})
		body.Write(s.data)
	}
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(e.machine), Version: uint32(elf.EV_CURRENT),
		Phoff: headerSize, Shoff: at(), Ehsize: headerSize, Phentsize: progSize, Phnum: uint16(len(progs)),
		Shentsize: 64, Shnum: uint16(len(table)), Shstrndx: uint16(len(table) - 1),
	}
	out := new(bytes.Buffer)
	_ = binary.Write(out, binary.LittleEndian, header)
	_ = binary.Write(out, binary.LittleEndian, progs)
	out.Write(body.Bytes())
	_ = binary.Write(out, binary.LittleEndian, table)
	return out.Bytes()
}

// writeFile writes a file, with its directory, and returns its path.
func writeFile(t *testing.T, content []byte, elements ...string) string {
	t.Helper()
	name := filepath.Join(elements...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}
