package alga

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is what a route answers. data goes into the usual object (1.3).
type answer struct {
	status int
	data   any
	more   map[string]any // beside data
	err    *apiError      // in place of data
}

// apiError is the error object (1.2).
type apiError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details any    `json:"details,omitempty"`
}

func ok(data any) answer { return answer{status: http.StatusOK, data: data} }

func failed(status int, code, message string) answer {
	return answer{status: status, err: &apiError{Code: code, Message: message}}
}

// invalid is a 400 with one issue in the form of Zod (1.2).
func invalid(what, field, code, message string) answer {
	a := failed(http.StatusBadRequest, "VALIDATION_ERROR", what)
	a.err.Details = []map[string]any{{"code": code, "path": []string{field}, "message": message}}
	return a
}

// metering says what a route does with the limiter (1.6).
type metering int

const (
	unmetered metering = iota // takes no token and has no headers
	silent                    // takes one and has no headers
	metered                   // takes one, and its successes have the headers
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, r := range map[string]struct {
		meter metering
		serve func(*http.Request) answer
	}{
		"GET /api/v1/tickets":                  {metered, s.list},
		"POST /api/v1/tickets":                 {metered, s.post},
		"GET /api/v1/tickets/{id}":             {metered, s.onTicket(s.get)},
		"PUT /api/v1/tickets/{id}":             {silent, s.onTicket(s.put)},
		"DELETE /api/v1/tickets/{id}":          {silent, s.onTicket(s.remove)},
		"GET /api/v1/tickets/{id}/comments":    {unmetered, s.onTicket(s.comments)},
		"POST /api/v1/tickets/{id}/comments":   {unmetered, s.onTicket(s.postComment)},
		"GET /api/v1/webhooks":                 {unmetered, s.onWebhooks("read", s.listWebhooks)},
		"POST /api/v1/webhooks":                {unmetered, s.onWebhooks("create", s.postWebhook)},
		"GET /api/v1/webhooks/{id}":            {unmetered, s.onWebhooks("read", s.getWebhook)},
		"PUT /api/v1/webhooks/{id}":            {unmetered, s.onWebhooks("update", s.putWebhook)},
		"GET /api/v1/webhooks/{id}/deliveries": {unmetered, s.onWebhooks("read", s.deliveries)},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) { s.serve(w, req, r.meter, r.serve) })
	}
	// The framework's own page: there is no route /events, nor any error object for
	// what is no route. (The contract does not say; this is what Next.js does.)
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		s.serve(w, req, unmetered, func(*http.Request) answer { return answer{status: http.StatusNotFound} })
	})
	return mux
}

// serve answers in the order of AlgaPSA's layers: key, limiter, route.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, meter metering, route func(*http.Request) answer) {
	if s.cfg.Fault != nil {
		if f := s.cfg.Fault(r); f.Status != 0 {
			f.write(w)
			return
		}
	}
	switch r.Header.Get("X-API-Key") {
	case Key:
	case "": // the edge answers, with a text (1.1)
		reply(w, http.StatusUnauthorized, map[string]string{"error": "Unauthorized: API key missing"})
		return
	default:
		reply(w, http.StatusUnauthorized, map[string]any{"error": apiError{Code: "UNAUTHORIZED", Message: "Invalid API key"}})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left, wait := -1, time.Duration(0)
	if meter != unmetered && !s.cfg.LimiterDown {
		wait = s.tokens.take(s.cfg.Now())
		left = s.tokens.left()
	}
	if wait > 0 && s.cfg.Enforce {
		s.refuse(w, left, wait)
		return
	}
	a := route(r)
	if meter == metered && a.err == nil {
		w.Header().Set("X-RateLimit-Limit", "120")
		w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(left))
	}
	switch body := a.more; {
	case a.err != nil:
		reply(w, a.status, map[string]any{"error": a.err})
	case a.status == http.StatusNoContent:
		w.WriteHeader(a.status)
	case a.status == http.StatusNotFound:
		page(w, a.status, "404: This page could not be found.")
	default:
		if body == nil {
			body = map[string]any{}
		}
		body["data"] = a.data
		reply(w, a.status, body)
	}
}

// refuse is the 429 (1.6).
func (s *Server) refuse(w http.ResponseWriter, left int, wait time.Duration) {
	w.Header().Set("X-RateLimit-Limit", "120")
	w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(left))
	w.Header().Set("X-RateLimit-Reset", fmt.Sprint(wire(s.cfg.Now().Add(wait))))
	Fault{Status: http.StatusTooManyRequests, RetryAfter: max(1, int(math.Ceil(wait.Seconds())))}.write(w)
}

func (f Fault) write(w http.ResponseWriter) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	if f.Status != http.StatusTooManyRequests {
		page(w, f.Status, http.StatusText(f.Status))
		return
	}
	reply(w, f.Status, map[string]any{"error": apiError{
		Code: "RATE_LIMITED", Message: "Too many requests", Details: map[string]any{"retry_after_ms": f.RetryAfter * 1000, "remaining": 0},
	}})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has hung up
}

func page(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<!DOCTYPE html><html><body><h1>%s</h1></body></html>", text)
}

