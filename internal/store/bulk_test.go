package store

import (
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestBulk(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"webhooks, all or none":     allOrNone,
		"deliveries become history": giveUp,
	})
}

// allOrNone: the webhooks made at once are webhooks like any other, and a batch
// with a mistake or one too many leaves nothing behind.
func allOrNone(t *testing.T, open opener) {
	d := newDesk(t, open(t, func(c *Config) { c.MaxWebhooks = 4 }), "acme")
	broken := spec()
	broken.Method = "GET"
	err := d.CreateWebhooks(t.Context(), start(), d.Actor, []delivery.Spec{spec(), broken})
	wantKind(t, "an invalid spec", err, fault.Invalid)
	err = d.CreateWebhooks(t.Context(), start(), d.Actor, []delivery.Spec{spec(), spec(), spec(), spec(), spec()})
	wantKind(t, "one too many", err, fault.Conflict)
	if _, n, err := d.Webhooks(t.Context(), d.TenantID, WebhookQuery{Page: 1}); n != 0 || err != nil {
		t.Fatalf("%d webhooks are left behind, %v", n, err)
	}
	if err := d.CreateWebhooks(t.Context(), start(), d.Actor, []delivery.Spec{spec(), spec(), spec(), spec()}); err != nil {
		t.Fatal(err)
	}
	d.create(start(), d.draft("Printer"))
	if b := must(d.Backlog(t.Context(), start()))(t); b.Pending != 4 {
		t.Errorf("an event is owed to %d of them, want 4", b.Pending)
	}
	list, _, err := d.Webhooks(t.Context(), d.TenantID, WebhookQuery{Page: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range list {
		if s := must(d.Secrets(t.Context(), start(), d.TenantID, w.WebhookID))(t); len(s.Current) != 43 {
			t.Errorf("webhook %s has a secret of %d characters", w.WebhookID, len(s.Current))
		}
	}
}

// giveUp: what was given up is like what a switched-off webhook gives up, and
// the rest stays owed.
func giveUp(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	l := d.hook(start())
	for i := range 5 {
		d.create(start().Add(time.Duration(i)*time.Second), d.draft("Printer"))
	}
	now := start().Add(time.Minute)
	if n := must(d.GiveUp(t.Context(), now, 3))(t); n != 3 {
		t.Errorf("gave up %d, want 3", n)
	}
	log, n, err := d.Deliveries(t.Context(), d.TenantID, l.hook.WebhookID, DeliveryQuery{Page: 1})
	if n != 5 || err != nil {
		t.Fatalf("%d rows in the log, %v, want 5", n, err)
	}
	for i, row := range log { // newest first
		if i < 2 {
			if row.Status != delivery.Pending {
				t.Errorf("row %d is %s, want pending", i, row.Status)
			}
			continue
		}
		if row.Status != delivery.Abandoned || row.WaitReason != delivery.WaitWebhookDisabled || !row.CompletedAt.Equal(now) {
			t.Errorf("row %d is %s for %q at %v", i, row.Status, row.WaitReason, row.CompletedAt)
		}
	}
	if n := must(d.GiveUp(t.Context(), now, 3))(t); n != 2 {
		t.Errorf("gave up %d more, want 2", n)
	}
}
