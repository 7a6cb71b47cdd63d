package acceptance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// block is commands of the README and what they print; text is empty if the
// README does not show it.
type block struct{ commands, text string }

// fence finds what is marked as a part of the walk: a file to save, or commands
// with the output that may follow them.
var fence = regexp.MustCompile("(?s)<!-- walk ?([a-z.]*) -->\n```[a-z]+\n(.*?)```\n(?:\n```text\n(.*?)```\n)?")

// walk returns the marked blocks of README.md.
func walk(t *testing.T) (blocks []block) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range fence.FindAllStringSubmatch(string(readme), -1) {
		file, code, text := match[1], match[2], match[3]
		if file != "" {
			code = "cat > " + file + " <<'END OF FILE'\n" + code + "END OF FILE\n"
		}
		blocks = append(blocks, block{code, text})
	}
	if marks := strings.Count(string(readme), "<!-- walk"); marks != len(blocks) || marks < 5 {
		t.Fatalf("%d blocks were found for %d marks", len(blocks), marks)
	}
	return blocks
}

// freeAddress returns an address that nobody listens on, and that the kernel gives
// to nobody who asks for any: it is used later, and again after a kill -9.
func freeAddress(t *testing.T) string {
	t.Helper()
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.N(12_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}

// TestReadme runs the walk of the README as written, in one shell, and compares
// what it prints. The one difference is the address, which must be free.
func TestReadme(t *testing.T) {
	t.Parallel()
	blocks := walk(t)
	bin := filepath.Dir(must(t, program))
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), freeAddress(t)
	clone := filepath.Join(dir, "clone")
	if err := os.Mkdir(clone, 0o755); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for i, b := range blocks {
		commands := strings.ReplaceAll(b.commands, "tenure dev", "tenure dev --listen "+address)
		fmt.Fprintf(&script, "exec > %s/%d 2>&1\n%s", dir, i, commands)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh")
	shell.Stdin, shell.Dir = strings.NewReader(script.String()), clone
	shell.Env = append(os.Environ(), "TENURE="+root, "TENURE_SERVER=http://"+address, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	// A walk that ends early leaves its server behind: the group ends all.
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	failure := shell.Run()
	if shell.Process != nil {
		_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) // usually nobody is left
	}
	for i, b := range blocks {
		printed, err := os.ReadFile(fmt.Sprintf("%s/%d", dir, i))
		if err != nil {
			t.Fatalf("the shell stopped before:\n%s%v", b.commands, failure)
		}
		if b.text != "" && !matches(b.text, string(printed)) {
			t.Errorf("%s\nprints\n%s\nnot\n%s", b.commands, printed, b.text)
		}
	}
	if failure != nil {
		t.Errorf("the last command: %v", failure)
	}
}

// matches compares output with the README's, in which three dots stand for
// anything within a line.
func matches(shown, printed string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(shown)), `\.\.\.`, `[^\n]*`)
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(strings.TrimSpace(printed))
}
