package app_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

// want names the observations of each class. What is not in it must be B1, both
// and the webhook first, or X1, outside of the window.
type want map[cutover.Class][]string

// scenario is a cutover with one fault in it.
type scenario struct {
	class cutover.Class // that it proves
	what  string
	play  func(t *testing.T) (*stage, want)
}

// briefly makes a webhook give an event up after a minute.
func briefly() map[string]any {
	return map[string]any{"retry_config": map[string]any{"schedule": []int{30000, 30000}}}
}

// onTime is a change with one event that the webhook told of.
func onTime(name string) []string {
	return []string{"change " + name, "event " + name + " updated", "receipt " + name + " updated 1"}
}

// settle waits until what happened is compared.
func settle() { sleep(5 * time.Minute) }

// scenarios are those with our own server.
func scenarios() []scenario {
	return []scenario{
		{cutover.Unsettled, "before both ran for a minute, and too late to be judged", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.start()
			sleep(10 * time.Second)
			s.retitles("a1")
			settle()
			s.retitles("a2")
			sleep(70 * time.Second)
			return s, want{cutover.Unsettled: append(onTime("a1"), onTime("a2")...), cutover.WebhookFirst: nil}
		}},
		{cutover.PollerBlind, "503, 429, no answer, and a poller that does not run", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			for i, fault := range []func(http.ResponseWriter, *http.Request) bool{
				answers(http.StatusServiceUnavailable), answers(http.StatusTooManyRequests, "Retry-After", "30"), hangs,
			} {
				s.pollerGets(fault)
				s.retitles(fmt.Sprint("a", i+1))
				sleep(2 * time.Minute)
				s.breaks(nil)
				sleep(2 * time.Minute)
			}
			s.ends[0]()
			s.retitles("a4")
			sleep(5 * time.Minute)
			s.ends = append(s.ends, s.polls(nil))
			settle()
			return s, want{cutover.PollerBlind: {"gap poller", "poll a"}}
		}},
		{cutover.ReceiverDown, "the receiver is away for as long as the sender tries", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.away()
			s.retitles("a1")
			sleep(5 * time.Minute)
			s.receives(nil)
			s.retitles("a2")
			settle()
			return s, want{cutover.ReceiverDown: {"change a1", "event a1 updated", "gap receiver"}}
		}},
		{cutover.WebhookFirst, "nothing is wrong", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.WebhookFirst, "the receiver's clock is two minutes ahead", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.skew = 2 * time.Minute
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.WebhookFirst, "the receiver's clock is two minutes behind", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.skew = -2 * time.Minute
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.PollerFirstR, "a proxy answers 502 to the first attempt", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(s.once(says(http.StatusBadGateway)))
			s.retitles("a1")
			settle()
			return s, want{cutover.PollerFirstR: onTime("a1")}
		}},
		{cutover.PollerFirstS, "a proxy holds the first attempt for eight seconds", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			sleep(48 * time.Second) // the poller looks in five seconds
			s.on(func(w http.ResponseWriter, p *parcel) {
				time.Sleep(8 * time.Second)
				s.pass(w, p)
			})
			s.retitles("a1")
			settle()
			return s, want{cutover.PollerFirstS: onTime("a1")}
		}},
		{cutover.SameChange, "a change with several events", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.did("a1", func() {
				s.call("PUT", "/tickets/"+s.ids["a"], map[string]any{"status_id": s.tenant.Statuses["Closed"]})
			})
			settle()
			return s, want{
				cutover.WebhookFirst: onTime("a1"),
				cutover.SameChange:   {"event a1 closed", "event a1 status_changed", "receipt a1 closed 1", "receipt a1 status_changed 1"},
			}
		}},
		{cutover.NotWatched, "a ticket that is not on the list", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a", "x")
			s.ready()
			s.retitles("x1")
			settle()
			return s, want{cutover.NotWatched: {"event x1 updated", "receipt x1 updated 1"}}
		}},
		{cutover.Overwritten, "two changes between two polls", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.retitles("a1")
			sleep(10 * time.Second)
			s.retitles("a2")
			settle()
			return s, want{cutover.Overwritten: {"event a1 updated", "receipt a1 updated 1"}, cutover.WebhookFirst: onTime("a2")}
		}},
		{cutover.PollerMissed, "the poller gets no answer any more", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.pollerGets(answers(http.StatusServiceUnavailable))
			s.retitles("a1")
			settle()
			return s, want{cutover.PollerMissed: {"event a1 updated", "receipt a1 updated 1"}, cutover.PollerBlind: {"poll a"}}
		}},
		{cutover.PollerMissed, "the poller got no answer before it", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.pollerGets(answers(http.StatusBadGateway))
			s.ready()
			s.retitles("a1")
			sleep(time.Minute)
			s.breaks(nil)
			settle()
			return s, want{cutover.PollerMissed: {"event a1 updated", "receipt a1 updated 1"}, cutover.PollerBlind: {"poll a"}}
		}},
		{cutover.CreatedDeleted, "created and deleted between two walks through the list", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.watch = nil
			s.ready()
			s.did("c1", func() { s.ids["c"] = s.createTicket() })
			sleep(10 * time.Second)
			s.deleteTicket(s.ids["c"])
			settle()
			return s, want{cutover.CreatedDeleted: {"event c1 created", "receipt c1 created 1"}}
		}},
		{cutover.CreatedDeleted, "changed and deleted between two polls", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.retitles("a1")
			sleep(10 * time.Second)
			s.deleteTicket(s.ids["a"])
			settle()
			return s, want{cutover.CreatedDeleted: {"event a1 updated", "receipt a1 updated 1"}, cutover.NoType: {"change a"}}
		}},
		{cutover.NoEvent, "a test", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.call("POST", "/webhooks/"+s.hook+"/test", nil)
			settle()
			return s, want{cutover.NoEvent: {"event other webhook.test", "receipt other webhook.test 1"}}
		}},
		{cutover.NoEvent, "sent again on request after the sender gave up", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.on(says(http.StatusInternalServerError))
			s.retitles("a1")
			sleep(2 * time.Minute)
			s.on(nil)
			s.again()
			settle()
			return s, want{cutover.NoEvent: {"receipt a1 updated 1"}, cutover.Abandoned: {"change a1", "event a1 updated"}}
		}},
		{cutover.NoEvent, "a replay of what the sender gave up", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.on(says(http.StatusInternalServerError))
			since := time.Now()
			s.retitles("a1")
			sleep(2 * time.Minute)
			s.on(nil)
			s.call("POST", "/webhooks/"+s.hook+"/replay", map[string]any{"since": since.Add(-time.Second)})
			settle()
			return s, want{cutover.NoEvent: {"receipt a1 updated 1"}, cutover.Abandoned: {"change a1", "event a1 updated"}}
		}},
		{cutover.NoEvent, "a replay of what the server dropped", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"is_active": false})
			sleep(time.Minute)
			s.retitles("a1")
			since := time.Now()
			sleep(time.Minute)
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"is_active": true})
			s.call("POST", "/webhooks/"+s.hook+"/replay", map[string]any{"since": since.Add(-time.Second)})
			settle()
			return s, want{
				cutover.NoEvent: {"receipt a1 updated 1"}, cutover.Disabled: {"change a1", "event a1 updated"}, cutover.ReceiverDown: {"gap webhook"},
			}
		}},
		{cutover.NoEvent, "a backfill by the feed, of what came and of what the sender gave up", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.retitles("a1")
			sleep(2 * time.Minute)
			s.on(says(http.StatusInternalServerError))
			s.retitles("a2")
			sleep(2 * time.Minute)
			s.on(nil)
			s.backfills(cutover.FromFeed)
			settle()
			return s, want{
				cutover.WebhookFirst: onTime("a1"), cutover.Abandoned: {"change a2", "event a2 updated"},
				cutover.NoEvent: {"receipt a1 updated 2", "receipt a2 updated 1"},
			}
		}},
		{cutover.NoEvent, "a backfill by the list", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.on(says(http.StatusInternalServerError))
			s.retitles("a1")
			sleep(2 * time.Minute)
			s.on(nil)
			s.backfills(cutover.FromList)
			settle()
			return s, want{
				cutover.Abandoned: {"change a1", "event a1 updated"}, cutover.NoEvent: {"event other ticket.updated", "receipt other ticket.updated 1"},
			}
		}},
		{cutover.Pending, "the receiver fails, and the sender still tries", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.deny.Store(true)
			s.retitles("a1")
			settle()
			return s, want{cutover.Pending: {"change a1", "event a1 updated", "receipt a1 updated 1", "receipt a1 updated 2"}}
		}},
		{cutover.Abandoned, "the receiver fails until the sender gives up", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.deny.Store(true)
			s.retitles("a1")
			settle()
			return s, want{cutover.Abandoned: {"change a1", "event a1 updated", "receipt a1 updated 1", "receipt a1 updated 2", "receipt a1 updated 3"}}
		}},
		{cutover.Rejected, "a proxy changes the signature", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.on(func(w http.ResponseWriter, p *parcel) {
				p.header.Set(webhook.SignatureHeader, webhook.Sign("another secret", time.Now(), p.body))
				s.pass(w, p)
			})
			s.retitles("a1")
			settle()
			return s, want{cutover.Rejected: {"change a1", "event a1 updated", "receipt a1 updated 1", "receipt a1 updated 2", "receipt a1 updated 3"}}
		}},
		{cutover.Rejected, "a proxy changes the body", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.on(func(w http.ResponseWriter, p *parcel) {
				p.body = append(p.body[:len(p.body)-1:len(p.body)-1], ' ', '}')
				s.pass(w, p)
			})
			s.retitles("a1")
			settle()
			return s, want{cutover.Rejected: {"change a1", "event a1 updated", "receipt a1 updated 1", "receipt a1 updated 2", "receipt a1 updated 3"}}
		}},
		{cutover.Rejected, "a proxy answers 413", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.on(says(http.StatusRequestEntityTooLarge))
			s.retitles("a1")
			settle()
			return s, want{cutover.Rejected: {"change a1", "event a1 updated"}}
		}},
		{cutover.NotSubscribed, "a comment, and no subscription to comments", func(t *testing.T) (*stage, want) {
			s := ours(t, map[string]any{"event_types": []string{webhook.TicketUpdated}}, "a")
			s.ready()
			s.did("a1", func() {
				s.call("POST", "/tickets/"+s.ids["a"]+"/comments", map[string]any{"comment_text": "hello"})
			})
			settle()
			return s, want{cutover.NotSubscribed: {"change a1", "event a1 comment.added"}}
		}},
		{cutover.NotSubscribed, "entity_ids without the ticket", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a", "x")
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"event_filter": map[string]any{"entity_ids": []string{s.ids["x"]}}})
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.NotSubscribed: {"change a1", "event a1 updated"}}
		}},
		{cutover.NotSubscribed, "types are taken out of the subscription, and put back", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"event_types": []string{webhook.TicketCreated}})
			sleep(time.Minute)
			s.retitles("a1")
			sleep(2 * time.Minute)
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"event_types": []string{webhook.TicketUpdated}})
			sleep(time.Minute)
			s.retitles("a2")
			settle()
			return s, want{cutover.NotSubscribed: {"change a1", "event a1 updated"}, cutover.WebhookFirst: onTime("a2")}
		}},
		{cutover.NotSubscribed, "a type that the receiver does not handle", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.start()
			s.away()
			s.receives(func(c *receiver.Config) { c.Types = []string{webhook.TicketCreated} })
			sleep(3 * time.Minute)
			s.retitles("a1")
			settle()
			return s, want{cutover.NotSubscribed: onTime("a1")}
		}},
		{cutover.NoType, "a ticket is deleted", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.deleteTicket(s.ids["a"])
			settle()
			return s, want{cutover.NoType: {"change a"}}
		}},
		{cutover.NoType, "a change behind the server's back, and nothing after it", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.behindItsBack("a1")
			settle()
			return s, want{cutover.NoType: {"change a1"}}
		}},
		{cutover.Disabled, "the webhook is switched off for a while", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.offFor(3*time.Minute, "a1")
			s.retitles("a2")
			settle()
			return s, want{cutover.Disabled: {"change a1", "event a1 updated"}, cutover.ReceiverDown: {"gap webhook"}, cutover.WebhookFirst: onTime("a2")}
		}},
		{cutover.Disabled, "the integrator's clock is four minutes ahead", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.skew = 4 * time.Minute
			s.ready()
			s.retitles("a1")
			sleep(2 * time.Minute)
			s.offFor(3*time.Minute, "a2")
			sleep(time.Minute)
			s.retitles("a3")
			settle()
			return s, want{
				cutover.Disabled: {"change a2", "event a2 updated"}, cutover.ReceiverDown: {"gap webhook"},
				cutover.WebhookFirst: append(onTime("a1"), onTime("a3")...),
			}
		}},
		{cutover.NeverSent, "rows vanish from the server's queue", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.loses("a1")
			settle()
			return s, want{cutover.NeverSent: {"change a1", "event a1 updated"}}
		}},
		{cutover.Noise, "other fields at the same updated_at", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.shows(func(ticket map[string]any) { ticket["client_name"] = "A name that is computed" })
			sleep(2 * time.Minute)
			s.breaks(nil)
			settle()
			return s, want{cutover.Noise: {"change a0"}}
		}},
		{cutover.Noise, "updated_at with more digits than before", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.retitles("a1")
			sleep(3 * time.Minute)
			s.shows(func(ticket map[string]any) {
				ticket["updated_at"] = strings.Replace(ticket["updated_at"].(string), "Z", "123Z", 1)
			})
			settle()
			return s, want{cutover.Noise: {"change a"}, cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.Noise, "a replica that lags", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.retitles("a1")
			before, _ := s.stateOf(s.ids["a"])
			sleep(10 * time.Second)
			s.retitles("a2")
			sleep(2 * time.Minute)
			s.shows(func(ticket map[string]any) { ticket["updated_at"], ticket["title"] = before, "Printer a1" })
			sleep(2 * time.Minute)
			s.breaks(nil)
			settle()
			return s, want{
				cutover.Noise: {"change a1"}, cutover.Overwritten: {"event a1 updated", "receipt a1 updated 1"}, cutover.WebhookFirst: onTime("a2"),
			}
		}},
		{cutover.Followed, "a sender that reads the ticket when it sends", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(func(w http.ResponseWriter, p *parcel) {
				switch {
				case p.attempt() == "2":
					now := s.call("GET", "/tickets/"+s.ids["a"], nil)["data"].(map[string]any)
					s.pass(w, s.rewritten(p, func(data map[string]any) { data["title"], data["updated_at"] = now["title"], now["updated_at"] }))
				case strings.Contains(string(p.body), `"title":"Printer a1"`):
					w.WriteHeader(http.StatusBadGateway)
				default:
					s.pass(w, p)
				}
			})
			s.retitles("a1")
			sleep(55 * time.Second)
			s.retitles("a2")
			settle()
			return s, want{
				cutover.Followed: {"event a1 updated"}, cutover.PollerFirstR: {"change a1"}, cutover.OutOfOrder: {"receipt a1 updated 1"},
				cutover.WebhookFirst: onTime("a2"),
			}
		}},
		{cutover.FieldsDiffer, "a payload with another title", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(func(w http.ResponseWriter, p *parcel) {
				s.pass(w, s.rewritten(p, func(data map[string]any) { data["title"] = "Plotter" }))
			})
			s.retitles("a1")
			settle()
			return s, want{cutover.FieldsDiffer: {"event a1 updated", "receipt a1 updated 1"}, cutover.WebhookFirst: {"change a1"}}
		}},
		{cutover.FieldsDiffer, "none, as a rule ignores the field", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.rules.Ignore = []cutover.Ignore{{Field: "client_name", Owner: "Mara", Until: time.Now().Add(time.Hour), Why: "it is computed"}}
			s.ready()
			s.on(func(w http.ResponseWriter, p *parcel) {
				s.pass(w, s.rewritten(p, func(data map[string]any) { data["client_name"] = "A name that is computed" }))
			})
			s.retitles("a1")
			settle()
			return s, want{cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.FieldsMissing, "payload_fields", func(t *testing.T) (*stage, want) {
			s := ours(t, map[string]any{"payload_fields": map[string]any{"ticket": []string{"title", "status_id", "updated_at"}}}, "a")
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.FieldsMissing: {"event a1 updated", "receipt a1 updated 1"}, cutover.WebhookFirst: {"change a1"}}
		}},
		{cutover.OutOfOrder, "a retry comes after a later event", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(s.once(breaksOff))
			s.retitles("a1")
			sleep(55 * time.Second)
			s.retitles("a2")
			settle()
			return s, want{
				cutover.OutOfOrder: {"receipt a1 updated 1"}, cutover.PollerFirstR: {"change a1", "event a1 updated"}, cutover.WebhookFirst: onTime("a2"),
			}
		}},
		{cutover.RetriedDelivery, "the answer to the first attempt is lost", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(s.once(func(w http.ResponseWriter, p *parcel) {
				s.pass(httptest.NewRecorder(), p)
				breaksOff(w, p)
			}))
			s.retitles("a1")
			settle()
			return s, want{cutover.RetriedDelivery: {"receipt a1 updated 2"}, cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.SameDelivery, "a proxy sends each request twice", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(func(w http.ResponseWriter, p *parcel) {
				s.pass(httptest.NewRecorder(), p)
				s.pass(w, p)
			})
			s.retitles("a1")
			settle()
			return s, want{cutover.SameDelivery: {"receipt a1 updated 2"}, cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.OtherBody, "somebody who knows the secret sends another body under the same id", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(func(w http.ResponseWriter, p *parcel) {
				s.pass(w, p)
				other := s.rewritten(p, func(data map[string]any) { data["title"] = "Plotter" })
				other.header.Set(webhook.WebhookIDHeader, "not the webhook's")
				s.pass(httptest.NewRecorder(), other)
			})
			s.retitles("a1")
			settle()
			return s, want{cutover.OtherBody: {"receipt a1 updated 2"}, cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.Unexplained, "a proxy answers 200 and keeps the event", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.on(says(http.StatusOK))
			s.retitles("a1")
			settle()
			return s, want{cutover.Unexplained: {"change a1", "event a1 updated"}}
		}},
	}
}

