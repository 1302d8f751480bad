package console_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/store"
)

// sampleReport is a report with something of everything.
func sampleReport(t *testing.T) []byte {
	t.Helper()
	return must(os.ReadFile("../cutover/testdata/report.json"))(t)
}

// upload posts a file as the form does.
func (b *browser) upload(text []byte) (reply, string) {
	b.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part := must(form.CreateFormFile("report", "report.json"))(b.t)
	if _, err := part.Write(text); err != nil {
		b.t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		b.t.Fatal(err)
	}
	return b.do(http.MethodPost, "/console/cutover", body.String(), "Content-Type", form.FormDataContentType())
}

// A report is published from a file, and read with all that the report of the
// command line has.
func TestReportIsPublished(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	if _, page := b.get("/console/cutover"); !strings.Contains(page, "No reports yet") {
		t.Error("the list of nothing does not say so")
	}
	r, page := b.upload(sampleReport(t))
	path, _, _ := strings.Cut(r.Header.Get("Location"), "?")
	if r.StatusCode != http.StatusSeeOther || !strings.HasPrefix(path, "/console/cutover/") {
		t.Fatalf("publishing answers %d: %s", r.StatusCode, page)
	}
	report := must(cutover.ParseReport(sampleReport(t)))(t)
	var sections bytes.Buffer
	if err := report.WriteSections(&sections); err != nil {
		t.Fatal(err)
	}
	r, page = b.get(path)
	if r.StatusCode != http.StatusOK || !strings.Contains(page, sections.String()) {
		t.Errorf("the page answers %d without the report", r.StatusCode)
	}
	if n := strings.Count(page, "<svg"); n != 3 {
		t.Errorf("%d pictures, want 3", n)
	}
	if regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script>`).MatchString(page) {
		t.Error("there is a style or a script in the page")
	}
	for _, part := range []string{"desk.example, webhook w", "Ada Lovelace", "Delete this report"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page is without %q", part)
		}
	}
	if _, page := b.get("/console/cutover"); !strings.Contains(page, path) || !strings.Contains(page, `<span class="badge bad">NO-GO</span>`) {
		t.Error("the list is without the report")
	}
	// Others: one who may only read, and another tenant.
	reader := d.signedIn(t, d.key(t, "webhook:read"))
	r, page = reader.get(path)
	if r.StatusCode != http.StatusOK || strings.Contains(page, "Delete this report") {
		t.Errorf("a reader gets %d, and is offered to delete", r.StatusCode)
	}
	if _, page := reader.get("/console/cutover"); strings.Contains(page, "Publish a report") {
		t.Error("a reader is offered to publish")
	}
	other := d.signedIn(t, d.b.APIKey)
	if r, _ := other.get(path); r.StatusCode != http.StatusNotFound {
		t.Errorf("another tenant gets %d", r.StatusCode)
	}
	if r, _ := other.post(path+"/delete", nil); r.StatusCode != http.StatusNotFound {
		t.Errorf("another tenant deletes: %d", r.StatusCode)
	}
	if r, _ := b.post(path+"/delete", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("deleting answers %d", r.StatusCode)
	}
	if r, _ := b.get(path); r.StatusCode != http.StatusNotFound {
		t.Errorf("a deleted report answers %d", r.StatusCode)
	}
}

// What is no report is refused with the reason, beside the form.
func TestReportFileIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	changed := func(name string, value any) []byte {
		var report map[string]any
		if err := json.Unmarshal(sampleReport(t), &report); err != nil {
			t.Fatal(err)
		}
		report[name] = value
		return must(json.Marshal(report))(t)
	}
	for _, c := range []struct {
		text   []byte
		status int
		want   string
	}{
		{nil, http.StatusBadRequest, "EOF"},
		{[]byte("<script>alert(1)</script>"), http.StatusBadRequest, "invalid character"},
		{changed("<b>x</b>", 1), http.StatusBadRequest, "unknown field"},
		{changed("verdict", "<b>x</b>"), http.StatusBadRequest, "verdict: must be GO"},
		{bytes.Repeat([]byte(" "), cutover.MaxReport+1), http.StatusRequestEntityTooLarge, "A report may have"},
		{bytes.Repeat([]byte(" "), 2<<20), http.StatusBadRequest, "Choose a file of at most 1024 KiB"},
	} {
		r, page := b.upload(c.text)
		if r.StatusCode != c.status || !strings.Contains(page, c.want) || strings.Contains(page, "<b>x") || strings.Contains(page, "<script>alert") {
			t.Errorf("%.20q answers %d without %q, want %d", c.text, r.StatusCode, c.want, c.status)
		}
	}
	if r, page := b.post("/console/cutover", nil); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "Choose a file") {
		t.Errorf("a form without a file answers %d", r.StatusCode)
	}
	for range store.MaxCutoverReports {
		must(d.store.PublishCutoverReport(t.Context(), time.Now(), d.who, sampleReport(t)))(t)
	}
	if r, page := b.upload(sampleReport(t)); r.StatusCode != http.StatusConflict || !strings.Contains(page, "delete one first") {
		t.Errorf("one too many answers %d", r.StatusCode)
	}
	if _, page := b.get("/console/cutover"); strings.Count(page, `class="badge bad"`) != store.MaxCutoverReports {
		t.Error("the list is not whole")
	}
}

// Whatever strangers wrote into a record is text.
func TestReportOfStrangers(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	const nasty = `"><script>alert(1)</script><img src=x onerror=alert(1)> ` + "\u202egnp.exe \x1b[31m \u200f"
	var report cutover.Report
	if err := json.Unmarshal(sampleReport(t), &report); err != nil {
		t.Fatal(err)
	}
	report.Headline, report.Server, report.WebhookID = strings.ReplaceAll(nasty, "\x1b", ""), "javascript:"+strings.ReplaceAll(nasty, "\x1b", ""), "<b>w</b>"
	for _, list := range [][]cutover.Finding{report.Blockers, report.Unproved, report.Notes} {
		for i := range list {
			list[i] = cutover.Finding{Code: nasty, Title: nasty, Evidence: []string{nasty}, Cause: nasty, Command: nasty}
		}
	}
	for i := range report.Classes {
		for n := range report.Classes[i].Samples {
			report.Classes[i].Samples[n].Ticket = nasty
		}
	}
	report.Slowest[0].Ticket, report.Slowest[0].EventID, report.Rules[0].Why, report.Recall.Source = nasty, nasty, nasty, nasty
	report.Drills[0].Evidence, report.Types[0].Name, report.Plots.Missed[0].Text, report.Window.Weekdays = nasty, nasty, nasty, []string{nasty}
	report.Requests.Failures = map[cutover.Failure]int{nasty: 1}
	r, page := b.upload(must(json.Marshal(report))(t))
	if r.StatusCode != http.StatusSeeOther {
		t.Fatalf("publishing answers %d: %s", r.StatusCode, page)
	}
	for _, path := range []string{"/console/cutover", r.Header.Get("Location")} {
		_, page := b.get(path)
		for _, bad := range []string{"<script>alert", "<img src=x", "<b>w", "\u202e", "\x1b", "\u200f", `href="javascript`} {
			if at := strings.Index(page, bad); at >= 0 {
				t.Errorf("%s has %q in it: %s", path, bad, fmt.Sprintf("%.200q", page[max(0, at-100):]))
			}
		}
	}
}
