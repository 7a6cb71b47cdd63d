package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Limits in lines.
const (
	maxFileLines     = 600
	maxFunctionLines = 70
)

// goroutines finds bare go statements: whoever starts a goroutine waits for it,
// through sync.WaitGroup.Go or errgroup.
func goroutines(t *tree) (found []finding) {
	for f := range t.sources {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.GoStmt); ok {
				found = append(found, t.at(f, s.Pos(), "bare go statement: use sync.WaitGroup.Go or errgroup, and wait"))
			}
			return true
		})
	}
	return found
}

// walled lists the only packages that may import what is dangerous.
var walled = map[string][]string{
	"C":      {"cgo/ibverbs"},
	"unsafe": {"cgo/ibverbs", "rdma/internal/memory"},
}

// walls finds cgo and unsafe outside of their packages, tests included.
func walls(t *tree) (found []finding) {
	for _, f := range t.files {
		for _, spec := range f.ast.Imports {
			p := importPath(spec)
			if allowed, dangerous := walled[p]; dangerous && !slices.Contains(allowed, f.dir()) {
				found = append(found, t.at(f, spec.Pos(), "import of %q: nothing outside of the package that is built for it may do that", p))
			}
		}
	}
	return found
}

func fileSizes(t *tree) (found []finding) {
	for f := range t.sources {
		if f.lines > maxFileLines {
			found = append(found, finding{f.path, f.lines, fmt.Sprintf("the file has %d lines, the limit is %d: split it by noun", f.lines, maxFileLines)})
		}
	}
	return found
}

// functionName names a function or method within its file.
type functionName struct{ path, name string }

// parseAllowed reads the list of long functions: path, name and lines.
func parseAllowed(text string) (map[functionName]int, error) {
	allowed := map[functionName]int{}
	for line := range strings.Lines(text) {
		entry := strings.Fields(line)
		if len(entry) == 0 || entry[0] == "#" {
			continue
		}
		if len(entry) != 3 {
			return nil, fmt.Errorf("%q is not a path, a name and a number of lines", strings.TrimSpace(line))
		}
		n, err := strconv.Atoi(entry[2])
		if err != nil {
			return nil, fmt.Errorf("lines of %s: %w", entry[1], err)
		}
		name := functionName{entry[0], entry[1]}
		if _, double := allowed[name]; double {
			return nil, fmt.Errorf("%s is listed twice", entry[1])
		}
		allowed[name] = n
	}
	return allowed, nil
}

// functionSizes finds functions over the limit, or not of the length that the
// list allows, and entries of the list that are not needed.
func functionSizes(t *tree, allowed map[functionName]int) (found []finding) {
	seen := map[functionName]bool{}
	for f := range t.sources {
		for _, decl := range f.ast.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := t.positions.Position(d.End()).Line - t.positions.Position(d.Pos()).Line + 1
			name := functionName{f.path, nameOf(d)}
			limit, listed := allowed[name]
			seen[name] = true
			switch {
			case lines <= maxFunctionLines && listed:
				found = append(found, t.at(f, d.Pos(), "%s has %d lines: take it off long_functions.txt", name.name, lines))
			case lines > maxFunctionLines && !listed:
				found = append(found, t.at(f, d.Pos(), "%s has %d lines, the limit is %d", name.name, lines, maxFunctionLines))
			case listed && lines > limit:
				found = append(found, t.at(f, d.Pos(), "%s has %d lines, long_functions.txt allows %d", name.name, lines, limit))
			case listed && lines < limit:
				found = append(found, t.at(f, d.Pos(), "%s has %d lines: lower its %d in long_functions.txt", name.name, lines, limit))
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			found = append(found, finding{name.path, 1, name.name + " does not exist: take it off long_functions.txt"})
		}
	}
	return sortFindings(found)
}

// nameOf returns a function's name, and a method's as Type.name.
func nameOf(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name + "." + d.Name.Name
		default:
			return d.Name.Name
		}
	}
}

