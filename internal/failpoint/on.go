//go:build failpoint

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Enabled says whether points can act in this build.
const Enabled = true

// ErrInjected is what a point with the action error returns.
var ErrInjected = errors.New("injected by a failpoint")

// armed holds the rules of the environment. It is a variable of the package,
// which there are none of elsewhere: a point that had to be handed down would
// change the code that it tests.
//
//nolint:gochecknoglobals // see above
var armed = sync.OnceValue(func() *rules {
	text := os.Getenv("TICKETWIRE_FAILPOINTS")
	r, err := parse(text)
	if err != nil {
		// Going on would make a test pass that tested nothing.
		fmt.Fprintf(os.Stderr, "TICKETWIRE_FAILPOINTS=%s: %v\n", text, err)
		os.Exit(2) //nolint:forbidigo // there is nobody to return the error to
	}
	return r
})

// Hit does what the environment asks for at p. It returns an error only for the
// action error. It is safe for concurrent use: each hit has its own number.
func Hit(p Point) error { return armed().hit(p, time.Now()) }

type rules struct {
	mu   sync.Mutex
	list []*rule       // guarded by mu
	hits map[Point]int // guarded by mu
}

// rule is one action at one point.
type rule struct {
	point  Point
	action string
	pause  time.Duration // of sleep
	from   int           // the first hit that it holds for
	count  int           // it holds for so many hits
	lasts  time.Duration // instead of count: for so long after the first of them
	began  time.Time     // guarded by rules.mu; zero before the first
}

func (r *rules) hit(p Point, now time.Time) error {
	act := r.acting(p, now)
	if act == nil {
		return nil
	}
	switch act.action {
	case "kill":
		kill()
	case "panic":
		panic("failpoint " + string(p))
	case "sleep":
		<-time.After(act.pause)
		return nil
	}
	return fmt.Errorf("%s: %w", p, ErrInjected)
}

// acting counts the hit and returns the rule that holds for it, if any.
func (r *rules) acting(p Point, now time.Time) *rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hits[p]++
	for _, one := range r.list {
		if one.point == p && one.holds(r.hits[p], now) {
			return one
		}
	}
	return nil
}

func (r *rule) holds(hit int, now time.Time) bool {
	switch {
	case hit < r.from:
		return false
	case r.lasts == 0:
		return hit < r.from+r.count
	case r.began.IsZero():
		r.began = now
	}
	return now.Sub(r.began) < r.lasts
}

// kill ends the process as kill -9 does: no deferred call runs, no buffer is
// written.
func kill() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(fmt.Sprintf("failpoint: kill: %v", err))
	}
	select {} // until the signal arrives
}

func points() []Point {
	return []Point{StoreEvents, StoreCommit, StoreCommitted, Attempt, Answered, Record, Mail}
}

func parse(text string) (*rules, error) {
	r := &rules{hits: map[Point]int{}}
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		one, err := parseRule(part)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		r.list = append(r.list, one)
	}
	return r, nil
}

func parseRule(text string) (*rule, error) {
	name, what, found := strings.Cut(text, "=")
	if !found {
		return nil, errors.New("want POINT=ACTION")
	}
	r := &rule{point: Point(name), from: 1, count: 1}
	if !slices.Contains(points(), r.point) {
		return nil, fmt.Errorf("there is no point %q", name)
	}
	action, when, timed := strings.Cut(what, "@")
	var err error
	switch pause, isSleep := strings.CutPrefix(action, "sleep("); {
	case isSleep:
		r.action = "sleep"
		if r.pause, err = time.ParseDuration(strings.TrimSuffix(pause, ")")); err != nil {
			return nil, fmt.Errorf("sleep: %w", err)
		}
	case slices.Contains([]string{"kill", "panic", "error"}, action):
		r.action = action
	default:
		return nil, fmt.Errorf("there is no action %q", action)
	}
	if timed {
		err = r.parseWhen(when)
	}
	return r, err
}

// parseWhen reads N, NxM or N:DURATION.
func (r *rule) parseWhen(text string) (err error) {
	from, count, many := strings.Cut(text, "x")
	from, lasts, long := strings.Cut(from, ":")
	if r.from, err = strconv.Atoi(from); err != nil || r.from < 1 {
		return fmt.Errorf("%q is no number of a hit", from)
	}
	if many {
		if r.count, err = strconv.Atoi(count); err != nil || r.count < 1 {
			return fmt.Errorf("%q is no number of hits", count)
		}
	}
	if long {
		if r.lasts, err = time.ParseDuration(lasts); err != nil || r.lasts <= 0 {
			return fmt.Errorf("%q is no time", lasts)
		}
	}
	return nil
}
