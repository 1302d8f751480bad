// Package ticketwire_test keeps the shape of the source tree: who may import
// whom, where the clock is read, and what no file may contain. What the packages
// do is tested in the packages.
package ticketwire_test

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ticketwire/ticketwire"

// floors is the picture of ARCHITECTURE.md. A package imports lower floors only,
// so it can be read and tested without knowing what stands above it, and two
// packages of one floor can be changed by two people at once. A new package gets
// its place here and its reason in docs/decisions.
var floors = map[string]int{
	"webhook":            0,
	"client":             0,
	"internal/fault":     0,
	"internal/failpoint": 0,
	"internal/filelock":  0,
	"docs":               0,
	"internal/ticket":    1,
	"internal/delivery":  1,
	"internal/vault":     1,
	"inbox":              1,
	"internal/store":     2,
	"internal/egress":    2,
	"internal/mail":      2,
	"internal/dispatch":  3,
	"internal/cutover":   3,
	"internal/api":       4,
	"internal/console":   4,
	"internal/receiver":  4,
	"internal/app":       5,
	"cmd/ticketwire":     6,
}

// publicStd are the packages that an integrator adds to his own program: they
// must not bring dependencies with them.
var publicStd = []string{"webhook", "client", "inbox"}

// pure are the packages that hold the rules. They get what they need as
// arguments, so that tables and properties can test them.
var (
	pure          = []string{"internal/ticket", "internal/delivery"}
	notInPureCode = []string{"context", "database/sql", "net/http"}
)

// forbiddenNames say nothing about what is inside, so everything ends up there.
var forbiddenNames = []string{"common", "helper", "helpers", "lib", "misc", "mock", "mocks", "models", "services", "shared", "types", "util", "utils"}

// clocks are the places that may read the clock themselves; everywhere else the
// time is an argument, so that a test decides what it is.
var clocks = map[string]string{
	"cmd/ticketwire":     "the edge: one command, one moment",
	"internal/app":       "the edge: hands its clock to everything it wires",
	"internal/failpoint": "measures how long a fault lasts, in builds for tests only",
	"internal/egress":    "measures how long an exchange took; decides nothing by it",
	"client":             "public: its default clock, and the deadline of the caller's context",
	"webhook":            "public: its default clock",
	"inbox":              "public: its default clock",
}

// maxLines bounds a file; a longer one has more than one topic.
const maxLines = 600

// source is one parsed Go file.
type source struct {
	name string // path from the module root, with slashes
	dir  string // the package's place in floors
	test bool
	text []byte
	fset *token.FileSet
	file *ast.File
}

func (s *source) imports() []string {
	var out []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil { // the parser has checked it
			out = append(out, p)
		}
	}
	return out
}

func (s *source) line(n ast.Node) int { return s.fset.Position(n.Pos()).Line }

// made are the names of what is made here and belongs to nobody else.
var made = []string{".git", "bin", "coverage", "node_modules", "ticketwire-data"}

// files returns the files of the module that are source, not products of a build.
func files(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && slices.Contains(made, d.Name()):
			return filepath.SkipDir
		case d.Type().IsRegular():
			out = append(out, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("found only %d files: the walk is wrong", len(out))
	}
	return out
}

func sources(t *testing.T) []*source {
	t.Helper()
	var out []*source
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, &source{
			name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), text: text, fset: fset, file: file,
		})
	}
	return out
}

// inFloors reports whether the package has a place in the picture. The root
// holds this test only; below test/ are programs that use the whole.
func inFloors(dir string) bool { return dir != "." && !strings.HasPrefix(dir, "test/") }

func TestEveryPackageHasItsPlace(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if _, known := floors[s.dir]; inFloors(s.dir) && !known {
			t.Errorf("%s: package %s has no floor: give it one in layout_test.go and its reason in docs/decisions", s.name, s.dir)
		}
		if name := s.file.Name.Name; slices.Contains(forbiddenNames, name) {
			t.Errorf("%s: %q says nothing about what the package gives", s.name, name)
		}
	}
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if !inFloors(s.dir) {
			continue
		}
		for _, p := range s.imports() {
			target, ours := strings.CutPrefix(p, module+"/")
			if !ours || target == s.dir { // an external test imports its own package
				continue
			}
			to, known := floors[target]
			switch from := floors[s.dir]; {
			case s.test && !inFloors(target): // what tests of several packages use
			case !known:
				t.Errorf("%s imports %s, which has no floor", s.name, target)
			case to >= from:
				t.Errorf("%s (floor %d) imports %s (floor %d): only lower floors are allowed", s.name, from, target, to)
			}
		}
	}
}

