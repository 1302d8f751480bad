package store

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestReplays(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"what failed and what was missed":                 replayFailed,
		"what was delivered goes on as a new chain":       replayDelivered,
		"the times bound what occurred":                   replayTimes,
		"what the webhook did not want is not missed":     replayUnwanted,
		"one job at a time, and the same request is it":   replayOnce,
		"what cannot be replayed":                         replayRefused,
		"a cancelled job stops":                           replayCancelled,
		"a switch-off breaks off, and is made up for":     replayBrokenOff,
		"what was missed is listed page by page":          replayMissedList,
		"what was counted before is not counted again":    replayCounted,
		"retention takes jobs, and what it has not taken": replayRetention,
		"every page boundary":                             replayPages,
		"events that were chosen":                         replayChosen,
	})
}

// replay starts a job of everything since the tests began.
func (l *line) replay(now time.Time, only string) Replay {
	l.t.Helper()
	return must(l.StartReplay(context.Background(), now, l.TenantID, l.hook.WebhookID, ReplayQuery{Since: start().Add(-time.Hour), Only: only}))(l.t)
}

// count is the dry run of replay.
func (l *line) count(now time.Time, only string) ReplayCount {
	l.t.Helper()
	return must(l.CountReplay(context.Background(), now, l.TenantID, l.hook.WebhookID, ReplayQuery{Since: start().Add(-time.Hour), Only: only}))(l.t)
}

// titles returns what the pending rows of a webhook are about, in the order in
// which they are claimed.
func (l *line) titles(now time.Time) []string {
	l.t.Helper()
	var out []string
	for _, c := range l.claim(now).Deliveries {
		env := envelopeOf(l.t, c.Body)
		data, err := env.Ticket()
		if err != nil {
			l.t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %d", *data.Title, c.Attempt))
	}
	return out
}

func once(c *Config) { c.Policy = delivery.Policy{GoneDisables: true} }

func replayFailed(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start(), func(s *delivery.Spec) { s.RetryConfig = &delivery.RetryConfig{MaxAttempts: new(1)} })
	at := start()
	one := func(title string, code int) {
		at = at.Add(time.Second)
		d.create(at, d.draft(title))
		l.answer(l.claimOne(at), status(code), at)
	}
	one("delivered", 200)
	one("out of attempts", 500)
	at = at.Add(time.Second)
	d.create(at, d.draft("dropped"))
	l.active(at, false, false)
	d.create(at, d.draft("missed"))
	l.active(at, true, false)
	one("by hand", 500)
	l.answer(must(l.retry(at, l.log(DeliveryQuery{})[0].DeliveryID))(t), status(200), at)
	d.create(at, d.draft("pending"))
	before := l.log(DeliveryQuery{})

	at = at.Add(time.Second)
	for range 2 {
		if got := l.count(at, ReplayFailed); !cmp.Equal(got, ReplayCount{Abandoned: 2, Missed: 1}) {
			t.Errorf("failed: %+v", got)
		}
		if got := l.count(at, ReplayAll); !cmp.Equal(got, ReplayCount{Abandoned: 2, Missed: 1, Delivered: 2}) {
			t.Errorf("all: %+v", got)
		}
	}
	if diff := cmp.Diff(before, l.log(DeliveryQuery{})); diff != "" {
		t.Errorf("a count changed the log:\n%s", diff)
	}
	r := l.replay(at, ReplayFailed)
	if r.Status != "running" || r.Queued != 0 || !r.Until.Equal(at.Truncate(time.Microsecond)) {
		t.Errorf("started %+v", r)
	}
	done := l.runReplays(at)
	want := r
	want.Status, want.Queued, want.Skipped, want.FinishedAt = "done", 3, 3, new(at.Truncate(time.Microsecond))
	if diff := cmp.Diff([]Replay{want}, done); diff != "" {
		t.Error(diff)
	}
	if got := must(l.Replay(t.Context(), l.TenantID, l.hook.WebhookID, r.ReplayID))(t); !cmp.Equal(got, want) {
		t.Errorf("read back %+v", got)
	}
	if diff := cmp.Diff([]string{"pending 1", "out of attempts 2", "dropped 1", "missed 1"}, l.titles(at)); diff != "" {
		t.Error(diff)
	}
	// While they are under way they are not replayed again, and once they are
	// delivered neither.
	if got := l.count(at, ReplayFailed); got.Total() != 0 {
		t.Errorf("under way: %+v", got)
	}
}

