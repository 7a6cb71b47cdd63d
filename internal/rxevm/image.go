package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// A boot image is a program that unpacks the kernel proper, and under emulation
// that takes half of the boot. QEMU can start the kernel proper itself if that
// has the entry point which Xen's PVH defined, as Debian's has.

// Where the header of a boot image has what is used here (the kernel's
// Documentation/arch/x86/boot.rst).
const (
	bootSetupSectors  = 0x1f1
	bootMagic         = 0x202
	bootPayloadOffset = 0x248
	bootPayloadLength = 0x24c
	bootHeaderEnd     = 0x250
)

// compressions are how a payload may begin, and what unpacks it.
var compressions = []struct {
	magic   string
	command []string
}{
	{"\xfd7zXZ\x00", []string{"xz", "-dc"}},
	{"\x28\xb5\x2f\xfd", []string{"zstd", "-qdc"}},
}

// kernelProper returns the ELF file that the boot image has. Its error says why
// QEMU could not start it; then the boot image does.
func kernelProper(ctx context.Context, image []byte) ([]byte, error) {
	compressed, size, err := payload(image)
	if err != nil {
		return nil, err
	}
	for _, c := range compressions {
		if !bytes.HasPrefix(compressed, []byte(c.magic)) {
			continue
		}
		cmd := exec.CommandContext(ctx, c.command[0], c.command[1:]...)
		cmd.Stdin = bytes.NewReader(compressed)
		cmd.WaitDelay = 5 * time.Second
		proper, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("unpack the kernel with %s: %w", c.command[0], commandError(err))
		}
		if len(proper) != size {
			return nil, fmt.Errorf("the kernel unpacks to %d bytes, not %d", len(proper), size)
		}
		return proper, directlyBootable(proper)
	}
	return nil, errors.New("how the kernel is compressed is not known")
}

// payload returns the compressed kernel of a boot image, and its size when it
// is unpacked, which the four bytes behind it say.
func payload(image []byte) (compressed []byte, size int, err error) {
	if len(image) < bootHeaderEnd || string(image[bootMagic:bootMagic+4]) != "HdrS" {
		return nil, 0, errors.New("not a boot image")
	}
	field := func(at int) int64 { return int64(binary.LittleEndian.Uint32(image[at:])) }
	setup := (int64(image[bootSetupSectors]) + 1) * 512
	begin := setup + field(bootPayloadOffset)
	end := begin + field(bootPayloadLength)
	if end > int64(len(image)) || end-begin < 4 {
		return nil, 0, errors.New("the boot image is cut off")
	}
	return image[begin : end-4], int(field(int(end - 4))), nil
}

// xenEntry is the type of the note, owned by "Xen", with the entry point.
const xenEntry = 18

// directlyBootable returns an error unless a kernel says where to enter it.
func directlyBootable(kernel []byte) error {
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return fmt.Errorf("the kernel: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("the kernel's notes: %w", err)
		}
		for len(notes) >= 12 {
			name, text := binary.LittleEndian.Uint32(notes), binary.LittleEndian.Uint32(notes[4:])
			kind := binary.LittleEndian.Uint32(notes[8:])
			next := 12 + (int64(name)+3)&^3 + (int64(text)+3)&^3
			if next > int64(len(notes)) {
				break
			}
			if kind == xenEntry && string(notes[12:12+name]) == "Xen\x00" {
				return nil
			}
			notes = notes[next:]
		}
	}
	return errors.New("the kernel has no PVH entry point")
}
