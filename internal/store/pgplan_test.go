package store

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestPlansOnPostgres asks PostgreSQL how it runs the statements that have a fixed
// text, with tables of some size: none that grows is read as a whole, nor is a
// whole index of it, but by the few statements that are about all of it.
func TestPlansOnPostgres(t *testing.T) {
	t.Parallel()
	d := newDesk(t, openAt(t, onPostgres(t), guide, mails, withLinks), "acme")
	useEverything(t, d)
	useQueue(t, newDesk(t, d.Store, "other"))
	texts := map[string]bool{}
	d.stmts.Range(func(q, _ any) bool { texts[q.(string)] = true; return true })
	if err := d.do(t.Context(), func(x *tx) error {
		for q := range x.w.stmts {
			texts[q] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	fillTables(t, d.Store)
	checked := 0
	for q := range texts {
		verb, _, _ := strings.Cut(strings.TrimSpace(q), " ")
		if verb != "select" && verb != "update" && verb != "delete" && verb != "with" {
			continue
		}
		checked++
		for _, step := range pgPlan(t, d.Store, q) {
			if !step.keyed && !pgAboutAll(q, step) {
				t.Errorf("%q in\n%s", step.text, q)
			}
		}
	}
	if checked < 90 {
		t.Errorf("only %d statements were checked", checked)
	}
	lists := []struct {
		name  string
		q     DeliveryQuery
		index string
	}{
		{"all", DeliveryQuery{}, "_tenant_id_webhook_id_coalesce_"},
		{"by status", DeliveryQuery{Status: "failed"}, "_tenant_id_webhook_id_coalesce_"},
		{"by time", DeliveryQuery{From: new(start()), To: new(start())}, "_tenant_id_webhook_id_coalesce_"},
		{"by event", DeliveryQuery{EventID: "x"}, "_tenant_id_event_id_webhook_id_idx"},
	}
	for _, c := range lists {
		w := must(c.q.where("tenant", "webhook"))(t)
		steps := pgPlan(t, d.Store, logRows+w.String()+c.q.order()+w.page(1, 25))
		if !strings.Contains(fmt.Sprint(steps), c.index) {
			t.Errorf("log %s: %v", c.name, steps)
		}
	}
}

// fillTables gives the tables that grow enough rows that a plan matters.
func fillTables(t *testing.T, s *Store) {
	t.Helper()
	const rows = `from generate_series(1, 20000) n`
	today := dayOf(start())
	if err := s.makeDays(t.Context(), today-30, today+daysAhead); err != nil {
		t.Fatal(err)
	}
	// One in 32 is of a day that has no table.
	ofDay := func(size int) string { return fmt.Sprintf("(%d - n %% 32) * %d", today, size) }
	for _, q := range []string{
		`insert into events (seq, prev_seq, tenant_id, event_id, event_type, ticket_id, occurred_at, created_at, body)
			select ` + ofDay(numbersPerDay) + ` + 1000000 + n, 0, 't' || n % 50, 'e' || n, 'ticket.updated', 'k' || n % 5000, n, n, '' ` + rows,
		`insert into deliveries (tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id, attempt, step, status,
				due_at, attempted_at, completed_at, created_at, event_seq)
			select 't' || n % 50, 'd' || n, 'w' || n % 1000, 'e' || n, 'ticket.updated', 'k', 1, 0,
				case when n % 20 = 0 then 'pending' else 'delivered' end, n, n, ` + ofDay(microsPerDay) + ` + n, n, ` + ofDay(numbersPerDay) + ` + 1000000 + n ` + rows,
		`insert into tickets (tenant_id, ticket_id, ticket_number, title, client_id, status_id, board_id, priority_id, entered_by,
				entered_at, updated_at, is_closed, source, ticket_origin, last_occurred_at)
			select 't' || n % 50, 'k' || n, 'n' || n, 'x', 'c', 's', 'b', 'p', 'u', n, n, false, '', '', n ` + rows,
		`insert into comments (tenant_id, ticket_id, comment_id, note, is_internal, is_resolution, author_type, thread_id, created_at)
			select 't' || n % 50, 'k' || n, 'c' || n, '', false, false, '', '', n ` + rows,
		`insert into ticket_tags (tenant_id, ticket_id, tag_text, tag_id, created_at) select 't' || n % 50, 'k' || n, 'x', 'i' || n, n ` + rows,
		`insert into webhooks (tenant_id, webhook_id, created_by, name, url, method, event_types, verify_ssl, is_active,
				is_test_mode, tags, secret, created_at, updated_at)
			select 't' || n % 50, 'w' || n, '', '', '', '', '[]', true, true, false, '[]', '', n, n from generate_series(1, 5000) n`,
		`insert into webhook_health (tenant_id, webhook_id) select 't' || n % 50, 'w' || n from generate_series(1, 5000) n`,
		`insert into mail_outbox (mail_id, tenant_id, dedupe_key, recipient, subject, text_body, html_body, due_at, sent_at, created_at)
			select 'm' || n, 't' || n % 50, 'k' || n, '', '', '', '', n, n, n ` + rows,
		`insert into idempotency_keys (tenant_id, api_key_id, key, route, fingerprint, status, body, created_at)
			select 't' || n % 50, 'a', 'k' || n, '', '', 200, '', n ` + rows,
		`insert into users (tenant_id, user_id, first_name, last_name, email, user_type, permissions, created_at)
			select 't' || n % 50, 'u' || n, '', '', 'u' || n || '@x', '', '[]', n ` + rows,
		`insert into api_keys (tenant_id, api_key_id, user_id, name, prefix, key_hash, created_at)
			select 't' || n % 50, 'a' || n, 'u', '', '', 'h' || n, n ` + rows,
		`insert into console_tokens (token_hash, kind, tenant_id, user_id, created_at, expires_at)
			select 'h' || n, 'session', 't' || n % 50, 'u', n, n ` + rows,
		`insert into cutover_reports (tenant_id, report_id, published_by, published_at, verdict, headline, server, webhook_id, window_to, body)
			select 't' || n % 50, 'r' || n, '', n, '', '', '', '', n, '' ` + rows,
		`insert into link_requests select 'r' || n, 'a' || n, 's' || n, n ` + rows,
		`insert into rate_buckets select 't' || n % 50, 'a' || n, 1, true, n ` + rows,
		`insert into delivery_minutes select 't' || n % 50, n, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 ` + rows,
		`analyze`,
	} {
		if _, err := s.read.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// pgStep is a scan of a plan.
type pgStep struct {
	text  string
	keyed bool // an index leads to the rows
}

// small are the tables whose size does not grow with the work.
var small = regexp.MustCompile(`^(gate|gate_version|nodes|migrations|tenants|handovers|boards|statuses|priorities|clients|contacts|locations|teams|categories|ticket_agents|comment_reactions|ticket_ends|replay_jobs|disabled_periods)\b`)

// pgPlan returns the scans of the plan of a statement for any arguments.
func pgPlan(t *testing.T, s *Store, q string) []pgStep {
	t.Helper()
	conn, err := s.read.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if strings.HasPrefix(q, "delete") {
		// The plan depends on how little is asked for.
		q = strings.ReplaceAll(q, "limit $2", "limit 10")
	}
	for _, first := range []string{"set plan_cache_mode = force_generic_plan", "prepare asked as " + q} {
		if _, err := conn.ExecContext(t.Context(), first); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
	}
	rows, err := conn.QueryContext(t.Context(), `select unnest(parameter_types)::text from pg_prepared_statements where name = 'asked'`)
	types := must(collect(rows, err, func(row scanner) (kind string, err error) { err = row.Scan(&kind); return kind, err }))(t)
	explain := "explain execute asked"
	if len(types) > 0 {
		explain += "(" + strings.Join(anyArguments(types), ", ") + ")"
	}
	rows, err = conn.QueryContext(t.Context(), explain)
	lines, err := collect(rows, err, func(row scanner) (line string, err error) {
		err = row.Scan(&line)
		return line, err
	})
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	if _, err := conn.ExecContext(t.Context(), "deallocate asked"); err != nil {
		t.Fatal(err)
	}
	scan := regexp.MustCompile(`(Seq Scan|Index Scan|Index Only Scan|Index Scan Backward|Index Only Scan Backward|Bitmap Heap Scan|Bitmap Index Scan)(?: using \w+)? on (\w+)`)
	var steps []pgStep
	for i, line := range lines {
		m := scan.FindStringSubmatch(line)
		// A day that has nothing yet needs no index.
		if m == nil || strings.Contains(line, "cost=0.00..0.00") || m[1] == "Bitmap Heap Scan" || small.MatchString(m[2]) {
			continue
		}
		keyed := m[1] != "Seq Scan" && i+1 < len(lines) && strings.Contains(lines[i+1], "Index Cond:")
		steps = append(steps, pgStep{strings.TrimSpace(line), keyed})
	}
	return steps
}

// anyArguments returns one argument of each type. Of numbers the first is the least
// and the others are as large as can be: a span between two of them, such as one of
// the feed, then leaves no day out.
func anyArguments(types []string) []string {
	out := make([]string, len(types))
	number := "'0'"
	for i, kind := range types {
		switch {
		case strings.HasSuffix(kind, "[]"):
			out[i] = "'{}'"
		case kind == "bigint":
			out[i], number = number, "'9223372036854775807'"
		default:
			out[i] = "'0'"
		}
	}
	return out
}

// pgAboutAll reports whether a statement is meant to walk a whole index, most of
// them for the first entry of it or the partial ones of what is owed.
func pgAboutAll(q string, s pgStep) bool {
	for _, partial := range []string{
		"deliveries_leased", "deliveries_due", "mail_outbox_due", "webhook_health_failing", "webhooks_deleted",
	} {
		if strings.Contains(s.text, partial) {
			return true
		}
	}
	first := strings.Contains(s.text, "_pkey on events") && (strings.Contains(q, "max(seq)") || strings.Contains(q, "min(seq)") ||
		strings.Contains(q, "min(e.seq)") || strings.Contains(q, "max(m.seq)"))
	lanes := strings.HasPrefix(q, "select w.tenant_id, w.webhook_id from webhooks w") || strings.Contains(q, "select count(*) from mail_outbox")
	// Retention looks at the webhooks that were deleted, a handful, and joins them
	// with as many rows as there are webhooks.
	lanes = lanes || strings.HasPrefix(q, "delete from webhook") && strings.Contains(s.text, "webhook_health h")
	return first || lanes || strings.Contains(q, "group by") && strings.Contains(q, "from tickets")
}