func replayDelivered(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start(), func(s *delivery.Spec) { s.PayloadFields = delivery.PayloadFields{"ticket": {"title"}} })
	d.create(start(), d.draft("one"))
	first := l.claimOne(start())
	l.answer(first, status(200), start())
	at := start().Add(time.Hour)
	l.replay(at, ReplayAll)
	if done := l.runReplays(at); done[0].Queued != 1 {
		t.Fatalf("queued %+v", done)
	}
	// A failure of the new chain is followed by its schedule, although the event
	// was delivered once.
	again := l.claimOne(at)
	c := again.Deliveries[0]
	if c.Attempt != 2 || c.Step != 0 || c.EventID != first.Deliveries[0].EventID {
		t.Errorf("sent again as %+v", c)
	}
	sameBody(t, c.Body, first.Deliveries[0].Body)
	l.answer(again, status(500), at)
	// And a person may help.
	m := must(l.retry(at, c.DeliveryID))(t)
	_, err := l.retry(at, first.Deliveries[0].DeliveryID)
	wantKind(t, "retry of the row that was delivered", err, fault.Conflict)
	l.answer(m, status(500), at)
	next := at.Add(time.Minute)
	l.answer(l.claimOne(next), status(200), next)
	want := []string{"1/0 delivered", "2/0 retrying", "4/1 delivered", "3/0 abandoned manual"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	_, err = l.retry(next, c.DeliveryID)
	wantKind(t, "retry of a chain that was delivered", err, fault.Conflict)
	// Again, and once more: one job is one delivery.
	for i := range 2 {
		next = next.Add(time.Hour)
		l.replay(next, ReplayAll)
		l.runReplays(next)
		b := l.claimOne(next)
		if b.Deliveries[0].Attempt != 5+i {
			t.Errorf("attempt %d", b.Deliveries[0].Attempt)
		}
		l.answer(b, status(200), next)
	}
}

func replayTimes(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start())
	other := newDesk(t, d.Store, "other")
	moment := start().Truncate(time.Millisecond)
	for i := range 10 {
		at := moment.Add(time.Duration(i) * 30 * time.Minute)
		d.create(at, d.draft(fmt.Sprint(i)))
		l.answer(l.claimOne(at), status(500), at)
		other.create(at, other.draft("not ours"))
	}
	// A write that waited for its turn: committed after younger ones.
	late := moment.Add(4*time.Hour + 29*time.Minute)
	d.create(late, d.draft("late"))
	l.answer(l.claimOne(late), status(500), late)
	now := moment.Add(24 * time.Hour)
	for _, c := range []struct {
		since, until time.Duration
		want         int
	}{
		{0, 24 * time.Hour, 11},
		{time.Millisecond, 24 * time.Hour, 10},
		{0, 0, 1},
		{time.Hour, 2 * time.Hour, 3},
		{time.Hour + time.Millisecond, 2*time.Hour - time.Millisecond, 1},
		{4*time.Hour + 30*time.Minute, 24 * time.Hour, 1},
		{4 * time.Hour, 4*time.Hour + 29*time.Minute, 2},
		{10 * time.Hour, 24 * time.Hour, 0},
		{-100000 * time.Hour, -time.Hour, 0},
	} {
		until := moment.Add(c.until)
		q := ReplayQuery{Since: moment.Add(c.since), Until: &until, Only: ReplayFailed}
		if n := must(d.CountReplay(t.Context(), now, d.TenantID, l.hook.WebhookID, q))(t); n.Abandoned != c.want || n.Total() != c.want {
			t.Errorf("from %v to %v: %+v, want %d", c.since, c.until, n, c.want)
		}
	}
}

