package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// collecting runs a collector until the function it returns is called.
func (d *desk) collecting(webhookID string, since time.Time, change func(*cutover.CollectorConfig)) (stop func()) {
	d.t.Helper()
	cfg := cutover.CollectorConfig{
		URL: "http://desk.example", Key: d.tenant.APIKey, HTTP: d.http, Dir: d.dir, WebhookID: webhookID, Since: since,
		Interval: 30 * time.Second, Budget: 0.15, Timeout: 10 * time.Second, Now: time.Now,
	}
	if change != nil {
		change(&cfg)
	}
	c, err := cutover.OpenCollector(cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	synctest.Wait()
	return func() {
		d.t.Helper()
		cancel()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
		if err := c.Close(); err != nil {
			d.t.Error(err)
		}
	}
}

// collected is what the record has of a collector, each line once.
type collected struct {
	truth         map[string]cutover.Truth // by event, or by ticket and updated_at of a sweep
	deliveries    map[string][]cutover.Delivery
	subscriptions []cutover.Subscription
	gaps          []cutover.Gap
	repeats       int
}

func (d *desk) collected() collected {
	d.t.Helper()
	out := collected{truth: map[string]cutover.Truth{}, deliveries: map[string][]cutover.Delivery{}}
	for _, e := range d.record() {
		switch {
		case e.Truth != nil:
			key := e.Truth.EventID
			if key == "" {
				key = e.Truth.Ticket + e.Truth.UpdatedAt.String()
			}
			if _, was := out.truth[key]; was {
				out.repeats++
			}
			out.truth[key] = *e.Truth
		case e.Delivery != nil:
			row := *e.Delivery
			row.At = time.Time{}
			if slices.Contains(out.deliveries[row.DeliveryID], row) {
				out.repeats++
			} else {
				out.deliveries[row.DeliveryID] = append(out.deliveries[row.DeliveryID], row)
			}
		case e.Subscription != nil:
			out.subscriptions = append(out.subscriptions, *e.Subscription)
		case e.Gap != nil && e.Gap.Side == cutover.SideWebhook:
			out.gaps = append(out.gaps, *e.Gap)
		}
	}
	return out
}

// wantAll compares what was collected with the log of deliveries and the feed.
func (d *desk) wantAll(webhookID string, got collected) {
	d.t.Helper()
	events := d.call("GET", "/events?limit=1000", nil)["data"].([]any)
	if len(events) == 0 || len(got.truth) != len(events) {
		d.t.Errorf("%d events in the record, %d in the feed", len(got.truth), len(events))
	}
	for _, e := range events {
		if _, has := got.truth[e.(map[string]any)["event_id"].(string)]; !has {
			d.t.Errorf("event %v is not in the record", e)
		}
	}
	rows := d.deliveries(webhookID, "")
	if len(rows) == 0 || len(got.deliveries) != len(rows) {
		d.t.Errorf("%d deliveries in the record, %d in the log", len(got.deliveries), len(rows))
	}
	for _, row := range rows {
		states := got.deliveries[row["delivery_id"].(string)]
		if len(states) == 0 || states[len(states)-1].Status != row["status"] {
			d.t.Errorf("delivery %v is in the record as %+v", row, states)
		}
	}
}

func TestCollectorReadsWhatBothSidesCannotKnow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		hook := d.createWebhook(map[string]any{"event_filter": map[string]any{"entity_ids": []string{}}})
		id := d.createTicket()
		sleep(time.Second)
		since := d.start
		stop := d.collecting(hook, since, nil)
		sleep(time.Minute)
		d.answer(http.StatusServiceUnavailable)
		d.retitle(id, 1) // fails, and comes again when it is pending for a while
		sleep(45 * time.Second)
		got := d.collected()
		pending := 0
		for _, states := range got.deliveries {
			if states[len(states)-1].Status == "pending" {
				pending++
			}
		}
		if pending != 1 {
			t.Errorf("%d deliveries are pending in the record, want 1", pending)
		}
		d.answer(http.StatusOK)
		sleep(2 * time.Minute)
		d.breaks(answers(http.StatusBadGateway)) // no observation, and nothing is lost by it
		d.retitle(id, 2)
		sleep(5 * time.Minute)
		d.breaks(nil)
		sleep(time.Minute)
		stop()
		got = d.collected()
		d.wantAll(hook, got)
		if got.repeats > 0 {
			t.Errorf("%d lines are there twice", got.repeats)
		}
		if s := got.subscriptions; len(s) != 1 || !s[0].Active || len(s[0].EventTypes) == 0 || s[0].GivesUpAfter != (14*time.Hour+36*time.Minute).Seconds() {
			t.Errorf("subscriptions %+v", s)
		}

		// Goes on where it was; what happened meanwhile is read, the webhook noted anew.
		d.retitle(id, 3)
		sleep(20 * time.Minute)
		stop = d.collecting(hook, since, nil)
		sleep(time.Minute)
		stop()
		got = d.collected()
		d.wantAll(hook, got)
		if len(got.subscriptions) != 2 {
			t.Errorf("%d subscriptions, want one for each start", len(got.subscriptions))
		}
	})
}

