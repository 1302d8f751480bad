package main

import (
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/delivery"
)

// The defaults stand in the flags, where the help shows them, and in the
// packages, where the rules are. They must say the same.
func TestFlagDefaultsAreThePolicy(t *testing.T) {
	t.Parallel()
	var f serviceFlags
	parser, err := kong.New(&f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(nil); err != nil {
		t.Fatal(err)
	}
	got, err := f.policy()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(delivery.DefaultPolicy(), got); diff != "" {
		t.Errorf("the flags differ from delivery.DefaultPolicy (-policy +flags):\n%s", diff)
	}
	if got := api.Rate(f.APIRate); got != api.DefaultRate() {
		t.Errorf("--api-rate is %v, api.DefaultRate %v", got, api.DefaultRate())
	}
}
