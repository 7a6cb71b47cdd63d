package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"
)

// note returns an ELF note.
func note(owner string, kind uint32, text string) string {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, []uint32{uint32(len(owner) + 1), uint32(len(text)), kind})
	b.Write(padded(append([]byte(owner), 0), len(owner)+1))
	b.Write(padded([]byte(text), len(text)))
	return b.String()
}

// bootImage returns a boot image with a compressed kernel that unpacks to size
// bytes. Its setup code has 2 sectors behind the first.
func bootImage(compressed string, size int) []byte {
	image := make([]byte, 3*512+16)
	image[bootSetupSectors] = 2
	copy(image[bootMagic:], "HdrS")
	binary.LittleEndian.PutUint32(image[bootPayloadOffset:], 16)
	binary.LittleEndian.PutUint32(image[bootPayloadLength:], uint32(len(compressed)+4))
	image = append(image, compressed...)
	return append(binary.LittleEndian.AppendUint32(image, uint32(size)), "signature"...)
}

func TestPayload(t *testing.T) {
	compressed, size, err := payload(bootImage("compressed", 77))
	if err != nil || string(compressed) != "compressed" || size != 77 {
		t.Errorf("payload %q of %d bytes, %v", compressed, size, err)
	}
	whole := bootImage("compressed", 77)
	for name, image := range map[string][]byte{
		"empty":      nil,
		"no header":  make([]byte, 4096),
		"cut off":    whole[:len(whole)-20],
		"no payload": bootImage("", 0)[:3*512+16],
	} {
		if _, _, err := payload(image); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDirectlyBootable(t *testing.T) {
	entry := note("Xen", xenEntry, "\x00\x00\x00\x01")
	for _, c := range []struct {
		name  string
		notes string
		want  bool
	}{
		{"no notes", "", false},
		{"the entry alone", entry, true},
		{"the entry behind others", note("GNU", 3, "build") + note("Xen", 6, "linux") + entry, true},
		{"another owner", note("GNU", xenEntry, "\x00\x00\x00\x01"), false},
		{"a note that is cut off", note("Xen", 6, "linux")[:14], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := directlyBootable(elfFile{machine: amd64, notes: c.notes}.bytes())
			if (err == nil) != c.want {
				t.Errorf("%v", err)
			}
		})
	}
	if directlyBootable([]byte("text")) == nil {
		t.Error("a text is a kernel")
	}
}

func TestKernelProper(t *testing.T) {
	proper := string(elfFile{machine: elf.EM_X86_64, notes: note("Xen", xenEntry, "\x00\x00\x00\x01")}.bytes())
	if _, err := kernelProper(t.Context(), bootImage(proper, len(proper))); err == nil {
		t.Error("a kernel is unpacked that is compressed in no known way")
	}
	for _, c := range compressions {
		pack := c.command[0]
		if _, err := exec.LookPath(pack); err != nil {
			// Without the program the error has to name it.
			if _, err := kernelProper(t.Context(), bootImage(c.magic, 0)); err == nil || !strings.Contains(err.Error(), pack) {
				t.Errorf("without %s: %v", pack, err)
			}
			continue
		}
		cmd := exec.Command(pack, "-qc")
		cmd.Stdin = strings.NewReader(proper)
		compressed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := kernelProper(t.Context(), bootImage(string(compressed), len(proper)))
		if err != nil || string(got) != proper {
			t.Errorf("%s: %d bytes, %v", pack, len(got), err)
		}
		for name, image := range map[string][]byte{
			"another size": bootImage(string(compressed), len(proper)-1),
			"broken":       bootImage(string(compressed[:len(compressed)-8]), len(proper)),
		} {
			if _, err := kernelProper(t.Context(), image); err == nil {
				t.Errorf("%s, %s: accepted", pack, name)
			}
		}
	}
}
