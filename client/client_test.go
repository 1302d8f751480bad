package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testKey = "alga_test_key"
	id1     = "e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5"
	id2     = "9a8b7c6d-5e4f-4a3b-8c2d-0000000000e1"
)

// serve returns a client of a real server that runs until the test ends.
func serve(t testing.TB, h http.HandlerFunc, opts ...Option) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, testKey, append([]Option{WithHTTPClient(srv.Client())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func collect[T any](seq iter.Seq2[*T, error]) ([]T, error) {
	var all []T
	for v, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, *v)
	}
	return all, nil
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ base, key, want string }{
		{"", "k", "http://"},
		{"desk.example.com", "k", "http://"},
		{"ftp://desk.example.com", "k", "http://"},
		{"https://", "k", "host"},
		{"https://u:hunter2@desk.example.com", "k", "user"},
		{"https://u:hunter2@desk.example.com:x", "k", "parsed"},
		{"https://desk.example.com?x=1", "k", "query"},
		{"https://desk.example.com#x", "k", "fragment"},
		{"https://desk.example.com", "", "empty"},
		{"https://desk.example.com", "a\r\nX-Evil: 1", "line break"},
		{"https://desk.example.com", "a\x00", "line break"},
	} {
		_, err := New(tt.base, tt.key)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%q, %q): %v, want %q in it", tt.base, tt.key, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

// What is not said is as documented, and what a client is made from stays as it is.
func TestNewTakesDefaults(t *testing.T) {
	t.Parallel()
	c, err := New("https://desk.example.com", "k")
	if err != nil {
		t.Fatal(err)
	}
	if c.timeout != 30*time.Second || c.tries != 4 || c.maxWait != time.Minute || c.userAgent != "ticketwire-client" {
		t.Errorf("timeout %s, %d tries, waits up to %s, %q", c.timeout, c.tries, c.maxWait, c.userAgent)
	}
	if own, all := c.http.Transport.(*http.Transport), http.DefaultTransport.(*http.Transport); own.MaxIdleConnsPerHost != 64 || all.MaxIdleConnsPerHost != 0 {
		t.Errorf("%d idle connections to the server, and %d for the rest of the program", own.MaxIdleConnsPerHost, all.MaxIdleConnsPerHost)
	}
	given := new(http.Client)
	if c, err = New("https://desk.example.com", "k", WithHTTPClient(given)); err != nil || given.CheckRedirect != nil || c.http == given {
		t.Errorf("the client that was given was changed: %v", err)
	}
}

func TestNewBase(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"https://desk.example.com":                "https://desk.example.com/api/v1/tickets/x",
		"https://desk.example.com/":               "https://desk.example.com/api/v1/tickets/x",
		"https://desk.example.com/api/v1":         "https://desk.example.com/api/v1/tickets/x",
		"https://desk.example.com/api/v1/":        "https://desk.example.com/api/v1/tickets/x",
		"http://[::1]:8080/behind/a/proxy/":       "http://[::1]:8080/behind/a/proxy/api/v1/tickets/x",
		"http://127.0.0.1:8080/behind/api/v1////": "http://127.0.0.1:8080/behind/api/v1/tickets/x",
	} {
		c, err := New(base, "k")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.url(call{path: []string{"tickets", "x"}}).String(); got != want {
			t.Errorf("New(%q) calls %s, want %s", base, got, want)
		}
	}
}

// exchange is one call, the request that it must make, and what it must return.
type exchange struct {
	name   string
	do     func(context.Context, *Client) (any, error)
	method string
	uri    string
	body   string // compact JSON; "" for no body
	status int
	answer string
	want   any
}

func ptr[T any](v T) *T { return &v }

var ticketRaw = `{"tenant":"t1","ticket_id":"` + id1 + `","ticket_number":"TKT-1042","title":"Printer","is_closed":null,` +
	`"updated_at":"2026-03-09T08:14:02.117Z","attributes":{"description":"x"},"board_name":"Desk","tags":["a","b"],"unknown_key":[1]}`

var ticketAnswer = `{"data":` + ticketRaw + `}`

