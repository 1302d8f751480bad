package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestSearches(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"deliveries":  searchFindsDeliveries,
		"far back":    searchIsBounded,
		"tickets":     listTickets,
		"events":      searchEvents,
		"of a ticket": eventsOfTicket,
		"tenants":     searchesOfTenants,
		"traffic":     countTraffic,
	})
}

// ids follows a search to its end and returns what it found, in order.
func (d *desk) ids(q DeliverySearch) []string {
	d.t.Helper()
	var out []string
	for {
		page := must(d.SearchDeliveries(d.t.Context(), d.TenantID, q))(d.t)
		for _, row := range page.Rows {
			out = append(out, row.DeliveryID)
		}
		if q.After = page.Next; q.After == "" {
			return out
		}
	}
}

// searchFindsDeliveries holds the search over all webhooks to their own logs.
func searchFindsDeliveries(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	lines := []*line{d.hook(start()), d.hook(start()), d.hook(start())}
	for i := range 7 {
		at := start().Add(time.Duration(i) * time.Minute)
		d.create(at, d.draft(fmt.Sprint("ticket ", i)))
		for j, l := range lines {
			for _, c := range l.claim(at).Deliveries {
				l.answer(l.batch(c), status([]int{200, 503, 410}[(i+j)%2+max(0, i-5)*(j/2)]), at)
			}
		}
	}
	var all []delivery.Delivery
	for _, l := range lines {
		all = append(all, l.log(DeliveryQuery{})...)
	}
	slices.SortFunc(all, func(a, b delivery.Delivery) int {
		ta, tb := a.DueAt, b.DueAt
		if a.AttemptedAt != nil {
			ta = *a.AttemptedAt
		}
		if b.AttemptedAt != nil {
			tb = *b.AttemptedAt
		}
		if c := tb.Compare(ta); c != 0 {
			return c
		}
		return strings.Compare(b.DeliveryID, a.DeliveryID)
	})
	some := all[len(all)/2]
	for name, c := range map[string]struct {
		q    DeliverySearch
		want func(delivery.Delivery) bool
	}{
		"all":     {DeliverySearch{}, func(delivery.Delivery) bool { return true }},
		"webhook": {DeliverySearch{WebhookID: strings.ToUpper(lines[1].hook.WebhookID)}, func(x delivery.Delivery) bool { return x.WebhookID == lines[1].hook.WebhookID }},
		"pending": {DeliverySearch{Status: "pending"}, func(x delivery.Delivery) bool { return x.Status == delivery.Pending }},
		"failed":  {DeliverySearch{Status: "failed"}, func(x delivery.Delivery) bool { return x.Status == delivery.Retrying || x.Status == delivery.Abandoned }},
		"code":    {DeliverySearch{Code: "503"}, func(x delivery.Delivery) bool { return x.StatusCode == 503 }},
		"class":   {DeliverySearch{Code: "2xx"}, func(x delivery.Delivery) bool { return x.StatusCode == 200 }},
		"error":   {DeliverySearch{ErrorType: "status"}, func(x delivery.Delivery) bool { return x.ErrorType == delivery.ErrStatus }},
		"event":   {DeliverySearch{EventID: some.EventID}, func(x delivery.Delivery) bool { return x.EventID == some.EventID }},
		"ticket":  {DeliverySearch{TicketID: some.TicketID}, func(x delivery.Delivery) bool { return x.TicketID == some.TicketID }},
		"ticket and code": {DeliverySearch{TicketID: some.TicketID, Code: "5xx", WebhookID: some.WebhookID}, func(x delivery.Delivery) bool {
			return x.TicketID == some.TicketID && x.StatusCode == 503 && x.WebhookID == some.WebhookID
		}},
		"type": {DeliverySearch{EventType: "ticket.closed"}, func(delivery.Delivery) bool { return false }},
		"from": {DeliverySearch{From: new(start().Add(3 * time.Minute))}, func(x delivery.Delivery) bool {
			return x.AttemptedAt == nil || !x.AttemptedAt.Before(start().Add(3*time.Minute))
		}},
		"nothing": {DeliverySearch{EventID: "x"}, func(delivery.Delivery) bool { return false }},
	} {
		var want []string
		for _, x := range all {
			if c.want(x) {
				want = append(want, x.DeliveryID)
			}
		}
		for _, limit := range []int{1, 3, 100} {
			c.q.Limit = limit
			if got := d.ids(c.q); !slices.Equal(got, want) {
				t.Errorf("%s, %d a page: got %d rows, want %d", name, limit, len(got), len(want))
			}
		}
	}
	for _, q := range []DeliverySearch{{Code: "x"}, {Code: "20"}, {After: "x"}, {After: "c1-1"}, {Code: "0xx"}} {
		_, err := d.SearchDeliveries(t.Context(), d.TenantID, q)
		wantKind(t, fmt.Sprint(q), err, fault.Invalid)
	}
	if got := must(d.FindDelivery(t.Context(), d.TenantID, some.DeliveryID))(t); got.DeliveryID != some.DeliveryID || got.WebhookID != some.WebhookID {
		t.Errorf("found %+v", got)
	}
	list := must(d.DeliveriesOf(t.Context(), d.TenantID, []string{some.EventID}))(t)
	if len(list) != len(d.ids(DeliverySearch{EventID: some.EventID})) {
		t.Errorf("an event has %d rows", len(list))
	}
}

