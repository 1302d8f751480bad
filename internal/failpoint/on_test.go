//go:build failpoint

package failpoint

import (
	"errors"
	"testing"
	"time"
)

func TestRules(t *testing.T) {
	t.Parallel()
	const step = time.Second // between two hits
	for text, want := range map[string]string{
		"":                                           "........",
		"store.commit=error":                         "E.......",
		"store.commit=error@3":                       "..E.....",
		"store.commit=error@3x2":                     "..EE....",
		"store.commit=error@2:3s":                    ".EEE....",
		"store.commit=panic@2":                       ".P......",
		"store.commit=sleep(1ns)@1x9":                "........",
		"store.record=error@1x9":                     "........",
		"store.commit=error@2;":                      ".E......",
		"store.commit=error; store.commit=panic@5x2": "E...PP..",
	} {
		r, err := parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got, now := "", time.Unix(0, 0)
		for range len(want) {
			got += outcome(t, r, now)
			now = now.Add(step)
		}
		if got != want {
			t.Errorf("%q acts %s, want %s", text, got, want)
		}
	}
}

// outcome is E for an error, P for a panic and a dot for neither.
func outcome(t *testing.T, r *rules, now time.Time) (out string) {
	t.Helper()
	defer func() {
		if recover() != nil {
			out = "P"
		}
	}()
	err := r.hit(StoreCommit, now)
	switch {
	case err == nil:
		return "."
	case !errors.Is(err, ErrInjected):
		t.Errorf("the error is %v", err)
	}
	return "E"
}

func TestWrongRulesAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"store.commit", "store.comit=kill", "store.commit=", "store.commit=die", "store.commit=kill@", "store.commit=kill@0",
		"store.commit=kill@-1", "store.commit=error@1x0", "store.commit=error@1:x", "store.commit=error@1:-1s",
		"store.commit=sleep(soon)", "store.commit=sleep", "store.record=error;store.commit=",
	} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