// uuids are what the routes take for an id: a number is none (1.2, 2).
var uuids = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func (s *Server) onTicket(route func(*http.Request, *ticket) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		id := r.PathValue("id")
		if !uuids.MatchString(id) {
			return failed(http.StatusBadRequest, "VALIDATION_ERROR", "Invalid ticket ID format")
		}
		t := s.tickets[strings.ToLower(id)]
		if t == nil {
			return failed(http.StatusNotFound, "NOT_FOUND", "ticket not found")
		}
		return route(r, t)
	}
}

// get has no board_name and no tags (2.1).
func (s *Server) get(_ *http.Request, t *ticket) answer {
	row := t.row()
	maps.Copy(row, map[string]any{
		"client_name": name(ClientID), "location_name": nil, "client_email": nil, "client_phone": nil, "contact_name": name(ContactID),
		"contact_email": "ines.duarte@harbourpine.example", "contact_phone": nil, "status_name": name(t.status),
		"status_is_closed": closes(t.status), "priority_name": name(High), "category_name": nil, "assigned_to_name": null(name(t.assigned)),
		"description_html": "", "documents": []any{}, "contact_avatar_url": nil, "client_logo_url": nil,
	})
	return ok(row)
}

// body reads a request. What cannot be parsed is an empty object (1.2).
func body(r *http.Request) map[string]any {
	var in map[string]any
	text, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(text, &in) != nil {
		return map[string]any{}
	}
	return in
}

// put answers the row as of the first statement: without names, and for a ticket
// that was closed just now with the old is_closed, closed_at and closed_by (2.1).
func (s *Server) put(r *http.Request, t *ticket) answer {
	in := body(r)
	var c Change
	for field, to := range map[string]**string{"title": &c.Title, "status_id": &c.Status, "assigned_to": &c.Assign} {
		value, given := in[field]
		if !given {
			continue
		}
		text, is := value.(string)
		if !is { // null too, though the documentation allows it (2.5, D25)
			return invalid("Validation failed", field, "invalid_type", fmt.Sprintf("Expected string, received %s", map[bool]string{true: "null", false: "object"}[value == nil]))
		}
		if field != "title" && !uuids.MatchString(text) {
			return invalid("Validation failed", field, "invalid_string", "Invalid uuid")
		}
		*to = &text
	}
	if _, given := in["tags"]; given { // there is no such column (2.5, D22)
		return failed(http.StatusInternalServerError, "INTERNAL_CONFIGURATION", "An unexpected error occurred")
	}
	if c.Status != nil && name(*c.Status) == "" {
		return invalid("Validation failed", "status_id", "custom", "status_id "+*c.Status+" does not belong to board_id "+BoardID)
	}
	old := t.row()
	s.update(REST, t, s.cfg.Now().UTC().Truncate(time.Microsecond), c)
	row := t.row()
	for _, key := range []string{"is_closed", "closed_at", "closed_by"} {
		row[key] = old[key]
	}
	row["description_html"] = ""
	return ok(row)
}

// post answers the row, and echoes tags that it does not store (2.4, D22).
func (s *Server) post(r *http.Request) answer {
	in := body(r)
	for _, field := range []string{"title", "board_id", "client_id", "status_id", "priority_id"} {
		if _, is := in[field].(string); !is {
			return invalid("Validation failed", field, "invalid_type", "Required")
		}
	}
	assigned, _ := in["assigned_to"].(string)
	var attributes json.RawMessage
	if in["attributes"] != nil {
		attributes, _ = json.Marshal(in["attributes"]) // it was JSON before
	}
	id := s.create(in["title"].(string), in["status_id"].(string), assigned, attributes)
	row := s.tickets[id].row()
	if tags, is := in["tags"].([]any); is && len(tags) > 0 {
		row["tags"] = tags
	}
	return answer{status: http.StatusCreated, data: row}
}

func (s *Server) remove(_ *http.Request, t *ticket) answer {
	delete(s.tickets, t.id)
	return answer{status: http.StatusNoContent}
}

// comments is a plain array (1.5).
func (s *Server) comments(_ *http.Request, t *ticket) answer {
	out := []any{}
	for _, c := range t.comments {
		out = append(out, c.row(t))
	}
	return ok(out)
}

func (s *Server) postComment(r *http.Request, t *ticket) answer {
	in := body(r)
	text, _ := in["comment_text"].(string)
	if text == "" {
		return invalid("Validation failed", "comment_text", "invalid_type", "Required")
	}
	internal, _ := in["is_internal"].(bool)
	resolves, _ := in["is_resolution"].(bool)
	c := s.comment(t, text, internal, resolves)
	return answer{status: http.StatusCreated, data: c.row(t)}
}

func (c comment) row(t *ticket) map[string]any {
	return map[string]any{
		"tenant": TenantID, "comment_id": c.id, "ticket_id": t.id, "user_id": Mara, "note": c.text, "markdown_content": nil,
		"is_internal": c.internal, "is_resolution": c.resolves, "author_type": "unknown", "comment_text": c.text, // (2.6)
		"created_by": Mara, "created_by_name": name(Mara), "created_at": wire(c.created), "updated_at": nil,
	}
}

