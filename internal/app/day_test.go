package app_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// The guide: an initial request and five retries at 1 m, 5 m, 30 m, 2 h and
// 12 h, then abandoned (contract D1, section 4.9).
func TestScheduleOfAFailingReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.answer(http.StatusInternalServerError)
		hook := b.createWebhook(nil)
		start := time.Now()
		b.createTicket()
		sleep(20 * time.Hour)

		hits := b.seen(webhook.TicketCreated)
		want := []time.Duration{0, 1, 6, 36, 156, 876}
		if len(hits) != len(want) {
			t.Fatalf("%d attempts, want %d", len(hits), len(want))
		}
		for i, h := range hits {
			if got := h.at.Sub(start).Round(time.Second); got != want[i]*time.Minute {
				t.Errorf("attempt %d after %s, want %s", i+1, got, want[i]*time.Minute)
			}
			if h.attempt != string(rune('1'+i)) {
				t.Errorf("attempt %d is numbered %s", i+1, h.attempt)
			}
			if h.sigErr != nil {
				t.Errorf("attempt %d: %v", i+1, h.sigErr)
			}
			if h.event != hits[0].event || string(h.body) != string(hits[0].body) {
				t.Errorf("attempt %d is not a repetition of the first", i+1)
			}
		}
		log := b.deliveries(hook, "event_type=ticket.created")
		if len(log) != len(want) {
			t.Fatalf("%d rows in the log, want %d", len(log), len(want))
		}
		for i, row := range log { // newest first
			status := "retrying"
			if i == 0 {
				status = "abandoned"
			}
			if row["status"] != status || row["attempt_number"] != float64(len(want)-i) {
				t.Errorf("row %d: %v attempt %v, want %s attempt %d", i, row["status"], row["attempt_number"], status, len(want)-i)
			}
		}
	})
}

// The guide's promise: an outage of 14 hours loses nothing.
func TestReceiverBackAfterFourteenHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.answer(http.StatusServiceUnavailable)
		hook := b.createWebhook(nil)
		b.createTicket()
		sleep(14 * time.Hour)
		b.answer(http.StatusOK)
		sleep(time.Hour)

		hits := b.seen(webhook.TicketCreated)
		if len(hits) != 6 {
			t.Fatalf("%d attempts, want 6", len(hits))
		}
		if log := b.deliveries(hook, "event_type=ticket.created&status=delivered"); len(log) != 1 || log[0]["attempt_number"] != 6.0 {
			t.Errorf("the sixth attempt should be delivered: %v", log)
		}
	})
}

// A whole day of failures disables the webhook and mails its creator once; the
// events of the time are in the feed; re-enabling starts a new streak (the
// guide, contract sections 4.11 and P8).
func TestADayOfFailuresDisables(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.answer(http.StatusInternalServerError)
		hook := b.createWebhook(nil)
		id := b.createTicket()
		for n := range 23 {
			sleep(time.Hour)
			b.retitle(id, n)
		}
		sleep(59 * time.Minute)
		if w := b.call("GET", "/webhooks/"+hook, nil)["data"].(map[string]any); w["is_active"] != true {
			t.Fatal("disabled before 24 hours of failures")
		}
		sleep(2 * time.Minute)
		w := b.call("GET", "/webhooks/"+hook, nil)["data"].(map[string]any)
		if w["is_active"] != false || w["auto_disabled_at"] == nil {
			t.Fatalf("not disabled after 24 hours of failures: %v", w)
		}
		sent := len(b.hits)
		for n := range 10 {
			b.retitle(id, 100+n)
			sleep(time.Hour)
		}
		if got := len(b.hits); got != sent {
			t.Errorf("%d requests while disabled", got-sent)
		}
		if pending := b.deliveries(hook, "status=pending"); len(pending) != 0 {
			t.Errorf("%d pending rows of a disabled webhook", len(pending))
		}
		b.checkMails(t)
		feed := b.call("GET", "/events?limit=1000&types=ticket.updated", nil)["data"].([]any)
		if len(feed) != 33 {
			t.Errorf("%d updates in the feed, want 33", len(feed))
		}

		// Enabled again: one failure is the first of a new streak.
		b.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": true})
		b.retitle(id, 200)
		sleep(time.Minute / 2)
		w = b.call("GET", "/webhooks/"+hook, nil)["data"].(map[string]any)
		if w["is_active"] != true || w["auto_disabled_at"] != nil {
			t.Errorf("a failure right after re-enabling disabled again: %v", w)
		}
		b.answer(http.StatusOK)
		sleep(2 * time.Minute)
		if log := b.deliveries(hook, "status=delivered"); len(log) != 1 {
			t.Errorf("%d delivered after re-enabling, want 1", len(log))
		}
		b.checkMails(t)
	})
}

