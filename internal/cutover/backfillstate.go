package cutover

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// ledgerName is the file in which a backfill keeps how far it has come.
const ledgerName = "backfill.jsonl"

// job is what a backfill set out to do. It is kept, so that the next run goes on
// with it and not with a window that has moved on.
type job struct {
	Server    string    `json:"server"`
	WebhookID string    `json:"webhook_id,omitempty"`
	To        string    `json:"to,omitempty"`
	Source    Source    `json:"source"`
	From      time.Time `json:"from"`
	Until     time.Time `json:"until,omitzero"` // zero: the present end
	Began     time.Time `json:"began"`          // by the server's clock
}

// sameReceiver reports whether what one job delivered counts for the other.
func (j *job) sameReceiver(k *job) bool {
	return j.Server == k.Server && j.WebhookID == k.WebhookID && j.To == k.To
}

// place is how far a job has come in its source.
type place struct {
	Cursor  string    `json:"cursor,omitempty"` // of the feed: behind it
	Updated time.Time `json:"updated,omitzero"` // of the list: before it
	Replay  string    `json:"replay,omitempty"` // of the server's job
}

// accepted is an event that the receiver has accepted.
type accepted struct {
	EventID   string    `json:"event_id"`
	EventType string    `json:"event_type"`
	Ticket    string    `json:"ticket"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ledgerLine is one line of the file: one of its fields is set.
type ledgerLine struct {
	Job      *job       `json:"job,omitempty"`
	Place    *place     `json:"place,omitempty"`
	Accepted *accepted  `json:"accepted,omitempty"`
	Done     *time.Time `json:"done,omitempty"` // up to where nothing is missing
}

// ledger is what a backfill has done, in memory and in a file that grows. It
// begins anew with each job. Used by one goroutine, of the process that holds
// the lock.
type ledger struct {
	book  *notebook[ledgerLine]
	job   *job // nil: none is unfinished
	place place
	done  time.Time // up to where an earlier job found nothing missing; zero for never
	acks  *acks     // of the unfinished job
	sent  int
}

func openLedger(dir string) (*ledger, error) {
	l := &ledger{acks: newAcks()}
	var err error
	if l.book, err = openNotebook(filepath.Join(dir, ledgerName), l.keep); err != nil {
		return nil, fmt.Errorf("how far the backfill has come: %w", err)
	}
	return l, nil
}

func (l *ledger) keep(line ledgerLine) {
	switch {
	case line.Job != nil:
		if l.job == nil || !l.job.sameReceiver(line.Job) {
			l.acks, l.sent = newAcks(), 0
		}
		l.job, l.place = line.Job, place{}
	case line.Place != nil:
		l.place = *line.Place
	case line.Accepted != nil:
		a := line.Accepted
		l.acks.add(webhook.Key{EventID: a.EventID, EventType: a.EventType}, a.Ticket, a.UpdatedAt)
		l.sent++
	case line.Done != nil:
		l.job, l.place, l.acks, l.sent, l.done = nil, place{}, newAcks(), 0, *line.Done
	}
}

// save notes what was done and returns when that is on disk.
func (l *ledger) save(line ledgerLine) error {
	if err := l.book.add(line); err != nil {
		return fmt.Errorf("save how far the backfill has come: %w", err)
	}
	l.keep(line)
	return nil
}

// finish ends the job: nothing is missing up to t. The file becomes that one line.
func (l *ledger) finish(t time.Time) error {
	line := ledgerLine{Done: &t}
	if err := l.book.renew([]ledgerLine{line}); err != nil {
		return fmt.Errorf("save that the backfill is done: %w", err)
	}
	l.keep(line)
	return nil
}

func (l *ledger) close() error { return l.book.close() }
