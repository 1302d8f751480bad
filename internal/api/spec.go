package api

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
)

// Bounds of the webhook fields that are stored and returned, but decide nothing.
const (
	maxDescription = 5000
	maxLabels      = 50
	maxLabel       = 50
	maxMetadata    = 16 << 10 // bytes of JSON
)

// hidden is what a reader without webhook:update sees instead of the value of a
// custom header, and what deliveries show instead of it.
const hidden = "[REDACTED]"

// specPatch is the part of a webhook that a body names. Keys that the body
// leaves out are not touched, so it serves create and the merge of an update
// alike (contract section 3.3).
type specPatch []func(*delivery.Spec)

func (p *specPatch) set(fn func(*delivery.Spec)) { *p = append(*p, fn) }

func (p specPatch) apply(s *delivery.Spec) {
	for _, fn := range p {
		fn(s)
	}
}

// readSpec reads every field of contract section 3.3. What is wrong with them,
// by type or by rule, is noted in o, all at once.
func readSpec(o *object, targets egress.Config) specPatch {
	var p specPatch
	if v := o.text("name", 0, 0); v != nil {
		p.set(func(s *delivery.Spec) { s.Name = *v })
	}
	if v := o.text("url", 0, 0); v != nil {
		p.set(func(s *delivery.Spec) { s.URL = *v })
	}
	if v := o.text("method", 0, 0); v != nil {
		p.set(func(s *delivery.Spec) { s.Method = *v })
	}
	if v := o.texts("event_types", 0, 0); v != nil {
		p.set(func(s *delivery.Spec) { s.EventTypes = v })
	}
	readSwitches(o, targets, &p)
	readTLS(o, &p)
	readLabels(o, &p)
	readHeaders(o, &p)
	readFilter(o, &p)
	readPayloadFields(o, &p)
	readRetry(o, &p)
	readRate(o, &p)
	refuseUnsupported(o)

	// The rules are those of the domain. They are asked about a webhook that is
	// right in all that the body does not name.
	probe := delivery.Spec{Name: "webhook", URL: "https://example.com", Method: "POST", EventTypes: delivery.EventTypes()[:1]}
	p.apply(&probe)
	o.merge(probe.Validate())
	if o.has("url") {
		_, err := targets.CheckURL(probe.URL)
		o.merge(err)
	}
	return p
}

func readSwitches(o *object, targets egress.Config, p *specPatch) {
	if v := o.boolean("verify_ssl"); v != nil {
		o.merge(targets.CheckVerify(*v))
		p.set(func(s *delivery.Spec) { s.VerifySSL = *v })
	}
	if v := o.boolean("is_active"); v != nil {
		p.set(func(s *delivery.Spec) { s.IsActive = *v })
	}
	if v := o.boolean("is_test_mode"); v != nil {
		p.set(func(s *delivery.Spec) { s.IsTestMode = *v })
	}
}

// readLabels reads what people write on a webhook for themselves.
func readLabels(o *object, p *specPatch) {
	if o.null("description") {
		p.set(func(s *delivery.Spec) { s.Description = nil })
	} else if v := o.text("description", 0, maxDescription); v != nil {
		p.set(func(s *delivery.Spec) { s.Description = v })
	}
	if list := o.texts("tags", 0, maxLabels); list != nil {
		for i, tag := range list {
			if n := len([]rune(tag)); n < 1 || n > maxLabel {
				o.issue(o.at("tags", i), "custom", fmt.Sprintf("must have 1 to %d characters", maxLabel), nil)
			}
		}
		p.set(func(s *delivery.Spec) { s.Tags = list })
	}
	if o.null("metadata") {
		p.set(func(s *delivery.Spec) { s.Metadata = nil })
	} else if raw := o.raw("metadata"); raw != nil {
		if len(raw) > maxMetadata {
			o.custom("metadata", "must be an object of at most %d bytes of JSON", maxMetadata)
			return
		}
		p.set(func(s *delivery.Spec) { s.Metadata = raw })
	}
}

func readHeaders(o *object, p *specPatch) {
	if o.null("custom_headers") {
		p.set(func(s *delivery.Spec) { s.CustomHeaders = nil })
		return
	}
	h := o.child("custom_headers")
	if h == nil {
		return
	}
	headers := make(map[string]string, len(h.fields))
	for _, name := range h.keys() {
		v := h.text(name, 0, 0)
		if v == nil {
			continue
		}
		if *v == hidden {
			h.custom(name, "%s is what callers see who may not update webhooks; send the value itself, or leave custom_headers out to keep it", hidden)
			continue
		}
		headers[name] = *v
	}
	p.set(func(s *delivery.Spec) { s.CustomHeaders = headers })
}

// readFilter reads event_filter. What would be accepted and ignored elsewhere
// is refused here: a filter that does not filter looks like one that does
// (contract D34).
func readFilter(o *object, p *specPatch) {
	if o.null("event_filter") {
		p.set(func(s *delivery.Spec) { s.EventFilter = nil })
		return
	}
	f := o.child("event_filter")
	if f == nil {
		return
	}
	f.only("entity_ids", "tags", "conditions")
	filter := &delivery.Filter{EntityIDs: f.texts("entity_ids", 0, 0), Tags: f.texts("tags", 0, 0)}
	list, _ := f.items("conditions", 0, 0)
	for i, raw := range list {
		c := f.childAt(f.at("conditions", i), raw)
		if c == nil {
			continue
		}
		c.only("field", "operator", "value")
		cond := delivery.Condition{Field: c.needText("field", 0, 0), Operator: c.needText("operator", 0, 0)}
		if c.need("value", "any") {
			// A RawMessage is valid JSON, and any takes every value.
			_ = json.Unmarshal(c.fields["value"], &cond.Value)
		}
		filter.Conditions = append(filter.Conditions, cond)
	}
	p.set(func(s *delivery.Spec) { s.EventFilter = filter })
}

