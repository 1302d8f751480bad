package dispatch

import (
	"log/slog"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// A lane that waits, goes to another node and comes back is one lane. What was left
// of the first would end the second while its requests are under way.
func TestALaneComesBack(t *testing.T) {
	t.Parallel()
	v, err := vault.New(make([]byte, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Vault: v})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	now := time.Now()
	s := New(Config{Store: st, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)}).sched
	id := store.Lane{TenantID: store.NewID(), WebhookID: store.NewID()}
	wait := func() *lane {
		l := s.lane(id)
		l.dirty, l.blocked = true, now.Add(time.Hour)
		s.rest(l)
		if len(s.waiting) != 1 {
			t.Fatalf("%d lanes wait", len(s.waiting))
		}
		return l
	}
	s.handOn(wait())
	if len(s.lanes) != 0 || len(s.waiting) != 0 {
		t.Errorf("%d lanes are left, %d wait", len(s.lanes), len(s.waiting))
	}
	back := wait()
	back.dirty, back.inFlight, s.inFlight = false, 1, 1 // as if it had sent
	s.scan()
	s.finish(finished{lane: id})
	if s.inFlight != 0 {
		t.Errorf("%d requests are under way", s.inFlight)
	}
}
