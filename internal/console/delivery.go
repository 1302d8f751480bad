package console

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

func deliveryRoutes() []route {
	return []route{
		{"GET /console/deliveries", "webhook", "read", (*visit).listDeliveries},
		{"GET /console/deliveries/{id}", "webhook", "read", (*visit).showDelivery},
		{"GET /console/deliveries/{id}/attempts", "webhook", "read", (*visit).deliveryAttempts},
		{"POST /console/deliveries/{id}/resend", "webhook", "retry", (*visit).resend},
	}
}

// deliveryRow is one row of the log as a list shows it.
type deliveryRow struct {
	delivery.Delivery
	Webhook string // its name; "" where all are of one
	Ticket  string // its number, or the end of its id; "" for a test
}

// Time is when it was sent, or is due.
func (d *deliveryRow) Time() time.Time {
	if d.AttemptedAt != nil {
		return *d.AttemptedAt
	}
	return d.DueAt
}

// Kind is the colour of a status.
func (d *deliveryRow) Kind() string { return statusKind(d.Status) }

func statusKind(s delivery.Status) string {
	switch s {
	case delivery.Delivered:
		return "good"
	case delivery.Pending:
		return "wait"
	case delivery.Retrying:
		return "warn"
	}
	return "bad"
}

// State is the status in words.
func (d *deliveryRow) State() string { return statusText(d.Status) }

func statusText(s delivery.Status) string {
	switch s {
	case delivery.Pending:
		return "waiting"
	case delivery.Retrying:
		return "failed, retried"
	case delivery.Abandoned:
		return "given up"
	}
	return string(s)
}

func rowsOf(list []delivery.Delivery) []deliveryRow {
	out := make([]deliveryRow, len(list))
	for i, d := range list {
		out[i] = deliveryRow{Delivery: d, Ticket: ticketNumber(&d)}
	}
	return out
}

// ticketNumber is the number in the body, which a webhook's fields can leave out.
func ticketNumber(d *delivery.Delivery) string {
	var e struct {
		Data struct {
			Number string `json:"ticket_number"`
		} `json:"data"`
	}
	if json.Unmarshal(d.Body, &e) == nil && e.Data.Number != "" {
		return e.Data.Number
	}
	return short(d.TicketID)
}

// deliveryList is a page of the log.
type deliveryList struct {
	Rows    []deliveryRow
	Back    *time.Time
	Query   url.Values
	Hooks   []hookName
	Filters bool
	Times   []timeField
	Error   string
	More    string
}

// hookName is a webhook to choose.
type hookName struct{ ID, Name string }

// Types are the event types to filter by.
func (*deliveryList) Types() []string {
	return append(slices.DeleteFunc(delivery.EventTypes(), func(s string) bool { return !delivery.Fires(s) }), webhook.Test)
}

// Classes are the classes of failure.
func (*deliveryList) Classes() []delivery.ErrorType {
	return delivery.ErrorTypes()
}

// Statuses are the statuses to filter by, with their words.
func (*deliveryList) Statuses() [][2]string {
	return [][2]string{
		{"delivered", "delivered"}, {"pending", "waiting"}, {"failed", "failed"}, {"retrying", "failed, retried"}, {"abandoned", "given up"},
	}
}