func TestPublicPackagesNeedOnlyTheStandardLibrary(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || !slices.Contains(publicStd, s.dir) {
			continue
		}
		for _, p := range s.imports() {
			if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") && !slices.Contains(publicStd, strings.TrimPrefix(p, module+"/")) {
				t.Errorf("%s imports %s", s.name, p)
			}
		}
	}
}

func TestRulesArePure(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || !slices.Contains(pure, s.dir) {
			continue
		}
		for _, p := range s.imports() {
			if slices.Contains(notInPureCode, p) {
				t.Errorf("%s imports %s: it takes what it needs as arguments", s.name, p)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	comments := map[string]int{}
	for _, s := range sources(t) {
		if name := s.file.Name.Name; s.test && strings.HasSuffix(name, "_test") && s.dir != "." {
			continue // the external tests of a package that has its own comment
		}
		if _, seen := comments[s.dir]; !seen {
			comments[s.dir] = 0
		}
		if s.file.Doc != nil {
			comments[s.dir]++
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(comments)) {
		if n := comments[dir]; n != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, n)
		}
	}
}

func TestTheClockIsReadAtTheEdges(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if _, allowed := clocks[s.dir]; allowed || s.test || !inFloors(s.dir) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, is := n.(*ast.SelectorExpr)
			if !is {
				return true
			}
			if x, is := sel.X.(*ast.Ident); is && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, sel.Sel.Name) {
				t.Errorf("%s:%d: time.%s: take the time as an argument", s.name, s.line(n), sel.Sel.Name)
			}
			return true
		})
	}
}

// What a receiver computes is a MAC that its sender must not learn byte by byte. The
// linter refuses bytes.Equal there; a comparison of strings takes as long as they are
// alike too.
func TestMACsAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, s := range sources(t) {
		if s.test || s.dir != "webhook" || !slices.Contains(s.imports(), "crypto/hmac") {
			continue
		}
		checked++
		ast.Inspect(s.file, func(n ast.Node) bool {
			cmp, is := n.(*ast.BinaryExpr)
			if !is || cmp.Op != token.EQL && cmp.Op != token.NEQ {
				return true
			}
			for _, side := range []ast.Expr{cmp.X, cmp.Y} {
				switch side := side.(type) {
				case *ast.CallExpr:
					if f, is := side.Fun.(*ast.Ident); !is || f.Name != "string" {
						continue
					}
				case *ast.IndexExpr, *ast.SliceExpr: // an array is a sum
				default:
					continue
				}
				t.Errorf("%s:%d: compare MACs with hmac.Equal", s.name, s.line(n))
			}
			return true
		})
	}
	if checked == 0 {
		t.Error("no file was checked")
	}
}

// A sleep is too short on a slow machine and too long on a fast one. Under
// testing/synctest it costs nothing and is exact.
func TestNothingSleeps(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test && slices.Contains(s.imports(), "testing/synctest") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, is := n.(*ast.SelectorExpr); is && sel.Sel.Name == "Sleep" {
				if x, is := sel.X.(*ast.Ident); is && x.Name == "time" {
					t.Errorf("%s:%d: time.Sleep: wait for the event", s.name, s.line(n))
				}
			}
			return true
		})
	}
}

func TestSkippedTestsSayWhy(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		ast.PreorderStack(s.file, nil, func(n ast.Node, stack []ast.Node) bool {
			call, is := n.(*ast.CallExpr)
			if !is {
				return true
			}
			sel, is := call.Fun.(*ast.SelectorExpr)
			if !is || sel.Sel.Name != "SkipNow" && (sel.Sel.Name != "Skip" || len(call.Args) > 0) {
				return true
			}
			// In a property, Skip throws away an input and not the test.
			if x, is := sel.X.(*ast.Ident); is && parameterPackage(stack, x.Name) == "testing" {
				t.Errorf("%s:%d: a skip without a reason", s.name, s.line(n))
			}
			return true
		})
	}
}

