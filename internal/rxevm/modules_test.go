package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestModinfo(t *testing.T) {
	for _, c := range []struct {
		name       string
		text       string
		hard, soft []string
	}{
		{"none", "license=GPL\x00depends=\x00retpoline=Y\x00", nil, nil},
		{"several", "alias=rdma-link-rxe\x00depends=ib_uverbs,ib_core\x00name=rdma_rxe\x00", []string{"ib_uverbs", "ib_core"}, nil},
		{"soft, before and after", "softdep=pre: crc32c sha1 post: ext2\x00softdep=post: ext3 pre: aes\x00", nil, []string{"crc32c", "sha1", "aes"}},
		{"no module", "", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			hard, soft := modinfo(c.text)
			if !slices.Equal(hard, c.hard) || !slices.Equal(soft, c.soft) {
				t.Errorf("it needs %q and likes %q, want %q and %q", hard, soft, c.hard, c.soft)
			}
		})
	}
}

// TestModuleOrder has a kernel in a directory: the files of its modules say what
// they need.
func TestModuleOrder(t *testing.T) {
	dir := t.TempDir()
	for file, info := range map[string]string{
		"kernel/drivers/rdma_rxe.ko":   "depends=ib_core,udp-tunnel\x00",
		"kernel/drivers/ib_core.ko":    "depends=\x00softdep=pre: crc32c-generic no_such\x00",
		"kernel/net/udp_tunnel.ko":     "depends=built_in\x00",
		"kernel/lib/crc32c_generic.ko": "license=GPL\x00",
		"kernel/a.ko":                  "depends=b\x00",
		"kernel/b.ko":                  "depends=a\x00",
		"kernel/c.ko":                  "depends=missing\x00",
	} {
		writeFile(t, elfFile{modinfo: info}.bytes(), dir, file)
	}
	writeFile(t, elfFile{}.bytes(), dir, "kernel/plain.ko")
	writeFile(t, []byte("text"), dir, "kernel/text.ko")
	writeFile(t, []byte("kernel/lib/built-in.ko\n"), dir, "modules.builtin")
	set, err := newModuleSet(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		wanted, order string
		fault         string
	}{
		{wanted: "", order: ""},
		{wanted: "rdma_rxe", order: "crc32c_generic ib_core udp_tunnel rdma_rxe"},
		{wanted: "udp-tunnel rdma-rxe udp_tunnel", order: "udp_tunnel crc32c_generic ib_core rdma_rxe"},
		{wanted: "built_in", order: ""},
		{wanted: "siw", fault: "no module siw"},
		{wanted: "c", fault: "no module missing (wanted by c)"},
		{wanted: "a", fault: "need each other"},
		{wanted: "plain", fault: ".modinfo"},
		{wanted: "text", fault: "text.ko"},
	} {
		t.Run(c.wanted, func(t *testing.T) {
			modules, err := set.order(strings.Fields(c.wanted))
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("the error is %v, want one with %q", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, m := range modules {
				names = append(names, m.name)
			}
			if got := strings.Join(names, " "); got != c.order {
				t.Errorf("the order is %q, want %q", got, c.order)
			}
		})
	}
}

// TestReadCompressedModule has modules as newer packages ship them. Where the
// program is missing that unpacks them, the error has to name it.
func TestReadCompressedModule(t *testing.T) {
	for suffix, command := range decompressors {
		pack := command[0]
		file := writeFile(t, []byte("the module"), t.TempDir(), "m.ko")
		if _, err := exec.LookPath(pack); err == nil {
			if out, err := exec.Command(pack, "-q", file).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", pack, err, out)
			}
			got, err := readModule(t.Context(), file+suffix)
			if err != nil || string(got) != "the module" {
				t.Errorf("%s: %q, %v", suffix, got, err)
			}
		}
		broken := writeFile(t, []byte("not compressed"), t.TempDir(), "m.ko"+suffix)
		if _, err := readModule(t.Context(), broken); err == nil || !strings.Contains(err.Error(), pack) && !strings.Contains(err.Error(), broken) {
			t.Errorf("%s: the error of a file that is not compressed is %v", suffix, err)
		}
	}
}
