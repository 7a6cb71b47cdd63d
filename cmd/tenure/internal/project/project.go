// Package project reads what `tenure deploy` deploys, a directory with a
// tenure.yaml, and builds its Go functions to WebAssembly modules.
//
//	functions:
//	  bank:                      # the function's name
//	    source: function         # a directory with a Go main package, or
//	    # module: bank.wasm      # a module that something else has built
//	    isolate: false           # true: fresh memory for every invocation
//	workflows:
//	  transfer:                  # the workflow's name; below it the definition
//	    functions:
//	      withdraw: {function: bank, writes: ["accounts/{from}"]}
//
// A directory without this file that has a Go main package is a project with one
// function, named after the directory.
//
// Invariants: unknown fields, bad names and workflows that cannot be parsed are
// found before anything is built or sent; steps keep their order; the same
// source gives the same module, byte for byte.
//
// It does not talk to a server: package deploy does.
//
// Start reading at Read and Function.Bytes.
package project

import (
	"bytes"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/workflow"
)

// FileName is the name of a project's file.
const FileName = "tenure.yaml"

// maxFileBytes bounds a project's file.
const maxFileBytes = 1 << 20

// Project is what one directory deploys, sorted by name.
type Project struct {
	Functions []Function
	Workflows []Workflow
}

// Function is a bundle of handlers.
type Function struct {
	Name string
	// Source is the directory of a Go main package, Module a file with a built
	// module; exactly one of the two is set.
	Source, Module string
	// Isolate asks for fresh memory for every invocation.
	Isolate bool
}

// Workflow is a definition.
type Workflow struct {
	Name string
	// Definition is its canonical JSON form.
	Definition []byte
}

// file is the form of tenure.yaml.
type file struct {
	Functions map[string]fileFunction    `yaml:"functions"`
	Workflows map[string]yaml.RawMessage `yaml:"workflows"`
}

type fileFunction struct {
	Source  string `yaml:"source"`
	Module  string `yaml:"module"`
	Isolate bool   `yaml:"isolate"`
}

// Read reads the project in dir. The error names the file and the place in it.
func Read(dir string) (*Project, error) {
	path := filepath.Join(dir, FileName)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return single(dir)
	case err != nil:
		return nil, err
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", path, info.Size(), maxFileBytes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range p.Functions {
		p.Functions[i].locate(dir)
	}
	return p, nil
}

// locate makes the function's path, which is relative to dir, one of the
// process.
func (f *Function) locate(dir string) {
	for _, path := range []*string{&f.Source, &f.Module} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, filepath.FromSlash(*path))
		}
	}
}

// single is the project of a directory without a file.
func single(dir string) (*Project, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory; give the one that has the %s", dir, FileName)
	}
	isMain, err := hasMainPackage(dir)
	if err != nil {
		return nil, err
	}
	if !isMain {
		return nil, fmt.Errorf("there is neither a %s nor a Go main package in %s", FileName, dir)
	}
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(full)
	if err := base.ValidateName("function", name); err != nil {
		return nil, fmt.Errorf("%s would be deployed under its own name: %w; write a %s that gives another", dir, err, FileName)
	}
	return &Project{Functions: []Function{{Name: name, Source: dir}}}, nil
}

// hasMainPackage says whether a Go file in dir, tests excepted, is of a main
// package. Files that are not Go are the compiler's to complain about.
func hasMainPackage(dir string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.go"))
	if err != nil {
		return false, err
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly)
		if err == nil && syntax.Name.Name == "main" {
			return true, nil
		}
	}
	return false, nil
}

// escapeGlob makes a path a pattern that matches itself.
func escapeGlob(path string) string {
	if filepath.Separator == '\\' {
		return path // a backslash cannot escape there, and brackets are rare
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// parse reads the text of a tenure.yaml. Paths stay as they are written.
func parse(text []byte) (*Project, error) {
	var f file
	decoder := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if err := decoder.Decode(&f); err != nil {
		return nil, syntaxError(err)
	}
	p := &Project{}
	for _, name := range slices.Sorted(maps.Keys(f.Functions)) {
		function := Function{name, f.Functions[name].Source, f.Functions[name].Module, f.Functions[name].Isolate}
		if err := base.ValidateName("function", name); err != nil {
			return nil, err
		}
		if (function.Source == "") == (function.Module == "") {
			return nil, fmt.Errorf("functions.%s: give either source, a directory, or module, a file", name)
		}
		p.Functions = append(p.Functions, function)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Workflows)) {
		if err := base.ValidateName("workflow", name); err != nil {
			return nil, err
		}
		definition, err := canonical(f.Workflows[name])
		if err != nil {
			return nil, fmt.Errorf("workflows.%s: %w", name, err)
		}
		p.Workflows = append(p.Workflows, Workflow{name, definition})
	}
	if len(p.Functions)+len(p.Workflows) == 0 {
		return nil, errors.New("it names no function and no workflow")
	}
	return p, nil
}

// canonical turns a definition's YAML into the form that is sent. Parsing it
// here finds most faults of a project before its first function is deployed.
func canonical(text []byte) ([]byte, error) {
	definition, err := workflow.Parse(text, workflow.YAML)
	if err != nil {
		return nil, err
	}
	return definition.MarshalJSON()
}

// syntaxError keeps the place and the message of a YAML error; the rest of its
// text is a drawing of the source.
func syntaxError(err error) error {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		at := e.GetToken().Position
		return fmt.Errorf("line %d, column %d: %s", at.Line, at.Column, e.GetMessage())
	}
	return err
}
