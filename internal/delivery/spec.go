package delivery

import (
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// Bounds of a Spec that the contract names or leaves to us.
const (
	maxName          = 255
	maxURL           = 2048
	maxProjectFields = 100
)

// Validate checks every part of s but whether the URL may be called, which
// internal/egress decides. It returns nil, or a *fault.Error of kind Invalid
// with all issues at once, their paths as in the JSON body. Repeated event
// types and fields are dropped from s, and ids in the filter become lower case.
func (s *Spec) Validate() error {
	is := &issues{}
	within(is, at("name"), aString, utf8.RuneCountInString(s.Name), size[int]{1, maxName})
	within(is, at("url"), aString, utf8.RuneCountInString(s.URL), size[int]{1, maxURL})
	is.checkMethod(s.Method)
	s.EventTypes = unique(s.EventTypes)
	is.checkEventTypes(s.EventTypes)
	is.checkHeaders(s.CustomHeaders)
	is.checkFilter(s.EventFilter)
	is.checkPayloadFields(s.PayloadFields)
	is.checkRetry(s.RetryConfig)
	is.checkRate(s.RateLimit)
	return is.err()
}

// checkMethod allows the methods that carry a body (contract D38).
func (is *issues) checkMethod(method string) {
	options := []string{"POST", "PUT", "PATCH"}
	if slices.Contains(options, method) {
		return
	}
	is.enum(at("method"), method, options)
	switch method {
	case "GET", "HEAD", "DELETE":
		is.list[len(is.list)-1].Message = "Method must be POST, PUT or PATCH: " + method +
			" sends no body, so the signature could not be verified"
	}
}

func (is *issues) checkEventTypes(names []string) {
	within(is, at("event_types"), anArray, len(names), size[int]{1, math.MaxInt})
	for i, name := range names {
		if !Known(name) {
			is.enum(at("event_types", i), name, EventTypes())
		}
	}
}

// checkPayloadFields applies contract section 4.5.
func (is *issues) checkPayloadFields(fields PayloadFields) {
	for _, entity := range slices.Sorted(maps.Keys(fields)) {
		names := unique(fields[entity])
		fields[entity] = names
		switch entity {
		case "ticket":
			for i, name := range names {
				if !slices.Contains(TicketFields(), name) {
					is.enum(at("payload_fields", entity, i), name, TicketFields())
				}
			}
		case "project":
			within(is, at("payload_fields", entity), anArray, len(names), size[int]{0, maxProjectFields})
			for i, name := range names {
				if !fieldName(name) || name == "project_id" {
					is.custom(at("payload_fields", entity, i), "not a selectable project field: %q", name)
				}
			}
		default:
			is.list = append(is.list, fault.Issue{
				Code:    "unrecognized_keys",
				Path:    at("payload_fields"),
				Message: "Unrecognized key(s) in object: '" + entity + "'",
				Extra:   map[string]any{"keys": []string{entity}},
			})
		}
	}
}

// fieldName reports whether s looks like a payload key. Projects are not ours,
// so their fields are not known here.
func fieldName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// checkRetry applies the ranges that RetryConfig names (contract D20).
func (is *issues) checkRetry(rc *RetryConfig) {
	if rc == nil {
		return
	}
	path := func(key ...any) []any { return append(at("retry_config"), key...) }
	delays := size[int64]{minDelay.Milliseconds(), maxDelay.Milliseconds()}
	if rc.Schedule != nil {
		within(is, path("schedule"), anArray, len(rc.Schedule), size[int]{1, maxRetries})
		for i, ms := range rc.Schedule {
			within(is, path("schedule", i), aNumber, ms, delays)
		}
	}
	if rc.Strategy != nil {
		options := []string{StrategyExponential, StrategyLinear, StrategyFixed, StrategyCustom}
		switch {
		case !slices.Contains(options, *rc.Strategy):
			is.enum(path("strategy"), *rc.Strategy, options)
		case *rc.Strategy == StrategyCustom && len(rc.Schedule) == 0:
			is.custom(path("schedule"), "the custom strategy needs a schedule")
		}
	}
	if rc.MaxAttempts != nil {
		within(is, path("max_attempts"), aNumber, *rc.MaxAttempts, size[int]{1, 10})
	}
	if rc.InitialDelay != nil {
		within(is, path("initial_delay"), aNumber, *rc.InitialDelay, delays)
	}
	if rc.MaxDelay != nil {
		within(is, path("max_delay"), aNumber, *rc.MaxDelay, size[int64]{1000, delays.max})
		if rc.InitialDelay != nil && *rc.InitialDelay > *rc.MaxDelay {
			is.custom(path("initial_delay"), "initial_delay is longer than max_delay")
		}
	}
	if rc.BackoffMultiplier != nil {
		within(is, path("backoff_multiplier"), aNumber, *rc.BackoffMultiplier, size[float64]{1, math.MaxFloat64})
	}
	if rc.Timeout != nil {
		within(is, path("timeout"), aNumber, *rc.Timeout, size[int64]{1000, 30000})
	}
}

// checkRate applies contract D21.
func (is *issues) checkRate(r *RateLimit) {
	if r == nil {
		return
	}
	if r.RequestsPerMinute != nil {
		within(is, at("rate_limit", "requests_per_minute"), aNumber, *r.RequestsPerMinute, size[int]{1, 1000})
	}
	if r.BurstLimit != nil {
		within(is, at("rate_limit", "burst_limit"), aNumber, *r.BurstLimit, size[int]{1, 1000})
	}
}

// unique drops repetitions and keeps the order. A nil list stays nil: in
// payload_fields nil and empty differ.
func unique(list []string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// Warnings are remarks on a webhook that is valid, but may not do what its owner
// expects (contract D31 and section 3.4).
func (s *Spec) Warnings() []string {
	var out []string
	plain := strings.HasPrefix(strings.ToLower(s.URL), "http://")
	if plain {
		out = append(out, "url uses http: payloads and signatures travel in the clear")
	}
	if !s.VerifySSL && !plain {
		out = append(out, "verify_ssl is false: payloads go to whoever answers, with any certificate")
	}
	if s.TLS != nil && plain {
		out = append(out, "tls has no effect on an http url")
	}
	if s.TLS != nil && s.TLS.CABundle != "" && !s.VerifySSL {
		out = append(out, "tls.ca_bundle has no effect while verify_ssl is false")
	}
	silent := slices.DeleteFunc(slices.Clone(s.EventTypes), Fires)
	if len(silent) > 0 {
		out = append(out, "these event types are accepted but never delivered: "+strings.Join(silent, ", "))
	}
	return out
}
