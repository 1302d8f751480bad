package app_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// A replay of a webhook with the limit that webhooks have (100 per minute) takes
// its time and does not bury what happens meanwhile: a new event waits for the
// few that were queued before it, not for all of the replay.
func TestNewEventsPassAReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const missed = 400
		b := openBubble(t, nil)
		id := b.createTicket()
		hook := b.createWebhook(nil)
		b.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": false})
		for n := range missed {
			b.retitle(id, n)
		}
		began := time.Now()
		on := b.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": true, "replay_missed": true})
		if n := on["meta"].(map[string]any)["replayed"]; n != float64(missed) {
			t.Fatalf("replayed %v", n)
		}
		sleep(2 * time.Minute) // the bucket is empty by now
		for n := range 5 {
			sleep(7 * time.Second)
			if due := len(b.deliveries(hook, "status=pending")); due > 4 {
				t.Errorf("%d rows wait for a webhook that takes 1.7 per second", due)
			}
			fired, before := time.Now(), len(b.seen(webhook.TicketCreated))
			b.createTicket()
			sleep(3 * time.Second)
			now := b.seen(webhook.TicketCreated)
			if len(now) != before+1 {
				t.Fatalf("new event %d waited for more than 3 s", n)
			}
			t.Logf("new event %d waited for %v", n, now[before].at.Sub(fired))
		}
		sleep(10 * time.Minute)
		got := b.seen(webhook.TicketUpdated)
		took := got[len(got)-1].at.Sub(began)
		if len(got) != missed || took < 170*time.Second || took > 200*time.Second {
			t.Errorf("%d arrived in %v; 100 at once and 100 per minute are 3 minutes", len(got), took)
		}
		seen := map[string]bool{}
		for i, h := range got {
			seen[h.event] = true
			if h.attempt != "1" || h.sigErr != nil {
				t.Errorf("request %d: attempt %s, %v", i, h.attempt, h.sigErr)
			}
		}
		if len(seen) != missed {
			t.Errorf("%d events in %d requests", len(seen), len(got))
		}
		jobs := b.call("GET", "/webhooks/"+hook+"/replays", nil)["data"].([]any)
		if r := jobs[0].(map[string]any); len(jobs) != 1 || r["status"] != "done" || fmt.Sprint(r["queued"]) != fmt.Sprint(missed) {
			t.Errorf("jobs %v", jobs)
		}
	})
}

// A replay to a receiver that does not answer adds nothing to what waits already.
func TestReplayWaitsForItsReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		id := b.createTicket()
		hook := b.createWebhook(map[string]any{"url": "http://receiver.example/hang", "rate_limit": map[string]any{"enabled": false}})
		b.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": false})
		for n := range 600 {
			b.retitle(id, n)
		}
		b.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": true})
		r := b.call("POST", "/webhooks/"+hook+"/replay", map[string]any{"since": b.start.UTC().Format(time.RFC3339)})["data"].(map[string]any)
		state := func() map[string]any {
			return b.call("GET", "/webhooks/"+hook+"/replays/"+r["replay_id"].(string), nil)["data"].(map[string]any)
		}
		sleep(5 * time.Second)
		first := state()
		sleep(20 * time.Minute)
		if now := state(); now["status"] != "running" || now["queued"].(float64) > 150 || first["queued"].(float64) < 64 {
			t.Errorf("after 5 s %v, after 20 minutes %v", first, now)
		}
		// Put right, it goes on and ends.
		b.call("PUT", "/webhooks/"+hook, map[string]any{"url": "http://receiver.example/in"})
		sleep(20 * time.Hour) // the ones that failed wait for their schedule
		if now := state(); now["status"] != "done" || now["queued"] != 600.0 {
			t.Errorf("in the end %v", now)
		}
		seen := map[string]bool{}
		for _, h := range b.seen(webhook.TicketUpdated) {
			seen[h.event] = true
		}
		if len(seen) != 600 {
			t.Errorf("%d of 600 events arrived", len(seen))
		}
	})
}
