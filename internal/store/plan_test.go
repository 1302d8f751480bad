package store

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// TestPlans asks the database how it runs the statements of tickets, feed and
// identity: every table is reached through an index, and the lists that people
// page through all day need no sort.
func TestPlans(t *testing.T) {
	t.Parallel()
	d := newDesk(t, openAt(t, place{dir: t.TempDir()}, withLinks), "acme")
	useEverything(t, d)
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
	checked := 0
	for q := range texts {
		verb, _, _ := strings.Cut(strings.TrimSpace(q), " ")
		if verb != "select" && verb != "update" && verb != "delete" {
			continue
		}
		checked++
		for _, step := range plan(t, d.Store, q) {
			if scans(step) || walks(step) && !strings.Contains(q, "count(") {
				t.Errorf("%q in\n%s", step, q)
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d statements were checked", checked)
	}
	for _, c := range []struct {
		name string
		q    ticket.Query
	}{
		{"newest first", ticket.Query{Sort: "created_at", Desc: true}},
		{"poll by updated_at", ticket.Query{Sort: "updated_at", UpdatedFrom: new(start())}},
	} {
		w := ticketWhere(d.TenantID, c.q)
		for _, step := range plan(t, d.Store, ticketColumns+`where `+w.String()+ticketOrder(c.q.Sort, c.q.Desc)+w.page(1, 25)) {
			// Only rows of the same instant may need one, for their order by id.
			sorts := strings.Contains(step, "TEMP B-TREE") && !strings.Contains(step, "FOR LAST TERM")
			if scans(step) || sorts {
				t.Errorf("%s: %q", c.name, step)
			}
		}
	}
}

// walks reports whether a step reads everything that a tenant has in a table
// that grows. Only the statistics may: they count everything.
func walks(step string) bool {
	if !strings.HasSuffix(step, "(tenant_id=?)") {
		return false
	}
	for _, small := range []string{"tenants", "webhooks", "boards", "api_keys", "cutover_reports"} {
		if strings.Contains(step, "_"+small+"_") {
			return false
		}
	}
	return !strings.Contains(step, "events_feed") // its newest entry, see Events
}

// scans reports whether a step reads a whole table or a whole index. A constant
// row and a subquery's own rows are no table.
func scans(step string) bool {
	return strings.HasPrefix(step, "SCAN") && step != "SCAN CONSTANT ROW"
}

// useEverything runs the statements that have a fixed text.
func useEverything(t *testing.T, d *desk) {
	t.Helper()
	ctx := t.Context()
	tk := d.create(start(), d.everything(t))
	c := d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "x", IsResolution: true})
	reply := d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "x", ParentCommentID: &c.CommentID})
	must(d.EditComment(ctx, start(), d.Actor, tk.TicketID, reply.CommentID, "y"))(t)
	must(d.ToggleReaction(ctx, start(), d.Actor, tk.TicketID, c.CommentID, "x"))(t)
	must(d.ToggleReaction(ctx, start(), d.Actor, tk.TicketID, c.CommentID, "x"))(t)
	for _, desc := range []bool{false, true} {
		must(d.Comments(ctx, d.TenantID, tk.TicketID, CommentQuery{Desc: desc}))(t)
	}
	published := must(d.PublishCutoverReport(ctx, start(), d.Actor, report("x")))(t)
	if err := d.MailLinks(ctx, start(), "acme@desk.example", "x"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Buckets(ctx, d.TenantID); err != nil {
		t.Fatal(err)
	}
	must(d.CutoverReports(ctx, d.TenantID))(t)
	must(d.CutoverReport(ctx, d.TenantID, published.ReportID))(t)
	if err := d.DeleteCutoverReport(ctx, d.TenantID, published.ReportID); err != nil {
		t.Fatal(err)
	}
	tags := must(d.AddTags(ctx, start(), d.Actor, tk.TicketID, []TagDraft{{Text: "new"}}))(t)
	must(d.RemoveTags(ctx, start(), d.Actor, tk.TicketID, []string{tags[0].TagID}))(t)
	must(d.Tags(ctx, d.TenantID, tk.TicketID))(t)
	u := must(d.AddUser(ctx, start(), d.TenantID, ticket.User{FirstName: "Bo", Email: "bo@x"}))(t)
	must(d.AddAgent(ctx, start(), d.Actor, tk.TicketID, u.UserID, "x", ticket.Suppress{}))(t)
	must(d.TicketAgents(ctx, d.TenantID, tk.TicketID))(t)
	d.update(start(), tk.TicketID, ticket.Patch{AssignedTo: ticket.Some(&u.UserID)})
	must(d.Ticket(ctx, d.TenantID, tk.TicketID))(t)
	must(d.Ticket(ctx, d.TenantID, tk.Number))(t)
	must(d.TicketStats(ctx, start(), d.TenantID))(t)
	page := must(d.Events(ctx, d.TenantID, FeedQuery{}))(t)
	must(d.Event(ctx, d.TenantID, envelopeOf(t, page.Envelopes[0]).EventID))(t)
	_, text, err := d.CreateKey(ctx, start(), d.TenantID, KeyDraft{UserID: d.UserID, Name: "x", UsageLimit: new(int64(1))})
	if err != nil {
		t.Fatal(err)
	}
	must(d.Authenticate(ctx, start(), text))(t)
	must(d.Keys(ctx, d.TenantID))(t)
	for _, b := range []bool{true, false} {
		board := must(d.CreateBoard(ctx, start(), d.TenantID, ticket.Board{Name: "x", IsDefault: b}))(t)
		must(d.CreateStatus(ctx, start(), d.TenantID, ticket.Status{Name: "x", BoardID: board.BoardID, IsDefault: b}))(t)
	}
	if err := d.DeleteTicket(ctx, d.Actor, tk.TicketID); err != nil {
		t.Fatal(err)
	}
}

// plan returns the steps of a statement. Its arguments do not matter to the
// plan, but their number does to the driver.
func plan(t *testing.T, s *Store, q string) []string {
	t.Helper()
	highest := 0
	for _, m := range regexp.MustCompile(`\$(\d+)`).FindAllStringSubmatch(q, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		highest = max(highest, n)
	}
	rows, err := s.read.Query(`explain query plan `+q, make([]any, highest)...)
	steps, err := collect(rows, err, func(row scanner) (string, error) {
		var id, parent, unused int
		var detail string
		err := row.Scan(&id, &parent, &unused, &detail)
		return detail, err
	})
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", q, err))
	}
	return steps
}
