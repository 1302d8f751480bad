package cutover

import (
	"fmt"
	"iter"
	"runtime"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// busyDay is the record of a tenant with 10,000 tickets, 245,000 changes a day and
// one event for each: about a million entries. Entries are made as they are read,
// as a file would be.
func busyDay() iter.Seq2[Entry, error] {
	const changes, tickets = 245_000, 10_000
	start := day.Truncate(time.Hour)
	pause := 24 * time.Hour / changes
	return func(yield func(Entry, error) bool) {
		ok := true
		put := func(e Entry) { ok = ok && yield(e, nil) }
		put(Entry{Watch: &Watch{At: start, Server: "https://desk.example", Interval: 60}})
		put(Entry{Receiver: &Receiver{At: start, SecretFrom: "file", Silence: 3600}})
		put(Entry{Subscription: &Subscription{At: start, WebhookID: "w", Active: true, EventTypes: []string{webhook.TicketUpdated}, GivesUpAfter: 52560}})
		round := start
		var page []Observation
		for i := range changes {
			if !ok {
				return
			}
			at := start.Add(time.Duration(i) * pause).Truncate(time.Millisecond)
			c := &worldChange{ticket: fmt.Sprintf("01990000-0000-7000-8000-%012d", i*7919%tickets), at: at, n: i}
			fields, hash, err := stateOf(c.data())
			if err != nil {
				yield(Entry{}, err)
				return
			}
			id, delivery := fmt.Sprintf("01991111-0000-7000-8000-%012d", i), fmt.Sprintf("01992222-0000-7000-8000-%012d", i)
			page = append(page, Observation{Ticket: c.ticket, UpdatedAt: at, Verdict: Changed, Hash: hash, Fields: fields})
			occurred := at.Add(time.Millisecond)
			put(Entry{Truth: &Truth{At: at.Add(20 * time.Second), Source: TruthOfFeed, EventID: id, EventType: webhook.TicketUpdated, OccurredAt: occurred, Ticket: c.ticket, UpdatedAt: at, Hash: hash, Fields: fields}})
			put(Entry{Receipt: &Receipt{
				At: at.Add(30 * time.Millisecond), Done: at.Add(31 * time.Millisecond), HTTP: 200, Outcome: "kept", Signed: true, EventID: id, EventType: webhook.TicketUpdated,
				DeliveryID: delivery, Attempt: 1, OccurredAt: occurred, Ticket: c.ticket, UpdatedAt: at, Hash: hash, BodyHash: id, Body: fmt.Sprintf(`{"data":%s}`, c.data()),
			}})
			put(Entry{Delivery: &Delivery{
				At: at.Add(25 * time.Second), WebhookID: "w", DeliveryID: delivery, EventID: id, EventType: webhook.TicketUpdated, Attempt: 1, Status: "delivered", HTTP: 200,
				AttemptedAt: at.Add(29 * time.Millisecond), CompletedAt: at.Add(32 * time.Millisecond),
			}})
			put(Entry{Reaction: &Reaction{At: at.Add(40 * time.Millisecond), EventID: id, EventType: webhook.TicketUpdated, Ticket: c.ticket, Attempt: 1}})
			if len(page) == listPage || at.Sub(round) >= time.Minute {
				polled := at.Add(time.Second)
				put(Entry{Poll: &Poll{
					At: polled, Done: polled.Add(50 * time.Millisecond), Round: round, HTTP: 200, Date: polled.Truncate(time.Second), Limit: 1200,
					List: &ListPage{For: ForChanges, Page: 1, Got: len(page), Last: true}, Seen: page,
				}})
				page, round = nil, at
			}
		}
	}
}

func BenchmarkCompareBusyDay(b *testing.B) {
	for b.Loop() {
		n := 0
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := time.Now()
		for range busyDay() {
			n++
		}
		making := time.Since(began)
		began = time.Now()
		r, err := Compare(busyDay(), Question{})
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(began) - making
		runtime.GC()
		runtime.ReadMemStats(&after)
		if r.Coverage.Missed != 0 || r.Coverage.Doubtful != 0 || r.Coverage.Matched < 200_000 {
			b.Fatalf("%+v", r.Coverage)
		}
		b.ReportMetric(float64(n), "entries")
		b.ReportMetric(float64(n)/took.Seconds(), "entries/s")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "report-MB")
		b.ReportMetric(float64(after.HeapSys)/1e6, "heap-MB")
		runtime.KeepAlive(r)
	}
}