// notRead are scenarios in which the collector does not run, or gets no answer:
// what would be P5, P6 or P7 must not be called that.
func notRead() []scenario {
	return []scenario{
		{cutover.Unexplained, "what was lost after the collector stopped", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.ends[1]()
			s.loses("a1")
			settle()
			return s, want{cutover.Unexplained: {"change a1"}}
		}},
		{cutover.Pending, "what was lost after the collector stopped, and there is time to try", func(t *testing.T) (*stage, want) {
			s := ours(t, nil, "a")
			s.ready()
			s.ends[1]()
			s.loses("a1")
			settle()
			return s, want{cutover.Pending: {"change a1"}}
		}},
		{cutover.Unexplained, "what was lost while the log gives no answer", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.breaks(func(w http.ResponseWriter, r *http.Request) bool {
				return strings.HasSuffix(r.URL.Path, "/deliveries") && answers(http.StatusServiceUnavailable)(w, r)
			})
			s.loses("a1")
			settle()
			return s, want{cutover.Unexplained: {"change a1", "event a1 updated"}}
		}},
		{cutover.NeverSent, "what was lost while the log gave no answer, and was read later", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.breaks(func(w http.ResponseWriter, r *http.Request) bool {
				return strings.HasSuffix(r.URL.Path, "/deliveries") && answers(http.StatusServiceUnavailable)(w, r)
			})
			s.loses("a1")
			sleep(2 * time.Minute)
			s.breaks(nil)
			settle()
			return s, want{cutover.NeverSent: {"change a1", "event a1 updated"}}
		}},
		{cutover.Unexplained, "a change without an event after the collector stopped", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.ends[1]()
			s.behindItsBack("a1")
			settle()
			return s, want{cutover.Unexplained: {"change a1"}}
		}},
		{cutover.NoType, "a change without an event while the collector was away", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.ends[1]()
			s.behindItsBack("a1")
			sleep(10 * time.Minute)
			s.ends = append(s.ends, s.collects())
			settle()
			return s, want{cutover.NoType: {"change a1"}}
		}},
		{cutover.Unexplained, "the webhook was off when it was last looked at", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"is_active": false})
			sleep(time.Minute)
			s.ends[1]()
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"is_active": true})
			sleep(time.Minute)
			s.loses("a1")
			settle()
			return s, want{cutover.Unexplained: {"change a1"}, cutover.ReceiverDown: {"gap webhook"}}
		}},
		{cutover.Unexplained, "the webhook did not want it when it was last looked at", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"event_types": []string{webhook.TicketCreated}})
			sleep(time.Minute)
			s.ends[1]()
			s.call("PUT", "/webhooks/"+s.hook, map[string]any{"event_types": []string{webhook.TicketUpdated}})
			sleep(time.Minute)
			s.loses("a1")
			settle()
			return s, want{cutover.Unexplained: {"change a1"}}
		}},
		{cutover.Unexplained, "the sender still tried when the log was last read, long ago", func(t *testing.T) (*stage, want) {
			s := ours(t, briefly(), "a")
			s.ready()
			s.on(breaksOff)
			s.retitles("a1")
			sleep(45 * time.Second) // it is read once
			s.ends[1]()
			sleep(2 * time.Hour)
			return s, want{cutover.Unexplained: {"change a1", "event a1 updated"}}
		}},
	}
}

