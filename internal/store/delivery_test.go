package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestDeliveries(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"a delivery is owed with the change":            owedWithChange,
		"only who wants an event is owed it":            owedToWhoWants,
		"bodies are cut to the webhook":                 cutBodies,
		"the schedule is walked to its end":             wholeSchedule,
		"a success ends the chain":                      successEndsChain,
		"the log is filtered and paged":                 logPages,
		"deliveries of a deleted webhook stay":          deletedWebhook,
		"edits and rotations hold for the next try":     editDuringBackoff,
		"a refused address is final and does not count": refusedAddress,
	})
}

func owedWithChange(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	tk := d.create(start(), d.draft("one"))
	log := l.log(DeliveryQuery{})
	if diff := cmp.Diff([]string{"1/0 pending"}, shapes(log)); diff != "" {
		t.Fatal(diff)
	}
	row := log[0]
	if row.TicketID != tk.TicketID || row.AttemptedAt != nil || row.NextRetryAt == nil || !row.NextRetryAt.Equal(row.DueAt) ||
		row.WaitReason != delivery.WaitDue || row.EventType != webhook.TicketCreated {
		t.Errorf("pending row %+v", row)
	}
	feed := must(d.Event(t.Context(), d.TenantID, row.EventID))(t)
	sameBody(t, row.Body, feed)
	b := l.claimOne(start())
	sameBody(t, b.Deliveries[0].Body, feed)
	if b.Deliveries[0].DeliveryID != row.DeliveryID {
		t.Error("the delivery id of the log is not the one that is sent")
	}
	l.answer(b, status(204), start().Add(time.Second))
	row = must(d.Delivery(t.Context(), d.TenantID, l.hook.WebhookID, strings.ToUpper(row.DeliveryID)))(t)
	sameBody(t, row.Body, feed)
	if row.Status != delivery.Delivered || row.StatusCode != 204 || row.DurationMS != 20 || row.ResponseBody != "answer" ||
		row.AttemptedAt == nil || row.CompletedAt == nil || row.NextRetryAt != nil ||
		row.RequestHeaders["X-Alga-Delivery-Id"] != row.DeliveryID || row.RequestHeaders["x-custom"] != delivery.Redacted || row.ResponseHeaders["server"] != "test" {
		t.Errorf("delivered row %+v", row)
	}
	h := l.current()
	if h.TotalDeliveries != 1 || h.SuccessfulDeliveries != 1 || h.LastSuccessAt == nil || h.FailingSince != nil {
		t.Errorf("health %+v", h.Health)
	}
}