func ticketWanted() *Ticket {
	return &Ticket{
		Tenant: "t1", TicketID: id1, TicketNumber: ptr("TKT-1042"), Title: ptr("Printer"),
		UpdatedAt:  ptr(time.Date(2026, 3, 9, 8, 14, 2, 117e6, time.UTC)),
		Attributes: json.RawMessage(`{"description":"x"}`), BoardName: ptr("Desk"), Tags: Tags{"a", "b"},
		Raw: json.RawMessage(ticketRaw),
	}
}

func exchanges() []exchange {
	zone := time.FixedZone("", 2*3600)
	at := time.Date(2026, 3, 9, 10, 14, 2, 117e6, zone)
	return []exchange{
		{"Ticket", func(ctx context.Context, c *Client) (any, error) { return c.Ticket(ctx, id1) },
			"GET", "/api/v1/tickets/" + id1, "", 200, ticketAnswer, ticketWanted()},
		{"an id cannot leave its place", func(ctx context.Context, c *Client) (any, error) { return c.Ticket(ctx, "../webhooks/x?y") },
			"GET", "/api/v1/tickets/..%2Fwebhooks%2Fx%3Fy", "", 200, ticketAnswer, ticketWanted()},
		{"Tickets", func(ctx context.Context, c *Client) (any, error) {
			return collect(c.Tickets(ctx, TicketFilter{
				Search: "a&b", StatusIDs: []string{"1", "2"}, IsClosed: ptr(true), HasAssignment: ptr(false),
				UpdatedFrom: at, Sort: "updated_at", Order: "asc",
			}))
		}, "GET", "/api/v1/tickets?has_assignment=false&is_closed=true&limit=100&order=asc&page=1&search=a%26b&sort=updated_at" +
			"&status_ids=1%2C2&updated_from=2026-03-09T08%3A14%3A02.117Z", "", 200,
			`{"data":[{"ticket_id":"1","tags":[{"tag_id":"x","tag_text":"red"}]},{"ticket_id":"2","tags":null}],"pagination":{"hasNext":false}}`,
			[]Ticket{
				{TicketID: "1", Tags: Tags{"red"}, Raw: json.RawMessage(`{"ticket_id":"1","tags":[{"tag_id":"x","tag_text":"red"}]}`)},
				{TicketID: "2", Raw: json.RawMessage(`{"ticket_id":"2","tags":null}`)},
			}},
		{"Tickets with a comma in a tag", func(ctx context.Context, c *Client) (any, error) {
			return c.TicketsPage(ctx, TicketFilter{Tags: []string{"a,b", "c"}, StatusIDs: []string{"[1"}}, 1, 1)
		}, "GET", "/api/v1/tickets?limit=1&page=1&status_ids=" + url.QueryEscape(`["[1"]`) + "&tags=" + url.QueryEscape(`["a,b","c"]`), "", 200,
			`{"data":[]}`, &TicketPage{Data: []Ticket{}}},
		{"TicketsPage", func(ctx context.Context, c *Client) (any, error) {
			return c.TicketsPage(ctx, TicketFilter{Sort: "ticket_id", Other: url.Values{"is_open": {"true"}}}, 3, 1)
		}, "GET", "/api/v1/tickets?is_open=true&limit=1&page=3&sort=ticket_id", "", 200,
			`{"data":[{"ticket_id":"2"}],"pagination":{"total":7,"hasNext":true}}`,
			&TicketPage{Data: []Ticket{{TicketID: "2", Raw: json.RawMessage(`{"ticket_id":"2"}`)}}, Total: 7, HasNext: true}},
		{"CreateTicket", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateTicket(ctx, TicketInput{Title: "Printer", BoardID: "b", ClientID: "c", StatusID: "s", PriorityID: "p", Tags: []string{"a"}})
		}, "POST", "/api/v1/tickets",
			`{"title":"Printer","board_id":"b","client_id":"c","status_id":"s","priority_id":"p","tags":["a"]}`, 201, ticketAnswer, ticketWanted()},
		{"UpdateTicket", func(ctx context.Context, c *Client) (any, error) {
			return c.UpdateTicket(ctx, id1, TicketUpdate{Title: Set("Printer"), AssignedTo: Null[string](), Tags: Set([]string{}), SuppressContactNotifications: true})
		}, "PUT", "/api/v1/tickets/" + id1,
			`{"title":"Printer","assigned_to":null,"tags":[],"suppressContactNotifications":true}`, 200, ticketAnswer, ticketWanted()},
		{"AddComment", func(ctx context.Context, c *Client) (any, error) {
			return c.AddComment(ctx, id1, CommentInput{Text: "hi", IsInternal: true})
		}, "POST", "/api/v1/tickets/" + id1 + "/comments", `{"comment_text":"hi","is_internal":true}`, 201,
			`{"data":{"comment_id":"k","ticket_id":"` + id1 + `","comment_text":"hi","is_internal":true}}`,
			&Comment{CommentID: "k", TicketID: id1, Text: ptr("hi"), IsInternal: ptr(true)}},
		{"Webhooks", func(ctx context.Context, c *Client) (any, error) {
			return collect(c.Webhooks(ctx, WebhookFilter{EventType: "ticket.created", IsActive: ptr(true)}))
		}, "GET", "/api/v1/webhooks?event_type=ticket.created&is_active=true&limit=100&page=1", "", 200,
			`{"data":[{"webhook_id":"w","custom_headers":null}]}`, []Webhook{{WebhookID: "w"}}},
		{"Webhook", func(ctx context.Context, c *Client) (any, error) { return c.Webhook(ctx, id1) },
			"GET", "/api/v1/webhooks/" + id1, "", 200, `{"data":{"webhook_id":"w","is_active":true,"event_types":["ticket.created"]}}`,
			&Webhook{WebhookID: "w", IsActive: true, EventTypes: []string{"ticket.created"}}},
		{"CreateWebhook", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateWebhook(ctx, WebhookInput{Name: Set("n"), URL: Set("https://r.example"), EventTypes: Set([]string{"ticket.created"}),
				PayloadFields: Set[any](map[string][]string{"ticket": {"title"}})})
		}, "POST", "/api/v1/webhooks", `{"name":"n","url":"https://r.example","event_types":["ticket.created"],"payload_fields":{"ticket":["title"]}}`,
			201, `{"data":{"webhook_id":"w","signing_secret":"shh"}}`, &Webhook{WebhookID: "w", SigningSecret: "shh"}},
		{"UpdateWebhook", func(ctx context.Context, c *Client) (any, error) {
			return c.UpdateWebhook(ctx, id1, WebhookInput{IsActive: Set(true), PayloadFields: Null[any](), ReplayMissed: true})
		}, "PUT", "/api/v1/webhooks/" + id1, `{"payload_fields":null,"is_active":true,"replay_missed":true}`, 200,
			`{"data":{"webhook_id":"w"}}`, &Webhook{WebhookID: "w"}},
		{"DeleteWebhook", func(ctx context.Context, c *Client) (any, error) { return nil, c.DeleteWebhook(ctx, id1) },
			"DELETE", "/api/v1/webhooks/" + id1, "", 204, "", nil},
		{"WebhookHealth", func(ctx context.Context, c *Client) (any, error) { return c.WebhookHealth(ctx, id1) },
			"GET", "/api/v1/webhooks/" + id1 + "/health", "", 200,
			`{"data":{"webhook_id":"w","status":"failing","success_rate":0.5,"last_success_at":null,"checked_at":"2026-03-09T08:14:02.117Z"}}`,
			&WebhookHealth{WebhookID: "w", Status: "failing", SuccessRate: 0.5, CheckedAt: time.Date(2026, 3, 9, 8, 14, 2, 117e6, time.UTC)}},
		{"WebhookAnalytics", func(ctx context.Context, c *Client) (any, error) {
			a, err := c.WebhookAnalytics(ctx, id1, time.Date(2026, 3, 9, 9, 0, 0, 0, time.FixedZone("", 3600)), time.Time{})
			return a.Metrics.ByStatus, err
		}, "GET", "/api/v1/webhooks/" + id1 + "/analytics?date_from=2026-03-09T08%3A00%3A00Z", "", 200,
			`{"data":{"metrics":{"deliveries_by_status":{"delivered":3}}}}`, map[string]int64{"delivered": 3}},
		{"WebhookAnalytics of all", func(ctx context.Context, c *Client) (any, error) {
			a, err := c.WebhookAnalytics(ctx, "", time.Time{}, time.Time{})
			return a.Metrics.ResponseTime.P95, err
		}, "GET", "/api/v1/webhooks/analytics", "", 200, `{"data":{"metrics":{"response_time_percentiles":{"p95":40}}}}`, int64(40)},
		{"TestWebhook", func(ctx context.Context, c *Client) (any, error) { return c.TestWebhook(ctx, id1) },
			"POST", "/api/v1/webhooks/" + id1 + "/test", `{}`, 200, `{"data":{"test_id":"e","success":false,"status_code":500}}`,
			&TestResult{TestID: "e", StatusCode: ptr(500)}},
		{"RotateSecret", func(ctx context.Context, c *Client) (any, error) { return c.RotateSecret(ctx, id1, 0) },
			"POST", "/api/v1/webhooks/" + id1 + "/secret/rotate", "", 200, `{"data":{"webhook_id":"w","signing_secret":"new"}}`, "new"},
		{"RotateSecret with a grace", func(ctx context.Context, c *Client) (any, error) { return c.RotateSecret(ctx, id1, time.Hour) },
			"POST", "/api/v1/webhooks/" + id1 + "/secret/rotate", `{"grace_period_seconds":3600}`, 200, `{"data":{"signing_secret":"new"}}`, "new"},
		{"PromoteSecret", func(ctx context.Context, c *Client) (any, error) { return nil, c.PromoteSecret(ctx, id1) },
			"POST", "/api/v1/webhooks/" + id1 + "/secret/promote", "", 200, `{"data":{"webhook_id":"w"}}`, nil},
		{"SendTestEvent", func(ctx context.Context, c *Client) (any, error) {
			return c.SendTestEvent(ctx, TestEvent{EventType: "ticket.closed", WebhookID: id1, URL: "https://r.example", Payload: map[string]int{"a": 1}})
		}, "POST", "/api/v1/webhooks/test",
			`{"test_event_type":"ticket.closed","webhook_id":"` + id1 + `","override_url":"https://r.example","test_payload":{"a":1}}`, 200,
			`{"data":{"test_id":"e","success":true}}`, &TestResult{TestID: "e", Success: true}},
		{"Delivery", func(ctx context.Context, c *Client) (any, error) { return c.Delivery(ctx, id1, id2) },
			"GET", "/api/v1/webhooks/" + id1 + "/deliveries/" + id2, "", 200, `{"data":{"delivery_id":"d","response_body":"no"}}`,
			&Delivery{DeliveryID: "d", ResponseBody: ptr("no")}},
		{"RetryDelivery", func(ctx context.Context, c *Client) (any, error) { return c.RetryDelivery(ctx, id1, id2) },
			"POST", "/api/v1/webhooks/" + id1 + "/deliveries/" + id2 + "/retry", "", 200, `{"data":{"delivery_id":"d","attempt_number":3}}`,
			&Delivery{DeliveryID: "d", AttemptNumber: 3}},
		{"Deliveries of an event", func(ctx context.Context, c *Client) (any, error) {
			return collect(c.Deliveries(ctx, id1, DeliveryFilter{EventType: "ticket.created", EventID: "e", TicketID: "t", StatusCode: "5xx", ErrorType: "status"}))
		}, "GET", "/api/v1/webhooks/" + id1 + "/deliveries?error_type=status&event_id=e&event_type=ticket.created&limit=100&page=1&status_code=5xx&ticket_id=t", "", 200,
			`{"data":[]}`, []Delivery(nil)},
		{"Deliveries", func(ctx context.Context, c *Client) (any, error) {
			return collect(c.Deliveries(ctx, id1, DeliveryFilter{Status: "failed", From: at}))
		}, "GET", "/api/v1/webhooks/" + id1 + "/deliveries?from_date=2026-03-09T08%3A14%3A02.117Z&limit=100&page=1&status=failed", "", 200,
			`{"data":[{"delivery_id":"d","status":"retrying","attempt_number":2,"response_status_code":null,"error_type":"dns","next_retry_at":null},` +
				`{"delivery_id":"e","status":"delivered"}]}`, // as AlgaPSA, which does not filter
			[]Delivery{{DeliveryID: "d", Status: "retrying", AttemptNumber: 2, ErrorType: ptr("dns")}}},
		{"DeliveriesPage", func(ctx context.Context, c *Client) (any, error) {
			return c.DeliveriesPage(ctx, id1, DeliveryFilter{Status: "failed"}, 2, 4)
		}, "GET", "/api/v1/webhooks/" + id1 + "/deliveries?limit=4&page=2&status=failed", "", 200,
			`{"data":[{"delivery_id":"d","status":"abandoned"},{"delivery_id":"e","status":"delivered"},{"delivery_id":"f","status":"pending"}],"pagination":{"hasNext":true}}`,
			&DeliveryPage{Data: []Delivery{{DeliveryID: "d", Status: "abandoned"}}, HasNext: true}},
		{"StartReplay", func(ctx context.Context, c *Client) (any, error) {
			return c.StartReplay(ctx, id1, ReplayInput{Since: at, Until: at.Add(time.Hour), Only: "all"})
		}, "POST", "/api/v1/webhooks/" + id1 + "/replay",
			`{"since":"2026-03-09T08:14:02.117Z","until":"2026-03-09T09:14:02.117Z","only":"all"}`, 202, `{"data":{"replay_id":"r","status":"running"}}`,
			&Replay{ReplayID: "r", Status: "running"}},
		{"CountReplay", func(ctx context.Context, c *Client) (any, error) {
			return c.CountReplay(ctx, id1, ReplayInput{Since: at})
		},
			"POST", "/api/v1/webhooks/" + id1 + "/replay", `{"since":"2026-03-09T08:14:02.117Z","dry_run":true}`, 200,
			`{"data":{"webhook_id":"w","abandoned":1,"missed":2,"delivered":0,"total":3}}`, &ReplayCount{Abandoned: 1, Missed: 2, Total: 3}},
		{"CountReplay of chosen events", func(ctx context.Context, c *Client) (any, error) {
			return c.CountReplay(ctx, id1, ReplayInput{EventIDs: []string{id1}})
		}, "POST", "/api/v1/webhooks/" + id1 + "/replay", `{"event_ids":["` + id1 + `"],"dry_run":true}`, 200,
			`{"data":{"total":0,"left_alone":[{"event_id":"e","reason":"pending"}]}}`, &ReplayCount{LeftAlone: []LeftAlone{{"e", "pending"}}}},
		{"StartReplay of a choice that came out empty is not one of everything", func(ctx context.Context, c *Client) (any, error) {
			return c.StartReplay(ctx, id1, ReplayInput{EventIDs: []string{}})
		}, "POST", "/api/v1/webhooks/" + id1 + "/replay", `{"event_ids":[]}`, 202, `{"data":{"replay_id":"r"}}`, &Replay{ReplayID: "r"}},
		{"Replays", func(ctx context.Context, c *Client) (any, error) { return collect(c.Replays(ctx, id1)) },
			"GET", "/api/v1/webhooks/" + id1 + "/replays?limit=100&page=1", "", 200,
			`{"data":[{"replay_id":"r","queued":5,"cancel_reason":"user"}]}`, []Replay{{ReplayID: "r", Queued: 5, CancelReason: ptr("user")}}},
		{"Replay", func(ctx context.Context, c *Client) (any, error) { return c.Replay(ctx, id1, "r") },
			"GET", "/api/v1/webhooks/" + id1 + "/replays/r", "", 200, `{"data":{"replay_id":"r","finished_at":null}}`, &Replay{ReplayID: "r"}},
		{"CancelReplay", func(ctx context.Context, c *Client) (any, error) { return c.CancelReplay(ctx, id1, "r") },
			"DELETE", "/api/v1/webhooks/" + id1 + "/replays/r", "", 200, `{"data":{"replay_id":"r","status":"cancelled"}}`,
			&Replay{ReplayID: "r", Status: "cancelled"}},
		{"MissedEvents", func(ctx context.Context, c *Client) (any, error) { return collect(c.MissedEvents(ctx, id1)) },
			"GET", "/api/v1/webhooks/" + id1 + "/missed?limit=100&page=1", "", 200,
			`{"data":[{"event_id":"e","reason":"dropped"}]}`, []MissedEvent{{EventID: "e", Reason: "dropped"}}},
		{"Events", func(ctx context.Context, c *Client) (any, error) {
			return c.Events(ctx, "c1", EventFilter{Types: []string{"a", "b"}, TicketID: id1, Limit: 2, Since: at})
		}, "GET", "/api/v1/events?after=c1&limit=2&since=2026-03-09T08%3A14%3A02.117Z&ticket_id=" + id1 + "&types=a%2Cb", "", 200,
			`{"data":[{"event_id":"e", "data":{"x":"<"}}],"next_cursor":"c2","has_more":true}`,
			&EventPage{NextCursor: "c2", HasMore: true, Data: []Event{{EventID: "e", Data: json.RawMessage(`{"x":"<"}`),
				Raw: json.RawMessage(`{"event_id":"e", "data":{"x":"<"}}`)}}}},
		{"Events at the end", func(ctx context.Context, c *Client) (any, error) { return c.Events(ctx, "c1", EventFilter{}) },
			"GET", "/api/v1/events?after=c1", "", 200, `{"data":[],"next_cursor":"","has_more":false}`, &EventPage{NextCursor: "c1", Data: []Event{}}},
		{"EventsEnd", func(ctx context.Context, c *Client) (any, error) { return c.EventsEnd(ctx) },
			"GET", "/api/v1/events?limit=1&ticket_id=00000000-0000-4000-8000-000000000000", "", 200,
			`{"data":[],"next_cursor":"c9","has_more":false}`, "c9"},
		{"Event", func(ctx context.Context, c *Client) (any, error) { return c.Event(ctx, id1) },
			"GET", "/api/v1/events/" + id1, "", 200, `{"data":{"event_id":"e","data":{}}}`,
			&Event{EventID: "e", Data: json.RawMessage(`{}`), Raw: json.RawMessage(`{"event_id":"e","data":{}}`)}},
		{"Keys", func(ctx context.Context, c *Client) (any, error) { return collect(c.Keys(ctx)) },
			"GET", "/api/v1/api-keys?limit=100&page=1", "", 200,
			`{"data":[{"api_key_id":"k","prefix":"alga_x","usage_limit":5,"permissions":["ticket:read"],"rate_limit":{"enabled":true,"max_tokens":9,"refill_per_min":3}}]}`,
			[]Key{{KeyID: "k", Prefix: "alga_x", UsageLimit: ptr(int64(5)), Permissions: []string{"ticket:read"},
				RateLimit: KeyRateLimit{Enabled: new(true), MaxTokens: new(9), RefillPerMin: new(3)}}}},
		{"CreateKey", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateKey(ctx, KeyInput{Name: Set("ci"), ExpiresAt: Set(at)})
		}, "POST", "/api/v1/api-keys", `{"name":"ci","expires_at":"2026-03-09T08:14:02.117Z"}`, 201,
			`{"data":{"api_key_id":"k","api_key":"alga_xyz"}}`, &Key{KeyID: "k", APIKey: "alga_xyz"}},
		{"UpdateKey", func(ctx context.Context, c *Client) (any, error) {
			return c.UpdateKey(ctx, id1, KeyInput{Active: Set(false), ExpiresAt: Null[time.Time]()})
		}, "PUT", "/api/v1/api-keys/" + id1, `{"active":false,"expires_at":null}`, 200, `{"data":{"api_key_id":"k"}}`, &Key{KeyID: "k"}},
		{"DeleteKey", func(ctx context.Context, c *Client) (any, error) { return nil, c.DeleteKey(ctx, id1) },
			"DELETE", "/api/v1/api-keys/" + id1, "", 204, "", nil},
		{"PublishCutoverReport", func(ctx context.Context, c *Client) (any, error) {
			return c.PublishCutoverReport(ctx, json.RawMessage(`{"verdict":"GO"}`))
		}, "POST", "/api/v1/cutover-reports", `{"verdict":"GO"}`, 201,
			`{"data":{"report_id":"r","verdict":"GO","window_from":null}}`, &CutoverReport{ReportID: "r", Verdict: "GO"}},
	}
}

