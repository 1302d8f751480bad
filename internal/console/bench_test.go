package console_test

import (
	"database/sql"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the history is written into the database

	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

var history = flag.Int("history", 100_000, "rows of the log, and of events, behind which BenchmarkPages measures")

// BenchmarkPages measures the server's time of each page behind a long history, and
// reports its 95th percentile:
//
//	go test ./internal/console -run '^$' -bench Pages -benchtime 100x -history 10000000 -timeout 2h
func BenchmarkPages(b *testing.B) {
	dir := b.TempDir()
	open := func() *store.Store {
		safe := must(vault.Open(filepath.Join(dir, "secret.key")))(b)
		return must(store.Open(b.Context(), store.Config{
			Dir: dir, Vault: safe, Policy: delivery.DefaultPolicy(), PublicURL: "http://desk.example", Retention: 10_000 * time.Hour, Now: time.Now,
		}))(b)
	}
	st := open()
	boot := must(st.Bootstrap(b.Context(), time.Now(), store.BootstrapDraft{Tenant: "Desk", Email: "ada@desk.example"}))(b)
	who := ticket.Actor{TenantID: boot.TenantID, UserID: boot.UserID}
	var hooks []string
	for i := range 20 {
		w, _, err := st.CreateWebhook(b.Context(), time.Now(), who, delivery.Spec{
			Name: fmt.Sprint("hook ", i), URL: "https://hooks.example/in", Method: "POST", EventTypes: []string{"ticket.updated"}, VerifySSL: true, IsActive: true,
		})
		hooks = append(hooks, must(w, err)(b).WebhookID)
	}
	tk := must(st.CreateTicket(b.Context(), time.Now(), who, ticket.Draft{
		Title: "The one", BoardID: boot.BoardID, ClientID: boot.ClientID, StatusID: boot.Statuses["Open"], PriorityID: boot.Priorities["Low"],
	}))(b)
	if err := st.Close(); err != nil {
		b.Fatal(err)
	}
	fill(b, dir, boot, hooks, tk.TicketID)
	st = open()
	b.Cleanup(func() { st.Close() })
	srv := console.New(console.Config{Store: st, PublicURL: "http://desk.example", Policy: delivery.DefaultPolicy(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	server := httptest.NewServer(srv)
	b.Cleanup(server.Close)
	client := &http.Client{Jar: must(cookiejar.New(nil))(b)}
	get := func(path string) {
		resp, err := client.Get(server.URL + path)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		if body := must(io.ReadAll(resp.Body))(b); resp.StatusCode != http.StatusOK {
			b.Fatalf("%s answers %d: %s", path, resp.StatusCode, body)
		}
	}
	link := must(st.NewLink(b.Context(), time.Now(), boot.TenantID, boot.UserID))(b)
	resp, err := client.PostForm(server.URL+"/console/link", url.Values{"token": {link}})
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	some := must(st.SearchDeliveries(b.Context(), boot.TenantID, store.DeliverySearch{Limit: 1}))(b).Rows[0]
	for _, path := range []string{
		"/console/overview", "/console/overview?range=day", "/console/tickets", "/console/tickets?search=nothing", "/console/tickets?search=000123",
		"/msp/tickets/" + tk.TicketID, "/console/webhooks", "/console/webhooks/" + hooks[3], "/console/deliveries", "/console/deliveries?status=failed&code=503",
		"/console/deliveries?error=timeout", "/console/deliveries?ticket=" + tk.TicketID, "/console/deliveries?event=" + some.EventID,
		"/console/deliveries?webhook=" + hooks[5] + "&status=abandoned", "/console/deliveries/" + some.DeliveryID, "/console/events",
		"/console/events?type=ticket.closed", "/console/keys",
	} {
		name := strings.NewReplacer(tk.TicketID, "ID", hooks[3], "ID", hooks[5], "ID", some.DeliveryID, "ID", some.EventID, "ID").Replace(path)
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				begun := time.Now()
				get(path)
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		})
	}
}

// fill writes the history: deliveries of all webhooks and events, one a second, of
// one ticket in a thousand, and a tenth as many tickets.
func fill(b *testing.B, dir string, boot store.Bootstrapped, hooks []string, ticketID string) {
	b.Helper()
	db := must(sql.Open("sqlite", "file:"+filepath.Join(dir, "ticketwire.db")+"?_pragma=busy_timeout(5000)&_pragma=synchronous(off)&_pragma=cache_size(-200000)"))(b)
	defer db.Close()
	begin := time.Now().Add(-time.Duration(*history) * 200 * time.Millisecond).UnixMicro()
	numbers := `with recursive n (i) as (select 1 union all select i + 1 from n where i < $1) `
	for _, s := range []struct {
		text string
		args []any
	}{
		{numbers + `insert into events (seq, prev_seq, tenant_id, event_id, event_type, ticket_id, occurred_at, created_at, body)
			select 100 + i, case when i % 1000 = 0 and i > 1000 then 100 + i - 1000 else 0 end, $2, printf('00000000-0000-7000-8000-%012d', i), 'ticket.updated',
				case when i % 1000 = 0 then $3 else 't' || (i % 1000) end, $4 + i * 200000, $4 + i * 200000,
				printf('{"event_id":"00000000-0000-7000-8000-%012d","event_type":"ticket.updated","occurred_at":"2026-03-04T05:06:07.000Z","tenant_id":"%s","data":{"ticket_id":"x","ticket_number":"TKT-%d","title":"A title of usual length","padding":"%s"}}', i, $2, i, $5) from n`,
			[]any{*history, boot.TenantID, ticketID, begin, strings.Repeat("x", 600)}},
		{`update tickets set last_seq = (select max(seq) from events where ticket_id = $1) where ticket_id = $1`, []any{ticketID}},
		{numbers + `insert into deliveries (tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id, attempt, step, status,
				due_at, attempted_at, completed_at, created_at, status_code, duration_ms, response_body, error_type)
			select $2, printf('00000000-0000-7000-8001-%012d', i), (select value from json_each($3) where key = i % 20),
				printf('00000000-0000-7000-8000-%012d', i), 'ticket.updated', 't', 1, 0, case when i % 50000 = 7 then 'abandoned' else 'delivered' end,
				$4 + i * 200000, $4 + i * 200000, $4 + i * 200000, $4 + i * 200000, case when i % 50000 = 7 then 503 else 200 end, 12, '{"ok":true}',
				case when i % 50000 = 7 then 'status' else '' end from n`,
			[]any{*history, boot.TenantID, `["` + strings.Join(hooks, `","`) + `"]`, begin}},
		{numbers + `insert into tickets (tenant_id, ticket_id, ticket_number, title, client_id, status_id, board_id, priority_id, entered_by,
				entered_at, updated_at, is_closed, source, ticket_origin, last_occurred_at)
			select $2, printf('00000000-0000-7000-8002-%012d', i), printf('OLD-%09d', i), 'An old ticket', $3, $4, $5, $6, $7, $8 + i, $8 + i, i % 2, 'api', 'api', $8 + i from n`,
			[]any{*history / 10, boot.TenantID, boot.ClientID, boot.Statuses["Open"], boot.BoardID, boot.Priorities["Low"], boot.UserID, begin}},
		{`with recursive n (i) as (select 0 union all select i + 1 from n where i < 1440)
			insert into delivery_minutes select $1, $2 - i, 900, 10, 300, 300, 200, 50, 50, 10, 0, 0, 0, 0, 0 from n`, []any{boot.TenantID, time.Now().Unix() / 60}},
		{`analyze`, nil},
	} {
		must(db.ExecContext(b.Context(), s.text, s.args...))(b)
	}
}