// checkMails wants the two warnings and exactly one mail about the disabling.
func (b *bubble) checkMails(t *testing.T) {
	t.Helper()
	disabled, warnings := 0, 0
	for _, m := range b.mailed() {
		switch {
		case !strings.Contains(m, "To: <creator@example.com>"):
			t.Errorf("a mail to somebody else:\n%s", m)
		case strings.Contains(strings.NewReplacer("=\r\n", "", "=\n", "").Replace(m), "/console/webhooks/") != app.HasConsole:
			t.Errorf("a mail without the page of the webhook:\n%s", m)
		case strings.Contains(m, "was disabled"):
			disabled++
		case strings.Contains(m, "is failing"):
			warnings++
		}
	}
	if disabled != 1 || warnings != len(delivery.DefaultPolicy().WarnAfter) {
		t.Errorf("%d mails about disabling and %d warnings, want 1 and %d", disabled, warnings, len(delivery.DefaultPolicy().WarnAfter))
	}
}

// Test deliveries never count, and a success starts the day again (RELIABILITY
// of the receiver is judged by real events only, contract W8).
func TestTestsDoNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.answer(http.StatusInternalServerError)
		hook := b.createWebhook(nil)
		for range 26 {
			b.call("POST", "/webhooks/"+hook+"/test", nil)
			sleep(time.Hour)
		}
		w := b.call("GET", "/webhooks/"+hook, nil)["data"].(map[string]any)
		if w["is_active"] != true || w["total_deliveries"] != 0.0 {
			t.Errorf("tests counted: %v", w)
		}
		id := b.createTicket()
		sleep(23*time.Hour + 58*time.Minute)
		b.answer(http.StatusOK)
		b.retitle(id, 1)
		sleep(time.Second)
		b.answer(http.StatusInternalServerError)
		sleep(2 * time.Hour)
		if w := b.call("GET", "/webhooks/"+hook, nil)["data"].(map[string]any); w["is_active"] != true {
			t.Error("disabled although a delivery succeeded in time")
		}
	})
}

// A burst beyond the rate limit waits and spends no attempt (contract section
// 4.10, W2: a burst of 1,000 lost 634 elsewhere).
func TestBurstWaitsForTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		hook := b.createWebhook(map[string]any{"event_types": []string{webhook.TicketUpdated}})
		id := b.createTicket()
		const burst = 300
		for n := range burst {
			b.retitle(id, n)
		}
		sleep(time.Second)
		if waiting := b.deliveries(hook, "status=pending"); len(waiting) == 0 || waiting[len(waiting)-1]["wait_reason"] != delivery.WaitRateLimited {
			t.Errorf("pending rows do not say that they wait for the limit: %d rows", len(waiting))
		}
		sleep(3 * time.Minute)
		hits := b.seen(webhook.TicketUpdated)
		if len(hits) != burst {
			t.Fatalf("%d of %d delivered", len(hits), burst)
		}
		for i, h := range hits {
			if h.attempt != "1" {
				t.Fatalf("an attempt was spent on waiting: %s", h.attempt)
			}
			if i >= 200 && h.at.Sub(hits[i-200].at) < 55*time.Second {
				t.Fatalf("more than the limit and one burst within a minute at %d", i)
			}
		}
	})
}

// More hanging receivers than there are requests to hang: once their breakers
// are open a healthy one is served at once, nothing of theirs is given up, and
// when they answer again everything arrives.
func TestHangingReceiversLeaveRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, func(c *app.Config) { c.InFlight, c.PerWebhook = 8, 4 })
		created := []string{webhook.TicketCreated}
		var hanging []string
		for range 3 {
			hanging = append(hanging, b.createWebhook(map[string]any{"url": "http://receiver.example/hang", "event_types": created}))
		}
		const queued = 20
		for range queued {
			b.createTicket()
		}
		sleep(time.Minute)
		b.createWebhook(map[string]any{"event_types": []string{webhook.TicketUpdated}})
		id := b.createTicket()
		for n := range 20 {
			at := time.Now()
			b.retitle(id, n)
			sleep(time.Second)
			hits := b.seen(webhook.TicketUpdated)
			if len(hits) != n+1 {
				t.Fatalf("update %d did not arrive while others hang", n)
			}
			if late := hits[n].at.Sub(at); late > 100*time.Millisecond {
				t.Fatalf("update %d came after %s", n, late)
			}
		}
		waiting := b.deliveries(hanging[0], "status=pending")
		held := 0
		for _, row := range waiting {
			if row["wait_reason"] == delivery.WaitBreakerOpen {
				held++
			}
		}
		if held == 0 {
			t.Errorf("none of %d pending rows says that the breaker is open", len(waiting))
		}
		for _, hook := range hanging {
			b.call("PUT", "/webhooks/"+hook, map[string]any{"url": "http://receiver.example/in"})
		}
		sleep(3 * time.Hour)
		for _, hook := range hanging {
			if got := b.deliveries(hook, "status=delivered"); len(got) != queued+1 {
				t.Errorf("%d of %d delivered after the receivers recovered", len(got), queued+1)
			}
		}
	})
}