func replayUnwanted(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	d.create(start(), d.draft("before it existed"))
	l := d.hook(start(), func(s *delivery.Spec) { s.EventFilter = &delivery.Filter{Tags: []string{"vip"}} })
	vip := d.draft("filtered out, and then not")
	d.create(start(), vip)
	vip.Tags = []string{"vip"}
	l.active(start(), false, false)
	vip.Title = "missed"
	tk := d.create(start(), vip)
	d.create(start(), d.draft("no vip"))
	d.update(start(), tk.TicketID, ticket.Patch{Title: ticket.Some("another type")})
	l.active(start(), true, false)
	at := start().Add(time.Second)
	if n := l.count(at, ReplayAll); !cmp.Equal(n, ReplayCount{Missed: 1}) {
		t.Errorf("with the filter %+v", n)
	}
	// What counts as missed goes by the outage, and what is wanted by the webhook
	// as it is now.
	_, _, err := d.UpdateWebhook(t.Context(), at, d.Actor, l.hook.WebhookID, func(s *delivery.Spec) error {
		s.EventFilter, s.EventTypes = nil, []string{"ticket.created", "ticket.updated"}
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	if n := l.count(at, ReplayAll); !cmp.Equal(n, ReplayCount{Missed: 3}) {
		t.Errorf("without it %+v", n)
	}
}

func replayOnce(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start())
	l.fail(start())
	q := ReplayQuery{Since: start().Add(-time.Hour), Only: ReplayFailed}
	begin := func(now time.Time, q ReplayQuery) (Replay, error) {
		return d.StartReplay(context.Background(), now, d.TenantID, l.hook.WebhookID, q)
	}
	at := start().Add(time.Minute)
	first := must(begin(at, q))(t)
	if again := must(begin(at.Add(time.Second), q))(t); !cmp.Equal(again, first) {
		t.Errorf("the same request gave %+v, was %+v", again, first)
	}
	for what, change := range map[string]func(*ReplayQuery){
		"another since": func(q *ReplayQuery) { q.Since = start() },
		"an until":      func(q *ReplayQuery) { q.Until = &at },
		"another only":  func(q *ReplayQuery) { q.Only = ReplayAll },
	} {
		other := q
		change(&other)
		_, err := begin(at, other)
		wantKind(t, what, err, fault.Conflict)
	}
	d.runReplays(at)
	// A job that has ended is not the answer any more.
	q.Until = &at
	second := must(begin(at, q))(t)
	if second.ReplayID == first.ReplayID {
		t.Error("a job that had ended was returned")
	}
	if again := must(begin(at.Add(time.Minute), q))(t); again.ReplayID != second.ReplayID {
		t.Error("the same request with until made another job")
	}
	if done := d.runReplays(at); done[0].Queued != 0 {
		t.Errorf("queued again: %+v", done)
	}
	list, total, err := d.Replays(t.Context(), d.TenantID, l.hook.WebhookID, 1, 1)
	if err != nil || total != 2 || len(list) != 1 || list[0].ReplayID != second.ReplayID {
		t.Errorf("listed %+v of %d, %v", list, total, err)
	}
	list, _, err = d.Replays(t.Context(), d.TenantID, l.hook.WebhookID, 2, 1)
	if err != nil || len(list) != 1 || list[0].ReplayID != first.ReplayID {
		t.Errorf("listed %+v, %v", list, err)
	}
}

func replayRefused(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l, other := d.hook(start()), d.hook(start())
	q := ReplayQuery{Since: start(), Only: ReplayFailed}
	try := func(what, tenant, hook string, kind fault.Kind) {
		t.Helper()
		_, err := d.StartReplay(context.Background(), start(), tenant, hook, q)
		wantKind(t, what, err, kind)
		_, err = d.CountReplay(context.Background(), start(), tenant, hook, q)
		wantKind(t, what+", counted", err, kind)
	}
	try("unknown", d.TenantID, NewID(), fault.NotFound)
	try("another tenant", NewID(), l.hook.WebhookID, fault.NotFound)
	r := l.replay(start(), ReplayAll)
	_, err := d.Replay(t.Context(), d.TenantID, other.hook.WebhookID, r.ReplayID)
	wantKind(t, "the job of another webhook", err, fault.NotFound)
	_, err = d.CancelReplay(t.Context(), start(), d.TenantID, other.hook.WebhookID, r.ReplayID)
	wantKind(t, "cancel the job of another webhook", err, fault.NotFound)
	_, err = d.Replay(t.Context(), NewID(), l.hook.WebhookID, r.ReplayID)
	wantKind(t, "the job of another tenant", err, fault.NotFound)
	l.active(start(), false, false)
	try("inactive", d.TenantID, l.hook.WebhookID, fault.Conflict)
	l.active(start(), true, false)
	r = l.replay(start(), ReplayAll)
	if err := d.DeleteWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID); err != nil {
		t.Fatal(err)
	}
	try("deleted", d.TenantID, l.hook.WebhookID, fault.NotFound)
	r = must(d.ReplayNext(t.Context(), start(), d.TenantID, r.ReplayID, 10))(t)
	if r.Status != "cancelled" || r.CancelReason != CancelledByDeletion {
		t.Errorf("the job of a deleted webhook is %+v", r)
	}
}