func TestExchanges(t *testing.T) {
	t.Parallel()
	for _, x := range exchanges() {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != x.body {
					t.Errorf("body %q, %v, want %q", body, err, x.body)
				}
				if r.Method != x.method || r.RequestURI != x.uri {
					t.Errorf("%s %s, want %s %s", r.Method, r.RequestURI, x.method, x.uri)
				}
				if got := r.Header.Get("X-API-Key"); got != testKey {
					t.Errorf("X-API-Key = %q", got)
				}
				if accept, agent := r.Header.Get("Accept"), r.Header.Get("User-Agent"); accept != "application/json" || agent != "desk/1" {
					t.Errorf("Accept = %q, User-Agent = %q", accept, agent)
				}
				if got := r.Header.Get("Content-Type"); (got == "application/json") != (x.body != "") {
					t.Errorf("Content-Type = %q with the body %q", got, x.body)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(x.status)
				_, _ = io.WriteString(w, x.answer)
			}, WithUserAgent("desk/1"))
			got, err := x.do(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(x.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status int
		header string
		answer string
		want   Error
	}{
		{"object", 404, "", `{"error":{"code":"NOT_FOUND","message":"ticket not found"}}`,
			Error{Status: 404, Code: "NOT_FOUND", Message: "ticket not found"}},
		{"details", 400, "", `{"error":{"code":"VALIDATION_ERROR","message":"Validation failed","details":[{"path":["title"]}]}}`,
			Error{Status: 400, Code: "VALIDATION_ERROR", Message: "Validation failed", Details: json.RawMessage(`[{"path":["title"]}]`)}},
		{"string", 401, "", `{"error":"Unauthorized: API key missing"}`, Error{Status: 401, Message: "Unauthorized: API key missing"}},
		{"proxy", 502, "", `<html>bad gateway</html>`, Error{Status: 502, Message: "Bad Gateway"}},
		{"empty", 405, "", ``, Error{Status: 405, Message: "Method Not Allowed"}},
		{"another shape", 500, "", `{"error":[1]}`, Error{Status: 500, Message: "Internal Server Error"}},
		{"long", 500, "", `{"error":"a` + strings.Repeat("é", 1000) + `"}`, Error{Status: 500, Message: "a" + strings.Repeat("é", 499)}},
		{"a wait that is over", 500, "-5", ``, Error{Status: 500, Message: "Internal Server Error"}},
		{"a wait that ended then", 500, "Mon, 02 Jan 2006 15:04:05 GMT", ``, Error{Status: 500, Message: "Internal Server Error"}},
		{"redirect", 307, "", ``, Error{Status: 307, Message: "Temporary Redirect"}},
		{"longer than we wait", 429, "3600", `{"error":{"code":"RATE_LIMITED","message":"Too many requests"}}`,
			Error{Status: 429, Code: "RATE_LIMITED", Message: "Too many requests", RetryAfter: time.Hour}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				w.Header().Set("Location", "http://192.0.2.1/")
				if tt.header != "" {
					w.Header().Set("Retry-After", tt.header)
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.answer)
			})
			_, err := c.Ticket(t.Context(), id1)
			var got *Error
			if !errors.As(err, &got) {
				t.Fatalf("error %v is not an *Error", err)
			}
			if d := cmp.Diff(&tt.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if calls.Load() != 1 {
				t.Errorf("%d calls, want 1", calls.Load())
			}
			if s := err.Error(); !strings.Contains(s, fmt.Sprint(tt.status)) || strings.Contains(s, testKey) {
				t.Errorf("error text %q", s)
			}
		})
	}
}