// again lets the server send the newest delivery of the webhook once more.
func (s *stage) again() {
	s.t.Helper()
	row := s.deliveries(s.hook, "")[0]
	s.call("POST", "/webhooks/"+s.hook+"/deliveries/"+row["delivery_id"].(string)+"/retry", nil)
}

// offFor switches the webhook off, lets a ticket change in the middle, and
// switches it on again.
func (s *stage) offFor(d time.Duration, name string) {
	s.t.Helper()
	s.call("PUT", "/webhooks/"+s.hook, map[string]any{"is_active": false})
	sleep(d / 2)
	s.retitles(name)
	sleep(d / 2)
	s.call("PUT", "/webhooks/"+s.hook, map[string]any{"is_active": true})
}

// loses lets a ticket change, and takes the delivery out of the database when its
// first attempt has failed: what a sender loses leaves nothing else.
func (s *stage) loses(name string) {
	s.t.Helper()
	s.on(breaksOff)
	s.retitles(name)
	sleep(2 * time.Second)
	for key, event := range s.events {
		if strings.HasPrefix(event, name+" ") {
			s.damages("delete from deliveries where event_id = $1", key[:len(key)-len(webhook.TicketUpdated)])
		}
	}
	s.on(nil)
}

// behindItsBack changes a ticket in the database: a change with no event, as
// AlgaPSA has them for the children of a bundle.
func (s *stage) behindItsBack(name string) {
	s.t.Helper()
	s.did(name, func() {
		s.damages("update tickets set title = $1, updated_at = $2 where ticket_id = $3",
			"Printer "+name, time.Now().UnixMicro(), s.ids[strings.TrimRight(name, "0123456789")])
	})
}

