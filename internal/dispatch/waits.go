package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

// wait is why the rows of a lane that are due before until wait. The zero wait
// says that they do not.
type wait struct {
	reason string // one of delivery.Wait...
	until  time.Time
}

// waitShown is how long a reason counts; while it holds, it is told again after
// half of that.
const waitShown = time.Minute

// waits carries to the store why lanes wait, so that the API can show it. Only
// the newest reason of a lane counts. It is best effort: the reason is for
// people, and the next change of state writes it again.
type waits struct {
	bell chan struct{}
	mu   sync.Mutex
	news map[store.Lane]wait
}

func newWaits() *waits {
	return &waits{bell: make(chan struct{}, 1), news: map[store.Lane]wait{}}
}

// note never blocks.
func (w *waits) note(id store.Lane, why wait) {
	w.mu.Lock()
	w.news[id] = why
	w.mu.Unlock()
	nudge(w.bell)
}

// tellWaits writes the news until the engine stops.
func (e *Engine) tellWaits() {
	for {
		select {
		case <-e.stop:
			return
		case <-e.waits.bell:
		}
		e.waits.mu.Lock()
		news := e.waits.news
		e.waits.news = map[store.Lane]wait{}
		e.waits.mu.Unlock()
		for id, why := range news {
			var until *time.Time
			if why.reason != "" {
				until = &why.until
			}
			if err := e.cfg.Store.SetWait(context.Background(), id, why.reason, until); err != nil {
				e.cfg.Log.Warn("could not note why a webhook waits", "tenant", id.TenantID, "webhook", id.WebhookID, "error", err)
			}
		}
	}
}
