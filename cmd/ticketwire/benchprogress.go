package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// benchProgress shows on one line of a terminal what is going on. Elsewhere it
// says nothing. It is safe for concurrent use.
type benchProgress struct {
	w io.Writer // nil: not a terminal

	mu     sync.Mutex
	figure string
	drawn  time.Time
}

func newBenchProgress(t terminal) *benchProgress {
	f, is := t.err.(*os.File)
	if !is {
		return &benchProgress{}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &benchProgress{}
	}
	return &benchProgress{w: f}
}

// begin names the figure that is measured from now on.
func (p *benchProgress) begin(figure string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.figure, p.drawn = figure, time.Time{}
	p.draw("")
}

// note says what is being done for the figure.
func (p *benchProgress) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw(fmt.Sprintf(format, args...))
}

// end clears the line.
func (p *benchProgress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// draw writes the line, a few times per second at most: the terminal's work
// must not be part of what is measured. The caller holds mu.
func (p *benchProgress) draw(what string) {
	if p.w == nil || time.Since(p.drawn) < 200*time.Millisecond {
		return
	}
	p.drawn = time.Now()
	fmt.Fprintf(p.w, "\r\x1b[K%s  %s", p.figure, what)
}
