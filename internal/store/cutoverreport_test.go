package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestCutoverReports(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){"lifecycle": reportLifecycle, "bound": reportBound})
}

// report is the JSON of a report that is told by its headline.
func report(headline string) []byte {
	return fmt.Appendf(nil, `{"verdict":"NO-GO","headline":%q,"server":"https://desk.example","webhook_id":"w",`+
		`"window":{"from":"2026-03-04T05:06:07.891234Z","to":"2026-03-04T06:06:07Z"}}`, headline)
}

func reportLifecycle(t *testing.T, open opener) {
	s := open(t)
	d, other, ctx := newDesk(t, s, "acme"), newDesk(t, s, "other"), t.Context()
	if list := must(s.CutoverReports(ctx, d.TenantID))(t); len(list) != 0 {
		t.Errorf("a new tenant has %v", list)
	}
	first := must(s.PublishCutoverReport(ctx, start(), d.Actor, report("first")))(t)
	body := []byte(`{"verdict":"GO","headline":"second","server":"","webhook_id":"","window":{"to":"2026-03-04T06:06:07Z"}}`)
	second := must(s.PublishCutoverReport(ctx, start().Add(time.Minute), d.Actor, body))(t)
	want := CutoverReport{
		TenantID: d.TenantID, ReportID: second.ReportID, PublishedBy: d.UserID, PublishedAt: start().Add(time.Minute),
		Verdict: "GO", Headline: "second", WindowTo: time.Date(2026, 3, 4, 6, 6, 7, 0, time.UTC), Body: body,
	}
	if diff := cmp.Diff(want, must(s.CutoverReport(ctx, d.TenantID, second.ReportID))(t)); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, second); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	list := must(s.CutoverReports(ctx, d.TenantID))(t)
	first.Body, second.Body = nil, nil
	if diff := cmp.Diff([]CutoverReport{second, first}, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if first.Server != "https://desk.example" || first.WebhookID != "w" || !first.WindowFrom.Equal(start()) {
		t.Errorf("the first is %+v", first)
	}
	if list := must(s.CutoverReports(ctx, other.TenantID))(t); len(list) != 0 {
		t.Errorf("another tenant has %v", list)
	}
	_, err := s.CutoverReport(ctx, other.TenantID, first.ReportID)
	wantKind(t, "another tenant's report", err, fault.NotFound)
	wantKind(t, "deleting another tenant's report", s.DeleteCutoverReport(ctx, other.TenantID, first.ReportID), fault.NotFound)
	if err := s.DeleteCutoverReport(ctx, d.TenantID, first.ReportID); err != nil {
		t.Fatal(err)
	}
	_, err = s.CutoverReport(ctx, d.TenantID, first.ReportID)
	wantKind(t, "a deleted report", err, fault.NotFound)
	wantKind(t, "deleting it again", s.DeleteCutoverReport(ctx, d.TenantID, first.ReportID), fault.NotFound)
}

// A tenant has only so many, and another one does not suffer from it.
func reportBound(t *testing.T, open opener) {
	s := open(t)
	d, other, ctx := newDesk(t, s, "acme"), newDesk(t, s, "other"), t.Context()
	var last CutoverReport
	for i := range MaxCutoverReports {
		last = must(s.PublishCutoverReport(ctx, start(), d.Actor, report(fmt.Sprint(i))))(t)
	}
	_, err := s.PublishCutoverReport(ctx, start(), d.Actor, report("one more"))
	wantKind(t, "one more", err, fault.Conflict)
	must(s.PublishCutoverReport(ctx, start(), other.Actor, report("theirs")))(t)
	if err := s.DeleteCutoverReport(ctx, d.TenantID, last.ReportID); err != nil {
		t.Fatal(err)
	}
	must(s.PublishCutoverReport(ctx, start(), d.Actor, report("one more")))(t)
	if n := len(must(s.CutoverReports(ctx, d.TenantID))(t)); n != MaxCutoverReports {
		t.Errorf("%d reports", n)
	}
}
