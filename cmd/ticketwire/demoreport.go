package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/cutover"
)

// rounds is the time of so many rounds of the poller, and some more.
func (d *demo) rounds(n int) time.Duration { return time.Duration(n)*d.cmd.Poll + d.cmd.Poll/4 }

// introduce names what runs, one line for each.
func (d *demo) introduce() {
	fmt.Fprintf(d.t.out, `Polling and webhooks side by side, on this machine.

  server    %s
  poller    GET /api/v1/tickets/{id}, %d tickets every %s (stands for the guide's minute)
  webhook   %s (verified, kept, deduplicated)

Each line is a change, and when one of the two learned of it. The work begins in %s.

`, d.app.PublicURL(), watchedTickets, d.cmd.Poll, d.receiver.URL(), d.rounds(1).Round(time.Second))
}

// settle waits until the receiver has every event of the feed, and the poller has
// had two more rounds: the comparison leaves out what is younger.
func (d *demo) settle(ctx context.Context) error {
	d.log.note("two more rounds of the poller, so that nothing is judged that is still under way")
	if err := pause(ctx, d.rounds(2)); err != nil {
		return err
	}
	for deadline := time.Now().Add(retryLimit); time.Now().Before(deadline); {
		missing, _, err := d.missing(ctx)
		if err != nil || missing == 0 {
			return err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil // show says what is missing
}

// missing compares the event feed, which is the truth, with what was received.
func (d *demo) missing(ctx context.Context) (missing, total int, err error) {
	for p, err := range d.api.EventPages(ctx, "", client.EventFilter{Since: d.setup.Started}) {
		if err != nil {
			return 0, 0, fmt.Errorf("read the event feed: %w", err)
		}
		for _, e := range p.Data {
			total++
			if !d.log.has(e.EventID) {
				missing++
			}
		}
	}
	return missing, total, nil
}

// compare judges the record, as cutover report does. The commands in the report
// are for the directory of a real cutover, since this one goes with the demo.
func (d *demo) compare() (*cutover.Report, error) {
	torn := 0
	return cutover.Compare(entriesOf([]string{filepath.Join(d.state, cutover.RecordName)}, &torn), cutover.Question{Setup: d.setup})
}

// show prints the report, and what it means. What is against webhooks in it is an
// error.
func (d *demo) show(ctx context.Context, report *cutover.Report) error {
	missing, total, err := d.missing(ctx)
	if err != nil {
		return err
	}
	if err := d.save(report); err != nil {
		return err
	}
	fmt.Fprintln(d.t.out)
	if err := report.WriteBrief(d.t.out); err != nil {
		return err
	}
	fmt.Fprintf(d.t.out, `
Events in the feed: %d. Received, verified and handled: %d. Missing: %d.
Changes that no poll shows, as the ticket changed again before the next one: %d.
Six tickets every minute are 360 requests an hour and 8,640 a day, whether or not
anything happens. A webhook sends one to three for a change.

The whole report, with its pictures: %s
`, total, total-missing, missing, report.Coverage.Unseen, d.cmd.Report)
	c := report.Coverage
	switch wrong := c.Missed + c.Events + c.Mismatched + c.Doubtful; {
	case missing > 0:
		return fmt.Errorf("%d events did not arrive", missing)
	case wrong > 0:
		return fmt.Errorf("the report is %s: %s", report.Outcome, report.Headline)
	}
	if report.Outcome == cutover.Extend {
		fmt.Fprintf(d.t.out, `
EXTEND is as far as a minute gets: nothing is wrong, and %d changes prove little. GO takes
a day and %d changes.
`, c.Eligible, c.Needed)
	}
	fmt.Fprint(d.t.out, `
What comes next, on a server of your own:

  ticketwire cutover start --url https://desk.example.com --all \
    --receiver-url https://hooks.example.com/webhooks/alga

docs/migrate.md has the whole way, step by step, with a desk to practise on.
`)
	return nil
}

// openReport makes the file of the whole report under another name, so that it is
// known before the minute whether there is a place for it.
func (d *demo) openReport(context.Context) (err error) {
	d.file, err = os.CreateTemp(filepath.Dir(d.cmd.Report), ".ticketwire-demo-*")
	if err != nil {
		return usageError{fmt.Errorf("the report cannot be written: %w", err), "--report FILE"}
	}
	d.stops = append(d.stops, func() error {
		err := os.Remove(d.file.Name())
		if errors.Is(err, fs.ErrNotExist) { // it has its name
			return nil
		}
		return errors.Join(err, d.file.Close())
	})
	return nil
}

// save writes the whole report and gives its file the name.
func (d *demo) save(report *cutover.Report) error {
	err := errors.Join(report.WriteHTML(d.file), d.file.Close())
	if err == nil {
		err = os.Rename(d.file.Name(), d.cmd.Report)
	}
	return err
}

// stayUp lets the newcomer make changes of his own and shows their events.
func (d *demo) stayUp(ctx context.Context) error {
	fmt.Fprintf(d.t.out, `
The server and the receiver stay up until you press Ctrl-C. Cause an event yourself:

  curl -X PUT %s/api/v1/tickets/%s \
    -H 'X-API-Key: %s' -H 'Content-Type: application/json' \
    -d '{"title":"Changed by hand"}'

`, d.app.PublicURL(), d.tickets[0].TicketID, d.tenant.APIKey)
	if app.HasConsole {
		link, err := consoleLink(ctx, d.app.Store(), time.Now(), d.app.PublicURL(), d.tenant.TenantID, d.tenant.UserID)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.t.out, "Or in the console; this link signs you in once:\n\n  %s\n\n", link)
	}
	d.log.announce()
	return d.app.Wait(ctx)
}
