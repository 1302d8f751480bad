package app_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/webhook"
)

// While a webhook stays disabled its creator is mailed on the minute, over restarts
// and with one mail after an outage of ours; enabling it ends that.
func TestRemindersWhileDisabled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const every = 7*time.Hour + 3*time.Minute // no multiple of what the engine looks after anyway
		b := openBubble(t, func(c *app.Config) { c.Policy.RemindEvery, c.Retention = every, 30*time.Hour })
		b.answer(http.StatusGone)
		hook := b.createWebhook(map[string]any{"event_types": []string{webhook.TicketCreated}})
		b.createTicket()
		sleep(time.Second)
		b.reminded(t, 0)
		if mails := b.mailed(); len(mails) != 1 || !strings.Contains(mails[0], "was disabled") {
			t.Fatalf("mailed %q", mails)
		}
		off, err := time.Parse(time.RFC3339Nano, b.call("GET", "/webhooks/"+hook, nil)["data"].(map[string]any)["disabled_at"].(string))
		if err != nil {
			t.Fatal(err)
		}
		until := func(n int, more time.Duration) { sleep(time.Until(off.Add(time.Duration(n)*every + more))) }
		b.createTicket()
		b.createTicket()
		until(1, -time.Second)
		b.reminded(t, 0)
		until(1, time.Second)
		m := b.reminded(t, 1)
		for _, part := range []string{
			"To: <creator@example.com>", "can be replayed: 2\r\n", "will be deleted at 2000-01-02T06:00:01.0",
			"PUT http://desk.example/api/v1/webhooks/" + hook, `"replay_missed": true`,
		} {
			if !strings.Contains(m, part) {
				t.Errorf("the mail lacks %q:\n%s", part, m)
			}
		}
		b.restart(t, time.Minute)
		sleep(time.Hour)
		b.reminded(t, 1)
		b.restart(t, 2*every) // until between the third and the fourth
		sleep(time.Minute)
		b.reminded(t, 2)
		until(4, -time.Second)
		b.reminded(t, 2)
		until(4, time.Second)
		b.reminded(t, 3)
		until(5, time.Second)
		if m = b.reminded(t, 4); !strings.Contains(m, "is deleted and cannot be replayed") || !strings.Contains(m, "This is the last reminder.") {
			t.Errorf("the last reminder is\n%s", m)
		}
		until(20, 0)
		b.reminded(t, 4)

		// The next outage is reminded of until somebody ends it.
		b.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": true})
		b.createTicket()
		sleep(every + time.Minute)
		b.reminded(t, 5)
		b.answer(http.StatusOK)
		b.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": true})
		sleep(3 * every)
		b.reminded(t, 5)
	})
}

// restart stops the service and starts it again on its data after a while.
func (b *bubble) restart(t *testing.T, down time.Duration) {
	t.Helper()
	if err := b.app.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.api.CloseIdleConnections()
	sleep(down)
	b.begin()
}

// reminded wants so many reminders up to now, and returns the last.
func (b *bubble) reminded(t *testing.T, want int) (last string) {
	t.Helper()
	n := 0
	for _, m := range b.mailed() {
		m = strings.NewReplacer("=\r\n", "", "=3D", "=").Replace(m)
		if strings.Contains(m, "is still disabled") {
			last = m
			n++
		}
	}
	if n != want {
		t.Fatalf("%v: %d reminders, want %d", time.Since(b.start), n, want)
	}
	return last
}
