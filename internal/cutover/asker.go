package cutover

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// asker asks the API until there is an answer. It is for what has to come to an
// end, where the poller has its next round. Used by one goroutine.
type asker struct {
	*caller
	show     func(what string) // before a wait; may be nil
	requests int
	answered bool
	clock    time.Time // the server's, with the last answer; to the second
}

// How long a server that does not answer any more is waited for, altogether some
// minutes. After that a later run goes on. One that cannot be reached to begin with
// is not waited for: whoever typed its address wants to know.
const (
	askTries   = 10
	firstReask = time.Second
	lastReask  = 30 * time.Second
)

func newAsker(url, key string, h *http.Client, share float64, now func() time.Time) (*asker, error) {
	c, err := newCaller(url, key, h, share, 0, "ticketwire-backfill", now)
	return &asker{caller: c}, err
}

// ask makes a request with send, within the budget, until it is answered. Its
// error is the context's, an answer that waiting does not mend, or the last
// failure of several.
func (a *asker) ask(ctx context.Context, send func(context.Context) error) error {
	wait := firstReask
	for try := 1; ; {
		var p Poll
		err, ended := a.call(ctx, &p, a.waits, send)
		if ended != nil {
			return ended
		}
		a.requests++
		if !p.Date.IsZero() {
			a.clock = p.Date
		}
		if err == nil {
			a.answered = true
			return nil
		}
		answer, _ := errors.AsType[*client.Error](err)
		a.answered = a.answered || answer != nil
		switch f := p.Failure; {
		case f == Network && !a.answered:
			return err
		case f == RateLimited, answer != nil && answer.Status == http.StatusServiceUnavailable && answer.RetryAfter > 0:
			continue // the budget waits
		case f != ServerError && f != Network && f != Timeout, try == askTries:
			return err
		}
		if a.show != nil {
			a.show("no answer: " + err.Error())
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		try++
		wait = min(2*wait, lastReask)
	}
}

// waits says that the budget is spent.
func (a *asker) waits(until time.Time) {
	if d := until.Sub(a.now()); a.show != nil && d > time.Second {
		a.show("waits " + d.Round(time.Second).String() + " for the rate limit of the key")
	}
}

// hasFeed finds out whether the server has an event feed, and with it that it is
// Ticketwire.
func (a *asker) hasFeed(ctx context.Context) (bool, error) {
	err := a.ask(ctx, func(ctx context.Context) error {
		_, err := a.api.EventsEnd(ctx)
		return err
	})
	if feedless(err) {
		return false, nil
	}
	return err == nil, err
}

// feedless reports whether the answer to a question for events is that of a server
// that has no feed. AlgaPSA refuses the tenants of its smaller product every path
// that is not on their list (contract section 1.1).
func feedless(err error) bool {
	answer, is := errors.AsType[*client.Error](err)
	if !is {
		return false
	}
	switch answer.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return answer.Code == "PRODUCT_ACCESS_DENIED"
}

// changed hands over every ticket whose updated_at is from or later, in that
// order, and returns the server's clock when the walk began. A ticket that
// changes meanwhile comes again.
func (a *asker) changed(ctx context.Context, from time.Time, visit func(*client.Ticket, time.Time) error) (clock time.Time, err error) {
	shown := map[string]time.Time{}
	for w := (walk{from: from, page: 1}); !w.done; {
		var page *client.TicketPage
		if err := a.ask(ctx, func(ctx context.Context) (err error) {
			page, err = a.api.TicketsPage(ctx, w.filter(), w.page, listPage)
			return err
		}); err != nil {
			return clock, err
		}
		if clock.IsZero() {
			clock = a.clock
		}
		fresh := false
		for i := range page.Data {
			t := &page.Data[i]
			at, err := changedAt(t)
			if err != nil {
				return clock, err
			}
			if shown[t.TicketID].Equal(at) {
				continue
			}
			shown[t.TicketID], fresh = at, true
			if err := visit(t, at); err != nil {
				return clock, err
			}
		}
		last, err := lastUpdate(page.Data, !w.one)
		if err != nil {
			return clock, err
		}
		w = w.next(last, fresh, page.HasNext)
	}
	if clock.IsZero() {
		clock = a.now()
	}
	return clock, nil
}
