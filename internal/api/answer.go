package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

// answer is what a handler returns: a status and the parts of the success body
// of contract section 1.3.
type answer struct {
	status     int
	data       any
	pagination *pagination
	meta       map[string]any
	top        map[string]any // further keys beside data (the event feed's cursor)
	raw        []byte         // a ready body, instead of all of the above
	header     http.Header    // further headers; nil for none
}

func ok(data any) answer      { return answer{status: http.StatusOK, data: data} }
func created(data any) answer { return answer{status: http.StatusCreated, data: data} }
func noContent() answer       { return answer{status: http.StatusNoContent} }

// pagination is the object of contract section 1.4.
type pagination struct {
	Page       int  `json:"page"`
	Limit      int  `json:"limit"`
	Total      int  `json:"total"`
	TotalPages int  `json:"totalPages"`
	HasNext    bool `json:"hasNext"`
	HasPrev    bool `json:"hasPrev"`
}

// page makes the answer of a paginated list.
func page(data any, p paging, total int, filters map[string]any) answer {
	pages := (total + p.limit - 1) / p.limit
	order := "asc"
	if p.desc {
		order = "desc"
	}
	return answer{
		status: http.StatusOK,
		data:   data,
		pagination: &pagination{
			Page: p.page, Limit: p.limit, Total: total, TotalPages: pages,
			HasNext: p.page < pages, HasPrev: p.page > 1,
		},
		meta: map[string]any{"sort": p.sort, "order": order, "filters": filters},
	}
}

// encode returns the body: compact JSON without HTML escapes, so that a ticket
// reads the same here and in a webhook.
func (a answer) encode() ([]byte, error) {
	if a.raw != nil || a.status == http.StatusNoContent {
		return a.raw, nil
	}
	body := map[string]any{"data": a.data}
	if a.pagination != nil {
		body["pagination"] = a.pagination
	}
	if a.meta != nil {
		body["meta"] = a.meta
	}
	maps.Copy(body, a.top)
	return encodeJSON(body)
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (a answer) write(w http.ResponseWriter) {
	body, err := a.encode()
	if err != nil {
		a = errorAnswer(fault.Wrap(fault.Internal, err, "encode the answer"))
		body = a.raw
	}
	maps.Copy(w.Header(), a.header)
	if a.status != http.StatusNoContent {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	w.WriteHeader(a.status)
	w.Write(body) // a write error means that the caller has gone
}

// statusOf returns the status of a kind of failure, and the code that goes with it
// (contract section 1.2).
func statusOf(k fault.Kind) (status int, code string) {
	switch k {
	case fault.Invalid:
		code = "VALIDATION_ERROR"
	case fault.BadReference:
		code = "BAD_REQUEST"
	case fault.Unauthorized:
		code = "UNAUTHORIZED"
	case fault.Forbidden:
		code = "FORBIDDEN"
	case fault.ProductDenied:
		code = "PRODUCT_ACCESS_DENIED"
	case fault.NotFound:
		code = "NOT_FOUND"
	case fault.MethodNotAllowed:
		code = "METHOD_NOT_ALLOWED"
	case fault.Conflict:
		code = "CONFLICT"
	case fault.TooLarge:
		code = "PAYLOAD_TOO_LARGE"
	case fault.RateLimited:
		code = "RATE_LIMITED"
	case fault.BadGateway:
		code = "BAD_GATEWAY"
	case fault.Unavailable:
		code = "UNAVAILABLE"
	default:
		code = "INTERNAL_ERROR"
	}
	return k.HTTPStatus(), code
}

// errorAnswer is the one place where an error becomes a body. What an internal
// error says stays in the log.
func errorAnswer(err error) answer {
	// What somebody has judged already may have a cause that only looks like it: a
	// body that ends too early.
	if _, judged := errors.AsType[*fault.Error](err); !judged && store.Unreachable(err) {
		err = fault.Wrap(fault.Unavailable, err, "The store cannot be reached now, try again")
	}
	status, code := statusOf(fault.KindOf(err))
	body := map[string]any{"code": code, "message": "An unexpected error occurred"}
	header := http.Header{}
	if e, isFault := errors.AsType[*fault.Error](err); isFault && status != http.StatusInternalServerError {
		body["message"] = e.Message
		switch {
		case len(e.Issues) > 0:
			body["details"] = issueList(e.Issues)
		case e.Details != nil:
			body["details"] = e.Details
		}
	} else if status == http.StatusServiceUnavailable {
		body["message"] = "The request was cut short, try again"
	}
	if status == http.StatusServiceUnavailable {
		header.Set("Retry-After", "1")
	}
	raw, encErr := encodeJSON(map[string]any{"error": body})
	if encErr != nil {
		raw = []byte(`{"error":{"code":"INTERNAL_ERROR","message":"An unexpected error occurred"}}`)
		status = http.StatusInternalServerError
	}
	return answer{status: status, raw: raw, header: header}
}

func issueList(issues []fault.Issue) []map[string]any {
	out := make([]map[string]any, len(issues))
	for i, is := range issues {
		m := map[string]any{"code": is.Code, "path": is.Path, "message": is.Message}
		if is.Path == nil {
			m["path"] = []any{}
		}
		maps.Copy(m, is.Extra)
		out[i] = m
	}
	return out
}
