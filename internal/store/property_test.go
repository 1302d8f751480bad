package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// TestChains runs random sequences of everything that can happen to deliveries
// and compares the log with the rules after each step.
func TestChains(t *testing.T) {
	t.Parallel()
	onEach(t, chainsHold)
	behindPooler(t, chainsHold)
}

func chainsHold(t *testing.T, p place) {
	s := openAt(t, p, mails, func(c *Config) {
		c.Policy = delivery.Policy{
			Schedule:     []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute},
			DisableAfter: 20 * time.Minute, WarnAfter: []time.Duration{10 * time.Minute}, GoneDisables: true,
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		d := newDesk(t, s, "acme")
		m := &chains{line: d.hook(start()), now: start(), events: map[string]*eventModel{}}
		m.intake = d.take()
		rt.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"event":   m.event,
			"wait":    m.wait,
			"claim":   m.claimSome,
			"answer":  m.answerOne,
			"release": m.releaseOne,
			"restart": m.restart,
			"retry":   m.retrySome,
			"test":    m.test,
			"switch":  m.switchOver,
			"replay":  m.replaySome,
			"page":    m.replayPage,
			"timer":   m.timer,
			"look":    m.look,
		})
		m.settle(rt)
	})
}

// chains is what the test knows about one webhook.
type chains struct {
	*line
	intake *taker
	now    time.Time
	events map[string]*eventModel
	order  []string // event ids, oldest first
	held   []heldClaim
	counts int64 // attempts that moved the counters
}

type eventModel struct {
	sent    int  // attempts that were recorded
	dropped bool // it was owed or missed in an outage, and nobody asked for it
	missed  bool // it was fired in an outage that has not ended
}

// heldClaim is a claim that nobody has recorded or released.
type heldClaim struct {
	Claimed
	target delivery.Webhook
	until  time.Time
	void   bool // a restart took the lease away
	handed bool // it came straight from its commit, and may have no row
}

// look reads the log, for which everything gets a row.
func (m *chains) look(rt *rapid.T) {
	_, _, err := m.Deliveries(context.Background(), m.TenantID, m.hook.WebhookID, DeliveryQuery{})
	if err != nil {
		rt.Fatal(err)
	}
	for _, h := range m.held {
		if c, err := chainIn(m, h.EventID); err != nil || !h.void && c.rows == 0 {
			rt.Fatalf("event %s has %d rows, %v", h.EventID, c.rows, err)
		}
	}
}

// handedOver reports whether an event may have no row yet.
func (m *chains) handedOver(eventID string) bool {
	return slices.ContainsFunc(m.held, func(h heldClaim) bool { return h.handed && !h.void && h.EventID == eventID })
}

// rows returns the webhook's whole log in the order in which it was written.
func (m *chains) rows(rt *rapid.T) []delivery.Delivery {
	rows, err := m.reader(context.Background()).query(`select `+deliveryColumns+deliveryTables+`
		where d.tenant_id = $1 and d.webhook_id = $2 order by d.delivery_id`, m.TenantID, m.hook.WebhookID)
	list, err := collect(rows, err, scanDelivery)
	if err != nil {
		rt.Fatal(err)
	}
	return list
}

func (m *chains) event(rt *rapid.T) {
	if len(m.order) >= 8 {
		rt.Skip("enough events")
	}
	hook := m.current()
	m.intake.full = rapid.Bool().Draw(rt, "full")
	m.create(m.now, m.draft(fmt.Sprint("event ", len(m.order))))
	for _, c := range m.intake.got {
		// The lease of what was handed over is its dispatcher's as long as that lives.
		m.held = append(m.held, heldClaim{Claimed: c, target: hook, until: m.now.Add(1000 * time.Hour), handed: true})
	}
	m.intake.got = nil
	feed, err := m.Events(context.Background(), m.TenantID, FeedQuery{Limit: 1000})
	if err != nil {
		rt.Fatal(err)
	}
	id := envelopeOf(m.t, feed.Envelopes[len(feed.Envelopes)-1]).EventID
	m.events[id] = &eventModel{missed: !hook.IsActive}
	m.order = append(m.order, id)
}

