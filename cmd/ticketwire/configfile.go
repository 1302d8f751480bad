package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"
)

// tomlFile answers for flags that are neither on the command line nor in the
// environment.
type tomlFile map[string]any

// readTOML is a kong.ConfigurationLoader. Keys are flag names.
func readTOML(r io.Reader) (kong.Resolver, error) {
	f := tomlFile{}
	if _, err := toml.NewDecoder(r).Decode(&f); err != nil {
		return nil, fmt.Errorf("config file: %w", err)
	}
	return f, nil
}

// Validate refuses keys that no command knows: a typing error must not silently
// leave a default in force.
func (f tomlFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, flag := range n.Flags {
			known[flag.Name] = true
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(app.Node)
	var unknown []string
	for key := range f {
		if !known[key] {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("config file: unknown name %s; the names are those of the flags, see ticketwire serve --help", strings.Join(unknown, ", "))
	}
	return nil
}

// Resolve returns the file's value for a flag, or nil.
func (f tomlFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Tag.Envs {
		if _, set := os.LookupEnv(env); set {
			return nil, nil // the environment wins over the file
		}
	}
	switch v := f[flag.Name].(type) {
	case nil:
		return nil, nil
	case string, bool, int64, float64:
		return fmt.Sprint(v), nil
	case []any:
		parts := make([]string, len(v))
		for i, p := range v {
			parts[i] = fmt.Sprint(p)
		}
		return strings.Join(parts, ","), nil
	default:
		return nil, fmt.Errorf("config file: %s has a value of the wrong type", flag.Name)
	}
}
