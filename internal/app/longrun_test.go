package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/webhook"
)

// Days with more than 500 changes, in which everything is broken that can be: the
// report says of every change and every event what really became of it, which the
// feed, the wire and the notes of the faults know.
func TestLongRunIsCountedRight(t *testing.T) {
	t.Parallel()
	for n, watch := range []int{0, 4} { // by the list, and one by one
		if testing.Short() && n > 0 {
			continue // a receiver of an hour is slow enough under the race detector
		}
		t.Run(fmt.Sprintf("seed=%d,watch=%d", *seed+uint64(n), watch), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := openPipelines(t, *seed+uint64(n), watch, 2*time.Minute)
				if testing.Short() {
					p.hour()
				} else {
					p.days()
				}
				y := p.judge()
				equal(t, "lost", y.report.Recovery.Lost, y.lost())
				equal(t, "recovered before the backfill", y.report.Recovery.Recovered, 0)

				// What was lost is brought, and counts as lost all the same.
				p.backfill()
				p.agrees(t)
				y = p.judge()
				equal(t, "lost", y.report.Recovery.Lost, y.lost())
				equal(t, "recovered", y.report.Recovery.Recovered, y.lost())
				c := y.report.Coverage
				t.Logf("%d changes with %d events: of %d that the poller saw and webhooks owed, %d missed, %d late; %d while something was off; recall %.1f %% and %.1f %%; %d lost, %d of them brought by the backfill; wrong: 0",
					p.made, len(y.events), c.Eligible, c.Missed, y.report.Changes(cutover.PollerFirstR), y.report.Blind.Exposed,
					y.report.Recall.Poller*100, y.report.Recall.Webhook*100, y.lost(), y.report.Recovery.Recovered)
				if t.Failed() {
					var text bytes.Buffer
					if err := y.report.WriteText(&text); err != nil {
						t.Fatal(err)
					}
					t.Log(text.String())
				}
			})
		})
	}
}

var seed = flag.Uint64("seed", 1, "of TestLongRunIsCountedRight, which runs with this one and the next")

// days is the run: one fault after the other, with changes all the time.
func (p *pipelines) days() {
	p.work(3*time.Hour, 60)

	// The poller is told to wait, then gets no answers.
	from := time.Now()
	p.breaks(answers(http.StatusTooManyRequests, "Retry-After", "120"))
	p.work(15*time.Minute, 10)
	p.breaks(answers(http.StatusServiceUnavailable))
	p.work(15*time.Minute, 10)
	p.breaks(nil)
	p.blind = append(p.blind, cut{from, time.Now()})
	p.work(time.Hour, 30)

	// The first attempts of half of the events fail in one way or another.
	p.stands(func(_ webhook.Key, attempt int) int {
		if attempt > 4 || p.luck(2) == 0 {
			return 0
		}
		return []int{http.StatusInternalServerError, http.StatusServiceUnavailable, hang, drop}[p.luck(4)]
	})
	p.work(2*time.Hour, 60)
	p.stands(nil)
	p.work(time.Hour, 30)

	// The receiver is restarted and killed.
	for n := range 6 {
		p.work(10*time.Minute, 8)
		down := time.Duration(2+p.random.IntN(200)) * time.Second
		if n%2 == 0 {
			p.kill(down)
		} else {
			p.restart(down)
		}
	}

	// So is the server.
	for n := range 4 {
		p.work(10*time.Minute, 8)
		p.restartServer(time.Duration(2+p.random.IntN(120))*time.Second, n%2 == 0)
	}

	// Somebody switches the webhook off, with retries under way.
	p.stands(func(webhook.Key, int) int { return http.StatusBadGateway })
	p.work(20*time.Minute, 8)
	p.stands(nil)
	p.disable()
	p.work(time.Hour, 30)
	p.enable()
	p.work(3*time.Hour, 30)

	// Nothing gets through for longer than the sender tries: what is before the
	// receiver fails, and then there is no receiver.
	p.stands(func(webhook.Key, int) int { return http.StatusServiceUnavailable })
	p.work(2*time.Hour, 50)
	p.away(14*time.Hour, 20)
	p.stands(nil)
	p.work(3*time.Hour, 40)

	// The receiver is away until the server switches the webhook off.
	p.away(27*time.Hour, 60)
	w := p.call("GET", "/webhooks/"+p.hook, nil)["data"].(map[string]any)
	off, err := time.Parse(time.RFC3339, fmt.Sprint(w["auto_disabled_at"]))
	if err != nil {
		p.t.Fatal("the server did not switch the webhook off: ", err)
	}
	p.work(time.Hour, 10)
	p.disabled = append(p.disabled, cut{from: off})
	p.enable()
	p.work(2*time.Hour, 40)
	sleep(20 * time.Minute)
	if p.made < 500 {
		p.t.Errorf("%d changes only", p.made)
	}
}

