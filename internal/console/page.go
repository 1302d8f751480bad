package console

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

//go:embed templates/*.html
var templates embed.FS

// pages are the parsed templates by name. Each is the shared ones (files that
// begin with _) and one file that defines "main" and what it is made of.
type pages map[string]*template.Template

func parsePages() pages {
	shared := template.Must(template.New("").Funcs(functions()).ParseFS(templates, "templates/_*.html"))
	names, err := fs.Glob(templates, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is ours
	}
	all := pages{}
	for _, file := range names {
		if name := strings.TrimSuffix(path.Base(file), ".html"); !strings.HasPrefix(name, "_") {
			all[name] = template.Must(template.Must(shared.Clone()).ParseFS(templates, file))
		}
	}
	return all
}

// frame is what every template gets: the page around the data.
type frame struct {
	Title  string
	Nav    string // the part of the console that the page belongs to
	User   string // "" before signing in
	Notice string // what has just been done
	Data   any
	now    time.Time
	who    store.Principal
}

// notices are the sentences that follow a form, see visit.redirect.
func notices() map[string]string {
	return map[string]string{
		"created":       "The ticket was created.",
		"saved":         "Saved.",
		"unchanged":     "Nothing was different, so nothing happened.",
		"commented":     "The comment was added.",
		"tested":        "A test was sent. This is what came back.",
		"resent":        "It was sent again, once. This is what came back.",
		"paused":        "Paused. What happens from now on stays in the event feed and can be replayed.",
		"enabled":       "Switched on. Its failures until now are forgotten.",
		"replaying":     "What was missed is being queued, oldest first.",
		"resending":     "What can be sent again is being queued, in the order in which it happened.",
		"promoted":      "From now on only the new secret counts.",
		"deleted":       "The webhook was deleted.",
		"ticketdeleted": "The ticket was deleted.",
		"teamset":       "The ticket was given to the team.",
		"teamremoved":   "The team was taken off the ticket.",
		"tagremoved":    "The tag was removed.",
		"attributes":    "The attributes were saved.",
		"agentadded":    "The agent was added.",
		"agentremoved":  "The agent was taken off the ticket.",
		"published":     "The report was published. All who may read webhooks can see it.",
		"removed":       "The report was deleted.",
		"revoked":       "The key was revoked. It opens nothing any more.",
	}
}

// frame begins a page. v is nil before signing in.
func (s *Server) frame(v *visit, nav, title string) *frame {
	f := &frame{Title: title, Nav: nav, now: s.cfg.Now()}
	if v == nil || v.who.TenantID == "" {
		return f
	}
	f.now, f.who = v.now, v.who
	f.User = v.who.User.Email
	if name := v.who.User.DisplayName(); name != nil {
		f.User = *name
	}
	f.Notice = notices()[v.r.URL.Query().Get("done")]
	return f
}

// Can reports whether the visitor may do this, so that no page offers what would
// be refused.
func (f *frame) Can(resource, action string) bool { return f.who.Check(resource, action) == nil }

// With is the same page around other data, for a template of a part of it.
func (f *frame) With(data any) *frame {
	part := *f
	part.Data = data
	return &part
}

// entry is one entry of the navigation.
type entry struct{ Name, Path, Label, Resource, Action string }

func navigation() []entry {
	return []entry{
		{"overview", "/console/overview", "Overview", "webhook", "analytics"},
		{"tickets", "/console/tickets", "Tickets", "ticket", "read"},
		{"webhooks", "/console/webhooks", "Webhooks", "webhook", "read"},
		{"deliveries", "/console/deliveries", "Deliveries", "webhook", "read"},
		{"events", "/console/events", "Events", "webhook", "read"},
		{"cutover", "/console/cutover", "Cutover", "webhook", "read"},
		{"keys", "/console/keys", "API keys", "api_key", "read"},
	}
}

// Entries are the parts of the console that the visitor may see.
func (f *frame) Entries() []entry {
	var out []entry
	for _, e := range navigation() {
		if f.Can(e.Resource, e.Action) {
			out = append(out, e)
		}
	}
	return out
}

// page answers with a page of a visit.
func (v *visit) page(status int, name, nav, title string, data any) error {
	f := v.srv.frame(v, nav, title)
	f.Data = data
	v.srv.render(v.w, status, name, f)
	return nil
}

// part answers with one template of a page, for htmx.
func (v *visit) part(page, name string, data any) error {
	body, err := v.fragment(page, name, data)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.Write(body)
	return nil
}

func (v *visit) fragment(page, name string, data any) ([]byte, error) {
	f := v.srv.frame(v, "", "")
	f.Data = data
	var b bytes.Buffer
	if err := v.srv.pages[page].ExecuteTemplate(&b, name, f); err != nil {
		return nil, fmt.Errorf("render %s of %s: %w", name, page, err)
	}
	return b.Bytes(), nil
}