func replayCancelled(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start())
	l.active(start(), false, false)
	for i := range 5 {
		d.create(start(), d.draft(fmt.Sprint(i)))
	}
	l.active(start(), true, false)
	at := start().Add(time.Second)
	r := l.replay(at, ReplayFailed)
	must(d.ReplayNext(t.Context(), at, d.TenantID, r.ReplayID, 2))(t)
	r = must(d.CancelReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, r.ReplayID))(t)
	if r.Status != "cancelled" || r.CancelReason != CancelledByUser || r.Queued != 2 || r.FinishedAt == nil {
		t.Errorf("cancelled %+v", r)
	}
	if next := must(d.ReplayNext(t.Context(), at, d.TenantID, r.ReplayID, 10))(t); !cmp.Equal(next, r) {
		t.Errorf("it went on: %+v", next)
	}
	if left := must(d.RunningReplays(t.Context()))(t); len(left) != 0 {
		t.Errorf("running: %+v", left)
	}
	_, err := d.CancelReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, r.ReplayID)
	wantKind(t, "cancel twice", err, fault.Conflict)
	if diff := cmp.Diff([]string{"0 1", "1 1"}, l.titles(at)); diff != "" {
		t.Error(diff)
	}
	if n := l.count(at, ReplayFailed); !cmp.Equal(n, ReplayCount{Missed: 3}) {
		t.Errorf("left %+v", n)
	}
}