// hour is the short form: little of everything, and no receiver for most of it.
func (p *pipelines) hour() {
	p.work(6*time.Minute, 8)
	p.stands(func(_ webhook.Key, attempt int) int {
		if attempt > 2 {
			return 0
		}
		return []int{http.StatusInternalServerError, drop}[p.luck(2)]
	})
	p.work(5*time.Minute, 5)
	p.stands(nil)
	p.kill(time.Minute)
	p.work(3*time.Minute, 4)
	p.restart(time.Minute)
	p.restartServer(time.Minute, false)
	p.disable()
	p.work(6*time.Minute, 5)
	p.enable()
	p.stands(func(webhook.Key, int) int { return http.StatusServiceUnavailable })
	p.work(3*time.Minute, 4)
	p.away(14*time.Hour+40*time.Minute, 12)
	p.stands(nil)
	p.work(5*time.Minute, 5)
	sleep(6 * time.Minute)
}

// backfill brings the receiver what it missed, from the feed and as the command
// does: under the id of no webhook.
func (p *pipelines) backfill() {
	p.t.Helper()
	front := &http.Client{Transport: &http.Transport{DialContext: p.receiver.Dial}}
	defer front.CloseIdleConnections()
	b, err := cutover.OpenBackfill(cutover.BackfillConfig{
		URL: "http://desk.example", Key: p.tenant.APIKey, HTTP: p.http, Dir: p.desk.dir, WebhookID: p.hook, Budget: 0.5,
		To: "receiver", Retries: []time.Duration{time.Second}, Now: time.Now,
		Send: func(ctx context.Context, body []byte, attempt int) cutover.Reply {
			var e webhook.Envelope
			if err := json.Unmarshal(body, &e); err != nil {
				p.t.Error(err)
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://receiver.example/in", bytes.NewReader(body))
			if err != nil {
				p.t.Error(err)
				return cutover.Reply{}
			}
			for name, value := range map[string]string{
				webhook.SignatureHeader: webhook.Sign(p.secret, time.Now(), body), webhook.EventIDHeader: e.EventID, webhook.EventTypeHeader: e.EventType,
				webhook.WebhookIDHeader: "of a backfill", webhook.DeliveryIDHeader: "backfilled " + e.EventID, webhook.AttemptHeader: strconv.Itoa(attempt),
			} {
				r.Header.Set(name, value)
			}
			res, err := front.Do(r)
			if err != nil {
				return cutover.Reply{Text: err.Error()}
			}
			defer res.Body.Close()
			return cutover.Reply{OK: res.StatusCode < 300, Status: res.StatusCode, Text: res.Status}
		},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	plan, err := b.Look(p.t.Context())
	if err == nil {
		var got *cutover.BackfillReport
		if got, err = b.Run(p.t.Context(), plan); err == nil && (got.Differ != 0 || got.Synthetic != 0 || got.Source != cutover.FromFeed) {
			p.t.Errorf("the backfill came to %+v", got)
		}
	}
	if err = errors.Join(err, b.Close()); err != nil {
		p.t.Fatal(err)
	}
	sleep(6 * time.Minute)
}

// away takes the receiver away while changes go on.
func (p *pipelines) away(d time.Duration, changes int) {
	p.t.Helper()
	from := time.Now()
	p.hangUp(p.t.Context())
	p.work(d, changes)
	p.listen()
	p.down = append(p.down, cut{from, time.Now()})
}
