package cutover

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// A digest is a record as the comparison keeps it in memory: what is in a line
// without its texts, which are kept once each, and sorted, so that the order of
// the lines makes no difference. A line takes some hundred bytes.

// moment is a time in microseconds since 1970.
type moment = int64

// never is the moment of the zero time.
const never moment = -62135596800000000

// latest is the end of the year 9999.
const latest moment = 253402300799999999

func momentOf(t time.Time) moment { return t.UnixMicro() }

// time returns a moment as a time. A sum of times that are wrong can lie outside
// of the years that have a text.
func (d *digest) time(m moment) time.Time {
	if m <= never {
		return time.Time{}
	}
	return time.UnixMicro(min(m, latest)).UTC()
}

// span is a duration in microseconds; it does not overflow where time.Duration
// would.
func span(d time.Duration) moment { return d.Microseconds() }

// textID stands for a text of the digest; 0 is "".
type textID int32

type digest struct {
	texts  []string
	idOf   map[string]textID
	places map[string]int // field -> its place in a state

	states  []state
	stateOf map[string]int32

	polls     []polled
	looks     []look
	copies    []copied
	events    []event
	eventOf   map[eventKey]int32
	rows      []logRow
	rowOf     map[textID]int32
	reactions []reacted
	sweeps    []sweptState
	broken    []string

	watches       []*Watch
	gaps          []*Gap
	subscriptions []*Subscription
	receivers     []*Receiver
	reconcilers   []*Reconciler
	readings      []*Reading
	turns         []*Turn
	drills        []*Drill

	webhook string // entries about others do not count
	other   int    // such entries
	until   moment // entries that were written later do not count
	later   int    // such entries
	lines   int
	last    moment // the latest time at which something was written
}

// state is a state of a ticket: the values of its compared fields, 0 for one
// that is missing. Without fields only the hash is known.
type state struct {
	hash   string
	fields []textID
	polled bool   // a poll showed it
	body   string // the hash of the body that showed it, if none did
}

// polled is one request of the poller.
type polled struct {
	at, done, round, date moment
	ticket                textID
	failure               textID
	list                  textID // a Purpose
	page, limit           int32
	http                  int32
	last                  bool
	from, to              int32 // its looks
}

// look is one ticket as one poll showed it. Looks that show nothing new are not
// kept.
type look struct {
	ticket   textID
	verdict  textID
	state    int32
	updated  moment
	at, done moment // of its poll
}

// copied is one webhook request.
type copied struct {
	at, done          moment
	occurred, updated moment
	event             int32 // -1 for none
	delivery, ticket  textID
	webhook           textID
	outcome, body     textID
	state             int32
	http, attempt     int32
	signed, synthetic bool
	aside             string // why it says nothing about the webhook
}

type eventKey struct{ id, typ textID }

// event is one event, from all that is known of it.
type event struct {
	eventKey
	ticket            textID
	occurred, updated moment
	state             int32
	fed               fed // as the feed shows it

	copies, copiesTo int32
	rows, rowsTo     int32
	handled          moment // the first reaction that succeeded
	acted            int32  // how many did
	signed           bool   // a signed copy came
}

// fed is an event as the feed shows it.
type fed struct {
	at                moment // when it was read; never if the feed does not show it
	occurred, updated moment
	ticket            textID
	state             int32
}

// logRow is a row of the sender's log as it was last read.
type logRow struct {
	first                            moment // when it was read first
	read, attempted, completed, next moment
	event                            int32
	delivery, ticket, status, err    textID
	http, attempt                    int32
	test, manual                     bool
}

type reacted struct {
	at           moment
	event        int32
	attempt      int32
	acted, stale bool
	ok           bool
}

// sweptState is a ticket as a closing sweep read it.
type sweptState struct {
	at, updated moment
	ticket      textID
	state       int32
}

func newDigest(webhook string, until time.Time) *digest {
	d := &digest{
		texts: []string{""}, idOf: map[string]textID{"": 0}, places: map[string]int{},
		states: make([]state, 1), stateOf: map[string]int32{},
		eventOf: map[eventKey]int32{}, rowOf: map[textID]int32{},
		webhook: webhook, until: momentOf(until), last: never,
	}
	for i, name := range compared() {
		d.places[name] = i
	}
	return d
}