// readPayloadFields reads contract section 4.5: null for an entity means every
// field, an empty list only its id.
func readPayloadFields(o *object, p *specPatch) {
	if o.null("payload_fields") {
		p.set(func(s *delivery.Spec) { s.PayloadFields = nil })
		return
	}
	f := o.child("payload_fields")
	if f == nil {
		return
	}
	fields := make(delivery.PayloadFields, len(f.fields))
	for _, entity := range f.keys() {
		if f.null(entity) {
			fields[entity] = nil
		} else if list := f.texts(entity, 0, 0); list != nil {
			fields[entity] = list
		}
	}
	p.set(func(s *delivery.Spec) { s.PayloadFields = fields })
}

// anyInt is the range of whole numbers that a JSON number holds exactly. The
// ranges that count are the domain's.
const anyInt = 1 << 53

func readRetry(o *object, p *specPatch) {
	if o.null("retry_config") {
		p.set(func(s *delivery.Spec) { s.RetryConfig = nil })
		return
	}
	r := o.child("retry_config")
	if r == nil {
		return
	}
	r.only("schedule", "strategy", "max_attempts", "initial_delay", "max_delay", "backoff_multiplier", "timeout")
	cfg := &delivery.RetryConfig{
		Strategy:          r.text("strategy", 0, 0),
		MaxAttempts:       r.int("max_attempts"),
		InitialDelay:      r.integer("initial_delay", -anyInt, anyInt),
		MaxDelay:          r.integer("max_delay", -anyInt, anyInt),
		BackoffMultiplier: r.number("backoff_multiplier", -math.MaxFloat64, math.MaxFloat64),
		Timeout:           r.integer("timeout", -anyInt, anyInt),
	}
	if list, given := r.items("schedule", 0, 0); given {
		cfg.Schedule = make([]int64, len(list))
		for i, raw := range list {
			cfg.Schedule[i] = orZero(r.integerAt(r.at("schedule", i), raw, -anyInt, anyInt))
		}
	}
	p.set(func(s *delivery.Spec) { s.RetryConfig = cfg })
}

// readRate reads rate_limit, and rate_limit_per_min, which records show beside
// it. A body that names both must mean the same with them, so that a record can
// be sent back as it came.
func readRate(o *object, p *specPatch) {
	var limit *delivery.RateLimit
	switch r := o.child("rate_limit"); {
	case r != nil:
		r.only("enabled", "requests_per_minute", "burst_limit")
		limit = &delivery.RateLimit{
			Enabled: r.boolean("enabled"), RequestsPerMinute: r.int("requests_per_minute"), BurstLimit: r.int("burst_limit"),
		}
		p.set(func(s *delivery.Spec) { s.RateLimit = limit })
	case o.null("rate_limit"):
		p.set(func(s *delivery.Spec) { s.RateLimit = nil })
	}
	if !o.has("rate_limit_per_min") {
		return
	}
	perMin, _, limited := limit.PerMinute()
	switch {
	case !o.has("rate_limit") && o.null("rate_limit_per_min"):
		o.custom("rate_limit_per_min", `null lifts nothing; send "rate_limit": {"enabled": false} instead`)
	case !o.has("rate_limit"):
		if n := o.integer("rate_limit_per_min", 1, 1000); n != nil {
			p.set(func(s *delivery.Spec) { s.RateLimit = &delivery.RateLimit{RequestsPerMinute: new(int(*n))} })
		}
	case o.null("rate_limit_per_min") && !limited:
	case o.null("rate_limit_per_min") || !limited || orZero(o.integer("rate_limit_per_min", 1, 1000)) != int64(perMin):
		o.custom("rate_limit_per_min", "rate_limit and rate_limit_per_min disagree; send one of them")
	}
}

// refuseUnsupported answers the fields of the contract that nothing would act
// on, so that nobody believes in a switch that does nothing (contract D20,
// D35). A security block of the signature's own kind is the exception: clients
// of the older documentation send it with every create.
func refuseUnsupported(o *object) {
	if v := o.text("payload_format", 0, 0); v != nil && *v != payloadFormat {
		o.custom("payload_format", "only %s is supported", payloadFormat)
	}
	if v := o.text("content_type", 0, 0); v != nil && *v != contentType {
		o.custom("content_type", "only %s is supported", contentType)
	}
	if o.has("payload_transformation") && !o.null("payload_transformation") {
		o.custom("payload_transformation", "payloads are not transformed; choose their fields with payload_fields")
	}
	if o.has("secret_token") && !o.null("secret_token") {
		o.custom("secret_token", "the signing secret is made by the server and returned once, on create and on rotate")
	}
	if sec := o.child("security"); sec != nil {
		kind := sec.text("type", 0, 0)
		if kind != nil && *kind != "none" && !strings.HasPrefix(*kind, "hmac") {
			sec.custom("type", "deliveries are signed with HMAC-SHA256; put other credentials into custom_headers")
		}
	}
}