// A webhook that fails again while it is made up for an outage loses nothing of
// the first one.
func replayBrokenOff(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start())
	at := start()
	tick := func() time.Time { at = at.Add(time.Second); return at }
	d.create(tick(), d.draft("dropped in the first"))
	l.active(tick(), false, false)
	for i := range 3 {
		d.create(tick(), d.draft(fmt.Sprint("first, ", i)))
	}
	on := func() int {
		_, n, err := d.UpdateWebhook(t.Context(), tick(), d.Actor, l.hook.WebhookID,
			func(s *delivery.Spec) error { s.IsActive = true; return nil }, true)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 2 { // the second time the outage has three more
		if n := on(); n != 4 {
			t.Fatalf("counted %d, want 4", n)
		}
		r := must(d.RunningReplays(t.Context()))(t)[0]
		must(d.ReplayNext(t.Context(), tick(), d.TenantID, r.ReplayID, 2))(t)
		l.active(tick(), false, false)
		if r = must(d.Replay(t.Context(), d.TenantID, l.hook.WebhookID, r.ReplayID))(t); r.CancelReason != CancelledByDisable {
			t.Errorf("broken off %+v", r)
		}
	}
	d.create(tick(), d.draft("second"))
	if n := on(); n != 5 {
		t.Errorf("counted %d, want 5", n)
	}
	d.runReplays(tick())
	want := []string{"dropped in the first 1", "first, 0 1", "first, 1 1", "first, 2 1", "second 1"}
	if diff := cmp.Diff(want, l.titles(at)); diff != "" {
		t.Error(diff)
	}
	// Who switches on without asking has given up what was left.
	l.active(tick(), false, false)
	l.active(tick(), true, false)
	l.active(tick(), false, false)
	if n := on(); n != 0 {
		t.Errorf("counted %d of an outage that was over", n)
	}
}

// The transaction trusts a count of the webhook as it is in there, credentials
// included.
func replayCounted(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start(), func(s *delivery.Spec) { s.CustomHeaders = map[string]string{"Authorization": "Bearer hunter2"} })
	l.active(start(), false, false)
	d.create(start(), d.draft("is missed"))
	on := func(s *delivery.Spec) error { s.IsActive = true; return nil }
	counted := must(d.countMissed(t.Context(), start(), l.lane(), on))(t)
	l.active(start(), true, false)
	if w := must(d.Webhook(t.Context(), d.TenantID, l.hook.WebhookID))(t); counted.n != 1 || w.CustomHeaders == nil || !reflect.DeepEqual(counted.spec, w.Spec) {
		t.Errorf("counted %+v of %+v", counted, w.Spec)
	}
}

func replayMissedList(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start())
	missed := func(page, limit int) (*Outage, []string, int) {
		t.Helper()
		o, list, total, err := d.Missed(t.Context(), start().Add(time.Hour), d.TenantID, l.hook.WebhookID, page, limit)
		if err != nil {
			t.Fatal(err)
		}
		out := []string{}
		for _, e := range list {
			feed := envelopeOf(t, must(d.Event(t.Context(), d.TenantID, e.EventID))(t))
			data, err := feed.Ticket()
			if err != nil {
				t.Fatal(err)
			}
			if e.EventType != feed.EventType || e.TicketID != data.TicketID || !e.OccurredAt.Equal(feed.OccurredAt.Time) {
				t.Errorf("listed %+v", e)
			}
			out = append(out, fmt.Sprint(*data.Title, " ", e.Dropped))
		}
		return o, out, total
	}
	if o, list, total := missed(1, 10); o != nil || len(list) != 0 || total != 0 {
		t.Errorf("never disabled: %+v %v %d", o, list, total)
	}
	d.create(start(), d.draft("dropped"))
	off := start().Add(time.Minute)
	l.active(off, false, false)
	d.create(off, d.draft("a"))
	d.create(off, d.draft("b"))
	o, list, total := missed(1, 2)
	if o == nil || !o.DisabledAt.Equal(off.Truncate(time.Microsecond)) || o.EnabledAt != nil || o.Reason != delivery.DisabledByUser {
		t.Errorf("outage %+v", o)
	}
	if diff := cmp.Diff([]string{"dropped true", "a false"}, list); diff != "" || total != 3 {
		t.Errorf("%d: %s", total, diff)
	}
	if _, list, total = missed(2, 2); !slices.Equal(list, []string{"b false"}) || total != 3 {
		t.Errorf("second page %v of %d", list, total)
	}
	on := start().Add(2 * time.Minute)
	l.active(on, true, false)
	d.create(on, d.draft("sent"))
	if o, _, total = missed(1, 2); o.EnabledAt == nil || !o.EnabledAt.Equal(on.Truncate(time.Microsecond)) || total != 3 {
		t.Errorf("after it %+v, %d", o, total)
	}
	l.replay(on, ReplayFailed)
	l.runReplays(on)
	if _, list, total = missed(1, 2); total != 0 || len(list) != 0 {
		t.Errorf("still missed %v of %d", list, total)
	}
	_, _, _, err := d.Missed(t.Context(), on, d.TenantID, NewID(), 1, 10)
	wantKind(t, "unknown", err, fault.NotFound)
}