// list has no tie-breaker: rows with equal times come in an order that differs
// between pages, as with a database that sorts for each LIMIT and OFFSET anew, so
// that pages can overlap and leave rows out (2.3, W28).
func (s *Server) list(r *http.Request) answer {
	q := r.URL.Query()
	page, limit, bad := paging(q)
	if bad != nil {
		return *bad
	}
	sort := cmp.Or(q.Get("sort"), "created_at")
	column, known := columns()[sort]
	if !known {
		return failed(http.StatusInternalServerError, "INTERNAL_CONFIGURATION", "An unexpected error occurred")
	}
	fits, bad := filter(q)
	if bad != nil {
		return *bad
	}
	var rows []*ticket
	for _, t := range s.tickets {
		if fits(t) {
			rows = append(rows, t)
		}
	}
	order := cmp.Or(q.Get("order"), "desc")
	slices.SortFunc(rows, func(a, b *ticket) int {
		by := strings.Compare(column(a), column(b))
		if order == "desc" {
			by = -by
		}
		return cmp.Or(by, cmp.Compare(s.tie(a.id, page, limit), s.tie(b.id, page, limit)))
	})
	data := []any{}
	for _, t := range rows[min(len(rows), (page-1)*limit):min(len(rows), page*limit)] {
		row := t.row()
		maps.Copy(row, map[string]any{ // no contact_email, no tags (2.1)
			"client_name": name(ClientID), "contact_name": name(ContactID), "status_name": name(t.status),
			"status_is_closed": closes(t.status), "priority_name": name(High), "category_name": nil, "subcategory_name": nil,
			"board_name": name(BoardID), "entered_by_name": name(Mara), "assigned_to_name": null(name(t.assigned)),
		})
		data = append(data, row)
	}
	return answer{status: http.StatusOK, data: data, more: map[string]any{
		"pagination": pagination(page, limit, len(rows)),
		"meta":       map[string]any{"sort": sort, "order": order, "filters": map[string]any{}},
	}}
}

// tie orders rows that are equal, differently on each page.
func (s *Server) tie(id string, page, limit int) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, s.cfg.Seed, page, limit, id)
	return h.Sum64()
}

// columns are those that can be sorted by, as texts that sort like their values.
// Any column of the row can; created_at is entered_at (2.3).
func columns() map[string]func(*ticket) string {
	instant := func(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000000") }
	entered := func(t *ticket) string { return instant(t.entered) }
	return map[string]func(*ticket) string{
		"created_at": entered, "entered_at": entered,
		"updated_at":    func(t *ticket) string { return instant(t.updated) },
		"ticket_id":     func(t *ticket) string { return t.id },
		"ticket_number": func(t *ticket) string { return t.number },
		"title":         func(t *ticket) string { return t.title },
		"status_name":   func(t *ticket) string { return name(t.status) },
	}
}

// filter reads what restricts a list (2.3). Keys that it does not know do not.
func filter(q url.Values) (func(*ticket) bool, *answer) {
	bounds := map[string]time.Time{}
	for _, key := range []string{"updated_from", "updated_to", "entered_from", "entered_to"} {
		text := q.Get(key)
		if text == "" {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05.999999999Z", text) // no offsets (1.2)
		if err != nil {
			bad := invalid("Query validation failed", key, "invalid_string", "Invalid datetime")
			return nil, &bad
		}
		bounds[key] = at
	}
	within := func(at time.Time, from, to string) bool { // inclusive
		low, has := bounds[from]
		high, ends := bounds[to]
		return (!has || !at.Before(low)) && (!ends || !at.After(high))
	}
	return func(t *ticket) bool {
		return within(t.updated, "updated_from", "updated_to") && within(t.entered, "entered_from", "entered_to") &&
			contains(t.title, q.Get("title")) && contains(t.number, q.Get("ticket_number")) &&
			contains(t.title+" "+t.number+" "+name(ClientID), q.Get("search")) &&
			(q.Get("status_name") == "" || q.Get("status_name") == name(t.status)) &&
			(q.Get("is_open") != "true" || !closes(t.status)) && (q.Get("is_closed") != "true" || closes(t.status)) // false is ignored
	}, nil
}

// digits is how parseInt reads a number: 2x is 2 (1.4).
var digits = regexp.MustCompile(`^\s*-?\d+`)

func paging(q url.Values) (page, limit int, bad *answer) {
	read := func(key string, usual, most int) int {
		text := q.Get(key)
		if text == "" {
			return usual
		}
		n, err := strconv.Atoi(strings.TrimSpace(digits.FindString(text)))
		if err != nil || n < 1 || n > most {
			a := invalid("Query validation failed", key, "too_big", "Number must be from 1 to "+strconv.Itoa(most))
			bad = &a
		}
		return n
	}
	page, limit = read("page", 1, math.MaxInt32), read("limit", 25, 100)
	return page, limit, bad
}

func pagination(page, limit, total int) map[string]any {
	pages := (total + limit - 1) / limit
	return map[string]any{"page": page, "limit": limit, "total": total, "totalPages": pages, "hasNext": page < pages, "hasPrev": page > 1}
}