// backfills runs a backfill to its end, through the proxy in front of the receiver.
func (s *stage) backfills(source cutover.Source) {
	s.t.Helper()
	b, err := cutover.OpenBackfill(cutover.BackfillConfig{
		URL: "http://desk.example", Key: s.tenant.APIKey, HTTP: s.http, Dir: s.t.TempDir(), Source: source, From: s.began,
		WebhookID: s.hook, Budget: 0.5, To: "receiver", Now: time.Now,
		Send: func(_ context.Context, body []byte, attempt int) cutover.Reply {
			p := &parcel{http.Header{}, body}
			p.header.Set(webhook.SignatureHeader, webhook.Sign(s.secret, time.Now(), body))
			var e webhook.Envelope
			if err := json.Unmarshal(body, &e); err != nil {
				s.t.Error(err)
			}
			p.header.Set(webhook.EventIDHeader, e.EventID)
			p.header.Set(webhook.EventTypeHeader, e.EventType)
			p.header.Set(webhook.AttemptHeader, fmt.Sprint(attempt))
			p.header.Set(webhook.WebhookIDHeader, "7d0e1f2a-3b4c-4d5e-8f60-718293a4b5c6") // as the command has it: of no webhook
			p.header.Set(webhook.DeliveryIDHeader, fmt.Sprintf("made-%x", time.Now().UnixNano()))
			w := httptest.NewRecorder()
			s.pass(w, p)
			return cutover.Reply{OK: w.Code == http.StatusOK, Status: w.Code, Text: w.Body.String()}
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := b.Look(s.t.Context())
	if err == nil {
		_, err = b.Run(s.t.Context(), p)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// TestEveryClassIsRecorded has a cutover for each class of the comparison. All
// programs are the real ones: the fault is put into the way, into the server's
// database, or into what the stand-in for AlgaPSA does. What they wrote down is
// compared, and every observation must be in its class.
func TestEveryClassIsRecorded(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var records [][]cutover.Entry
	all := slices.Concat(scenarios(), notRead(), algaScenarios())
	if testing.Short() { // the databases are slow under the race detector: one for each class
		all = slices.CompactFunc(slices.SortedStableFunc(slices.Values(all), func(a, b scenario) int { return cmp.Compare(a.class, b.class) }),
			func(a, b scenario) bool { return a.class == b.class })
	}
	t.Run("alone", func(t *testing.T) {
		for _, sc := range all {
			t.Run(string(sc.class)+" "+sc.what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s, want := sc.play(t)
					r, record := s.ended()
					s.judge(r, want)
					wantOneClassEach(t, record, r)
					mu.Lock()
					defer mu.Unlock()
					records = append(records, record)
				})
			})
		}
	})
	t.Run("joined", func(t *testing.T) { joined(t, records) })
}

// TestClassesAreDocumented wants each class, and each scenario in the row of its
// class, on the page of the classes, and nothing else.
func TestClassesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "cutover-classes.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[cutover.Class][]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(strings.TrimSpace(line), " | "); len(cells) == 3 && !strings.HasPrefix(line, "| class") && !strings.HasPrefix(line, "| ---") {
			scenarios := strings.Split(strings.TrimSuffix(cells[2], " |"), " · ")
			rows[cutover.Class(strings.TrimPrefix(cells[0], "| "))] = slices.Sorted(slices.Values(scenarios))
		}
	}
	played := map[cutover.Class][]string{}
	for _, sc := range slices.Concat(scenarios(), notRead(), algaScenarios()) {
		played[sc.class] = append(played[sc.class], sc.what)
	}
	for _, info := range cutover.Classes() {
		slices.Sort(played[info.Class])
		if len(played[info.Class]) == 0 || !slices.Equal(rows[info.Class], played[info.Class]) {
			t.Errorf("%s: the page has %q, the scenarios are %q", info.Class, rows[info.Class], played[info.Class])
		}
	}
	if len(rows) != len(cutover.Classes()) {
		t.Errorf("the page has %d classes, want %d", len(rows), len(cutover.Classes()))
	}
}