func (d *digest) id(text string) textID {
	id, has := d.idOf[text]
	if !has {
		id = textID(len(d.texts))
		text = strings.Clone(text)
		d.texts = append(d.texts, text)
		d.idOf[text] = id
	}
	return id
}

func (d *digest) text(id textID) string { return d.texts[id] }

// add takes an entry in. What an entry lacks to be of use is kept as broken.
func (d *digest) add(e Entry) {
	d.lines++
	written, wrong := check(e)
	switch {
	case wrong != "":
		d.breaks(wrong, e)
		return
	case d.until != never && momentOf(written) > d.until:
		d.later++
		return
	}
	d.last = max(d.last, momentOf(written))
	switch {
	case e.Poll != nil:
		d.poll(e.Poll)
	case e.Receipt != nil:
		d.receipt(e.Receipt)
	case e.Delivery != nil:
		d.delivery(e.Delivery)
	case e.Truth != nil:
		d.truth(e.Truth)
	case e.Reaction != nil:
		r := e.Reaction
		d.reactions = append(d.reactions, reacted{
			at: momentOf(r.At), event: d.event(r.EventID, r.EventType), attempt: int32(r.Attempt),
			acted: r.Acted, stale: r.Stale, ok: r.Error == "",
		})
	case e.Watch != nil:
		d.watches = append(d.watches, e.Watch)
	case e.Gap != nil:
		d.gaps = append(d.gaps, e.Gap)
	case e.Subscription != nil:
		if d.about(e.Subscription.WebhookID) {
			d.subscriptions = append(d.subscriptions, e.Subscription)
		}
	case e.Reading != nil:
		d.readings = append(d.readings, e.Reading)
	case e.Receiver != nil:
		d.receivers = append(d.receivers, e.Receiver)
	case e.Reconciler != nil:
		d.reconcilers = append(d.reconcilers, e.Reconciler)
	case e.Turn != nil:
		d.turns = append(d.turns, e.Turn)
	case e.Drill != nil:
		d.drills = append(d.drills, e.Drill)
	}
}

func (d *digest) about(webhook string) bool {
	if d.webhook == "" || webhook == d.webhook {
		return true
	}
	d.other++
	return false
}

// breaks keeps an entry that says nothing, with the reason.
func (d *digest) breaks(why string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		text = []byte(err.Error())
	}
	if len(text) > 300 {
		text = append(text[:300:300], "..."...)
	}
	d.broken = append(d.broken, why+": "+strings.ToValidUTF8(string(text), "?"))
}

// check returns when an entry was written, or what is wrong with it.
func check(e Entry) (written time.Time, wrong string) {
	kinds := 0
	need := func(at time.Time, more string) {
		kinds++
		written = at
		switch {
		case kinds > 1:
			wrong = "an entry of several kinds"
		case at.IsZero():
			wrong = "an entry without a time"
		case more != "":
			wrong = more
		}
	}
	if e.Watch != nil {
		need(e.Watch.At, "")
	}
	if e.Poll != nil {
		need(e.Poll.Done, lacks(e.Poll.At.IsZero(), "a poll without the time of its request"))
	}
	if e.Receipt != nil {
		need(e.Receipt.At, lacks(e.Receipt.Signed && e.Receipt.HTTP/100 == 2 && (e.Receipt.EventID == "" || e.Receipt.EventType == ""),
			"a receipt that was accepted without an event"))
	}
	if e.Delivery != nil {
		need(e.Delivery.At, lacks(e.Delivery.DeliveryID == "" || e.Delivery.EventID == "" || !knownStatus(e.Delivery.Status),
			"a delivery without an id, an event or a status that is known"))
	}
	if e.Truth != nil {
		feed := e.Truth.Source == "feed" && e.Truth.EventID != "" && e.Truth.EventType != "" && !e.Truth.OccurredAt.IsZero()
		sweep := e.Truth.Source == "sweep" && e.Truth.Ticket != "" && !e.Truth.UpdatedAt.IsZero()
		need(e.Truth.At, lacks(!feed && !sweep, "a truth that is neither an event of the feed nor a ticket of a sweep"))
	}
	if g := e.Gap; g != nil {
		sides := []Side{SidePoller, SideReceiver, SideWebhook, SideClock}
		need(g.From, lacks(g.To.Before(g.From) || !slices.Contains(sides, g.Side), "a gap that ends before it begins, or of no side"))
	}
	if e.Subscription != nil {
		need(e.Subscription.At, "")
	}
	if e.Receiver != nil {
		need(e.Receiver.At, "")
	}
	if e.Reading != nil {
		need(e.Reading.At, lacks(e.Reading.To.Before(e.Reading.From), "a reading that ends before it begins"))
	}
	if e.Reaction != nil {
		need(e.Reaction.At, lacks(e.Reaction.EventID == "", "a reaction without an event"))
	}
	if e.Reconciler != nil {
		need(e.Reconciler.At, "")
	}
	if e.Turn != nil {
		need(e.Turn.At, "")
	}
	if e.Drill != nil {
		need(e.Drill.At, "")
	}
	if kinds == 0 {
		wrong = "an entry of no kind"
	}
	return written, wrong
}