// A webhook that is changed, disabled and enabled says so.
func TestCollectorNotesTheWebhook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		hook := d.createWebhook(nil)
		id := d.createTicket()
		stop := d.collecting(hook, d.start, nil)
		sleep(2 * time.Minute)
		d.call("PUT", "/webhooks/"+hook, map[string]any{
			"event_types": []string{"ticket.updated"}, "event_filter": map[string]any{"entity_ids": []string{id}},
			"retry_config": map[string]any{"schedule": []int{1000, 2000}},
		})
		sleep(2 * time.Minute)
		off := time.Now()
		d.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": false})
		sleep(35 * time.Minute)
		stop() // the time in which nobody looked counts too
		sleep(time.Hour)
		stop = d.collecting(hook, d.start, nil)
		sleep(2 * time.Minute)
		on := time.Now()
		d.call("PUT", "/webhooks/"+hook, map[string]any{"is_active": true})
		sleep(2 * time.Minute)
		stop()
		got := d.collected()
		var active []bool
		for _, s := range got.subscriptions {
			active = append(active, s.Active)
		}
		if !slices.Equal(active, []bool{true, true, false, false, true}) {
			t.Fatalf("active was %v", active)
		}
		s := got.subscriptions[1]
		if !slices.Equal(s.EventTypes, []string{"ticket.updated"}) || !slices.Equal(s.Tickets, []string{id}) || s.GivesUpAfter != 3 {
			t.Errorf("changed to %+v", s)
		}
		if s := got.subscriptions[2]; s.DisabledAt.After(off) || s.DisabledAt.Before(off.Add(-31*time.Second)) || s.Why == "" {
			t.Errorf("disabled as %+v, at %s", s, off)
		}
		// The gaps together are the time in which it was disabled, as far as looks tell.
		var end time.Time
		for i, g := range got.gaps {
			if i > 0 && !g.From.Equal(end) {
				t.Errorf("gap %d begins at %s, the one before ended at %s", i, g.From, end)
			}
			end = g.To
		}
		if len(got.gaps) < 3 || got.gaps[0].From.After(off) || end.Before(on) || end.After(on.Add(31*time.Second)) {
			t.Errorf("gaps %+v, want %s to %s", got.gaps, off, on)
		}
	})
}

// After a day of failures the server says since when.
func TestCollectorNotesTheServersOwnSwitch(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a day of failures takes too long under the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		hook := d.createWebhook(nil)
		id := d.createTicket()
		sleep(time.Second)
		stop := d.collecting(hook, d.start, func(cfg *cutover.CollectorConfig) { cfg.Interval = 10 * time.Minute })
		d.answer(http.StatusInternalServerError)
		for n := range 9 {
			d.retitle(id, n)
			sleep(3 * time.Hour)
		}
		stop()
		got := d.collected()
		last := got.subscriptions[len(got.subscriptions)-1]
		if last.Active || !strings.Contains(last.Why, "by the server") || len(got.gaps) == 0 || !got.gaps[0].From.Equal(last.DisabledAt) {
			t.Errorf("%+v, gaps %+v", last, got.gaps)
		}
		d.wantAll(hook, got)
	})
}