func (m *chains) wait(rt *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 300).Draw(rt, "seconds")) * time.Second)
}

func (m *chains) claimSome(rt *rapid.T) {
	b, err := m.Claim(context.Background(), m.now, ClaimRequest{
		Lane: m.lane(), Owner: "node", Limit: rapid.IntRange(1, 3).Draw(rt, "limit"), Lease: lease,
	})
	if err != nil {
		rt.Fatal(err)
	}
	if len(b.Deliveries) > 0 && !b.Target.IsActive {
		rt.Fatal("claimed deliveries of an inactive webhook")
	}
	m.hold(rt, b)
}

// hold takes over a batch. No two live leases may be on one row.
func (m *chains) hold(rt *rapid.T, b Batch) {
	for _, c := range b.Deliveries {
		for _, h := range m.held {
			if h.DeliveryID == c.DeliveryID && !h.void && h.until.After(m.now) {
				rt.Fatalf("delivery %s was claimed twice", c.DeliveryID)
			}
		}
		m.held = append(m.held, heldClaim{Claimed: c, target: b.Target.Webhook, until: m.now.Add(lease)})
	}
}

// take removes a random claim from those that are held.
func (m *chains) take(rt *rapid.T) heldClaim {
	if len(m.held) == 0 {
		rt.Skip("nothing is claimed")
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(rt, "claim")
	h := m.held[i]
	m.held = slices.Delete(m.held, i, i+1)
	return h
}

func (m *chains) answerOne(rt *rapid.T) {
	h := m.take(rt)
	a := rapid.SampledFrom([]delivery.Answer{
		status(200), status(500), status(500), status(500), status(410), {Err: delivery.ErrSSRF}, {Err: delivery.ErrTimeout},
	}).Draw(rt, "answer")
	m.record(rt, h, a)
}

func (m *chains) record(rt *rapid.T, h heldClaim, a delivery.Answer) {
	r := m.answered(&h.target, h.Claimed, a, m.now)
	// Sent when it was claimed: a replay may send another attempt before this
	// one is answered.
	r.StartedAt = h.Since
	out, err := m.Record(context.Background(), []Result{r})
	if err != nil {
		rt.Fatal(err)
	}
	if out[0].Fenced {
		if !h.void && h.until.After(m.now) {
			rt.Fatalf("a live lease on %s was fenced", h.DeliveryID)
		}
		return
	}
	if h.void {
		rt.Fatalf("a void lease on %s could record", h.DeliveryID)
	}
	if e := m.events[h.EventID]; e != nil {
		e.sent++
	}
	if h.Counts(a) {
		m.counts++
	}
}

func (m *chains) releaseOne(rt *rapid.T) {
	h := m.take(rt)
	if err := m.Release(context.Background(), []Claimed{h.Claimed}); err != nil {
		rt.Fatal(err)
	}
}

// restart is a crash: what was claimed may still answer, too late.
func (m *chains) restart(rt *rapid.T) {
	if err := m.ReleaseAll(context.Background()); err != nil {
		rt.Fatal(err)
	}
	for i := range m.held {
		m.held[i].void = true
	}
}

func (m *chains) retrySome(rt *rapid.T) {
	rows := m.rows(rt)
	if len(rows) == 0 {
		rt.Skip("no deliveries")
	}
	b, err := m.retry(m.now, rapid.SampledFrom(rows).Draw(rt, "row").DeliveryID)
	switch {
	case fault.Is(err, fault.Conflict):
	case err != nil:
		rt.Fatal(err)
	default:
		m.hold(rt, b)
	}
}

func (m *chains) test(rt *rapid.T) {
	b, err := m.BeginTest(context.Background(), m.now, m.TenantID, m.hook.WebhookID, "hand", lease)
	if err != nil {
		rt.Fatal(err)
	}
	m.hold(rt, b)
}

// switchOver switches the webhook off, or on with or without a replay.
func (m *chains) switchOver(rt *rapid.T) {
	if m.current().IsActive {
		m.active(m.now, false, false)
		return
	}
	m.switchBack(rt, rapid.Bool().Draw(rt, "replay"))
}

func (m *chains) switchBack(rt *rapid.T, replay bool) {
	n := m.active(m.now, true, replay)
	if !replay && n > 0 {
		rt.Fatalf("replayed %d without being asked", n)
	}
	for id, e := range m.events {
		c, err := chainIn(m, id)
		if err != nil {
			rt.Fatal(err)
		}
		switch {
		case e.missed && replay && c.rows == 0:
			rt.Fatalf("event %s was missed and not replayed", id)
		case !replay && (e.missed || c.rows > 0 && !c.delivered.Valid && !c.planned):
			e.dropped = true
		}
		e.missed = false
	}
}

// replaySome starts a replay of what has happened, if the webhook allows one.
func (m *chains) replaySome(rt *rapid.T) {
	_, err := m.StartReplay(context.Background(), m.now, m.TenantID, m.hook.WebhookID, ReplayQuery{
		Since: m.now.Add(-time.Duration(rapid.IntRange(0, 3600).Draw(rt, "seconds")) * time.Second),
		Only:  rapid.SampledFrom([]string{ReplayFailed, ReplayAll}).Draw(rt, "only"),
	})
	if err != nil && !fault.Is(err, fault.Conflict) {
		rt.Fatal(err)
	}
}

// replayPage lets the running replay go on.
func (m *chains) replayPage(rt *rapid.T) {
	running, err := m.RunningReplays(context.Background())
	if err != nil {
		rt.Fatal(err)
	}
	for _, r := range running {
		if r.TenantID != m.TenantID {
			continue
		}
		room := rapid.IntRange(1, 3).Draw(rt, "room")
		next, err := m.ReplayNext(context.Background(), m.now, r.TenantID, r.ReplayID, room)
		if err != nil {
			rt.Fatal(err)
		}
		if queued := next.Queued - r.Queued; queued > room || next.Queued+next.Skipped > len(m.order) {
			rt.Fatalf("queued %d of %d, and is %+v", queued, room, next)
		}
	}
}

func chainIn(m *chains, eventID string) (c chain, err error) {
	err = m.do(context.Background(), func(t *tx) error {
		c, err = t.chainOf(m.TenantID, m.hook.WebhookID, eventID)
		return err
	})
	return c, err
}

func (m *chains) timer(rt *rapid.T) {
	if _, err := m.DisableOverdue(context.Background(), m.now); err != nil {
		rt.Fatal(err)
	}
}

// check compares the log with the rules.
func (m *chains) check(rt *rapid.T) {
	log := map[string][]delivery.Delivery{}
	for _, row := range m.rows(rt) {
		if !row.IsTest {
			log[row.EventID] = append(log[row.EventID], row)
		}
	}
	if got := m.current().TotalDeliveries; got != m.counts {
		rt.Fatalf("the counter says %d attempts, %d were recorded", got, m.counts)
	}
	for id, e := range m.events {
		rows := log[id]
		if len(rows) == 0 && !e.missed && !e.dropped && !m.handedOver(id) {
			rt.Fatalf("event %s is not in the log", id)
		}
		if err := m.checkChain(e, rows); err != nil {
			rt.Fatalf("event %s: %v\n%v", id, err, byID(rows))
		}
	}
}

// checkChain says which rule the rows of one event break.
func (m *chains) checkChain(e *eventModel, rows []delivery.Delivery) error {
	steps := len(m.cfg.Policy.Schedule)
	sent, pending, manual := map[int]bool{}, 0, 0
	var planned *delivery.Delivery // the row that the next planned one follows
	for i := range rows {
		row := &rows[i]
		if !bytes.Equal(row.Body, rows[0].Body) || len(row.Body) == 0 {
			return fmt.Errorf("attempt %d has another body", row.Attempt)
		}
		if row.AttemptedAt != nil {
			if sent[row.Attempt] {
				return fmt.Errorf("attempt %d was sent twice", row.Attempt)
			}
			sent[row.Attempt] = true
		}
		switch {
		case row.IsManual && row.Status == delivery.Pending:
			manual++
		case row.Status == delivery.Pending:
			pending++
		}
		if row.IsManual {
			continue
		}
		if row.Step > steps {
			return fmt.Errorf("step %d of %d", row.Step, steps)
		}
		if row.Step > 0 && (planned == nil || planned.Step != row.Step-1 || planned.Status != delivery.Retrying || !planned.NextRetryAt.Equal(row.DueAt)) {
			return fmt.Errorf("step %d follows nothing", row.Step)
		}
		if row.Step == 0 && planned != nil && planned.Status == delivery.Retrying {
			return fmt.Errorf("nothing follows step %d", planned.Step)
		}
		planned = row
	}
	switch {
	case planned != nil && planned.Status == delivery.Retrying:
		return fmt.Errorf("nothing follows step %d", planned.Step)
	case pending > 1 || manual > 1:
		return fmt.Errorf("%d planned and %d manual attempts at once", pending, manual)
	case len(sent) != e.sent:
		return fmt.Errorf("the log has %d attempts, %d were recorded", len(sent), e.sent)
	}
	return nil
}

// settle ends every lease, lets every delivery succeed, and looks for what was
// lost.
func (m *chains) settle(rt *rapid.T) {
	m.SetIntake(nil)
	m.restart(rt) // whoever was handed something is gone
	m.held = nil
	if !m.current().IsActive {
		m.switchBack(rt, true)
	}
	for range 10 {
		m.now = m.now.Add(time.Hour)
		b, err := m.Claim(context.Background(), m.now, ClaimRequest{Lane: m.lane(), Owner: "node", Limit: 100, Lease: lease})
		if err != nil {
			rt.Fatal(err)
		}
		for _, c := range b.Deliveries {
			m.record(rt, heldClaim{Claimed: c, target: b.Target.Webhook, until: m.now.Add(lease)}, status(200))
		}
		m.check(rt)
	}
	log := map[string][]delivery.Delivery{}
	for _, row := range m.rows(rt) {
		if row.Status == delivery.Pending {
			rt.Fatalf("delivery %s is never sent", row.DeliveryID)
		}
		log[row.EventID] = append(log[row.EventID], row)
	}
	for id, e := range m.events {
		delivered := slices.ContainsFunc(log[id], func(d delivery.Delivery) bool { return d.Status == delivery.Delivered })
		// An attempt that failed for good is an end too.
		ended := slices.ContainsFunc(log[id], func(d delivery.Delivery) bool {
			return d.Status == delivery.Abandoned && d.AttemptedAt != nil && !d.IsManual
		})
		if !delivered && !ended && !e.dropped {
			rt.Fatalf("event %s was lost: %v", id, byID(log[id]))
		}
	}
	m.numbers(rt, log)
}

// numbers checks that the attempts of an event count up in the order in which
// they were sent, unless a person's attempt was lost in between.
func (m *chains) numbers(rt *rapid.T, log map[string][]delivery.Delivery) {
	for id, rows := range log {
		if slices.ContainsFunc(rows, func(d delivery.Delivery) bool { return d.IsManual || d.IsTest }) {
			continue
		}
		rows = slices.DeleteFunc(rows, func(d delivery.Delivery) bool { return d.AttemptedAt == nil })
		slices.SortFunc(rows, func(a, b delivery.Delivery) int { return cmp.Compare(a.Attempt, b.Attempt) })
		for i, row := range rows {
			if row.Attempt != i+1 || i > 0 && row.AttemptedAt.Before(*rows[i-1].AttemptedAt) {
				rt.Fatalf("event %s: attempts %v", id, byID(rows))
			}
		}
	}
}