func lacks(it bool, what string) string {
	if it {
		return what
	}
	return ""
}

func knownStatus(s string) bool {
	return slices.Contains([]string{"pending", "retrying", "delivered", "abandoned", "failed"}, s)
}

func (d *digest) poll(p *Poll) {
	q := polled{
		at: momentOf(p.At), done: momentOf(p.Done), round: momentOf(p.Round), date: momentOf(p.Date),
		ticket: d.id(strings.ToLower(p.Ticket)), failure: d.id(string(p.Failure)), limit: int32(p.Limit), http: int32(p.HTTP),
		from: int32(len(d.looks)),
	}
	if p.List != nil {
		q.list, q.page, q.last = d.id(string(p.List.For)), int32(p.List.Page), p.List.Last
	}
	for i := range p.Seen {
		o := &p.Seen[i]
		switch {
		case o.Ticket == "" || o.UpdatedAt.IsZero() || !slices.Contains([]Verdict{First, New, Changed, Same, Older}, o.Verdict):
			d.breaks("an observation without a ticket, an updated_at or a verdict that is known", o)
		case o.Verdict != Same || o.Fields != nil:
			d.looks = append(d.looks, look{
				ticket: d.id(strings.ToLower(o.Ticket)), verdict: d.id(string(o.Verdict)), updated: momentOf(o.UpdatedAt),
				state: d.state(o.Hash, o.Fields), at: q.at, done: q.done,
			})
		}
	}
	q.to = int32(len(d.looks))
	slices.SortFunc(d.looks[q.from:q.to], d.compareLooks)
	d.polls = append(d.polls, q)
}

// state returns the state with this hash, and learns its fields.
func (d *digest) state(hash string, fields map[string]json.RawMessage) int32 {
	i := d.stateAt(hash)
	if i == 0 || fields == nil {
		return i
	}
	values := d.valuesOf(fields)
	// Equal hashes have equal fields. Where a record says otherwise, the order of
	// its lines must not decide.
	if s := &d.states[i]; !s.polled || d.compareValues(values, s.fields) < 0 {
		s.fields, s.polled = values, true
	}
	return i
}

func (d *digest) stateAt(hash string) int32 {
	if hash == "" {
		return 0
	}
	i, has := d.stateOf[hash]
	if !has {
		i = int32(len(d.states))
		hash = strings.Clone(hash)
		d.states = append(d.states, state{hash: hash})
		d.stateOf[hash] = i
	}
	return i
}

func (d *digest) valuesOf(fields map[string]json.RawMessage) []textID {
	values := make([]textID, len(d.places))
	for name, raw := range fields {
		if i, has := d.places[name]; has {
			values[i] = d.id(string(raw))
		}
	}
	return values
}

func (d *digest) compareValues(a, b []textID) int {
	return slices.CompareFunc(a, b, func(x, y textID) int { return strings.Compare(d.text(x), d.text(y)) })
}