func owedToWhoWants(t *testing.T, open opener) {
	s := open(t, guide)
	d := newDesk(t, s, "acme")
	other := newDesk(t, s, "other").hook(start())
	wants := d.hook(start())
	inactive := d.hook(start(), func(sp *delivery.Spec) { sp.IsActive = false })
	otherType := d.hook(start(), func(sp *delivery.Spec) { sp.EventTypes = []string{webhook.TicketClosed} })
	tagged := d.hook(start(), func(sp *delivery.Spec) { sp.EventFilter = &delivery.Filter{Tags: []string{"vip"}} })
	gone := d.hook(start())
	if err := d.DeleteWebhook(t.Context(), start(), d.Actor, gone.hook.WebhookID); err != nil {
		t.Fatal(err)
	}
	draft := d.draft("tagged")
	draft.Tags = []string{"VIP"}
	d.create(start(), draft)
	d.create(start(), d.draft("plain"))
	// A subscription that changes between two events counts from the next on.
	otherType.active(start(), false, false)
	_, _, err := d.UpdateWebhook(t.Context(), start(), d.Actor, inactive.hook.WebhookID, func(sp *delivery.Spec) error {
		sp.IsActive = true
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	d.create(start(), d.draft("late"))
	for _, c := range []struct {
		name string
		l    *line
		want int
	}{{"wants", wants, 3}, {"inactive", inactive, 1}, {"other type", otherType, 0}, {"tagged", tagged, 1}, {"other tenant", other, 0}} {
		if got := len(c.l.log(DeliveryQuery{})); got != c.want {
			t.Errorf("%s: %d deliveries, want %d", c.name, got, c.want)
		}
	}
}

func cutBodies(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	fields := func(names ...string) func(*delivery.Spec) {
		return func(sp *delivery.Spec) {
			sp.EventTypes = []string{webhook.TicketUpdated, webhook.TicketCommentAdded}
			sp.PayloadFields = delivery.PayloadFields{"ticket": names}
		}
	}
	full := d.hook(start(), func(sp *delivery.Spec) { sp.EventTypes = []string{webhook.TicketCommentAdded} })
	title, id, thread := d.hook(start(), fields("title")), d.hook(start(), fields([]string{}...)), d.hook(start(), fields("comments"))
	tk := d.create(start(), d.draft("Cut me"))
	must(d.AddComment(t.Context(), start(), d.Actor, tk.TicketID, ticket.CommentDraft{Text: "first"}))(t)
	must(d.AddComment(t.Context(), start().Add(time.Second), d.Actor, tk.TicketID, ticket.CommentDraft{Text: "second"}))(t)
	last := func(l *line) *delivery.Delivery {
		return &l.log(DeliveryQuery{EventType: webhook.TicketCommentAdded})[0]
	}
	event := last(full).EventID
	sameBody(t, last(full).Body, must(d.Event(t.Context(), d.TenantID, event))(t))
	for _, c := range []struct {
		l    *line
		want string
	}{
		{title, `"data":{"ticket_id":"` + tk.TicketID + `","title":"Cut me"}}`},
		{id, `"data":{"ticket_id":"` + tk.TicketID + `"}}`},
	} {
		if got := string(last(c.l).Body); !strings.HasSuffix(got, c.want) || !strings.Contains(got, event) {
			t.Errorf("body %s\nwant the end %s", got, c.want)
		}
	}
	got := string(last(thread).Body)
	if !strings.Contains(got, `"comments":[{`) || !strings.Contains(got, `"text":"first"`) || !strings.Contains(got, `"text":"second"`) {
		t.Errorf("no thread in %s", got)
	}
	// The cut body goes with the chain, whatever becomes of the webhook.
	b := title.claim(start().Add(time.Hour))
	first := slices.Clone(b.Deliveries[0].Body)
	title.answer(b, status(500), start().Add(time.Hour))
	_, _, err := d.UpdateWebhook(t.Context(), start(), d.Actor, title.hook.WebhookID, func(sp *delivery.Spec) error {
		sp.PayloadFields = nil
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range title.claim(start().Add(2 * time.Hour)).Deliveries {
		if c.EventID == b.Deliveries[0].EventID {
			sameBody(t, c.Body, first)
		}
	}
}

func wholeSchedule(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	now, want := start(), []string{}
	var body []byte
	var ids []string
	for attempt := 1; attempt <= 6; attempt++ {
		if attempt > 1 && len(l.claim(now.Add(-time.Microsecond)).Deliveries) > 0 {
			t.Fatalf("attempt %d is early", attempt)
		}
		b := l.claimOne(now)
		c := b.Deliveries[0]
		if c.Attempt != attempt || c.Step != attempt-1 {
			t.Errorf("attempt %d step %d, want %d and %d", c.Attempt, c.Step, attempt, attempt-1)
		}
		if body == nil {
			body = c.Body
		}
		sameBody(t, c.Body, body)
		ids = append(ids, c.DeliveryID)
		// A slow failure does not shorten the delay.
		now = now.Add(9 * time.Second)
		l.answer(b, status(500), now)
		if attempt < 6 {
			now = now.Add(l.cfg.Policy.Schedule[attempt-1])
			want = append(want, fmt.Sprintf("%d/%d retrying", attempt, attempt-1))
		}
	}
	want = append(want, "6/5 abandoned")
	log := l.log(DeliveryQuery{})
	if diff := cmp.Diff(want, shapes(log)); diff != "" {
		t.Error(diff)
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != 6 {
		t.Error("a delivery id was used twice")
	}
	if next, ok, err := d.NextDue(t.Context(), start()); ok || err != nil {
		t.Errorf("something is due at %v after the end of the schedule (%v)", next, err)
	}
	if h := l.current(); h.TotalDeliveries != 6 || h.FailedDeliveries != 6 {
		t.Errorf("health %+v", h.Health)
	}
	for i, row := range log[1:] {
		if row.NextRetryAt == nil || !row.NextRetryAt.Equal(log[i].DueAt) {
			t.Errorf("attempt %d announces %v, the next is due at %v", row.Attempt, row.NextRetryAt, log[i].DueAt)
		}
	}
}

func successEndsChain(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	l.answer(l.claimOne(start()), status(503), start())
	l.answer(l.claimOne(start().Add(time.Minute)), status(200), start().Add(time.Minute))
	if diff := cmp.Diff([]string{"1/0 retrying", "2/1 delivered"}, shapes(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if h := l.current(); h.FailingSince != nil || h.SuccessfulDeliveries != 1 || h.FailedDeliveries != 1 {
		t.Errorf("health %+v", h.Health)
	}
}

func logPages(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	for i := range 5 {
		d.create(start().Add(time.Duration(i)*time.Minute), d.draft(fmt.Sprint(i)))
	}
	b := l.claim(start().Add(time.Hour))
	for i, code := range []int{200, 500, 200, 500, 200} {
		one := Batch{Target: b.Target, Deliveries: b.Deliveries[i : i+1]}
		l.answer(one, status(code), start().Add(time.Hour+time.Duration(i)*time.Second))
	}
	all := l.log(DeliveryQuery{})
	if len(all) != 7 {
		t.Fatalf("%d rows, want 5 attempts and 2 that are owed", len(all))
	}
	at := func(d delivery.Delivery) time.Time {
		if d.AttemptedAt != nil {
			return *d.AttemptedAt
		}
		return d.DueAt
	}
	if !slices.IsSortedFunc(all, func(a, b delivery.Delivery) int { return at(b).Compare(at(a)) }) {
		t.Error("not newest first")
	}
	from, to := start().Add(time.Hour), start().Add(time.Hour+2*time.Second)
	for _, c := range []struct {
		name string
		q    DeliveryQuery
		want int
	}{
		{"delivered", DeliveryQuery{Status: "delivered"}, 3},
		{"failed", DeliveryQuery{Status: "failed"}, 2},
		{"retrying", DeliveryQuery{Status: "retrying"}, 2},
		{"abandoned", DeliveryQuery{Status: "abandoned"}, 0},
		{"pending", DeliveryQuery{Status: "pending"}, 2},
		{"unknown status", DeliveryQuery{Status: "lost"}, 0},
		{"event type", DeliveryQuery{EventType: webhook.TicketCreated}, 7},
		{"another type", DeliveryQuery{EventType: webhook.TicketClosed}, 0},
		{"event", DeliveryQuery{EventID: strings.ToUpper(b.Deliveries[1].EventID)}, 2},
		{"ticket", DeliveryQuery{TicketID: b.Deliveries[0].TicketID}, 1},
		{"from and to", DeliveryQuery{From: &from, To: &to}, 2},
	} {
		if got := len(l.log(c.q)); got != c.want {
			t.Errorf("%s: %d rows, want %d", c.name, got, c.want)
		}
	}
	var paged []string
	for page := 1; page <= 4; page++ {
		list, total, err := d.Deliveries(t.Context(), d.TenantID, l.hook.WebhookID, DeliveryQuery{Page: page, Limit: 2})
		if err != nil || total != 7 {
			t.Fatalf("page %d: total %d, %v", page, total, err)
		}
		for _, row := range list {
			paged = append(paged, row.DeliveryID)
		}
	}
	var want []string
	for _, row := range all {
		want = append(want, row.DeliveryID)
	}
	if diff := cmp.Diff(want, paged); diff != "" {
		t.Error(diff)
	}
	_, _, err := d.Deliveries(t.Context(), d.TenantID, NewID(), DeliveryQuery{})
	wantKind(t, "log of an unknown webhook", err, fault.NotFound)
	_, err = d.Delivery(t.Context(), d.TenantID, l.hook.WebhookID, NewID())
	wantKind(t, "unknown delivery", err, fault.NotFound)
	_, err = d.Delivery(t.Context(), NewID(), l.hook.WebhookID, all[0].DeliveryID)
	wantKind(t, "another tenant's delivery", err, fault.NotFound)
	_, err = d.Delivery(t.Context(), d.TenantID, NewID(), all[0].DeliveryID)
	wantKind(t, "another webhook's delivery", err, fault.NotFound)
}

func deletedWebhook(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("sent"))
	sent := l.claimOne(start())
	d.create(start(), d.draft("owed"))
	rows := l.log(DeliveryQuery{})
	if err := d.DeleteWebhook(t.Context(), start(), d.Actor, strings.ToUpper(l.hook.WebhookID)); err != nil {
		t.Fatal(err)
	}
	// What is being sent at this moment still gets its line in the log, and no
	// attempt follows.
	l.answer(sent, status(500), start().Add(time.Second))
	var got []string
	for _, row := range rows {
		got = append(got, shape(must(d.Delivery(t.Context(), d.TenantID, l.hook.WebhookID, row.DeliveryID))(t)))
	}
	if diff := cmp.Diff([]string{"1/0 abandoned webhook_disabled", "1/0 retrying"}, got); diff != "" {
		t.Error(diff)
	}
	if n := len(l.claim(start().Add(time.Hour)).Deliveries); n != 0 {
		t.Errorf("claimed %d deliveries of a deleted webhook", n)
	}
	if b := must(d.Store.Backlog(t.Context(), start().Add(time.Hour)))(t); b.Pending != 0 {
		t.Errorf("backlog %+v", b)
	}
	_, err := l.retry(start(), sent.Deliveries[0].DeliveryID)
	wantKind(t, "retry for a deleted webhook", err, fault.Conflict)
	_, err = d.Webhook(t.Context(), d.TenantID, l.hook.WebhookID)
	wantKind(t, "deleted webhook", err, fault.NotFound)
	_, err = d.Secrets(t.Context(), start(), d.TenantID, l.hook.WebhookID)
	wantKind(t, "secrets of a deleted webhook", err, fault.NotFound)
	_, err = d.BeginTest(t.Context(), start(), d.TenantID, l.hook.WebhookID, "a", lease)
	wantKind(t, "test of a deleted webhook", err, fault.NotFound)
	wantKind(t, "second delete", d.DeleteWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID), fault.NotFound)
}

func editDuringBackoff(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	first := l.claimOne(start())
	l.answer(first, status(500), start())
	secret := must(d.RotateSecret(t.Context(), start(), d.TenantID, l.hook.WebhookID, 0))(t)
	_, _, err := d.UpdateWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID, func(sp *delivery.Spec) error {
		sp.URL = "https://hooks.example/new"
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	b := l.claimOne(start().Add(time.Minute))
	if b.Target.URL != "https://hooks.example/new" || b.Target.Secrets != (Secrets{Current: secret}) || first.Target.Secrets.Current == secret {
		t.Errorf("target %s", b.Target.URL)
	}
}

func refusedAddress(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	l.answer(l.claimOne(start()), delivery.Answer{Err: delivery.ErrSSRF, Message: "refused"}, start())
	log := l.log(DeliveryQuery{})
	if diff := cmp.Diff([]string{"1/0 abandoned"}, shapes(log)); diff != "" {
		t.Error(diff)
	}
	if log[0].ErrorType != delivery.ErrSSRF || log[0].ErrorMessage != "refused" || log[0].StatusCode != 0 || log[0].ResponseBody != "" {
		t.Errorf("row %+v", log[0])
	}
	if h := l.current(); h.TotalDeliveries != 0 || h.FailingSince != nil {
		t.Errorf("health %+v", h.Health)
	}
}
