package dispatch

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/vault"
	"github.com/ticketwire/ticketwire/test/postgres"
)

// A claim may come back when the lease of the node is over, as after the process stood
// still: somebody else sends that by then.
func TestNothingIsSentOutOfOffice(t *testing.T) {
	t.Parallel()
	v, err := vault.New(make([]byte, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Config{DatabaseURL: postgres.Start(t), Now: time.Now, Vault: v})
	if err != nil {
		t.Fatal(err)
	}
	client := egress.New(egress.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	var sent atomic.Int32
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent.Add(1) }))
	t.Cleanup(func() {
		receiver.Close()
		client.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	e := New(Config{Store: st, Client: client, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	var target store.Target
	target.URL, target.Method, target.VerifySSL = receiver.URL, http.MethodPost, true
	target.Secrets.Current = "secret"
	var c store.Claimed
	c.TenantID, c.WebhookID, c.DeliveryID, c.EventID = store.NewID(), store.NewID(), store.NewID(), store.NewID()
	for _, in := range []bool{false, true} {
		if in {
			if err := st.Join(t.Context(), e.Owner()); err != nil {
				t.Fatal(err)
			}
		}
		e.deliver(target, c)
		if got := sent.Swap(0) == 1; got != in {
			t.Errorf("in office: %t, sent: %t", in, got)
		}
	}
}

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