func (v *visit) listDeliveries() error {
	q := v.r.URL.Query()
	p := deliveryList{Query: q}
	names, err := v.webhookNames()
	if err != nil {
		return err
	}
	for id, name := range names {
		p.Hooks = append(p.Hooks, hookName{id, name})
	}
	slices.SortFunc(p.Hooks, func(a, b hookName) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	for name, list := range q {
		p.Filters = p.Filters || name != "after" && name != "done" && strings.Join(list, "") != ""
	}
	search := store.DeliverySearch{
		WebhookID: q.Get("webhook"), Status: q.Get("status"), Code: strings.ToLower(strings.TrimSpace(q.Get("code"))),
		ErrorType: q.Get("error"), EventType: q.Get("type"), EventID: strings.TrimSpace(q.Get("event")), After: q.Get("after"), Limit: 50,
	}
	var from, to timeField
	from, search.From = bound(q, "from", "From", false)
	to, search.To = bound(q, "to", "Until", true)
	if p.Times = []timeField{from, to}; from.Error != "" || to.Error != "" {
		p.Error = "A time is not clear; what is wrong stands beside it."
	}
	if ticket := strings.TrimSpace(q.Get("ticket")); ticket != "" {
		id, err := v.ticketID(ticket)
		if err != nil {
			return err
		}
		search.TicketID = id
	}
	var found store.Found[delivery.Delivery]
	if p.Error == "" {
		found, err = v.store().SearchDeliveries(v.ctx, v.tenant(), search)
	}
	if fault.Is(err, fault.Invalid) {
		p.Error, err = messageOf(err), nil
	}
	if err != nil {
		return err
	}
	p.Rows, p.Back, p.More = rowsOf(found.Rows), found.Back, next(v.r, found.Next)
	for i := range p.Rows {
		p.Rows[i].Webhook = cmp.Or(names[p.Rows[i].WebhookID], "a deleted webhook")
	}
	return v.page(statusOf(p.Error), "deliveries", "deliveries", "Deliveries", &p)
}

// deliveryPage is one attempt, and the others of its event at the same webhook.
type deliveryPage struct {
	deliveryRow
	Hook     *delivery.Webhook // nil when it was deleted
	Request  [][2]string       // the headers as sent, or as they will be
	Response [][2]string
	Body     string // pretty
	Exact    string // as sent
	Curl     string
	Chain    attempts
	Resend   bool // it may be sent again
}

// ChainView is the chain for its template.
func (p *deliveryPage) ChainView() *attempts { return &p.Chain }

// attempts is the chain of an event at a webhook, oldest first.
type attempts struct {
	ID      string // of the delivery that is shown
	List    []deliveryRow
	Refresh string // when htmx asks again; "" when all is settled
	Limit   int    // of the webhook, requests per minute; 0 without
}

// Why says why an attempt was not sent, or has to wait; "" for one that was sent.
func (a *attempts) Why(d *deliveryRow) string {
	switch {
	case d.Status == delivery.Abandoned && d.AttemptedAt == nil && d.WaitReason == delivery.WaitSuperseded:
		return "Not sent: another attempt has delivered the event."
	case d.Status == delivery.Abandoned && d.AttemptedAt == nil:
		return "Not sent: the webhook was switched off. Replay brings it back."
	case d.Status != delivery.Pending:
		return ""
	case d.WaitReason == delivery.WaitRateLimited && a.Limit > 0:
		return fmt.Sprintf("Waits for the webhook's rate limit of %d per minute; that uses up no attempt.", a.Limit)
	case d.WaitReason != delivery.WaitDue:
		return waitsBecause(d.WaitReason)
	case d.Attempt > 1 || d.Step > 0:
		return "Waits for its time on the retry schedule."
	}
	return "Is on its way."
}

func (v *visit) showDelivery() error {
	d, err := v.store().FindDelivery(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	p := deliveryPage{deliveryRow: deliveryRow{Delivery: d, Webhook: "a deleted webhook", Ticket: ticketNumber(&d)}, Exact: string(d.Body)}
	w, err := v.store().Webhook(v.ctx, v.tenant(), d.WebhookID)
	switch {
	case err == nil:
		p.Hook, p.Webhook = &w, w.Name
		p.Resend = d.Status != delivery.Delivered && d.Status != delivery.Pending
	case !fault.Is(err, fault.NotFound):
		return err
	}
	if p.Chain, err = v.attempts(&d, p.Hook); err != nil {
		return err
	}
	for _, a := range p.Chain.List {
		p.Resend = p.Resend && a.Status != delivery.Delivered
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, d.Body, "", "  ") == nil {
		p.Body = pretty.String()
	}
	p.Response = sorted(d.ResponseHeaders)
	if d.AttemptedAt != nil {
		p.Request = sorted(d.RequestHeaders)
	} else {
		for name, value := range d.Headers {
			p.Request = append(p.Request, [2]string{name, value})
		}
	}
	if p.Hook != nil {
		p.Curl = curl(p.Hook, p.Request, p.Exact)
	}
	return v.page(http.StatusOK, "delivery", "deliveries", d.EventType+" to "+p.Webhook, &p)
}

func sorted(m map[string]string) [][2]string {
	var out [][2]string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, [2]string{name, m[name]})
	}
	return out
}

func (v *visit) deliveryAttempts() error {
	d, err := v.store().FindDelivery(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	w, err := v.store().Webhook(v.ctx, v.tenant(), d.WebhookID)
	hook := &w
	if err != nil {
		hook = nil
	}
	a, err := v.attempts(&d, hook)
	if err != nil {
		return err
	}
	return v.part("delivery", "attempts", &a)
}

func (v *visit) attempts(d *delivery.Delivery, w *delivery.Webhook) (attempts, error) {
	a := attempts{ID: d.DeliveryID}
	list, err := v.store().DeliveriesOf(v.ctx, v.tenant(), []string{d.EventID})
	if err != nil {
		return a, err
	}
	list = slices.DeleteFunc(list, func(x delivery.Delivery) bool { return x.WebhookID != d.WebhookID })
	a.List = rowsOf(list)
	for _, x := range list {
		if x.Status != delivery.Pending {
			continue
		}
		a.Refresh = "every 15s"
		if x.DueAt.Before(v.now.Add(time.Minute)) {
			a.Refresh = "every 2s"
		}
	}
	if w != nil {
		if perMinute, _, limited := w.RateLimit.PerMinute(); limited {
			a.Limit = perMinute
		}
	}
	return a, nil
}

// curl is a command that sends the request again, less what is not kept.
func curl(w *delivery.Webhook, headers [][2]string, body string) string {
	var b strings.Builder
	var left []string
	fmt.Fprintf(&b, "curl -X %s %s", w.Method, quote(w.URL))
	for _, h := range headers {
		if strings.Contains(h[1], delivery.Redacted) {
			left = append(left, h[0])
			continue
		}
		b.WriteString(" \\\n  -H " + quote(h[0]+": "+h[1]))
	}
	b.WriteString(" \\\n  --data-binary " + quote(body))
	if len(left) > 0 {
		b.WriteString("\n# left out, since their values are not kept: " + strings.Join(left, ", "))
	}
	return b.String()
}

// quote quotes a text for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// resend sends a failed delivery again, now and once.
func (v *visit) resend() error {
	d, err := v.store().FindDelivery(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	e := v.srv.cfg.Engine
	batch, err := v.store().BeginRetry(v.ctx, v.now, v.tenant(), d.WebhookID, d.DeliveryID, e.Owner(), e.Lease())
	if err != nil {
		return err
	}
	return v.send(batch, "resent")
}

// percent writes a share from 0 to 1.
func percent(share float64) string {
	text := strconv.FormatFloat(100*share, 'f', 1, 64)
	if text == "100.0" && share < 1 {
		text = "99.9" // not all is not all
	}
	return strings.TrimSuffix(text, ".0") + " %"
}

// pageNumber reads a page number, 1 for anything else.
func pageNumber(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1_000_000 {
		return 1
	}
	return n
}

func nextPage(r *http.Request, page int) string {
	q := r.URL.Query()
	q.Set("page", strconv.Itoa(page+1))
	q.Del("done")
	return r.URL.Path + "?" + q.Encode()
}
