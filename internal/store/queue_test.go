package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// lease is how long the tests' claims hold.
const lease = time.Minute

// guide applies the rules of the guide without jitter.
func guide(c *Config) {
	c.Policy = delivery.DefaultPolicy()
	c.Policy.Jitter = 0
}

// mails makes texts that show what the notice said.
func mails(c *Config) {
	text := func(kind string) func(Notice) MailText {
		return func(n Notice) MailText {
			return MailText{
				Subject: kind + " " + n.WebhookName,
				Text: fmt.Sprintf("%s|%s|%s|%s|%s|%v|%s", n.UserName, n.TenantName, n.URL, n.Reason,
					n.Since.Format(time.RFC3339), n.Final, n.LastError),
				HTML: "<p>" + n.At.Format(time.RFC3339) + "</p>",
			}
		}
	}
	c.Mails = Mails{Disabled: text("disabled"), Warning: text("warning"), Reminder: reminded}
}

// reminded makes the text of a reminder.
func reminded(n Notice) MailText {
	return MailText{Subject: "reminder " + n.WebhookName, Text: fmt.Sprintf("%s|%s|%s|%s|%v|%+v", n.UserName, n.Reason, n.At.Format(time.RFC3339), n.LastError, n.Final, n.Missed)}
}

// line is a webhook whose deliveries a test claims and answers.
type line struct {
	*desk
	hook delivery.Webhook
}

// spec is a webhook that gets one delivery for every ticket that is created.
func spec() delivery.Spec {
	return delivery.Spec{
		Name: "Main", URL: "https://hooks.example/in", Method: "POST",
		EventTypes: []string{webhook.TicketCreated}, VerifySSL: true, IsActive: true,
	}
}

// hook makes a webhook out of spec and a change to it.
func (d *desk) hook(now time.Time, change ...func(*delivery.Spec)) *line {
	d.t.Helper()
	sp := spec()
	for _, c := range change {
		c(&sp)
	}
	w, _, err := d.CreateWebhook(context.Background(), now, d.Actor, sp)
	if err != nil {
		d.t.Fatal(err)
	}
	return &line{desk: d, hook: w}
}

func (l *line) lane() Lane { return Lane{l.TenantID, l.hook.WebhookID} }

// claim leases what is due.
func (l *line) claim(now time.Time) Batch {
	l.t.Helper()
	return must(l.Claim(context.Background(), now, ClaimRequest{Lane: l.lane(), Owner: "test", Limit: 100, Lease: lease}))(l.t)
}

// claimOne leases what is due and fails unless that is one delivery.
func (l *line) claimOne(now time.Time) Batch {
	l.t.Helper()
	b := l.claim(now)
	if len(b.Deliveries) != 1 {
		l.t.Fatalf("claimed %d deliveries, want 1", len(b.Deliveries))
	}
	return b
}

// status is an answer with that status, or with the error class if it is none.
func status(code int) delivery.Answer {
	a := delivery.Answer{StatusCode: code, Duration: 20 * time.Millisecond, Body: "answer", Headers: map[string]string{"server": "test"}}
	if code < 200 || code > 299 {
		a.Err = delivery.ErrStatus
	}
	return a
}

// answered is the result of sending c, one second before end.
func (l *line) answered(w *delivery.Webhook, c Claimed, a delivery.Answer, end time.Time) Result {
	return Result{
		Claimed: c, Answer: a, Verdict: l.cfg.Policy.Decide(w, &c.Delivery, a, end, 0),
		StartedAt: end.Add(-a.Duration), EndedAt: end,
		CustomHeaders: []string{"x-custom"},
	}
}

// answer records the same answer for every delivery of a batch.
func (l *line) answer(b Batch, a delivery.Answer, end time.Time) []Recorded {
	l.t.Helper()
	results := make([]Result, len(b.Deliveries))
	for i, c := range b.Deliveries {
		results[i] = l.answered(&b.Target.Webhook, c, a, end)
	}
	return must(l.Record(context.Background(), results))(l.t)
}

// log returns the webhook's deliveries, newest first.
func (l *line) log(q DeliveryQuery) []delivery.Delivery {
	l.t.Helper()
	q.Limit = 100
	list, total, err := l.Deliveries(context.Background(), l.TenantID, l.hook.WebhookID, q)
	if err != nil {
		l.t.Fatal(err)
	}
	if total != len(list) {
		l.t.Fatalf("total %d, listed %d", total, len(list))
	}
	return list
}

// now returns the webhook as it is.
func (l *line) current() delivery.Webhook {
	l.t.Helper()
	return must(l.Webhook(context.Background(), l.TenantID, l.hook.WebhookID))(l.t)
}

// active switches the webhook on or off, lets a replay that follows from it run
// to its end, and returns how much it replayed.
func (l *line) active(now time.Time, on, replay bool) int {
	l.t.Helper()
	_, n, err := l.UpdateWebhook(context.Background(), now, l.Actor, l.hook.WebhookID, func(s *delivery.Spec) error {
		s.IsActive = on
		return nil
	}, replay)
	if err != nil {
		l.t.Fatal(err)
	}
	queued := 0
	for _, r := range l.runReplays(now) {
		queued += r.Queued
	}
	if queued != n {
		l.t.Fatalf("%d events were counted and %d queued", n, queued)
	}
	return n
}

// runReplays runs the tenant's jobs to their end and returns them.
func (d *desk) runReplays(now time.Time) []Replay {
	d.t.Helper()
	var done []Replay
	for _, r := range must(d.RunningReplays(context.Background()))(d.t) {
		if r.TenantID != d.TenantID {
			continue
		}
		for r.Status == "running" {
			r = must(d.ReplayNext(context.Background(), now, r.TenantID, r.ReplayID, 1000))(d.t)
		}
		done = append(done, r)
	}
	return done
}

// retry begins a manual attempt.
func (l *line) retry(now time.Time, deliveryID string) (Batch, error) {
	return l.BeginRetry(context.Background(), now, l.TenantID, l.hook.WebhookID, deliveryID, "hand", lease)
}

// outbox returns the mails that can be claimed.
func (d *desk) outbox(now time.Time) []OutboxMail {
	d.t.Helper()
	return must(d.ClaimMail(context.Background(), now, "test", lease, 100))(d.t)
}

// shape sums up a row of the log.
func shape(d delivery.Delivery) string {
	text := fmt.Sprintf("%d/%d %s", d.Attempt, d.Step, d.Status)
	if d.AttemptedAt == nil && d.Status != delivery.Pending {
		text += " " + d.WaitReason
	}
	if d.IsManual {
		text += " manual"
	}
	if d.IsTest {
		text += " test"
	}
	return text
}

// shapes sums up a log, oldest first by id.
func shapes(list []delivery.Delivery) []string {
	out := make([]string, len(list))
	for i, d := range list {
		out[len(list)-1-i] = shape(d)
	}
	return out
}

// sameBody fails unless both bodies are the same bytes, and some.
func sameBody(t *testing.T, got, want []byte) {
	t.Helper()
	if len(want) == 0 || !bytes.Equal(got, want) {
		t.Errorf("body %s\nwant %s", got, want)
	}
}

// byID sums up a log in the order in which its rows were made.
func byID(list []delivery.Delivery) []string {
	slices.SortFunc(list, func(a, b delivery.Delivery) int { return strings.Compare(a.DeliveryID, b.DeliveryID) })
	out := make([]string, len(list))
	for i, d := range list {
		out[i] = shape(d)
	}
	return out
}
