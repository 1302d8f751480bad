package receiver

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// pulse is what the receiver knows of itself and of the traffic, in memory and,
// as it was at the last beat, in a file. A file that cannot be read is none. Safe
// for concurrent use.
type pulse struct {
	file    string
	started time.Time

	mu   sync.Mutex
	kept keptPulse
	err  error // of the last save
}

// keptPulse is the content of the file.
type keptPulse struct {
	Alive  time.Time `json:"alive"`
	Event  time.Time `json:"last_event,omitzero"`
	Began  time.Time `json:"began"`  // learning
	Events int       `json:"events"` // since then
	Pauses []pause   `json:"pauses,omitempty"`
}

// pause is the longest one between two events that ended on a day.
type pause struct {
	Day     string  `json:"day"` // UTC
	Longest float64 `json:"longest"`
}

// What LearnSilence says.
const (
	learnFor    = 24 * time.Hour
	learnEvents = 20
	learnDays   = 14
	leastLimit  = 10 * time.Minute
)

func readPulse(file string, now time.Time) *pulse {
	p := &pulse{file: file, started: now}
	if text, err := os.ReadFile(file); err != nil || json.Unmarshal(text, &p.kept) != nil {
		p.kept = keptPulse{Began: now}
	}
	return p
}

// Alive returns when the receiver in a data directory was alive last, give or take
// two seconds; the zero time if there was none.
func Alive(dataDir string) time.Time {
	return readPulse(filepath.Join(dataDir, pulseName), time.Time{}).alive()
}

// pulseName is the file of the pulse in a data directory.
const pulseName = "receiver.json"

// alive is when the receiver was alive last, as far as the file says.
func (p *pulse) alive() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept.Alive
}

// save writes the file anew. It is not synced: a kill cannot take it back, and
// after a power cut the receiver counts as away for some seconds more.
func (p *pulse) save(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept.Alive = now
	text, err := json.Marshal(p.kept)
	if err == nil {
		err = os.WriteFile(p.file+".new", append(text, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(p.file+".new", p.file)
	}
	if err != nil {
		err = fmt.Errorf("say that the receiver is alive: %w", err)
	}
	p.err = err
	return err
}

// failing returns why the last save failed, nil if it did not.
func (p *pulse) failing() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// event notes an event, and the pause before it.
func (p *pulse) event(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := &p.kept
	if !k.Event.IsZero() {
		day, length := at.UTC().Format(time.DateOnly), at.Sub(k.Event).Seconds()
		if n := len(k.Pauses); n > 0 && k.Pauses[n-1].Day == day {
			k.Pauses[n-1].Longest = max(k.Pauses[n-1].Longest, length)
		} else {
			k.Pauses = append(k.Pauses, pause{day, length})
			k.Pauses = slices.Clone(k.Pauses[max(0, len(k.Pauses)-learnDays):])
		}
	}
	k.Events++
	if at.After(k.Event) {
		k.Event = at
	}
}

// last is when the last event came, the zero time before the first one.
func (p *pulse) last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept.Event
}

// quietSince is since when no event came although one could have.
func (p *pulse) quietSince() time.Time {
	if last := p.last(); last.After(p.started) {
		return last
	}
	return p.started
}

// usual is the limit of LearnSilence, 0 while too little is known.
func (p *pulse) usual(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.kept.Began) < learnFor || p.kept.Events < learnEvents {
		return 0
	}
	oldest, longest := now.UTC().AddDate(0, 0, -learnDays).Format(time.DateOnly), 0.0
	for _, x := range p.kept.Pauses {
		if x.Day >= oldest {
			longest = max(longest, x.Longest)
		}
	}
	return max(time.Duration(1.5*longest*float64(time.Second)), leastLimit)
}
