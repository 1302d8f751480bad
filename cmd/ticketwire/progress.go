package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress shows on one line of a terminal what is going on. Elsewhere it
// says nothing. It is safe for concurrent use.
type progress struct {
	w io.Writer // nil: not a terminal

	mu    sync.Mutex
	topic string
	drawn time.Time
}

func newProgress(t terminal) *progress {
	f, is := t.err.(*os.File)
	if !is {
		return &progress{}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{w: f}
}

// begin names what is going on from now on.
func (p *progress) begin(topic string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topic, p.drawn = topic, time.Time{}
	p.draw("")
}

// note says what is being done for it.
func (p *progress) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw(fmt.Sprintf(format, args...))
}

// rest says what will be true for a while, so that it must not be left out.
func (p *progress) rest(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drawn = time.Time{}
	p.draw(fmt.Sprintf(format, args...))
}

// end clears the line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// draw writes the line, a few times per second at most: the terminal's work
// must not be part of what bench measures. The caller holds mu.
func (p *progress) draw(what string) {
	if p.w == nil || time.Since(p.drawn) < 200*time.Millisecond {
		return
	}
	p.drawn = time.Now()
	fmt.Fprintf(p.w, "\r\x1b[K%s  %s", p.topic, what)
}