func (d *digest) receipt(r *Receipt) {
	c := copied{
		at: momentOf(r.At), done: momentOf(r.Done), occurred: momentOf(r.OccurredAt), updated: momentOf(r.UpdatedAt), event: -1,
		delivery: d.id(r.DeliveryID), webhook: d.id(strings.ToLower(r.WebhookID)), outcome: d.id(r.Outcome), body: d.id(r.BodyHash), http: int32(r.HTTP),
		attempt: int32(r.Attempt), signed: r.Signed, synthetic: r.Synthetic,
	}
	ticket := r.Ticket
	i := d.stateAt(r.Hash)
	if s := &d.states[i]; r.Body != "" && (i != 0 && !s.polled && (s.body == "" || r.BodyHash < s.body) || ticket == "" && !r.Signed) {
		var e struct {
			Data json.RawMessage `json:"data"`
		}
		var who struct {
			TicketID string `json:"ticket_id"`
		}
		if json.Unmarshal([]byte(r.Body), &e) == nil && json.Unmarshal(e.Data, &who) == nil {
			ticket = cmp.Or(ticket, who.TicketID)
			if fields, _, err := stateOf(e.Data); err == nil && i != 0 && !s.polled {
				s.fields, s.body = d.valuesOf(fields), strings.Clone(r.BodyHash)
			}
		}
	}
	c.state, c.ticket = i, d.id(strings.ToLower(ticket))
	if r.EventID != "" {
		c.event = d.event(r.EventID, r.EventType)
	}
	d.copies = append(d.copies, c)
}

// event returns the place of an event.
func (d *digest) event(id, typ string) int32 {
	key := eventKey{d.id(id), d.id(typ)}
	i, has := d.eventOf[key]
	if !has {
		i = int32(len(d.events))
		d.events = append(d.events, event{eventKey: key, occurred: never, updated: never, handled: never, fed: fed{at: never}})
		d.eventOf[key] = i
	}
	return i
}

func (d *digest) delivery(l *Delivery) {
	if !d.about(l.WebhookID) {
		return
	}
	r := logRow{
		first: momentOf(l.At), read: momentOf(l.At), attempted: momentOf(l.AttemptedAt), completed: momentOf(l.CompletedAt), next: momentOf(l.NextRetryAt),
		event: d.event(l.EventID, l.EventType), delivery: d.id(l.DeliveryID), ticket: d.id(strings.ToLower(l.Ticket)),
		status: d.id(l.Status), err: d.id(l.Error), http: int32(l.HTTP), attempt: int32(l.Attempt), test: l.Test, manual: l.Manual,
	}
	i, has := d.rowOf[r.delivery]
	switch {
	case !has:
		d.rowOf[r.delivery] = int32(len(d.rows))
		d.rows = append(d.rows, r)
	default:
		r.first = min(r.first, d.rows[i].first)
		d.rows[i].first = r.first
		if d.compareRows(&r, &d.rows[i]) > 0 {
			d.rows[i] = r
		}
	}
}

// compareRows says which reading of one row counts: the later one, and of two at
// the same time the one that is further on.
func (d *digest) compareRows(a, b *logRow) int {
	return cmp.Or(cmp.Compare(a.read, b.read), cmp.Compare(a.completed, b.completed), strings.Compare(d.text(a.status), d.text(b.status)),
		cmp.Compare(a.attempted, b.attempted), cmp.Compare(a.next, b.next), cmp.Compare(a.http, b.http), cmp.Compare(a.attempt, b.attempt),
		strings.Compare(d.text(a.err), d.text(b.err)), strings.Compare(d.text(a.ticket), d.text(b.ticket)),
		d.compareEvents(a.event, b.event))
}

func (d *digest) truth(t *Truth) {
	if t.Source == "sweep" {
		d.sweeps = append(d.sweeps, sweptState{momentOf(t.At), momentOf(t.UpdatedAt), d.id(strings.ToLower(t.Ticket)), d.state(t.Hash, t.Fields)})
		return
	}
	f := fed{momentOf(t.At), momentOf(t.OccurredAt), momentOf(t.UpdatedAt), d.id(strings.ToLower(t.Ticket)), d.state(t.Hash, t.Fields)}
	e := &d.events[d.event(t.EventID, t.EventType)]
	if e.fed.at == never || d.compareFed(f, e.fed) < 0 {
		e.fed = f
	}
}

func (d *digest) compareFed(a, b fed) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.occurred, b.occurred), d.compareText(a.ticket, b.ticket),
		cmp.Compare(a.updated, b.updated), d.compareStates(a.state, b.state))
}
