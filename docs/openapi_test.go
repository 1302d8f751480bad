package docs_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/ticketwire/ticketwire/docs"
)

func load(t *testing.T) *openapi3.T {
	t.Helper()
	spec, err := openapi3.NewLoader().LoadFromData(docs.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestDocumentIsValid(t *testing.T) {
	t.Parallel()
	spec := load(t)
	if !spec.IsOpenAPI31OrLater() {
		t.Errorf("version %s, want 3.1", spec.OpenAPI)
	}
	// Examples are checked against their schemas too.
	if err := spec.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
}

// The tests of the API rely on both: nullable types, and closed objects, whether
// or not they are put together from parts.
func TestCheckerKnows31(t *testing.T) {
	t.Parallel()
	schemas := load(t).Components.Schemas
	const id = "01990b2e-7c11-7a10-9a55-0d6f2f6b6d01"
	location := map[string]any{"tenant": id, "location_id": id, "client_id": id, "location_name": "Attic"}
	team := map[string]any{"tenant": id, "team_id": id, "team_name": "Support", "manager_id": nil}
	key := map[string]any{
		"api_key_id": id, "name": "n", "user_id": id, "prefix": "p", "active": true, "expires_at": nil,
		"last_used_at": nil, "usage_count": 0.0, "usage_limit": nil, "permissions": nil,
		"rate_limit": map[string]any{"enabled": nil, "max_tokens": nil, "refill_per_min": nil},
		"created_at": "2026-03-09T08:00:00.000Z",
	}
	with := func(m map[string]any, name string, v any) map[string]any {
		m = maps.Clone(m)
		m[name] = v
		return m
	}
	for _, tt := range []struct {
		name, schema string
		value        map[string]any
		valid        bool
	}{
		{"null where it may be", "Team", team, true},
		{"null where it may not be", "Team", with(team, "team_name", nil), false},
		{"a pattern of a type that may be null", "Team", with(team, "manager_id", "me"), false},
		{"as described", "Location", location, true},
		{"another key in a closed object", "Location", with(location, "floor", 3.0), false},
		{"put together from parts", "Key", key, true},
		{"another key in an object of parts", "Key", with(key, "api_key", "secret"), false},
		{"the key that the other variant has", "KeyCreated", with(key, "api_key", "secret"), true},
		{"the other variant without it", "KeyCreated", key, false},
	} {
		err := schemas[tt.schema].Value.VisitJSON(tt.value, openapi3.EnableJSONSchema2020())
		if (err == nil) != tt.valid {
			t.Errorf("%s: valid %v, want %v: %v", tt.name, err == nil, tt.valid, err)
		}
	}
}

func TestEveryOperationIsComplete(t *testing.T) {
	t.Parallel()
	spec := load(t)
	ids := map[string]string{}
	known := map[string]bool{}
	for _, tag := range spec.Tags {
		known[tag.Name] = true
	}
	items := spec.Paths.Map()
	maps.Copy(items, spec.Webhooks)
	for path, item := range items {
		for method, op := range item.Operations() {
			where := method + " " + path
			if ids[op.OperationID] != "" {
				t.Errorf("%s has the operationId of %s", where, ids[op.OperationID])
			}
			ids[op.OperationID] = where
			if op.Summary == "" || len(op.Tags) != 1 || !known[op.Tags[0]] {
				t.Errorf("%s wants a summary and one of the tags", where)
			}
			if !strings.HasPrefix(path, "/api/v1/") {
				continue
			}
			for _, status := range []int{401, 403, 429, 500, 503} {
				if op.Responses.Status(status) == nil {
					t.Errorf("%s has no answer %d", where, status)
				}
			}
			if repeatable := method == "POST" || method == "PUT"; repeatable != hasParameter(op, "X-Idempotency-Key") {
				t.Errorf("%s: X-Idempotency-Key documented %v, want %v", where, !repeatable, repeatable)
			}
			if op.RequestBody != nil && op.Responses.Status(413) == nil {
				t.Errorf("%s reads a body and has no answer 413", where)
			}
		}
	}
}

func hasParameter(op *openapi3.Operation, name string) bool {
	return slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.Name == name })
}

// An object that is answered is closed, so that a field which is served and not
// documented is found. Open ones are those that hold what callers put in.
func TestAnswersAreClosed(t *testing.T) {
	t.Parallel()
	for path, item := range load(t).Paths.Map() {
		for method, op := range item.Operations() {
			for status, response := range op.Responses.Map() {
				media := response.Value.Content.Get("application/json")
				if media == nil || response.Value.Content["application/json"] == nil {
					continue
				}
				for _, at := range open(media.Schema, "", false, nil) {
					t.Errorf("%s %s -> %s: %s is open", method, path, status, at)
				}
			}
		}
	}
}

// open returns the places of the objects with properties that let others in.
// inner says that ref is one of several parts of an object, which the whole
// closes.
func open(ref *openapi3.SchemaRef, at string, inner bool, found []string) []string {
	s := ref.Value
	closed := s.AdditionalProperties.Has != nil && !*s.AdditionalProperties.Has ||
		s.UnevaluatedProperties.Has != nil && !*s.UnevaluatedProperties.Has
	parts := slices.Concat(s.AllOf, s.OneOf, s.AnyOf)
	if (len(s.Properties) > 0 || len(s.AllOf) > 0) && len(s.OneOf) == 0 && !closed && !inner {
		found = append(found, at)
	}
	if s.Items != nil {
		found = open(s.Items, at+"[]", false, found)
	}
	if s.AdditionalProperties.Schema != nil {
		found = open(s.AdditionalProperties.Schema, at+"{}", false, found)
	}
	for name, p := range s.Properties {
		if len(s.OneOf) == 0 { // beside oneOf, properties only add to what the parts say
			found = open(p, at+"."+name, false, found)
		}
	}
	for _, part := range parts {
		found = open(part, at, len(s.AllOf) > 0, found)
	}
	return found
}