// history writes n delivered rows of one webhook, a second apart, with a failed one
// at the very beginning.
func (l *line) history(n int) {
	l.t.Helper()
	if err := l.do(l.t.Context(), func(t *tx) error {
		_, err := t.exec(`with recursive n (i) as (select 0 union all select i + 1 from n where i < $1)
			insert into deliveries (tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id, attempt, step, status,
				due_at, attempted_at, completed_at, created_at, status_code, duration_ms)
			select $2, 'h' || (1000000000 + i), $3, 'e' || (1000000000 + i), 'ticket.updated', 't', 1, 0, case when i = 0 then 'abandoned' else 'delivered' end,
				$4 + cast(i as bigint) * 1000000, $4 + cast(i as bigint) * 1000000, $4 + cast(i as bigint) * 1000000, $4 + cast(i as bigint) * 1000000, case when i = 0 then 500 else 200 end, 5 from n`,
			n-1, l.TenantID, l.hook.WebhookID, micros(start()))
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
}

// searchIsBounded looks for the one row that failed, behind more rows than a page
// looks at.
func searchIsBounded(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.hook(start())
	l.history(scanLimit + 500)
	q := DeliverySearch{Status: "failed"}
	page := must(d.SearchDeliveries(t.Context(), d.TenantID, q))(t)
	if len(page.Rows) > 0 || page.Next == "" || page.Back == nil || !page.Back.After(start()) {
		t.Fatalf("the first page has %d rows and looked back to %v", len(page.Rows), page.Back)
	}
	pages := 1
	for ; len(page.Rows) == 0 && page.Next != ""; pages++ {
		q.After = page.Next
		page = must(d.SearchDeliveries(t.Context(), d.TenantID, q))(t)
	}
	if len(page.Rows) != 1 || page.Rows[0].StatusCode != 500 || page.Next != "" || pages > 4 {
		t.Errorf("after %d pages: %d rows, next %q", pages, len(page.Rows), page.Next)
	}
	if got := d.ids(DeliverySearch{Limit: 100, From: new(start().Add(scanLimit * time.Second))}); len(got) != 500 {
		t.Errorf("%d rows from then on, want 500", len(got))
	}
}

func listTickets(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	for i := range 9 {
		d.create(start().Add(time.Duration(i/3)*time.Second), d.draft(fmt.Sprint("ticket ", i)))
	}
	d.create(start(), d.draft("other"))
	want, _, err := d.Tickets(t.Context(), d.TenantID, ticket.Query{Search: "ticket ", Sort: "updated_at", Desc: true, Page: 1, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 2, 9, 50} {
		var got []ticket.Ticket
		for after := ""; ; {
			page := must(d.ListTickets(t.Context(), d.TenantID, ticket.Query{Search: "ticket ", Limit: limit}, after))(t)
			got = append(got, page.Rows...)
			if after = page.Next; after == "" {
				break
			}
		}
		if !slices.EqualFunc(got, want, func(a, b ticket.Ticket) bool { return a.TicketID == b.TicketID }) {
			t.Errorf("%d a page: %d tickets, want %d in the same order", limit, len(got), len(want))
		}
	}
	_, err = d.ListTickets(t.Context(), d.TenantID, ticket.Query{}, "s1-x")
	wantKind(t, "a cursor without an id", err, fault.Invalid)
}

func searchEvents(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	for i := range 5 {
		tk := d.create(start(), d.draft(fmt.Sprint("ticket ", i)))
		d.update(start().Add(time.Minute), tk.TicketID, ticket.Patch{Title: ticket.Some("changed")})
	}
	var got []string
	q := EventSearch{Types: []string{"ticket.updated"}, Limit: 2}
	for {
		page, _, err := d.SearchEvents(t.Context(), d.TenantID, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range page.Rows {
			got = append(got, envelopeOf(t, body).EventID)
		}
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	var want []string
	for _, e := range d.envelopes() {
		if e.EventType == "ticket.updated" {
			want = append([]string{e.EventID}, want...)
		}
	}
	if !slices.Equal(got, want) || len(want) != 5 {
		t.Errorf("got %v\nwant %v", got, want)
	}
	_, cursor, err := d.SearchEvents(t.Context(), d.TenantID, EventSearch{})
	if err != nil {
		t.Fatal(err)
	}
	d.create(start(), d.draft("later"))
	feed := must(d.Events(t.Context(), d.TenantID, FeedQuery{After: cursor}))(t)
	if len(feed.Envelopes) != 1 {
		t.Errorf("%d events follow the cursor, want the one that came later", len(feed.Envelopes))
	}
}

func eventsOfTicket(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("one"))
	d.create(start(), d.draft("other"))
	for i := range 4 {
		d.update(start().Add(time.Minute), tk.TicketID, ticket.Patch{Title: ticket.Some(fmt.Sprint(i))})
	}
	list, more, err := d.TicketEvents(t.Context(), d.TenantID, tk.TicketID, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 || !more || !strings.Contains(string(list[0]), `"title":"3"`) || !strings.Contains(string(list[2]), `"title":"1"`) {
		t.Errorf("%d events, more %t: %s", len(list), more, list[0])
	}
	if list, more, err = d.TicketEvents(t.Context(), d.TenantID, tk.TicketID, 5); err != nil || len(list) != 5 || more {
		t.Errorf("%d events, more %t, %v", len(list), more, err)
	}
}

// searchesOfTenants asks as one tenant for what another has.
func searchesOfTenants(t *testing.T, open opener) {
	s := open(t, guide)
	d, me := newDesk(t, s, "owner"), newDesk(t, s, "me")
	l := d.hook(start())
	tk := d.create(start(), d.draft("theirs"))
	row := l.log(DeliveryQuery{})[0]
	for _, q := range []DeliverySearch{{}, {WebhookID: l.hook.WebhookID}, {EventID: row.EventID}, {TicketID: tk.TicketID}} {
		if got := me.ids(q); len(got) > 0 {
			t.Errorf("%+v finds %v", q, got)
		}
	}
	_, err := s.FindDelivery(t.Context(), me.TenantID, row.DeliveryID)
	wantKind(t, "FindDelivery", err, fault.NotFound)
	_, err = s.Queue(t.Context(), start(), Lane{me.TenantID, l.hook.WebhookID})
	wantKind(t, "Queue", err, fault.NotFound)
	if list := must(s.DeliveriesOf(t.Context(), me.TenantID, []string{row.EventID}))(t); len(list) > 0 {
		t.Errorf("DeliveriesOf finds %v", list)
	}
	if list, _, err := s.TicketEvents(t.Context(), me.TenantID, tk.TicketID, 10); err != nil || len(list) > 0 {
		t.Errorf("TicketEvents finds %v, %v", list, err)
	}
	if page, _, err := s.SearchEvents(t.Context(), me.TenantID, EventSearch{}); err != nil || len(page.Rows) > 0 {
		t.Errorf("SearchEvents finds %v, %v", page, err)
	}
	if page := must(s.ListTickets(t.Context(), me.TenantID, ticket.Query{}, ""))(t); len(page.Rows) > 0 {
		t.Errorf("ListTickets finds %v", page)
	}
	if q := must(s.Owed(t.Context(), me.TenantID))(t); q.Pending > 0 || q.OldestDue != nil {
		t.Errorf("Owed is %+v", q)
	}
}

func countTraffic(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.hook(start(), func(s *delivery.Spec) { s.IsTestMode = true })
	minute := start().Truncate(time.Minute)
	for i, code := range []int{200, 200, 503} {
		at := minute.Add(time.Duration(i) * 30 * time.Second)
		d.create(at, d.draft("x"))
		l.answer(l.claimOne(at), status(code), at)
	}
	list := must(d.Traffic(t.Context(), d.TenantID, start()))(t)
	if len(list) != 2 || list[0].Delivered != 2 || list[0].Failed != 0 || list[1].Failed != 1 || !list[0].Start.Equal(minute) ||
		list[0].Latency[1] != 2 { // status answers after 20 ms
		t.Errorf("the traffic is %+v", list)
	}
	q := must(d.Queue(t.Context(), start(), l.lane()))(t)
	if q.Pending != 1 || q.OldestDue == nil || q.Waits != "" {
		t.Errorf("the queue is %+v", q)
	}
	if err := d.SetWait(t.Context(), l.lane(), delivery.WaitRateLimited, new(start().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	if q := must(d.Queue(t.Context(), start(), l.lane()))(t); q.Waits != delivery.WaitRateLimited {
		t.Errorf("the queue is %+v", q)
	}
	if q := must(d.Owed(t.Context(), d.TenantID))(t); q.Pending != 4 { // three of the webhook in test mode
		t.Errorf("owed is %+v", q)
	}
}

// useConsole runs the statements of the console that have a fixed text.
func useConsole(t *testing.T, l *line, ticketID string) {
	t.Helper()
	ctx := t.Context()
	token := must(l.SignIn(ctx, start(), l.rows.APIKey))(t)
	must(l.Session(ctx, start(), token))(t)
	must(l.UseLink(ctx, start(), must(l.NewLink(ctx, start(), l.TenantID, l.UserID))(t)))(t)
	must(l.Queue(ctx, start(), l.lane()))(t)
	must(l.Owed(ctx, l.TenantID))(t)
	must(l.Traffic(ctx, l.TenantID, start()))(t)
	must(l.FindDelivery(ctx, l.TenantID, l.log(DeliveryQuery{})[0].DeliveryID))(t)
	must(l.SearchDeliveries(ctx, l.TenantID, DeliverySearch{}))(t)
	must(l.ListTickets(ctx, l.TenantID, ticket.Query{}, ""))(t)
	if _, _, err := l.SearchEvents(ctx, l.TenantID, EventSearch{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.TicketEvents(ctx, l.TenantID, ticketID, 1); err != nil {
		t.Fatal(err)
	}
}

// TestSearchPlans asks the database how it reads the pages whose text depends on
// what is asked for: each from an index in its order.
func TestSearchPlans(t *testing.T) {
	t.Parallel()
	d := newDesk(t, openAt(t, place{dir: t.TempDir()}), "acme")
	for name, q := range map[string]DeliverySearch{
		"all": {}, "by status": {Status: "failed"}, "by code": {Code: "5xx"}, "by time": {From: new(start()), To: new(start())},
	} {
		w := &where{}
		w.and("d.tenant_id = ? and d.webhook_id = ?", "t", "w")
		if err := q.filter(w); err != nil {
			t.Fatal(err)
		}
		q.span(w, position{at: 1, id: "x"}, true)
		steps := strings.Join(plan(t, d.Store, logKeys+w.String()+logOrder+` limit `+w.arg(26)), "\n")
		if !strings.Contains(steps, "deliveries_log (tenant_id=? AND webhook_id=? AND <expr><?") &&
			!strings.Contains(steps, "deliveries_log (tenant_id=? AND webhook_id=? AND <expr>>? AND <expr><?)") || strings.Contains(steps, "TEMP B-TREE") {
			t.Errorf("%s:\n%s", name, steps)
		}
	}
	for name, q := range map[string]DeliverySearch{"of an event": {EventID: "x"}, "of a ticket": {TicketID: "x"}} {
		text, _, err := q.eventsText("t", position{at: 1, id: "x"}, true)
		if err != nil {
			t.Fatal(err)
		}
		steps := plan(t, d.Store, text)
		if !strings.Contains(strings.Join(steps, "\n"), "deliveries_event (tenant_id=? AND event_id=?") || slices.ContainsFunc(steps, func(step string) bool {
			return scans(step) && step != "SCAN c" && step != "SCAN chain"
		}) {
			t.Errorf("%s:\n%s", name, strings.Join(steps, "\n"))
		}
	}
}