// parameterPackage returns the package of the type of the parameter that name
// refers to, seen from inside the innermost function of the stack.
func parameterPackage(stack []ast.Node, name string) string {
	for _, n := range slices.Backward(stack) {
		var params *ast.FieldList
		switch f := n.(type) {
		case *ast.FuncLit:
			params = f.Type.Params
		case *ast.FuncDecl:
			params = f.Type.Params
		default:
			continue
		}
		for _, field := range params.List {
			if !slices.ContainsFunc(field.Names, func(id *ast.Ident) bool { return id.Name == name }) {
				continue
			}
			star, is := field.Type.(*ast.StarExpr)
			if !is {
				return ""
			}
			if sel, is := star.X.(*ast.SelectorExpr); is {
				if pkg, is := sel.X.(*ast.Ident); is {
					return pkg.Name
				}
			}
			return ""
		}
	}
	return ""
}

// unfinished marks work that belongs into the list of issues. The words are put
// together here so that this file does not hold them.
var unfinished = regexp.MustCompile(`\b(` + strings.Join([]string{"TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"}, "|") + `)\b`)

func TestFilesAreFinishedAndShort(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxLines && !s.test {
			t.Errorf("%s has %d lines, want at most %d: split it by topic", s.name, n, maxLines)
		}
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if m := unfinished.FindString(c.Text); m != "" {
					t.Errorf("%s:%d: %s: do it, or write an issue", s.name, s.line(c), m)
				}
			}
		}
	}
}

// namedTest is a test that a document says something about.
var namedTest = regexp.MustCompile("`((?:Test|test|Fuzz)[A-Z0-9][A-Za-z0-9]*)`")

func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, is := d.(*ast.FuncDecl); is && s.test && f.Recv == nil {
				there[f.Name.Name] = true
			}
		}
	}
	for _, name := range files(t) {
		if path.Ext(name) != ".md" || strings.Contains(name, "/testdata/") {
			continue
		}
		text, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedTest.FindAllSubmatch(text, -1) {
			if test := string(m[1]); !there[test] {
				t.Errorf("%s speaks of %s, which is no test", name, test)
			}
		}
	}
}

// onlyHere finds what is true on one machine alone: a path below a directory
// that is somebody's own, and the address a lockfile was downloaded from.
var onlyHere = regexp.MustCompile(
	`(^|[^\w.)}\]~/-])/(` + strings.Join([]string{"root", "tmp", "work", "farm", `home/\w+`, `Users/\w+`}, "|") + `)/[\w.]` +
		`|"resolved": *"`)

func TestNoFileNamesOneMachine(t *testing.T) {
	t.Parallel()
	for _, name := range files(t) {
		text, err := os.ReadFile(filepath.FromSlash(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since the walk
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
			continue // not text
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if m := onlyHere.Find(line); m != nil {
				t.Errorf("%s:%d: %q is true on one machine only", name, i+1, m)
			}
		}
	}
}

// A link leads out of the tree, to what only one machine has.
func TestThereAreNoLinks(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(made, d.Name()):
			return filepath.SkipDir
		case d.Type()&fs.ModeSymlink != 0 && name != "bin": // the tools of another tree
			t.Errorf("%s is a link", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOnlyHereKnowsThePaths(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`open /` + `tmp/x`:                      true,
		`"/` + `root/go"`:                       true,
		`cd /` + `work/main`:                    true,
		`/` + `home/ann/src`:                    true,
		`https://example.com/work/item`:         false,
		`./tmp/x`:                               false,
		`network/root/x`:                        false,
		`GET /workflows/1`:                      false,
		`"resol` + `ved": "https://example.com`: true,
	} {
		if got := onlyHere.MatchString(text); got != want {
			t.Errorf("onlyHere(%q) = %t, want %t", text, got, want)
		}
	}
}

var markdownLink = regexp.MustCompile(`\]\(([^()\s#]+)(#[^()\s]*)?\)`)

// TestLinksLeadSomewhere: what a page links to within the tree is there.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	links := 0
	for _, name := range files(t) {
		if path.Ext(name) != ".md" {
			continue
		}
		text, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range markdownLink.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], ":") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.FromSlash(path.Join(path.Dir(name), m[1]))); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links were found", links)
	}
}