// replayChosen chooses one event of each fate, and others that are none of the
// webhook's.
func replayChosen(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start(), func(s *delivery.Spec) {
		s.RetryConfig = &delivery.RetryConfig{MaxAttempts: new(2), Schedule: []int64{3_600_000}}
		s.EventFilter = &delivery.Filter{Tags: []string{"vip"}}
	})
	at, vip := start(), d.draft("x")
	vip.Tags = []string{"vip"}
	event := func(draft ticket.Draft, codes ...int) string {
		at = at.Add(2 * time.Hour)
		tk := d.create(at, draft)
		for _, code := range codes {
			l.answer(l.claimOne(at), status(code), at)
			at = at.Add(2 * time.Hour)
		}
		bodies, _, err := d.TicketEvents(t.Context(), d.TenantID, tk.TicketID, 1)
		if err != nil {
			t.Fatal(err)
		}
		return envelopeOf(t, bodies[0]).EventID
	}
	tooOld := event(vip, 500, 500)
	at = at.Add(d.cfg.Retention)
	delivered, failed := event(vip, 200), event(vip, 500, 500)
	notOwed, between := event(d.draft("not for it")), event(vip, 500, 500)
	l.active(at, false, false)
	missed := event(vip)
	l.active(at, true, false)
	pending := event(vip)
	stranger := newDesk(t, d.Store, "other")
	foreign := stranger.create(at, stranger.draft("not ours"))
	bodies, _, err := d.TicketEvents(t.Context(), stranger.TenantID, foreign.TicketID, 1)
	if err != nil {
		t.Fatal(err)
	}
	theirs := envelopeOf(t, bodies[0]).EventID

	q := ReplayQuery{EventIDs: []string{pending, strings.ToUpper(failed), missed, failed, delivered, notOwed, tooOld, theirs}, Only: ReplayFailed}
	want := ReplayCount{Abandoned: 1, Missed: 1, Left: []LeftAlone{
		{tooOld, LeftExpired}, {delivered, LeftDelivered}, {notOwed, LeftNotOwed}, {pending, LeftPending}, {theirs, LeftUnknown},
	}}
	if got := must(d.CountReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, q))(t); !cmp.Equal(got, want) {
		t.Errorf("counted %s", cmp.Diff(want, got))
	}
	q.Only = ReplayAll
	if got := must(d.CountReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, q))(t); got.Delivered != 1 || got.Total() != 3 || len(got.Left) != 4 {
		t.Errorf("with what was delivered %+v", got)
	}
	q.Only = ReplayFailed
	first := must(d.StartReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, q))(t)
	slices.Reverse(q.EventIDs)
	if again := must(d.StartReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, q))(t); !cmp.Equal(again, first) {
		t.Errorf("the same events in another order gave %+v, was %+v", again, first)
	}
	_, err = d.StartReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, ReplayQuery{EventIDs: []string{between}, Only: ReplayFailed})
	wantKind(t, "other events meanwhile", err, fault.Conflict)
	// One event at a time, as under a tight rate limit: none is queued twice.
	steps := 0
	for r := first; r.Status == "running"; steps++ {
		r = must(d.ReplayNext(t.Context(), at, d.TenantID, first.ReplayID, 1))(t)
	}
	job := must(d.Replay(t.Context(), d.TenantID, l.hook.WebhookID, first.ReplayID))(t)
	if steps != 2 || job.Queued != 2 || job.Skipped != 4 || len(job.EventIDs) != 7 {
		t.Errorf("after %d steps %+v", steps, job)
	}
	var queued []string
	for _, row := range l.log(DeliveryQuery{Status: "pending", Limit: 100}) {
		queued = append(queued, row.EventID)
	}
	slices.Sort(queued)
	if !slices.Equal(queued, chosen([]string{failed, missed, pending})) {
		t.Errorf("queued %v", queued)
	}
	if got := must(d.CountReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, q))(t); got.Total() != 0 {
		t.Errorf("once more would send %+v", got)
	}
	for what, ids := range map[string][]string{
		"nothing": {}, "nothing of ours": {theirs, NewID()}, "too many": slices.Collect(func(yield func(string) bool) {
			for range MaxReplayEvents + 1 {
				if !yield(NewID()) {
					return
				}
			}
		}),
	} {
		_, err := d.StartReplay(t.Context(), at, d.TenantID, l.hook.WebhookID, ReplayQuery{EventIDs: ids, Only: ReplayAll})
		wantKind(t, what, err, fault.Invalid)
	}
}

