package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
)

type cutoverReportCmd struct {
	stateFlag
	Format  string   `help:"text, markdown, html, json, or csv with all observations." default:"text" enum:"text,markdown,html,json,csv"`
	Output  string   `short:"o" help:"Write to this file instead of standard output." placeholder:"FILE" type:"path"`
	At      string   `help:"Judge as of then, by what had been written: how long ago (2h), a date and time, or unix seconds. Default: the last time in the record." placeholder:"TIME"`
	Publish bool     `help:"Publish the report too: it is in the console of the service, for all who may read the tenant's webhooks."`
	URL     string   `name:"url" help:"Base URL of the Ticketwire to publish to. Default: that of the cutover." placeholder:"URL"`
	APIKey  string   `name:"api-key" help:"API key to publish with; better given as TICKETWIRE_API_KEY, where other users cannot see it." placeholder:"KEY"`
	Records []string `arg:"" optional:"" name:"record" help:"Records to read instead of the one in the directory, such as those of two machines; - is standard input."`
}

// Help is shown below the flags.
func (cutoverReportCmd) Help() string {
	return `Compares what the poller saw with what the webhooks brought, and says whether the poller can
go. Every observation gets one class, and what nothing explains blocks. It reads the record
and asks nobody, so the same record gives the same report. With --publish it then sends the
report to the service, with a key that has webhook:update.

Where the receiver runs on another machine, give both records; their order makes no
difference.

Examples:
  ticketwire cutover report
  ticketwire cutover report --format html --output cutover.html
  ticketwire cutover report --format csv | grep ,U,
  ticketwire cutover report --publish
  ticketwire cutover report poller/record.jsonl receiver/record.jsonl

Exit codes: 0 GO; 10 GO WITH RECONCILER, as some changes have no event type; 20 EXTEND, as
nothing is wrong and not enough is proved; 30 NO-GO. 1 and 2 as elsewhere, 4 no record.`
}

// exitStatus ends the command with a code of its own. What there is to say has
// been said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Run compares and writes the report.
func (c *cutoverReportCmd) Run(ctx context.Context, t terminal) (err error) {
	q := cutover.Question{Dir: c.typed()}
	if c.At != "" {
		if q.At, err = parseMoment("--at", c.At, time.Now()); err != nil {
			return err
		}
	}
	// Records without a setup are judged by what they say themselves.
	q.Setup, err = cutover.LoadSetup(c.State)
	if err != nil && (len(c.Records) == 0 || fault.KindOf(err) != fault.NotFound) {
		return err
	}
	names := c.Records
	if len(names) == 0 {
		names = []string{filepath.Join(c.State, cutover.RecordName)}
	}
	torn := 0
	report, err := cutover.Compare(entriesOf(names, &torn), q)
	if err != nil {
		return err
	}
	report.Record.Torn = torn
	if err := c.write(t, report); err != nil {
		return err
	}
	if c.Publish {
		if err := c.publish(ctx, t, report); err != nil {
			return err
		}
	}
	if report.Exit != 0 {
		return exitStatus(report.Exit)
	}
	return nil
}

// publish sends the report to the service.
func (c *cutoverReportCmd) publish(ctx context.Context, t terminal, report *cutover.Report) error {
	to := apiFlags{URL: baseURL(cmp.Or(c.URL, report.Server)), APIKey: c.APIKey}
	if to.URL == "" {
		return usageError{errors.New("the record does not say of which service it is"), "--url http://127.0.0.1:8080"}
	}
	api, err := to.connect()
	if err != nil {
		return err
	}
	text, err := json.Marshal(report)
	if err != nil {
		return err
	}
	made, err := api.PublishCutoverReport(ctx, text)
	if answer, is := errors.AsType[*client.Error](err); is && answer.Status == http.StatusNotFound {
		return usageError{
			fmt.Errorf("the server keeps no reports (AlgaPSA does not): %w", err),
			"--url with the address of a Ticketwire, and --api-key with a key of it",
		}
	}
	if err != nil {
		return fmt.Errorf("publish the report: %w", err)
	}
	fmt.Fprintf(t.err, "Published: %s/console/cutover/%s\n", to.URL, made.ReportID)
	return nil
}

// entriesOf reads records one behind the other.
func entriesOf(names []string, torn *int) iter.Seq2[cutover.Entry, error] {
	return func(yield func(cutover.Entry, error) bool) {
		for _, name := range names {
			if !entriesOfOne(name, torn, yield) {
				return
			}
		}
	}
}

// entriesOfOne reads one record and reports whether to go on.
func entriesOfOne(name string, torn *int, yield func(cutover.Entry, error) bool) bool {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = fault.Wrap(fault.NotFound, err, "There is no record %s", name)
		}
		if err != nil {
			yield(cutover.Entry{}, err)
			return false
		}
		defer f.Close()
		in = f
	}
	r := cutover.NewReader(in)
	defer func() { *torn += r.Torn() }()
	for e, err := range r.Entries() {
		if err != nil {
			yield(cutover.Entry{}, fmt.Errorf("%s: %w", name, err))
			return false
		}
		if !yield(e, nil) {
			return false
		}
	}
	return true
}

// write writes the report in the format that was asked for.
func (c *cutoverReportCmd) write(t terminal, report *cutover.Report) (err error) {
	out := t.out
	if c.Output != "" {
		f, failed := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if failed != nil {
			return failed
		}
		defer closing(f, &err)
		out = f
	}
	buffered := bufio.NewWriterSize(out, 64<<10)
	switch c.Format {
	case "markdown":
		err = report.WriteMarkdown(buffered)
	case "html":
		err = report.WriteHTML(buffered)
	case "json":
		err = report.WriteJSON(buffered)
	case "csv":
		err = report.WriteCSV(buffered)
	default:
		err = report.WriteText(buffered)
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil && c.Output != "" {
		fmt.Fprintf(t.err, "%s: %s\n", report.Outcome, report.Headline)
	}
	return err
}
