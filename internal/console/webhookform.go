package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// hookForm is the form of a webhook: what its fields hold, and what is wrong.
type hookForm struct {
	url.Values
	Action  string // where it is sent to
	Back    string // where the visitor goes who changes his mind
	Title   string
	New     bool
	issues  []fault.Issue
	Problem string // what is wrong with the form as a whole
	Headers []string
	TLS     *tlsView // the credentials that it has; nil without
}

// Error is what is wrong with a field or with what is below it.
func (f *hookForm) Error(field string) string {
	var list []string
	for _, is := range f.issues {
		name := fieldName(is.Path)
		if rest, below := strings.CutPrefix(name, field+"."); below {
			list = append(list, rest+": "+is.Message)
		} else if name == field {
			list = append(list, is.Message)
		}
	}
	return strings.Join(list, "; ")
}

// Wrong reports whether something is wrong with a field.
func (f *hookForm) Wrong() bool { return len(f.issues) > 0 }

// Chosen reports whether a field has this value among its values.
func (f *hookForm) Chosen(field, value string) bool { return slices.Contains(f.Values[field], value) }

// eventChoice is an event type to subscribe to.
type eventChoice struct {
	Name  string
	Fires bool
}

// Events are the event types, those that are delivered first.
func (*hookForm) Events() []eventChoice {
	var fires, silent []eventChoice
	for _, name := range delivery.EventTypes() {
		if delivery.Fires(name) {
			fires = append(fires, eventChoice{name, true})
		} else {
			silent = append(silent, eventChoice{name, false})
		}
	}
	return append(fires, silent...)
}

// Fields are the keys of a ticket that a payload can be cut to.
func (*hookForm) Fields() []string { return delivery.TicketFields() }

// FilterFields are the keys that a condition can compare.
func (*hookForm) FilterFields() []string { return delivery.FilterFields() }

// Operators are how a condition compares.
func (*hookForm) Operators() []string { return delivery.Operators() }

// conditionRow is one row of the conditions.
type conditionRow struct{ Field, Operator, Value string }

// spareRows is how many empty rows follow those that are filled in.
const spareRows = 2

// Conditions are the rows of the filter, with some to fill in.
func (f *hookForm) Conditions() []conditionRow {
	var rows []conditionRow
	for i, field := range f.Values["cond_field"] {
		row := conditionRow{Field: field, Operator: nth(f.Values["cond_op"], i), Value: nth(f.Values["cond_value"], i)}
		if row.Field != "" || row.Value != "" {
			rows = append(rows, row)
		}
	}
	return append(rows, make([]conditionRow, spareRows)...)
}

// NewHeaders are the rows of headers to add.
func (f *hookForm) NewHeaders() []string {
	rows := slices.DeleteFunc(slices.Clone(f.Values["header_name"]), func(s string) bool { return s == "" })
	return append(rows, make([]string, spareRows)...)
}