// packageComments finds packages without a comment. The finding is at the
// package clause of their first file.
func packageComments(t *tree) (found []finding) {
	first := map[string]*file{}
	commented := map[string]bool{}
	for f := range t.sources {
		if first[f.dir()] == nil {
			first[f.dir()] = f
		}
		if f.ast.Doc != nil && len(strings.Fields(f.ast.Doc.Text())) > 3 {
			commented[f.dir()] = true
		}
	}
	for dir, f := range first {
		if !commented[dir] {
			found = append(found, t.at(f, f.ast.Package, "package %s has no comment: say what it is, its invariants, what it does not do", f.ast.Name))
		}
	}
	return sortFindings(found)
}

// optionsComments finds fields without a comment in structs named Options:
// whoever sets one must know its unit and what zero means. One comment may
// stand for several fields in a row if it names them.
func optionsComments(t *tree) (found []finding) {
	for f := range t.sources {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != "Options" {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			above := "" // the last comment over a field
			for _, field := range s.Fields.List {
				if field.Doc != nil {
					above = field.Doc.Text()
				} else if name := fieldName(field); field.Comment == nil && !slices.Contains(words(above), name) {
					found = append(found, t.at(f, field.Pos(), "field %s of Options has no comment: say its unit and what zero means", name))
				}
			}
			return true
		})
	}
	return found
}

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

func fieldName(field *ast.Field) string {
	if len(field.Names) > 0 {
		return field.Names[0].Name
	}
	return "(embedded)"
}

var (
	promise = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	issue   = regexp.MustCompile(`\b(TODO|FIXME|XXX)\(#[0-9]+\)`)
)

// todos finds promises in comments that name no issue.
func todos(t *tree) (found []finding) {
	for _, f := range t.files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if len(promise.FindAllString(c.Text, -1)) > len(issue.FindAllString(c.Text, -1)) {
					found = append(found, t.at(f, c.Pos(), "a promise without an issue: write it as WORD(#number)"))
				}
			}
		}
	}
	return found
}

// registering are the places whose init functions and variables register
// handlers: a function module is a process of its own.
var registering = regexp.MustCompile(`^(examples/[^/]+/function|sdk)/`)

// initFunctions finds init functions: they act before anybody asked.
func initFunctions(t *tree) (found []finding) {
	for f := range t.sources {
		if registering.MatchString(f.path) {
			continue
		}
		for _, decl := range f.ast.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
				found = append(found, t.at(f, d.Pos(), "init function: let somebody call it"))
			}
		}
	}
	return found
}

// mutatedVariables finds package-level variables that a function of the package
// assigns to: state that no value owns. It goes by names, so a variable that is
// shadowed anywhere in a function is not looked for in that function.
func mutatedVariables(t *tree) (found []finding) {
	variables := map[string]map[string]bool{} // by directory
	for f := range t.sources {
		if variables[f.dir()] == nil {
			variables[f.dir()] = map[string]bool{}
		}
		for _, decl := range f.ast.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.VAR {
				for _, spec := range d.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						variables[f.dir()][name.Name] = name.Name != "_"
					}
				}
			}
		}
	}
	for f := range t.sources {
		if registering.MatchString(f.path) {
			continue
		}
		for _, decl := range f.ast.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || d.Body == nil {
				continue
			}
			local := localNames(d)
			for _, target := range assigned(d.Body) {
				if variables[f.dir()][target.Name] && !local[target.Name] {
					found = append(found, t.at(f, target.Pos(), "%s changes the package's variable %s: give it an owner", d.Name, target.Name))
				}
			}
		}
	}
	return found
}

// localNames returns every name that a function declares.
func localNames(d *ast.FuncDecl) map[string]bool {
	local := map[string]bool{}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				local[name.Name] = true
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				local[name.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, e := range n.Lhs {
					declare(local, e)
				}
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				declare(local, n.Key)
				declare(local, n.Value)
			}
		}
		return true
	})
	return local
}

func declare(local map[string]bool, e ast.Expr) {
	if name, ok := e.(*ast.Ident); ok {
		local[name.Name] = true
	}
}

// assigned returns the variables at the root of everything that is assigned to,
// counted up or down, deleted from or cleared.
func assigned(body *ast.BlockStmt) (roots []*ast.Ident) {
	add := func(e ast.Expr) {
		if name := root(e); name != nil {
			roots = append(roots, name)
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				add(n.Key)
				add(n.Value)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") && len(n.Args) > 0 {
				add(n.Args[0])
			}
		}
		return true
	})
	return roots
}

func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
