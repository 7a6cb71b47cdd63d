package inspect

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
)

// fill makes a store with two starts of a worker, a function and a workflow.
func fill(t *testing.T, dir string) {
	t.Helper()
	engine, err := pebble.Open(pebble.Options{Dir: filepath.Join(dir, "store"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := leasemgr.Admit(engine, "worker-1"); err != nil {
			t.Fatal(err)
		}
	}
	batch := engine.NewBatch()
	batch.Set(store.FunctionKey("bank"), []byte(`{"version":"0123456789abcdef","isolate":true,"versions":[{"version":"0123456789abcdef","deployed":"2026-01-02T03:04:05Z"}]}`))
	batch.Set(store.WorkflowKey("transfer"), []byte(`{"name":"transfer","revision":3,"definition":{"functions":{}}}`))
	if err := engine.Apply(batch); err != nil {
		t.Fatal(err)
	}
	batch.Release()
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	logger := slog.New(slog.DiscardHandler)
	var first string
	for range 2 { // the second time shows that the first changed nothing
		s, err := Read(t.Context(), dir, logger)
		if err != nil {
			t.Fatal(err)
		}
		var text, object bytes.Buffer
		if err := s.Text(&text); err != nil {
			t.Fatal(err)
		}
		const want = `MEMBER    INCARNATION  VIEW  SEAL
worker-1            2     2     2

FUNCTION  VERSION       KEPT  ISOLATE  DEPLOYED
bank      0123456789ab     1  true     2026-01-02T03:04:05Z

WORKFLOW  REVISION  BYTES
transfer         3     16

`
		if text.String() != want {
			t.Errorf("text is\n%s, want\n%s", &text, want)
		}
		if err := s.JSON(&object); err != nil {
			t.Fatal(err)
		}
		var again State
		if err := json.Unmarshal(object.Bytes(), &again); err != nil || again.Functions[0].Name != "bank" || again.Members["worker-1"] != 2 {
			t.Errorf("%s: %v", &object, err)
		}
		if first == "" {
			first = object.String()
		} else if first != object.String() {
			t.Errorf("the second look gives\n%s after\n%s", &object, first)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	logger := slog.New(slog.DiscardHandler)
	if _, err := Read(t.Context(), dir, logger); err == nil || !strings.Contains(err.Error(), "there is no store in") {
		t.Errorf("no store: %v", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("the look left %v behind (%v)", files, err)
	}
	fill(t, dir)
	engine, err := pebble.Open(pebble.Options{Dir: filepath.Join(dir, "store"), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	if _, err := Read(t.Context(), dir, logger); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("store in use: %v", err)
	}
}
