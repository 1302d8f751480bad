package cutover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// MaxReport is the largest report that is taken, in bytes: what a body of the API
// may have. A report is bounded however long its record is, see Plots.
const MaxReport = 1 << 20

// Bounds of a report that somebody else made.
const (
	maxNumber = 1e12 // of anything that is counted or measured, in both directions
	maxLine   = 2000 // runes of the texts that lists of reports show
)

// ParseReport reads what WriteJSON has written. It takes it from strangers: what is
// no report, is of another version, or has numbers that no comparison comes to is
// Invalid, with the fields and what is wrong with each. Whatever it returns can be
// written in all forms, but has no rows.
func ParseReport(text []byte) (*Report, error) {
	if len(text) > MaxReport {
		return nil, fault.New(fault.TooLarge, "A report may have %d bytes, and this has %d", MaxReport, len(text))
	}
	r := &Report{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(r)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is something behind it")
		}
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return nil, fault.Wrap(fault.Invalid, err, "A report must be an object, not %s", wrong.Value)
		}
		c := &reportCheck{}
		c.wrong(keys(wrong.Field), "must not be %s", wrong.Value)
		return nil, c.err()
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "This is no report that ticketwire cutover report --format json of this version has written: %s",
			strings.TrimPrefix(err.Error(), "json: "))
	}
	c := &reportCheck{}
	c.numbers(nil, reflect.ValueOf(r).Elem())
	c.head(r)
	c.rest(r)
	if err := c.err(); err != nil {
		return nil, err
	}
	return r, nil
}

// reportCheck collects what is wrong with a report.
type reportCheck struct{ issues []fault.Issue }

// most is how many issues are told.
const most = 20

// keys is a path of keys alone, as it is written.
func keys(path string) []any {
	var out []any
	for key := range strings.SplitSeq(path, ".") {
		out = append(out, key)
	}
	return out
}

func (c *reportCheck) wrong(path []any, format string, args ...any) {
	if len(c.issues) < most {
		c.issues = append(c.issues, fault.Issue{Code: "custom", Path: path, Message: fmt.Sprintf(format, args...)})
	}
}

func (c *reportCheck) err() error {
	if len(c.issues) == 0 {
		return nil
	}
	slices.SortStableFunc(c.issues, func(a, b fault.Issue) int { return strings.Compare(fmt.Sprint(a.Path), fmt.Sprint(b.Path)) })
	return &fault.Error{Kind: fault.Invalid, Message: "The report is not one that a comparison comes to", Issues: c.issues}
}

// numbers goes through all numbers of a value.
func (c *reportCheck) numbers(path []any, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for field, part := range v.Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); field.IsExported() && name != "-" {
				c.numbers(append(slices.Clip(path), name), part)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			c.numbers(append(slices.Clip(path), i), v.Index(i))
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			c.numbers(append(slices.Clip(path), fmt.Sprint(key)), value)
		}
	case reflect.Int:
		if n := v.Int(); n > maxNumber || n < -maxNumber {
			c.wrong(path, "must be a number of at most %g", maxNumber)
		}
	case reflect.Float64:
		if math.Abs(v.Float()) > maxNumber {
			c.wrong(path, "must be a number of at most %g", maxNumber)
		}
	}
}

// head checks what lists of reports show.
func (c *reportCheck) head(r *Report) {
	exits := map[Outcome]int{Go: 0, GoWithReconciler: 10, Extend: 20, NoGo: 30}
	if exit, known := exits[r.Outcome]; !known {
		c.wrong(keys("verdict"), "must be %s, %s, %s or %s", Go, GoWithReconciler, Extend, NoGo)
	} else if exit != r.Exit {
		c.wrong(keys("exit_code"), "must be %d for %s", exit, r.Outcome)
	}
	if r.Headline == "" {
		c.wrong(keys("headline"), "must not be empty")
	}
	for _, line := range []struct{ path, text string }{{"headline", r.Headline}, {"server", r.Server}, {"webhook_id", r.WebhookID}} {
		switch {
		case strings.ContainsFunc(line.text, unicode.IsControl):
			c.wrong(keys(line.path), "must be one line")
		case utf8.RuneCountInString(line.text) > maxLine:
			c.wrong(keys(line.path), "must have at most %d characters", maxLine)
		}
	}
	w := r.Window
	if w.To.IsZero() {
		c.wrong(keys("window.to"), "must be a time")
	}
	if !w.From.IsZero() && (w.Settled.Before(w.From) || w.To.Before(w.Settled)) {
		c.wrong(keys("window.settled"), "must be from window.from to window.to")
	}
	if took := w.Settled.Sub(w.From).Seconds(); w.Seconds < 0 || w.From.IsZero() && w.Seconds > 0 || !w.From.IsZero() && math.Abs(took-w.Seconds) > 1 {
		c.wrong(keys("window.seconds"), "must be the time from window.from to window.settled")
	}
}

// rest checks shares, classes and what the pictures show.
func (c *reportCheck) rest(r *Report) {
	for path, share := range map[string]float64{
		"coverage.rate": r.Coverage.Rate, "coverage.miss_bound": r.Coverage.MissBound, "coverage.miss_allowed": r.Coverage.Allowed,
		"recall.poller": r.Recall.Poller, "recall.webhook": r.Recall.Webhook, "requests.useful_share": r.Requests.UsefulShare,
		"attempts.first_attempt_rate": r.Attempts.First, "traffic.watched_share": r.Traffic.Share,
	} {
		if share < 0 || share > 1 {
			c.wrong(keys(path), "must be from 0 to 1")
		}
	}
	seen := map[Class]bool{}
	for i := range r.Classes {
		n := &r.Classes[i]
		info := n.Class.Info()
		if !slices.Contains(Classes(), info) || seen[n.Class] {
			c.wrong([]any{"classes", i, "class"}, "must be a class, and no two the same")
		}
		n.Weight, n.Title, seen[n.Class] = info.Weight, info.Title, true
	}
	p := &r.Plots
	c.lags("plots.poll", p.Poll, r.Lag.Poll.N)
	c.lags("plots.webhook", p.Webhook, r.Lag.FirstByte.N)
	if n := len(p.Changes); n != 0 && n != maxBars || slices.ContainsFunc(p.Changes, func(n int) bool { return n < 0 }) {
		c.wrong(keys("plots.changes"), "must be empty or %d numbers from 0 on", maxBars)
	}
	for path, lane := range map[string][]Band{"plots.blind": p.Blind, "plots.down": p.Down, "plots.disabled": p.Disabled} {
		if len(lane) > maxMarks {
			c.wrong(keys(path), "must have at most %d entries", maxMarks)
		}
		for i, o := range lane {
			if o.From.IsZero() || o.To.Before(o.From) {
				c.wrong(append(keys(path), i, "to"), "must not be before its from")
			}
		}
	}
	for path, lane := range map[string][]Mark{"plots.missed": p.Missed, "plots.unexplained": p.Doubtful} {
		if len(lane) > maxMarks {
			c.wrong(keys(path), "must have at most %d entries", maxMarks)
		}
	}
}

// lags checks the points of a line that stand for n lags.
func (c *reportCheck) lags(path string, points []float64, n int) {
	if len(points) > 0 && len(points) != min(n, maxLags) || !slices.IsSorted(points) || len(points) > 0 && points[0] < 0 {
		c.wrong(keys(path), "must be empty or the %d lags of this number that are shown, from 0 on and in their order", maxLags)
	}
}
