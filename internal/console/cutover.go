package console

import (
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"strings"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

func cutoverRoutes() []route {
	return []route{
		{"GET /console/cutover", "webhook", "read", (*visit).listReports},
		{"POST /console/cutover", "webhook", "update", (*visit).publishReport},
		{"GET /console/cutover/{id}", "webhook", "read", (*visit).showReport},
		{"POST /console/cutover/{id}/delete", "webhook", "update", (*visit).deleteReport},
	}
}

// reportView is a published report as a list shows it.
type reportView struct{ store.CutoverReport }

// Tone is how good its verdict is.
func (r *reportView) Tone() string { return cutover.Outcome(r.Verdict).Tone() }

// About is which webhook of which server it is about.
func (r *reportView) About() string {
	server := strings.TrimPrefix(strings.TrimPrefix(r.Server, "https://"), "http://")
	switch {
	case server == "" && r.WebhookID == "":
		return "a cutover that does not say of what"
	case r.WebhookID == "":
		return server
	}
	return strings.TrimPrefix(server+", webhook "+r.WebhookID, ", ")
}

// reportsPage is the list, with what was wrong with a file.
type reportsPage struct {
	Reports []reportView
	Most    int
	Error   string
}

func (v *visit) listReports() error { return v.reportList(http.StatusOK, "") }

func (v *visit) reportList(status int, problem string) error {
	list, err := v.store().CutoverReports(v.ctx, v.tenant())
	if err != nil {
		return err
	}
	p := reportsPage{Most: store.MaxCutoverReports, Error: problem}
	for _, r := range list {
		p.Reports = append(p.Reports, reportView{r})
	}
	return v.page(status, "reports", "cutover", "Cutover reports", p)
}

// publishReport takes the file of a form.
func (v *visit) publishReport() error {
	r, err := v.readReport()
	if err == nil {
		var body []byte
		if body, err = json.Marshal(r); err != nil {
			return err
		}
		var made store.CutoverReport
		if made, err = v.store().PublishCutoverReport(v.ctx, v.now, v.who.Actor(), body); err == nil {
			return v.redirect("/console/cutover/"+made.ReportID, "published")
		}
	}
	if formFailed(err) || fault.Is(err, fault.TooLarge) {
		return v.reportList(fault.KindOf(err).HTTPStatus(), messageOf(err))
	}
	return err
}

// readReport reads the file; a form of this size stays in memory.
func (v *visit) readReport() (*cutover.Report, error) {
	file, _, err := v.r.FormFile("report")
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "Choose a file of at most %d KiB that ticketwire cutover report --format json has written", cutover.MaxReport>>10)
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "The file cannot be read")
	}
	return cutover.ParseReport(text)
}

// reportPage is a report.
type reportPage struct {
	reportView
	Period   string
	Author   string
	Sections template.HTML
}

func (v *visit) showReport() error {
	kept, err := v.store().CutoverReport(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	r, err := cutover.ParseReport(kept.Body)
	if err != nil {
		return err
	}
	var sections strings.Builder
	if err := r.WriteSections(&sections); err != nil {
		return err
	}
	p := reportPage{
		reportView: reportView{kept}, Period: r.Period(),
		Sections: template.HTML(sections.String()), //nolint:gosec // a template has made it
	}
	if p.Author, err = v.nameOf(kept.PublishedBy); err != nil {
		return err
	}
	return v.page(http.StatusOK, "report", "cutover", "Cutover report", &p)
}

func (v *visit) deleteReport() error {
	if err := v.store().DeleteCutoverReport(v.ctx, v.tenant(), v.r.PathValue("id")); err != nil {
		return err
	}
	return v.redirect("/console/cutover", "removed")
}