func replayRetention(t *testing.T, open opener) {
	d := newDesk(t, open(t, once), "acme")
	l := d.hook(start())
	l.active(start(), false, false)
	d.create(start(), d.draft("too old to be told from one that was delivered"))
	d.create(start().Add(time.Hour), d.draft("young enough"))
	l.active(start().Add(time.Hour), true, false)
	at := start().Add(d.cfg.Retention + time.Minute)
	if n := l.count(at, ReplayFailed); !cmp.Equal(n, ReplayCount{Missed: 1}) {
		t.Errorf("counted %+v", n)
	}
	ended := l.replay(at, ReplayFailed)
	l.runReplays(at)
	running := l.replay(at, ReplayAll)
	d.sweep(at.Add(d.cfg.Retention + time.Minute))
	_, err := d.Replay(t.Context(), d.TenantID, l.hook.WebhookID, ended.ReplayID)
	wantKind(t, "a job past its retention", err, fault.NotFound)
	must(d.Replay(t.Context(), d.TenantID, l.hook.WebhookID, running.ReplayID))(t)
	var outages int
	if err := d.reader(t.Context()).row(`select count(*) from disabled_periods`).Scan(&outages); err != nil || outages != 0 {
		t.Errorf("%d outages left, %v", outages, err)
	}
}