func TestErrorTextNamesTheFirstIssue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ details, want string }{
		{`[{"code":"custom","path":["expires_at"],"message":"is in the past"},{"path":["name"],"message":"Required"}]`, "Validation failed: expires_at: is in the past"},
		{`[{"path":["event_ids",0,"x"],"message":"Invalid uuid"}]`, "Validation failed: event_ids.0.x: Invalid uuid"},
		{`[{"path":[],"message":"Expected object"}]`, "Validation failed: Expected object"},
		{`[{"path":[],"message":"` + strings.Repeat("x", 2*maxMessage) + `"}]`, "Validation failed: " + strings.Repeat("x", maxMessage)},
		{`[]`, "Validation failed"},
		{`{"retry_after_ms":1}`, "Validation failed"},
		{``, "Validation failed"},
	} {
		e := &Error{Status: 400, Code: "VALIDATION_ERROR", Message: "Validation failed", Details: json.RawMessage(tt.details)}
		if got, want := e.Error(), "server answered 400 VALIDATION_ERROR: "+tt.want; got != want {
			t.Errorf("details %s: got %q, want %q", tt.details, got, want)
		}
	}
}

func TestBadAnswersAndIDs(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{``, `{`, `[]`, `{"data":null}`, `{"data":[]}`, `{"data":{"updated_at":"yesterday"}}`} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
		if got, err := c.Ticket(t.Context(), id1); err == nil {
			t.Errorf("answer %q: %+v, want an error", answer, got)
		}
	}
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a call was made") })
	for _, id := range []string{"", ".", ".."} {
		if err := c.DeleteWebhook(t.Context(), id); err == nil {
			t.Errorf("id %q was accepted", id)
		}
	}
}