// judge compares the classes with what was wanted.
func (s *stage) judge(r *cutover.Report, want want) {
	s.t.Helper()
	got := s.named(r)
	for _, class := range []cutover.Class{cutover.WebhookFirst, cutover.Unsettled} {
		if _, named := want[class]; !named {
			delete(got, class)
		}
	}
	for _, info := range cutover.Classes() {
		w := slices.Sorted(slices.Values(want[info.Class]))
		if !slices.Equal(got[info.Class], w) {
			s.t.Errorf("%s: %q, want %q", info.Class, got[info.Class], w)
		}
	}
	if s.t.Failed() {
		for _, row := range r.Rows {
			if row.Kind != cutover.PollFailed {
				s.t.Logf("%v updated %s", row, row.UpdatedAt.Format("15:04:05.000"))
			}
		}
	}
}

func entries(all []cutover.Entry) iter.Seq2[cutover.Entry, error] {
	return func(yield func(cutover.Entry, error) bool) {
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// observed counts what there is to be classified in a record, in its own way.
func observed(record []cutover.Entry) map[cutover.Kind]int {
	distinct := map[cutover.Kind]map[string]bool{}
	see := func(kind cutover.Kind, parts ...any) {
		if distinct[kind] == nil {
			distinct[kind] = map[string]bool{}
		}
		distinct[kind][fmt.Sprint(parts...)] = true
	}
	states := map[string]map[string]bool{} // of a ticket at an updated_at
	byTime := slices.Clone(record)
	at := func(e cutover.Entry) time.Time {
		if e.Poll != nil {
			return e.Poll.At
		}
		return time.Time{}
	}
	slices.SortStableFunc(byTime, func(a, b cutover.Entry) int { return at(a).Compare(at(b)) })
	there := map[string]bool{}
	for _, e := range byTime {
		switch {
		case e.Receipt != nil:
			r := e.Receipt
			see(cutover.CopyGot, r.EventID, r.EventType, r.At, r.DeliveryID, r.Attempt, r.BodyHash, r.HTTP)
			if r.Signed {
				see(cutover.EventKnown, r.EventID, r.EventType)
			}
		case e.Delivery != nil:
			see(cutover.EventKnown, e.Delivery.EventID, e.Delivery.EventType)
		case e.Truth != nil && e.Truth.Source == cutover.TruthOfFeed:
			see(cutover.EventKnown, e.Truth.EventID, e.Truth.EventType)
		case e.Truth != nil:
			see(cutover.StateRead, e.Truth.Ticket, e.Truth.UpdatedAt)
		case e.Gap != nil && e.Gap.Side != cutover.SideClock:
			see(cutover.TimeLost, *e.Gap)
		case e.Poll != nil && e.Poll.Failure.Blind():
			see(cutover.PollFailed, e.Poll.At, e.Poll.Ticket, e.Poll.List)
		case e.Poll != nil && e.Poll.Failure == cutover.NotFound:
			if there[e.Poll.Ticket] {
				see(cutover.ChangeSeen, "gone", e.Poll.Ticket, e.Poll.At)
			}
			there[e.Poll.Ticket] = false
		case e.Poll != nil:
			for _, o := range e.Poll.Seen {
				there[o.Ticket] = true
				key := fmt.Sprint(o.Ticket, o.UpdatedAt)
				if states[key] == nil {
					states[key] = map[string]bool{}
				}
				switch {
				case o.Verdict.Reacts():
					see(cutover.ChangeSeen, key)
				case o.Verdict != cutover.First && o.Fields != nil && !states[key][o.Hash]:
					see(cutover.ChangeSeen, key, o.Hash)
				}
				states[key][o.Hash] = true
			}
		}
	}
	out := map[cutover.Kind]int{}
	for kind, all := range distinct {
		out[kind] = len(all)
	}
	return out
}

// wantOneClassEach wants one row with a class for each observation, and sums that
// add up.
func wantOneClassEach(t *testing.T, record []cutover.Entry, r *cutover.Report) {
	t.Helper()
	kinds, classes := map[cutover.Kind]int{}, map[cutover.Class]int{}
	for _, row := range r.Rows {
		kinds[row.Kind]++
		classes[row.Class]++
		if !slices.ContainsFunc(cutover.Classes(), func(i cutover.ClassInfo) bool { return i.Class == row.Class }) {
			t.Errorf("no class: %v", row)
		}
	}
	total := 0
	for _, n := range r.Classes {
		sum := 0
		for _, k := range n.Kinds {
			sum += k
		}
		if sum != n.Total || n.Total != classes[n.Class] {
			t.Errorf("%s: %d in all, %d by kind, %d rows", n.Class, n.Total, sum, classes[n.Class])
		}
		total += n.Total
	}
	if total != len(r.Rows) {
		t.Errorf("%d rows, and %d in the classes", len(r.Rows), total)
	}
	if want := observed(record); !maps.Equal(kinds, want) {
		t.Errorf("rows %v, and the record has %v", kinds, want)
	}
}

// joined puts the records of several cutovers into one, in any order: every
// observation still has one class, and the order does not show.
func joined(t *testing.T, records [][]cutover.Entry) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 5))
		var all []cutover.Entry
		for i, n := range random.Perm(len(records)) {
			if seed == 0 || i <= random.IntN(len(records)) {
				all = append(all, records[n]...)
			}
		}
		r, err := cutover.Compare(entries(all), cutover.Question{})
		if err != nil {
			t.Fatal(err)
		}
		wantOneClassEach(t, all, r)
		random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		again, err := cutover.Compare(entries(append(all, all[:len(all)/2]...)), cutover.Question{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(r.Rows, again.Rows) {
			t.Fatalf("seed %d: the order of the lines shows", seed)
		}
	}
}