func nth(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

func (v *visit) newWebhook() error {
	f := &hookForm{Values: url.Values{
		"method": {"POST"}, "verify_ssl": {"on"}, "is_active": {"on"}, "fields_mode": {"all"},
	}, New: true}
	for _, e := range f.Events() {
		if e.Fires {
			f.Values.Add("event_types", e.Name)
		}
	}
	return v.hookForm(http.StatusOK, f, nil)
}

// hookForm shows the form, with what was wrong with it.
func (v *visit) hookForm(status int, f *hookForm, problem error) error {
	f.issues = issuesOf(problem)
	if problem != nil && len(f.issues) == 0 {
		f.Problem = messageOf(problem)
	}
	f.Action, f.Back, f.Title = "/console/webhooks/new", "/console/webhooks", "New webhook"
	if !f.New {
		f.Back, f.Title = "/console/webhooks/"+v.r.PathValue("id"), "Edit webhook"
		f.Action = f.Back + "/edit"
	}
	return v.page(status, "webhookform", "webhooks", f.Title, f)
}

func (v *visit) createWebhook() error {
	f := &hookForm{Values: v.form, New: true}
	spec := delivery.Spec{IsActive: f.Has("is_active")}
	err := v.readSpec(f, &spec)
	if err == nil {
		var w delivery.Webhook
		var secret string
		if w, secret, err = v.store().CreateWebhook(v.ctx, v.now, v.who.Actor(), spec); err == nil {
			return v.page(http.StatusOK, "secret", "webhooks", "Webhook created",
				secretPage{Webhook: w.WebhookID, Name: w.Name, Secret: secret, Created: true})
		}
	}
	if formFailed(err) {
		return v.hookForm(fault.KindOf(err).HTTPStatus(), f, err)
	}
	return err
}

func (v *visit) editWebhook() error {
	w, err := v.store().Webhook(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	f := formOf(&w.Spec)
	f.TLS = viewTLS(w.TLS, v.now)
	return v.hookForm(http.StatusOK, f, nil)
}

func (v *visit) updateWebhook() error {
	f := &hookForm{Values: v.form}
	id := v.r.PathValue("id")
	_, _, err := v.store().UpdateWebhook(v.ctx, v.now, v.who.Actor(), id, func(s *delivery.Spec) error {
		f.Headers, f.TLS = slices.Sorted(maps.Keys(s.CustomHeaders)), viewTLS(s.TLS, v.now)
		return v.readSpec(f, s)
	}, false)
	if formFailed(err) {
		return v.hookForm(fault.KindOf(err).HTTPStatus(), f, err)
	}
	if err != nil {
		return err
	}
	return v.redirect("/console/webhooks/"+id, "saved")
}

// formOf fills in the form with a webhook. The values of its headers are not in
// it: they may be credentials.
func formOf(s *delivery.Spec) *hookForm {
	f := &hookForm{Values: url.Values{
		"name": {s.Name}, "url": {s.URL}, "method": {s.Method}, "description": {deref(s.Description)},
		"event_types": s.EventTypes, "fields_mode": {"all"},
	}, Headers: slices.Sorted(maps.Keys(s.CustomHeaders))}
	f.Values["header_keep"] = f.Headers
	for name, on := range map[string]bool{"verify_ssl": s.VerifySSL, "is_test_mode": s.IsTestMode} {
		if on {
			f.Set(name, "on")
		}
	}
	if e := s.EventFilter; e != nil {
		f.Set("entity_ids", strings.Join(e.EntityIDs, "\n"))
		f.Set("filter_tags", strings.Join(e.Tags, ", "))
		for _, c := range e.Conditions {
			f.Add("cond_field", c.Field)
			f.Add("cond_op", c.Operator)
			f.Add("cond_value", writeValue(c.Value))
		}
	}
	if list, cut := s.PayloadFields["ticket"]; cut && list != nil {
		f.Set("fields_mode", "some")
		f.Values["fields"] = list
	}
	if r := s.RateLimit; r != nil {
		setNumber(f.Values, "rate", r.RequestsPerMinute)
		setNumber(f.Values, "burst", r.BurstLimit)
		if _, _, limited := r.PerMinute(); !limited {
			f.Set("no_limit", "on")
		}
	}
	if r := s.RetryConfig; r != nil {
		schedule := make([]time.Duration, len(r.Schedule))
		for i, ms := range r.Schedule {
			schedule[i] = time.Duration(ms) * time.Millisecond
		}
		if len(schedule) > 0 {
			f.Set("schedule", delivery.FormatSchedule(schedule))
		}
		setNumber(f.Values, "max_attempts", r.MaxAttempts)
		if r.Timeout != nil {
			f.Set("timeout", (time.Duration(*r.Timeout) * time.Millisecond).String())
		}
	}
	return f
}

func setNumber(v url.Values, field string, n *int) {
	if n != nil {
		v.Set(field, strconv.Itoa(*n))
	}
}

// writeValue writes the value of a condition as readValue reads it.
func writeValue(x any) string {
	if s, ok := x.(string); ok && readValue(s) == any(s) {
		return s
	}
	b, err := json.Marshal(x)
	if err != nil {
		return fmt.Sprint(x)
	}
	return string(b)
}

// readValue reads the value of a condition: JSON where it is some, and otherwise
// the text as it stands.
func readValue(s string) any {
	var x any
	if json.Unmarshal([]byte(s), &x) == nil {
		return x
	}
	return s
}

// readSpec puts what the form says into s and checks it as the API does. The error
// has everything that is wrong.
func (v *visit) readSpec(f *hookForm, s *delivery.Spec) error {
	oldURL, oldVerify := s.URL, s.VerifySSL
	var wrong []fault.Issue
	note := func(err error) { wrong = append(wrong, issuesOf(err)...) }
	s.Name, s.URL, s.Method = strings.TrimSpace(f.Get("name")), strings.TrimSpace(f.Get("url")), f.Get("method")
	s.Description = orNil(strings.TrimSpace(f.Get("description")))
	if d := s.Description; d != nil && len([]rune(*d)) > maxDescription {
		note(fault.Field("description", "must have at most %d characters", maxDescription))
	}
	s.EventTypes = f.Values["event_types"]
	s.VerifySSL, s.IsTestMode = f.Has("verify_ssl"), f.Has("is_test_mode")
	s.EventFilter = f.filter()
	f.readFields(s)
	note(f.readHeaders(s))
	note(f.readRate(s))
	note(f.readRetry(s))
	note(f.readTLS(s, v.now))
	note(s.Validate())
	if s.URL != oldURL {
		_, err := v.srv.cfg.Egress.CheckURL(s.URL)
		note(err)
	}
	if s.VerifySSL != oldVerify {
		note(v.srv.cfg.Egress.CheckVerify(s.VerifySSL))
	}
	if len(wrong) > 0 {
		return &fault.Error{Kind: fault.Invalid, Message: "Validation failed", Issues: wrong}
	}
	return nil
}

// maxDescription is the API's bound.
const maxDescription = 5000

func (f *hookForm) filter() *delivery.Filter {
	e := delivery.Filter{EntityIDs: strings.FieldsFunc(f.Get("entity_ids"), func(r rune) bool { return strings.ContainsRune(", \n\t", r) })}
	if tags := commaList(f.Get("filter_tags")); len(tags) > 0 {
		e.Tags = tags
	}
	for _, row := range f.Conditions() {
		if row == (conditionRow{}) || row.Field == "" && row.Value == "" {
			continue
		}
		c := delivery.Condition{Field: row.Field, Operator: row.Operator, Value: readValue(row.Value)}
		if _, isList := c.Value.([]any); !isList && (c.Operator == delivery.OpIn || c.Operator == delivery.OpNotIn) {
			var list []any
			for _, part := range commaList(row.Value) {
				list = append(list, readValue(part))
			}
			c.Value = list
		}
		e.Conditions = append(e.Conditions, c)
	}
	if len(e.EntityIDs)+len(e.Tags)+len(e.Conditions) == 0 {
		return nil
	}
	return &e
}

// readFields cuts the payload of tickets and leaves that of other entities.
func (f *hookForm) readFields(s *delivery.Spec) {
	fields := maps.Clone(s.PayloadFields)
	delete(fields, "ticket")
	if f.Get("fields_mode") == "some" {
		if fields == nil {
			fields = delivery.PayloadFields{}
		}
		fields["ticket"] = append([]string{}, f.Values["fields"]...)
	}
	if len(fields) == 0 {
		fields = nil
	}
	s.PayloadFields = fields
}

// readHeaders keeps the headers that are still wanted and adds the new ones.
func (f *hookForm) readHeaders(s *delivery.Spec) error {
	headers := map[string]string{}
	for name, value := range s.CustomHeaders {
		if f.Chosen("header_keep", name) {
			headers[name] = value
		}
	}
	var err error
	for i, name := range f.Values["header_name"] {
		name = strings.TrimSpace(name)
		if name == "" {
			if nth(f.Values["header_value"], i) != "" {
				err = fault.Field("custom_headers", "a header needs a name")
			}
			continue
		}
		headers[name] = nth(f.Values["header_value"], i)
	}
	s.CustomHeaders = headers
	if len(headers) == 0 {
		s.CustomHeaders = nil
	}
	return err
}

func (f *hookForm) readRate(s *delivery.Spec) error {
	rate, err1 := number(f.Get("rate"), "rate_limit.requests_per_minute")
	burst, err2 := number(f.Get("burst"), "rate_limit.burst_limit")
	switch {
	case f.Has("no_limit"):
		s.RateLimit = &delivery.RateLimit{Enabled: new(false)}
	case rate == nil && burst == nil:
		s.RateLimit = nil
	default:
		s.RateLimit = &delivery.RateLimit{RequestsPerMinute: rate, BurstLimit: burst}
	}
	return errors.Join(err1, err2)
}

func (f *hookForm) readRetry(s *delivery.Spec) error {
	var r delivery.RetryConfig
	if s.RetryConfig != nil {
		r = *s.RetryConfig
	}
	var err1, err2, err3 error
	r.Schedule, r.Timeout = nil, nil
	if text := f.Get("schedule"); text != "" {
		schedule, err := delivery.ParseSchedule(text)
		if err != nil {
			err1 = fault.Field("retry_config.schedule", "%s", strings.TrimSuffix(messageOf(err), "."))
		}
		for _, d := range schedule {
			r.Schedule = append(r.Schedule, d.Milliseconds())
		}
	}
	if text := f.Get("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			err2 = fault.Field("retry_config.timeout", "must be a duration such as 10s")
		}
		r.Timeout = new(d.Milliseconds())
	}
	r.MaxAttempts, err3 = number(f.Get("max_attempts"), "retry_config.max_attempts")
	s.RetryConfig = &r
	if r.Schedule == nil && r.Timeout == nil && r.MaxAttempts == nil && r.Strategy == nil &&
		r.InitialDelay == nil && r.MaxDelay == nil && r.BackoffMultiplier == nil {
		s.RetryConfig = nil
	}
	return errors.Join(err1, err2, err3)
}

// number reads a whole number of a form; nil for an empty field.
func number(text, field string) (*int, error) {
	if text = strings.TrimSpace(text); text == "" {
		return nil, nil //nolint:nilnil // an empty field is no error
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, fault.Field(field, "must be a whole number")
	}
	return &n, nil
}

// preview is a payload as it would be sent.
type preview struct {
	Exact  string // the body, byte for byte
	Pretty string
	Event  string // which event it is that of
	Made   bool   // it was made up: nothing has happened yet
	Error  string
}

// previewPayload shows the body that the webhook of the form would get of the
// newest event that it asks for.
func (v *visit) previewPayload() error {
	f := &hookForm{Values: v.form}
	var s delivery.Spec
	f.readFields(&s)
	s.EventTypes = f.Values["event_types"]
	p, err := v.preview(&s)
	if err != nil {
		return err
	}
	if v.r.Header.Get("Hx-Request") != "" {
		return v.part("webhookform", "preview", p)
	}
	return v.page(http.StatusOK, "preview", "webhooks", "Preview", p)
}

func (v *visit) preview(s *delivery.Spec) (preview, error) {
	fires := slices.DeleteFunc(slices.Clone(s.EventTypes), func(name string) bool { return !delivery.Fires(name) })
	if len(fires) == 0 {
		return preview{Error: "Choose an event type that is delivered first."}, nil
	}
	found, _, err := v.store().SearchEvents(v.ctx, v.tenant(), store.EventSearch{Types: fires, Limit: 1})
	if err != nil {
		return preview{}, err
	}
	var p preview
	var full []byte
	if p.Made = len(found.Rows) == 0; p.Made {
		full, err = v.madeBody(fires[0])
	} else {
		full = found.Rows[0]
	}
	if err != nil {
		return preview{}, err
	}
	body, err := v.cut(full, delivery.Shape{Fields: s.PayloadFields, Threads: v.srv.cfg.Threads})
	if err != nil {
		return preview{}, err
	}
	var e webhook.Envelope
	var pretty bytes.Buffer
	if err := errors.Join(json.Unmarshal(body, &e), json.Indent(&pretty, body, "", "  ")); err != nil {
		return preview{}, err
	}
	p.Exact, p.Pretty, p.Event = string(body), pretty.String(), e.EventType
	return p, nil
}

// cut makes the body that a webhook gets. A thread that the event was stored
// without is that of the ticket now.
func (v *visit) cut(full []byte, shape delivery.Shape) ([]byte, error) {
	if !shape.WantsComments() {
		return delivery.FromFull(full, shape)
	}
	var e webhook.Envelope
	if err := json.Unmarshal(full, &e); err != nil {
		return nil, err
	}
	d, err := e.Ticket()
	if err != nil || d.Comments != nil {
		return delivery.FromFull(full, shape)
	}
	list, err := v.store().Comments(v.ctx, v.tenant(), d.TicketID, store.CommentQuery{})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	ticket.AddThread(d, list)
	return delivery.Body(delivery.Event{
		EventID: e.EventID, EventType: e.EventType, OccurredAt: e.OccurredAt.Time, TenantID: e.TenantID,
	}, d, shape)
}

// madeBody is an event of a ticket that there is not.
func (v *visit) madeBody(eventType string) ([]byte, error) {
	t := ticket.Ticket{
		TenantID: v.tenant(), TicketID: store.NewID(), Number: "TKT-1000", Title: "Printer on fire", Tags: []string{},
		EnteredAt: webhook.At(v.now), UpdatedAt: webhook.At(v.now), StatusName: "Open", PriorityName: "High",
	}
	d := ticket.Data(&t, v.srv.cfg.PublicURL)
	return delivery.Body(delivery.Event{EventID: store.NewID(), EventType: eventType, OccurredAt: v.now, TenantID: v.tenant()}, &d, delivery.Shape{})
}