func TestPaging(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		page := r.URL.Query().Get("page")
		switch page {
		case "3":
			_, _ = io.WriteString(w, `{"data":[{"ticket_id":"3"}],"pagination":{"hasNext":false}}`)
		default:
			_, _ = fmt.Fprintf(w, `{"data":[{"ticket_id":%q}],"pagination":{"hasNext":true}}`, page)
		}
	})
	walk := c.Tickets(t.Context(), TicketFilter{})
	for range 2 { // a walk can be taken twice
		got, err := collect(walk)
		if err != nil || len(got) != 3 || got[2].TicketID != "3" {
			t.Errorf("walk = %v, %v, want three tickets", got, err)
		}
	}
	calls.Store(0)
	for range walk {
		break
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls for a walk that stopped at once, want 1", calls.Load())
	}
}

func TestPagingEnds(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("page") == "2" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, `{"data":[{}],"pagination":{"hasNext":true}}`)
	})
	got, err := collect(c.Keys(t.Context()))
	var e *Error
	if len(got) != 1 || !errors.As(err, &e) || e.Status != 403 {
		t.Errorf("walk = %v, %v, want one key and a 403", got, err)
	}

	c = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":[],"pagination":{"hasNext":true}}`)
	})
	if got, err := collect(c.Keys(t.Context())); len(got) != 0 || err != nil {
		t.Errorf("walk over an empty page = %v, %v", got, err)
	}
}

func TestEventPages(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("after") {
		case "":
			_, _ = io.WriteString(w, `{"data":[{"event_id":"1"}],"next_cursor":"a","has_more":true}`)
		case "a":
			_, _ = io.WriteString(w, `{"data":[{"event_id":"2"}],"next_cursor":"b","has_more":false}`)
		default:
			_, _ = io.WriteString(w, `{"data":[],"next_cursor":"stuck","has_more":true}`)
		}
	})
	got, err := collect(c.EventPages(t.Context(), "", EventFilter{}))
	if err != nil || len(got) != 2 || got[1].NextCursor != "b" || got[1].Data[0].EventID != "2" {
		t.Errorf("pages = %+v, %v", got, err)
	}
	if _, err := collect(c.EventPages(t.Context(), "stuck", EventFilter{})); err == nil {
		t.Error("a cursor that does not move did not end the walk")
	}
	c = serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	var e *Error
	if _, err := c.Events(t.Context(), "", EventFilter{}); !errors.As(err, &e) || !strings.Contains(err.Error(), "the server has no event feed") {
		t.Errorf("a server without a feed: %v", err)
	}
}