func (s *Server) render(w http.ResponseWriter, status int, name string, f *frame) {
	var b bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&b, "page", f); err != nil {
		s.cfg.Log.Error("render a page of the console", "page", name, "error", err)
		http.Error(w, "The page could not be made. The log of the server says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// messageOf is what a visitor is told about an error. What an internal error says
// stays in the log.
func messageOf(err error) string {
	e, ok := errors.AsType[*fault.Error](err)
	if kind := fault.KindOf(err); !ok || kind == fault.Internal {
		if kind == fault.Unavailable {
			return "The request was cut short, try again."
		}
		return "Something went wrong on our side. The log of the server says what."
	}
	if len(e.Issues) == 0 {
		first, size := utf8.DecodeRuneInString(e.Message)
		return sentence(string(unicode.ToUpper(first)) + e.Message[size:])
	}
	var list []string
	for _, is := range e.Issues {
		list = append(list, fieldName(is.Path)+": "+is.Message)
	}
	return sentence(strings.Join(list, "; "))
}

func sentence(s string) string {
	if s != "" && !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// fieldName writes the path of an issue as the API does, custom_headers.X-A.
func fieldName(p []any) string {
	parts := make([]string, len(p))
	for i, x := range p {
		parts[i] = fmt.Sprint(x)
	}
	return strings.Join(parts, ".")
}

func titleOf(k fault.Kind) string {
	switch k {
	case fault.NotFound:
		return "Not found"
	case fault.Forbidden, fault.ProductDenied:
		return "Not allowed"
	case fault.Invalid, fault.BadReference, fault.TooLarge:
		return "That does not work"
	case fault.Conflict:
		return "Not now"
	case fault.MethodNotAllowed:
		return "Wrong way in"
	case fault.Unavailable:
		return "Try again"
	default:
		return "Something went wrong"
	}
}

// functions are what templates call beside the methods of frame.
func functions() template.FuncMap {
	return template.FuncMap{
		"clean": clean, "num": num, "short": short, "deref": deref, "join": strings.Join,
		"words": strings.Fields, "value": func(n *int64) int64 { return *n }, "json": asJSON,
		"weblink": func(s string) bool { return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") },
	}
}

// asJSON writes a value as JSON does.
func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// deref returns the text of a pointer, "" for nil.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// clean makes what came from outside harmless to read: control characters, which
// could hide, and the marks that turn the direction of text around, which could
// make it read as something else, are shown as signs. Line ends and tabs stay.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < 0x20:
			return 0x2400 + r
		case r == 0x7f:
			return 0x2421
		case unicode.Is(unicode.Cf, r) || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029:
			return '\uFFFD'
		}
		return r
	}, s)
}

// short is the end of an id, which differs where the beginning of a UUIDv7 is only
// the time.
func short(id string) string {
	if len(id) > 12 {
		return id[len(id)-12:]
	}
	return id
}

// num writes a number with separators.
func num(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// At is an instant in full, for a time element.
func (f *frame) At(t any) template.HTML { return f.stamp(t, false) }

// Ago is an instant as a distance from now, with the instant itself as a title.
func (f *frame) Ago(t any) template.HTML { return f.stamp(t, true) }

func (f *frame) stamp(v any, relative bool) template.HTML {
	var t time.Time
	switch x := v.(type) {
	case time.Time:
		t = x
	case *time.Time:
		if x != nil {
			t = *x
		}
	case fmt.Stringer: // webhook.Time and pointers to it
		t, _ = time.Parse(time.RFC3339Nano, x.String())
	}
	if t.IsZero() {
		return "–"
	}
	t = t.UTC()
	full := t.Format("2006-01-02 15:04:05.000") + " UTC"
	text := t.Format("2006-01-02 15:04:05") + " UTC"
	if relative {
		text = distance(t, f.now)
	}
	return template.HTML(`<time datetime="` + t.Format(time.RFC3339Nano) + `" title="` + full + `">` + text + `</time>`) //nolint:gosec // made of a time
}

// distance says how far t is from now.
func distance(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d <= -time.Second:
		return "in " + span(-d)
	case d < time.Second: // clocks of two processes are never quite the same
		return "just now"
	}
	return span(d) + " ago"
}

// span writes a duration with its two largest parts.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		return parts(d, time.Minute, "min", time.Second, "s", 10*time.Minute)
	case d < 48*time.Hour:
		return parts(d, time.Hour, "h", time.Minute, "min", 10*time.Hour)
	}
	return parts(d, 24*time.Hour, "d", time.Hour, "h", 10*24*time.Hour)
}

// parts writes d in two units, or in the larger one alone from whole on.
func parts(d, large time.Duration, largeName string, small time.Duration, smallName string, whole time.Duration) string {
	text := strconv.Itoa(int(d/large)) + " " + largeName
	if rest := int(d % large / small); rest > 0 && d < whole {
		text += " " + strconv.Itoa(rest) + " " + smallName
	}
	return text
}

// issuesOf returns the issues of an error and of those that are joined in it.
func issuesOf(err error) []fault.Issue {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []fault.Issue
		for _, e := range joined.Unwrap() {
			all = append(all, issuesOf(e)...)
		}
		return all
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e.Issues
	}
	return nil
}
