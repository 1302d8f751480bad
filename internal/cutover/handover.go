package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// act runs the reaction to a change if it is the poller's turn for it. If it is
// the receiver's, there may still be a change of before that turn which the poller
// never saw because this one followed: that one is the poller's, and nobody else
// acts on it.
func (p *Poller) act(ctx context.Context, c Change) error {
	setup, err := p.turns.Setup()
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return p.cfg.React(ctx, c)
	case err != nil:
		return err
	case setup.Acts(c.UpdatedAt) == SidePoller:
		return p.cfg.React(ctx, c)
	}
	var began time.Time // the receiver's turn
	for _, turn := range setup.Turns {
		if !turn.From.After(c.UpdatedAt) {
			began = turn.From
		}
	}
	if !c.Previous.Before(began) {
		return nil
	}
	looked := p.looked[c.Ticket]
	if len(p.cfg.IDs) == 0 {
		looked = p.looked[""]
	}
	if !looked.Before(began.Add(lookMargin)) {
		return nil // that look would have shown it
	}
	last, err := p.lastOwn(ctx, setup, c)
	if err != nil || last == nil {
		return err
	}
	return p.cfg.React(ctx, *last)
}

// lookMargin is how long before its Date an answer may have been read out of the
// database.
const lookMargin = 15 * time.Second

// lastOwn returns the last change of a ticket between what was dealt with and c
// for which it was the poller's turn, or nil: what a look at the end of its turn
// would have shown. The feed knows it; a server without one has sent it to the
// receiver, so the record may know it.
func (p *Poller) lastOwn(ctx context.Context, setup *Setup, c Change) (*Change, error) {
	var last *Change
	consider := func(occurred, updated time.Time, data json.RawMessage) error {
		at := micros(ChangedAt(occurred, updated))
		if !at.After(c.Previous) || !at.Before(c.UpdatedAt) || setup.Acts(at) != SidePoller || last != nil && !at.After(last.UpdatedAt) {
			return nil
		}
		fields, hash, err := stateOf(data)
		if err != nil {
			return fmt.Errorf("an event of ticket %s: %w", c.Ticket, err)
		}
		own := c
		own.Observation = Observation{Ticket: c.Ticket, UpdatedAt: at, Verdict: c.Verdict, Hash: hash, Fields: fields}
		own.Raw = data
		last = &own
		return nil
	}
	err := p.feedOf(ctx, c, func(e *client.Event) error {
		return consider(e.OccurredAt, updatedAtOf(e.Data), e.Data)
	})
	if !feedless(err) {
		return last, err
	}
	err = p.receiptsOf(c, func(r *Receipt) error {
		var body struct {
			Data json.RawMessage `json:"data"`
		}
		// One that was not taken has no body here, and comes again.
		if r.Signed && json.Unmarshal([]byte(r.Body), &body) == nil && body.Data != nil {
			return consider(r.OccurredAt, r.UpdatedAt, body.Data)
		}
		return nil
	})
	return last, err
}

// updatedAtOf reads updated_at of the data of an event; zero if it has none.
func updatedAtOf(data json.RawMessage) time.Time {
	var d struct {
		UpdatedAt time.Time `json:"updated_at"`
	}
	if json.Unmarshal(data, &d) != nil {
		return time.Time{}
	}
	return d.UpdatedAt
}

// feedOf hands over the events of a ticket since what was dealt with.
func (p *Poller) feedOf(ctx context.Context, c Change, take func(*client.Event) error) error {
	for cursor, more := "", true; more; {
		var page *client.EventPage
		err, ended := p.caller.call(ctx, new(Poll), p.show, func(ctx context.Context) (err error) {
			page, err = p.caller.api.Events(ctx, cursor, client.EventFilter{TicketID: c.Ticket, Since: c.Previous})
			return err
		})
		if err := errors.Join(err, ended); err != nil {
			return fmt.Errorf("what happened before the receiver's turn: %w", err)
		}
		for i := range page.Data {
			if err := take(&page.Data[i]); err != nil {
				return err
			}
		}
		more = page.HasMore && page.NextCursor != cursor
		cursor = page.NextCursor
	}
	return nil
}

// receiptsOf hands over what the receiver got about a ticket.
func (p *Poller) receiptsOf(c Change, take func(*Receipt) error) error {
	f, err := os.Open(filepath.Join(p.cfg.Dir, RecordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the record: %w", err)
	}
	defer f.Close()
	for e, err := range NewReader(f).Entries() {
		if err != nil {
			return err
		}
		if e.Receipt != nil && e.Receipt.Ticket == c.Ticket {
			if err := take(e.Receipt); err != nil {
				return err
			}
		}
	}
	return nil
}
