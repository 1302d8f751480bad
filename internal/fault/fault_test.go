package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestKindOf(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk on fire")
	for name, c := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"nobody classified it":       {cause, fault.Internal},
		"made with a kind":           {fault.New(fault.NotFound, "no %s", "ticket"), fault.NotFound},
		"wrapped by others":          {fmt.Errorf("read: %w", fault.New(fault.Conflict, "taken")), fault.Conflict},
		"the outer kind counts":      {fault.Wrap(fault.Unavailable, fault.New(fault.NotFound, "gone"), "later"), fault.Unavailable},
		"the caller gave up":         {fmt.Errorf("query: %w", context.Canceled), fault.Unavailable},
		"the caller's time was over": {context.DeadlineExceeded, fault.Unavailable},
		"a field":                    {fault.Field("url", "must be %s", "https"), fault.Invalid},
	} {
		if got := fault.KindOf(c.err); got != c.want {
			t.Errorf("%s: kind %d, want %d", name, got, c.want)
		}
		if !fault.Is(c.err, c.want) {
			t.Errorf("%s: Is does not agree with KindOf", name)
		}
	}
	if fault.Is(nil, fault.Internal) {
		t.Error("no error is of a kind")
	}
}

// The message is for the caller and the cause for the log: Error has both, in
// that order, and the cause stays reachable.
func TestWrapKeepsTheCause(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk on fire")
	err := fault.Wrap(fault.Unavailable, cause, "try again in %d s", 5)
	if got, want := err.Error(), "try again in 5 s: disk on fire"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if err.Message != "try again in 5 s" {
		t.Errorf("the caller would see %q", err.Message)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}