// missedEvents makes a webhook miss n events. They are written as what they come
// to in the feed: what creates tickets is tested elsewhere, and slow.
func (l *line) missedEvents(now time.Time, n int) {
	l.t.Helper()
	l.active(now, false, false)
	tk := l.create(now, l.draft("missed"))
	feed := must(l.Events(context.Background(), l.TenantID, FeedQuery{TicketID: tk.TicketID}))(l.t)
	body := feed.Envelopes[0]
	err := l.do(context.Background(), func(t *tx) error {
		for range n - 1 {
			seq, err := t.nextSeq(start())
			if err != nil {
				return err
			}
			if err := t.change("insert into events", `
				insert into events (seq, prev_seq, tenant_id, event_id, event_type, ticket_id, occurred_at, created_at, body)
				values ($1, 0, $2, $3, $4, $5, $6, $6, $7)`,
				seq, l.TenantID, NewID(), "ticket.created", tk.TicketID, now.Truncate(time.Millisecond).UnixMicro(), []byte(body)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// wantOnce fails unless every event has exactly one row.
func (l *line) wantOnce(n int) {
	l.t.Helper()
	var rows, events int
	err := l.reader(context.Background()).row(`select count(*), count(distinct event_id) from deliveries
		where tenant_id = $1 and webhook_id = $2`, l.TenantID, l.hook.WebhookID).Scan(&rows, &events)
	if err != nil || rows != n || events != n {
		l.t.Errorf("%d rows of %d events, want %d, %v", rows, events, n, err)
	}
}

func replayPages(t *testing.T, open opener) {
	for _, n := range []int{1, replayPage - 1, replayPage, replayPage + 1, 2 * replayPage} {
		d := newDesk(t, open(t, once), "acme")
		l := d.hook(start())
		l.missedEvents(start(), n)
		// Asked for beside what has happened by then: the last page is full or not.
		if got := l.active(start(), true, true); got != n {
			t.Errorf("%d events: replayed %d", n, got)
		}
		l.wantOnce(n)
		if got := l.count(start(), ReplayAll); got.Total() != 0 {
			t.Errorf("%d events: left %+v", n, got)
		}
	}
}

// TestReplayOfTenThousand goes through more events than the services that people
// compare with allow in one replay (10,000), in pages with and without room, with
// the store opened again in between.
func TestReplayOfTenThousand(t *testing.T) {
	t.Parallel()
	onEach(t, replayOfTenThousand)
}

func replayOfTenThousand(t *testing.T, p place) {
	n := 10_001
	if testing.Short() {
		n = 1001
	}
	s := openAt(t, p, once)
	d := newDesk(t, s, "acme")
	l := d.hook(start())
	l.missedEvents(start(), n)
	begun := time.Now()
	_, counted, err := d.UpdateWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID,
		func(s *delivery.Spec) error { s.IsActive = true; return nil }, true)
	if err != nil || counted != n {
		t.Fatalf("counted %d, %v", counted, err)
	}
	t.Logf("switched on in %v", time.Since(begun))
	r := must(d.RunningReplays(t.Context()))(t)[0]
	at, pages, longest := start(), 0, time.Duration(0)
	for r.Status == "running" {
		begun := time.Now()
		at = at.Add(time.Second)
		before := r.Queued
		r = must(d.ReplayNext(t.Context(), at, d.TenantID, r.ReplayID, []int{1000, 7, replayPage}[pages%3]))(t)
		longest = max(longest, time.Since(begun))
		if got := r.Queued - before; got > replayPage || pages%3 == 1 && got > 7 {
			t.Fatalf("page %d queued %d", pages, got)
		}
		if pages++; pages%10 == 0 {
			// What it has committed is all that is left of the process.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, p, once)
			d.Store = s
		}
	}
	t.Logf("%d pages, the longest took %v", pages, longest)
	if r.Queued != n || r.Skipped != 0 {
		t.Errorf("ended as %+v", r)
	}
	l.wantOnce(n)
	again := must(d.ReplayNext(t.Context(), at, d.TenantID, r.ReplayID, 1000))(t)
	if !cmp.Equal(again, r) {
		t.Errorf("a job that was done went on: %+v", again)
	}
	l.wantOnce(n)
	// The order is that of the feed.
	var wrong int
	err = d.reader(t.Context()).row(`select count(*) from deliveries a join deliveries b on b.tenant_id = a.tenant_id
		and b.event_id < a.event_id and b.delivery_id > a.delivery_id where a.delivery_id in
		(select delivery_id from deliveries order by delivery_id limit 50)`).Scan(&wrong)
	if err != nil || wrong != 0 {
		t.Errorf("%d pairs in the wrong order, %v", wrong, err)
	}
}

// A database to which a later migration was applied gets the earlier one too.
func TestMigrationOutOfOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openAt(t, place{dir: dir})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "ticketwire.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `drop table replay_jobs; drop table disabled_periods;
		delete from migrations where name in ('0002_replay_jobs.sql', '0008_replay_events.sql')`)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	l := newDesk(t, openAt(t, place{dir: dir}), "acme").hook(start())
	l.replay(start(), ReplayFailed)
	if got := l.runReplays(start()); len(got) != 1 || got[0].Status != "done" {
		t.Errorf("ran %+v", got)
	}
}
