package store

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// TestDeliveryPlans asks the database how it runs the statements of webhooks and
// deliveries. The queue and the log grow without bound, so none of them is read
// as a whole but by the few statements that are about all of it.
func TestDeliveryPlans(t *testing.T) {
	t.Parallel()
	d := newDesk(t, openAt(t, place{dir: t.TempDir()}, guide, mails), "acme")
	useQueue(t, d)
	texts := map[string]bool{}
	d.stmts.Range(func(q, _ any) bool { texts[q.(string)] = true; return true })
	if err := d.do(t.Context(), func(x *tx) error {
		for q := range x.w.stmts {
			texts[q] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ours := regexp.MustCompile(`\b(deliveries|mail_outbox|webhooks|webhook_health|events|idempotency_keys|replay_jobs|disabled_periods)\b`)
	checked := 0
	for q := range texts {
		if strings.HasPrefix(strings.TrimSpace(q), "insert") || !ours.MatchString(q) {
			continue
		}
		checked++
		for _, step := range plan(t, d.Store, q) {
			if scans(step) && !aboutAll(q, step) || walksLog(q, step) {
				t.Errorf("%q in\n%s", step, q)
			}
			if strings.Contains(q, "limit") && strings.Contains(step, "TEMP B-TREE FOR ORDER BY") {
				t.Errorf("reads all to return some: %q in\n%s", step, q)
			}
		}
	}
	if checked < 45 {
		t.Errorf("only %d statements were checked", checked)
	}
}

// aboutAll reports whether a statement is meant to read a whole index: the
// partial ones of what is owed, or one entry per webhook.
func aboutAll(q, step string) bool {
	switch {
	case slices.Contains([]string{"SCAN c", "SCAN chain", "SCAN n"}, step): // rows of a bounded subquery, see TicketEvents and Queue
		return true
	case strings.Contains(q, "order by tenant_id, webhook_id"): // RunningReplays
		return strings.HasSuffix(step, "replay_jobs_running")
	case strings.Contains(q, "where lease_until is not null"): // ReleaseAll: what is leased, not what is owed
		return strings.HasSuffix(step, "deliveries_leased")
	case strings.Contains(q, "lease_until is not null"), // ReleaseAll
		strings.HasPrefix(q, "select min(case when lease_until"): // NextMail
		return strings.HasSuffix(step, "deliveries_due") || strings.HasSuffix(step, "mail_outbox_due")
	case strings.Contains(q, "(select count(*) from mail_outbox where"): // Backlog
		return strings.HasSuffix(step, "mail_outbox_due") || strings.HasSuffix(step, "deliveries_queue") || strings.HasPrefix(step, "SCAN w")
	}
	return strings.HasPrefix(q, "select w.tenant_id, w.webhook_id from webhooks w") && // DueLanes
		strings.HasPrefix(step, "SCAN w USING COVERING INDEX")
}

// walksLog reports whether a step reads all deliveries of a tenant, or all of a
// webhook's log although it neither wants their order nor stops at the first.
func walksLog(q, step string) bool {
	if strings.HasSuffix(step, "deliveries_log (tenant_id=? AND webhook_id=?)") {
		return !strings.Contains(q, "order by coalesce(attempted_at, due_at) desc") && !strings.Contains(q, "not exists")
	}
	counted := strings.Contains(q, "status = 'pending' limit $2) n") // Owed stops counting
	return strings.Contains(step, "deliveries") && strings.HasSuffix(step, "(tenant_id=?)") && !counted
}

// TestLogPlans asks for the plans of the log's pages.
func TestLogPlans(t *testing.T) {
	t.Parallel()
	s := openAt(t, place{dir: t.TempDir()})
	for _, c := range []struct {
		name  string
		q     DeliveryQuery
		index string
	}{
		{"all", DeliveryQuery{}, "deliveries_log (tenant_id=? AND webhook_id=?)"},
		{"by status", DeliveryQuery{Status: "failed"}, "deliveries_log (tenant_id=? AND webhook_id=?)"},
		{"by time", DeliveryQuery{From: new(start()), To: new(start())}, "deliveries_log (tenant_id=? AND webhook_id=? AND <expr>>? AND <expr><?)"},
		{"by answer", DeliveryQuery{Code: "5xx", ErrorType: "status"}, "deliveries_log (tenant_id=? AND webhook_id=?)"},
		{"by event", DeliveryQuery{EventID: "x"}, "deliveries_event (tenant_id=? AND event_id=? AND webhook_id=?)"},
	} {
		w := must(c.q.where("tenant", "webhook"))(t)
		steps := strings.Join(plan(t, s, logRows+w.String()+c.q.order()+w.page(1, 25)), "\n")
		if !strings.Contains(steps, c.index) || strings.Contains(steps, "TEMP B-TREE") && c.q.EventID == "" {
			t.Errorf("%s:\n%s", c.name, steps)
		}
		if steps := strings.Join(plan(t, s, logCount+w.String()), "\n"); !strings.Contains(steps, c.index) {
			t.Errorf("count %s:\n%s", c.name, steps)
		}
	}
}

// TestChosenEventsPlan: events that were chosen are found by their ids, and not by
// reading the feed from the first to the last of them.
func TestChosenEventsPlan(t *testing.T) {
	t.Parallel()
	s := openAt(t, place{dir: t.TempDir()})
	for _, q := range []string{walkChosen(), spanChosen()} {
		if steps := strings.Join(plan(t, s, q), "\n"); !strings.Contains(steps, "events_id (tenant_id=? AND event_id=?)") || strings.Contains(steps, "events_feed") {
			t.Errorf("%s", steps)
		}
	}
}

// useQueue runs the statements that have a fixed text.
func useQueue(t *testing.T, d *desk) {
	t.Helper()
	ctx := t.Context()
	l := d.hook(start())
	i := idempotency(d, "k", "body")
	must(d.CreateTicket(WithIdempotency(ctx, i), start(), d.Actor, d.draft("one")))(t)
	if _, _, _, err := d.Answer(ctx, i); err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Time{{}, start().Add(-time.Hour)} {
		must(d.DueLanes(ctx, after, start()))(t)
	}
	useConsole(t, l, l.log(DeliveryQuery{})[0].TicketID)
	b := l.claimOne(start())
	if err := d.Release(ctx, b.Deliveries); err != nil {
		t.Fatal(err)
	}
	if err := d.ReleaseAll(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.SetWait(ctx, l.lane(), delivery.WaitRateLimited, nil); err != nil {
		t.Fatal(err)
	}
	b = l.claimOne(start())
	l.answer(b, status(500), start())
	lost := must(l.retry(start(), b.Deliveries[0].DeliveryID))(t)
	m := must(l.retry(start().Add(2*lease), lost.Deliveries[0].DeliveryID))(t)
	must(d.DisableOverdue(ctx, start().Add(2*time.Hour)))(t)
	l.answer(m, status(200), start().Add(2*lease))
	l.fail(start().Add(3 * time.Hour))
	must(d.DisableOverdue(ctx, start().Add(30*time.Hour)))(t)
	out := d.outbox(start().Add(30 * time.Hour))
	if err := d.MailSent(ctx, start(), out[0]); err != nil {
		t.Fatal(err)
	}
	if err := d.MailFailed(ctx, start(), out[1], "x", new(start())); err != nil {
		t.Fatal(err)
	}
	if err := d.MailFailed(ctx, start(), d.outbox(start().Add(30 * time.Hour))[0], "x", nil); err != nil {
		t.Fatal(err)
	}
	d.create(start().Add(31*time.Hour), d.draft("missed"))
	d.remindedAt(start().Add(30*time.Hour+week), 1)
	useReplays(t, l, start().Add(32*time.Hour))
	must(d.RotateSecret(ctx, start(), d.TenantID, l.hook.WebhookID, time.Hour))(t)
	if err := d.PromoteSecret(ctx, start(), d.TenantID, l.hook.WebhookID); err != nil {
		t.Fatal(err)
	}
	must(d.Secrets(ctx, start(), d.TenantID, l.hook.WebhookID))(t)
	must(d.Delivery(ctx, d.TenantID, l.hook.WebhookID, b.Deliveries[0].DeliveryID))(t)
	must(d.Store.Analytics(ctx, d.TenantID, "", start(), start()))(t)
	must(d.Store.Backlog(ctx, start()))(t)
	for _, next := range []func() error{
		func() error { _, _, err := d.NextDue(ctx, start()); return err },
		func() error { _, _, err := d.NextDisable(ctx, start()); return err },
		func() error { _, _, err := d.NextMail(ctx); return err },
		func() error { return d.DeleteWebhook(ctx, start(), d.Actor, l.hook.WebhookID) },
	} {
		if err := next(); err != nil {
			t.Fatal(err)
		}
	}
	d.sweep(start().Add(2000 * time.Hour))
}

// useReplays switches the webhook of a line on, after it has missed something.
func useReplays(t *testing.T, l *line, now time.Time) {
	t.Helper()
	ctx, id := t.Context(), l.hook.WebhookID
	for range 2 {
		if _, missed, _, err := l.Missed(ctx, now, l.TenantID, id, 1, 10); err != nil || len(missed) == 0 {
			t.Fatalf("missed %v, %v", missed, err)
		}
		if l.current().IsActive {
			break
		}
		l.active(now, true, false)
	}
	l.active(now, false, false)
	l.active(now, true, true)
	q := ReplayQuery{Since: start(), Until: &now, Only: ReplayAll}
	must(l.CountReplay(ctx, now, l.TenantID, id, q))(t)
	for range 2 {
		must(l.StartReplay(ctx, now, l.TenantID, id, q))(t)
	}
	r := must(l.ReplayNext(ctx, now, l.TenantID, must(l.RunningReplays(ctx))(t)[0].ReplayID, 1))(t)
	must(l.Replay(ctx, l.TenantID, id, r.ReplayID))(t)
	if _, _, err := l.Replays(ctx, l.TenantID, id, 1, 10); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.DueIn(ctx, now, l.lane(), 10); err != nil {
		t.Fatal(err)
	}
	must(l.CancelReplay(ctx, now, l.TenantID, id, r.ReplayID))(t)
	q = ReplayQuery{EventIDs: []string{l.log(DeliveryQuery{})[0].EventID}, Only: ReplayAll}
	must(l.CountReplay(ctx, now, l.TenantID, id, q))(t)
	r = must(l.StartReplay(ctx, now, l.TenantID, id, q))(t)
	must(l.ReplayNext(ctx, now, l.TenantID, r.ReplayID, 1))(t)
	must(l.CancelReplay(ctx, now, l.TenantID, id, must(l.StartReplay(ctx, now, l.TenantID, id, q))(t).ReplayID))(t)
}
