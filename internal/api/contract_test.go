package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/ticketwire/ticketwire/docs"
)

// document is docs/openapi.yaml, ready to check requests and answers.
type document struct {
	spec *openapi3.T
	mux  *http.ServeMux // finds the path of a request by the server's own rules
	full sync.Map       // *openapi3.Schema -> whether it needs the full validator
}

// contract loads the document once for all tests of the package.
var contract = sync.OnceValue(func() *document {
	spec, err := openapi3.NewLoader().LoadFromData(docs.OpenAPI())
	if err != nil {
		panic(fmt.Sprintf("docs/openapi.yaml: %v", err))
	}
	d := &document{spec: spec, mux: http.NewServeMux()}
	for path, item := range spec.Paths.Map() {
		for method := range item.Operations() {
			d.mux.Handle(method+" "+path, http.NotFoundHandler())
		}
	}
	for _, pattern := range refusedRoutes() {
		d.mux.Handle(pattern, http.NotFoundHandler())
	}
	return d
})

// refusedRoutes are registered only to say no, since {id} would catch their last
// word. They are no operations, so the document leaves them out.
func refusedRoutes() []string {
	return []string{
		"GET /api/v1/tickets/from-asset", "POST /api/v1/tickets/from-asset",
		"GET /api/v1/webhooks/templates", "POST /api/v1/webhooks/templates",
	}
}

// check compares an answer with the document. A status or a field that the
// document does not name is an error, and so is a body that the server took but
// the document forbids.
func (d *document) check(req *http.Request, sent []byte, r *response) error {
	if req.Method == http.MethodOptions {
		return nil // preflights belong to the browser's protocol, not to the API
	}
	_, pattern := d.mux.Handler(req)
	method, path, known := strings.Cut(pattern, " ")
	if !known || slices.Contains(refusedRoutes(), pattern) {
		return d.checkUnknown(r)
	}
	item := d.spec.Paths.Value(path)
	op := item.GetOperation(method)
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: req,
			Route:   &routers.Route{Spec: d.spec, Path: path, PathItem: item, Method: method, Operation: op},
		},
		Status: r.Status, Header: r.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: true},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), input); err != nil {
		return err
	}
	if req.Method == http.MethodHead {
		return nil
	}
	err := d.checkBody(op.Responses.Status(r.Status).Value.Content, r)
	if r.Status < 300 && len(sent) > 0 {
		err = errors.Join(err, d.checkRequest(op, sent))
	}
	return err
}

// checkBody compares the body of an answer with what the document has for its
// status.
func (d *document) checkBody(content openapi3.Content, r *response) error {
	if len(content) == 0 {
		if len(r.Raw) > 0 {
			return errors.New("the document has no body for this status")
		}
		return nil
	}
	media := content.Get(r.Header.Get("Content-Type"))
	if media == nil {
		return fmt.Errorf("undocumented content type %q", r.Header.Get("Content-Type"))
	}
	return d.validate(media.Schema.Value, r.JSON, openapi3.VisitAsResponse())
}

// validate checks a value against a schema. Keywords of JSON Schema 2020-12 need
// a validator that is compiled for every call; the others do without, which
// makes these tests several times faster.
func (d *document) validate(s *openapi3.Schema, v any, opts ...openapi3.SchemaValidationOption) error {
	full, known := d.full.Load(s)
	if !known {
		full = needsFull(s)
		d.full.Store(s, full)
	}
	if full.(bool) {
		opts = append(opts, openapi3.EnableJSONSchema2020())
	}
	return s.VisitJSON(v, append(opts, openapi3.MultiErrors())...)
}

func needsFull(s *openapi3.Schema) bool {
	found := false
	err := openapi3.NewSchemaRef("", s).WalkSubtree(func(_ string, ref *openapi3.SchemaRef) error {
		found = found || ref.Value.UnevaluatedProperties.Has != nil || ref.Value.PropertyNames != nil
		return nil
	})
	return found || err != nil
}

// checkUnknown checks the answer to a path or method that the document does not
// have: it must be an error of the usual shape.
func (d *document) checkUnknown(r *response) error {
	if r.Status < 400 {
		return errors.New("the document has no such operation")
	}
	schema := d.spec.Components.Schemas["Error"]
	if schema == nil {
		return errors.New("the document has no schema Error")
	}
	return d.validate(schema.Value, r.JSON)
}

// checkRequest checks a body that the server has accepted.
func (d *document) checkRequest(op *openapi3.Operation, sent []byte) error {
	if op.RequestBody == nil {
		return nil // a body nobody reads
	}
	media := op.RequestBody.Value.Content.Get("application/json")
	if media == nil || media.Schema == nil {
		return errors.New("the document has no schema for the request body")
	}
	var v any
	if err := json.NewDecoder(strings.NewReader(string(sent))).Decode(&v); err != nil && err != io.EOF {
		return fmt.Errorf("the server accepted a body that is no JSON: %w", err)
	}
	if err := d.validate(media.Schema.Value, v, openapi3.VisitAsRequest()); err != nil {
		return fmt.Errorf("the server accepted a body that the document forbids: %w", err)
	}
	return nil
}

// checkSent compares a request that a receiver got with the webhook of its event
// type in the document.
func (d *document) checkSent(got delivered) error {
	item := d.spec.Webhooks[got.Header.Get("X-Alga-Event-Type")]
	if item == nil {
		return errors.New("the document has no such webhook")
	}
	var err error
	for _, p := range item.Post.Parameters {
		err = errors.Join(err, checkHeader(p.Value, got.Header))
	}
	media := item.Post.RequestBody.Value.Content.Get(got.Header.Get("Content-Type"))
	if media == nil {
		return errors.Join(err, fmt.Errorf("undocumented content type %q", got.Header.Get("Content-Type")))
	}
	var v any
	if e := json.Unmarshal(got.Body, &v); e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, d.validate(media.Schema.Value, v))
}

func checkHeader(p *openapi3.Parameter, h http.Header) error {
	values := h.Values(p.Name)
	if len(values) != 1 {
		return fmt.Errorf("header %s: %d values, want 1", p.Name, len(values))
	}
	var v any = values[0]
	if p.Schema.Value.Type.Is("integer") {
		if err := json.Unmarshal([]byte(values[0]), &v); err != nil {
			return fmt.Errorf("header %s: %w", p.Name, err)
		}
	}
	if err := p.Schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
		return fmt.Errorf("header %s: %w", p.Name, err)
	}
	return nil
}