// AlgaPSA has no feed, takes no notice of the filters of the log, spells its keys in
// camel case, and keeps auto_disabled_at of a webhook that is on again.
func TestCollectorAgainstAlgaPSA(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		hook := d.createWebhook(map[string]any{"retry_config": map[string]any{"schedule": []int{1000}}})
		id, other := d.createTicket(), d.createTicket()
		sleep(10 * time.Minute)
		since := time.Now()
		d.breaks(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/api/v1/events":
				return answers(http.StatusNotFound)(w, r)
			case !strings.HasSuffix(r.URL.Path, "/deliveries") && !strings.HasSuffix(r.URL.Path, hook):
				return false
			}
			q := r.URL.Query()
			q.Del("from_date")
			in, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://desk.example"+r.URL.Path+"?"+q.Encode(), nil)
			if err != nil {
				t.Error(err)
			}
			in.Header = r.Header.Clone()
			in.Header.Del("Accept-Encoding")
			res, err := d.api.Do(in)
			if err != nil {
				t.Error(err)
				return false
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", "application/json")
			if strings.HasSuffix(r.URL.Path, hook) { // it was disabled once, and is on again
				w.Write(bytes.Replace(body, []byte(`"auto_disabled_at":null`), []byte(`"auto_disabled_at":"1999-12-31T23:00:00.000Z"`), 1))
				return true
			}
			w.Write(camelCase(t, body))
			return true
		})
		stop := d.collecting(hook, since, nil)
		d.retitle(id, 1)
		d.retitle(id, 2)
		sleep(30 * time.Minute)
		d.retitle(id, 3)
		sleep(40 * time.Minute)
		stop()
		got := d.collected()
		if len(got.deliveries) != 3 {
			t.Errorf("%d deliveries in the record, want the 3 of the cutover", len(got.deliveries))
		}
		for _, states := range got.deliveries {
			if s := states[len(states)-1]; s.Status != "delivered" || s.HTTP != http.StatusOK || s.EventType != "ticket.updated" || s.AttemptedAt.IsZero() {
				t.Errorf("delivery %+v", s)
			}
		}
		last := d.updatedAt(id)
		swept := false
		for _, truth := range got.truth {
			if truth.Source != cutover.TruthOfSweep || truth.Ticket == other {
				t.Errorf("truth %+v", truth)
			}
			swept = swept || truth.Ticket == id && truth.UpdatedAt.Equal(last)
		}
		if !swept {
			t.Errorf("the last state of the ticket is not in %+v", got.truth)
		}
		if s := got.subscriptions; len(s) != 1 || !s[0].Active || len(got.gaps) != 0 || s[0].GivesUpAfter != (2*time.Hour+36*time.Minute).Seconds() {
			t.Errorf("subscriptions %+v, gaps %+v", s, got.gaps)
		}
	})
}

// camelCase spells the keys of the rows of a page as AlgaPSA does.
func camelCase(t *testing.T, page []byte) []byte {
	var in struct {
		Data       []map[string]json.RawMessage `json:"data"`
		Pagination json.RawMessage              `json:"pagination"`
	}
	if err := json.Unmarshal(page, &in); err != nil {
		t.Error(err)
	}
	for i, row := range in.Data {
		spelt := map[string]json.RawMessage{}
		for k, v := range row {
			var b strings.Builder
			for n, r := range k {
				switch {
				case r == '_':
				case n > 0 && k[n-1] == '_':
					b.WriteRune(unicode.ToUpper(r))
				default:
					b.WriteRune(r)
				}
			}
			spelt[b.String()] = v
		}
		in.Data[i] = spelt
	}
	out, err := json.Marshal(in)
	if err != nil {
		t.Error(err)
	}
	return out
}

// A key that is refused from the beginning ends it; nothing else does.
func TestCollectorAndItsKey(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	dir := t.TempDir()
	cfg := cutover.CollectorConfig{URL: s.URL, Key: "k", Dir: dir, WebhookID: "w", Interval: time.Minute, Budget: 0.1, Now: time.Now}
	c, err := cutover.OpenCollector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cutover.OpenCollector(cfg); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a second collector: %v", err)
	}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("Run returned %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
