package bank_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tenure-faas/tenure/examples/bank"
	"github.com/tenure-faas/tenure/examples/media"
	"github.com/tenure-faas/tenure/examples/travel"
	"github.com/tenure-faas/tenure/sdk/go"
	"github.com/tenure-faas/tenure/workflow"
)

// handlersOf answers the workflow compiler from the handlers of an example.
type handlersOf map[string]map[string]tenure.Handler

func (h handlersOf) Handlers(function string) ([]string, bool) {
	handlers, ok := h[function]
	return slices.Sorted(maps.Keys(handlers)), ok
}

// TestDefinitionsOfAllExamples compiles every workflow of every tenure.yaml with an input from its README.
func TestDefinitionsOfAllExamples(t *testing.T) {
	functions := handlersOf{"bank": bank.Handlers(), "travel": travel.Handlers(), "media": media.Handlers()}
	inputs := map[string]string{
		"transfer": `{"from":"ann","to":"bob","amount":30}`,
		"open":     `{"account":"ann","amount":100}`,
		"reserve":  `{"hotel":"ritz","flight":"lh1"}`,
		"search":   `{"hotel":"ritz","flight":"lh1"}`,
		"review":   `{"user":"ann","password":"secret","movie":"alien","rating":5,"text":"Scary."}`,
		"register": `{"user":"ann","password":"secret"}`,
		"movie":    `{"movie":"alien"}`,
	}
	for example := range functions {
		data, err := os.ReadFile(filepath.Join("..", example, "tenure.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Functions map[string]struct{ Source string }
			Workflows map[string]yaml.MapSlice
		}
		if err := yaml.UnmarshalWithOptions(data, &file, yaml.Strict()); err != nil {
			t.Fatalf("%s: %v", example, err)
		}
		if _, err := os.Stat(filepath.Join("..", example, file.Functions[example].Source, "main.go")); err != nil {
			t.Error(err)
		}
		for name, tree := range file.Workflows {
			text, err := yaml.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			definition, err := workflow.Parse(text, workflow.YAML)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			compiled, err := workflow.Compile(name, definition, functions)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if keys, err := compiled.DeclaredKeys(nil, []byte(inputs[name])); err != nil || len(keys) == 0 {
				t.Errorf("%s declares %v, %v", name, keys, err)
			}
		}
	}
}