// The delay before a retry counts from the end of the attempt before it: ten seconds
// without an answer do not shorten it.
func TestDelaysCountFromTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		hook := b.createWebhook(map[string]any{"url": "http://receiver.example/hang", "event_types": []string{webhook.TicketCreated}})
		b.createTicket()
		sleep(20 * time.Hour)
		log := b.deliveries(hook, "")
		policy := delivery.DefaultPolicy()
		if len(log) != 1+len(policy.Schedule) {
			t.Fatalf("%d attempts, want %d", len(log), 1+len(policy.Schedule))
		}
		at := func(n int) time.Time { // newest first
			made, err := time.Parse(time.RFC3339Nano, log[len(log)-n]["attempted_at"].(string))
			if err != nil {
				t.Fatal(err)
			}
			return made
		}
		for i, delay := range policy.Schedule {
			want := policy.Timeout + delay
			if got := at(i + 2).Sub(at(i + 1)); got < want || got > want+time.Second {
				t.Errorf("attempt %d came %s after the one before, want %s", i+2, got, want)
			}
		}
	})
}

// One event for fifty webhooks that fail is fifty chains, each with its own attempts
// and its own end: those that recover do not help or harm the others.
func TestFiftyChainsOfOneEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.answer(http.StatusInternalServerError)
		var hooks []string
		for range 50 {
			hooks = append(hooks, b.createWebhook(map[string]any{"event_types": []string{webhook.TicketCreated}}))
		}
		b.createTicket()
		sleep(7 * time.Minute) // three attempts each
		for _, hook := range hooks[:25] {
			b.call("PUT", "/webhooks/"+hook, map[string]any{"url": "http://receiver.example/hang"})
		}
		b.answer(http.StatusOK)
		sleep(20 * time.Hour)
		for i, hook := range hooks {
			rows, last := 4, "delivered"
			if i < 25 {
				rows, last = 6, "abandoned"
			}
			log := b.deliveries(hook, "")
			if len(log) != rows || log[0]["status"] != last || log[0]["attempt_number"] != float64(rows) {
				t.Fatalf("webhook %d has %d rows, the last is %v; want %d, %s", i, len(log), log[0], rows, last)
			}
		}
	})
}

// An edit during a backoff holds from the next attempt on: the address, the secret,
// and the end of the webhook. Its log stays.
func TestEditsDuringABackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.answer(http.StatusInternalServerError)
		hook := b.createWebhook(map[string]any{"url": "http://receiver.example/hang", "event_types": []string{webhook.TicketCreated}})
		b.createTicket()
		sleep(30 * time.Second)
		b.call("PUT", "/webhooks/"+hook, map[string]any{"url": "http://receiver.example/in"})
		rotated := b.call("POST", "/webhooks/"+hook+"/secret/rotate", nil)["data"].(map[string]any)["signing_secret"].(string)
		b.mu.Lock()
		b.secret = rotated
		b.mu.Unlock()
		sleep(time.Minute)
		hits := b.seen(webhook.TicketCreated)
		if len(hits) != 1 || hits[0].attempt != "2" || hits[0].sigErr != nil {
			t.Fatalf("the second attempt should come to the new address, with the new secret: %+v", hits)
		}
		row := b.deliveries(hook, "status=pending")[0]
		owner := ticket.Actor{TenantID: b.tenant.TenantID, UserID: b.tenant.UserID}
		if err := b.app.Store().DeleteWebhook(t.Context(), time.Now(), owner, hook); err != nil {
			t.Fatal(err)
		}
		sleep(20 * time.Hour)
		if n := len(b.seen(webhook.TicketCreated)); n != 1 {
			t.Errorf("%d requests to a webhook that was deleted", n-1)
		}
		d, err := b.app.Store().Delivery(t.Context(), b.tenant.TenantID, hook, row["delivery_id"].(string))
		if err != nil || d.Status != delivery.Abandoned {
			t.Errorf("what was owed is %s (%v), want abandoned", d.Status, err)
		}
	})
}

// A mail server that is away for two days gets each mail when it is back, once.
func TestMailsOutlastTheirServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.answer(http.StatusGone)
		b.createWebhook(map[string]any{"event_types": []string{webhook.TicketCreated}})
		b.refuseMail(true)
		b.createTicket()
		sleep(48 * time.Hour)
		if n := len(b.mailed()); n != 0 {
			t.Fatalf("%d mails were taken", n)
		}
		b.refuseMail(false)
		sleep(12 * time.Hour)
		if mails := b.mailed(); len(mails) != 1 || !strings.Contains(mails[0], "was disabled") {
			t.Errorf("mailed %q", mails)
		}
	})
}
