package delivery

import (
	"fmt"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// issues collects everything that is wrong with a Spec, in the words and codes
// of Zod, because clients parse them (contract section 1.2).
type issues struct{ list []fault.Issue }

// err returns what was collected as one error, or nil.
func (is *issues) err() error {
	if len(is.list) == 0 {
		return nil
	}
	return &fault.Error{Kind: fault.Invalid, Message: "Validation failed", Issues: is.list}
}

// at makes a path.
func at(path ...any) []any { return path }

// custom adds an issue that Zod has no code for.
func (is *issues) custom(path []any, format string, args ...any) {
	is.list = append(is.list, fault.Issue{Code: "custom", Path: path, Message: fmt.Sprintf(format, args...)})
}

// enum adds an issue about a value outside a fixed set.
func (is *issues) enum(path []any, received string, options []string) {
	is.list = append(is.list, fault.Issue{
		Code: "invalid_enum_value",
		Path: path,
		Message: fmt.Sprintf("Invalid enum value. Expected '%s', received '%s'",
			strings.Join(options, "' | '"), received),
		Extra: map[string]any{"received": received, "options": options},
	})
}

// uuid adds the issue for text that is no UUID.
func (is *issues) uuid(path []any) {
	is.list = append(is.list, fault.Issue{
		Code:    "invalid_string",
		Path:    path,
		Message: "Invalid uuid",
		Extra:   map[string]any{"validation": "uuid"},
	})
}

// size is the inclusive range of a length or a number.
type size[T int | int64 | float64] struct{ min, max T }

// noun is what Zod calls the thing whose size is wrong.
type noun string

const (
	aString noun = "string"
	anArray noun = "array"
	aNumber noun = "number"
)

// within adds an issue when v is outside r. It cannot be a method: it serves
// lengths, milliseconds and factors.
func within[T int | int64 | float64](is *issues, path []any, what noun, v T, r size[T]) {
	code, key, bound := "too_small", "minimum", r.min
	switch {
	case v > r.max:
		code, key, bound = "too_big", "maximum", r.max
	case v >= r.min:
		return
	}
	is.list = append(is.list, fault.Issue{
		Code:    code,
		Path:    path,
		Message: sizeMessage(what, code == "too_big", bound),
		Extra:   map[string]any{key: bound, "type": string(what), "inclusive": true, "exact": false},
	})
}

// sizeMessage is Zod's sentence about a size.
func sizeMessage(what noun, tooBig bool, bound any) string {
	switch what {
	case aNumber:
		if tooBig {
			return fmt.Sprintf("Number must be less than or equal to %v", bound)
		}
		return fmt.Sprintf("Number must be greater than or equal to %v", bound)
	case anArray:
		if tooBig {
			return fmt.Sprintf("Array must contain at most %v element(s)", bound)
		}
		return fmt.Sprintf("Array must contain at least %v element(s)", bound)
	}
	if tooBig {
		return fmt.Sprintf("String must contain at most %v character(s)", bound)
	}
	return fmt.Sprintf("String must contain at least %v character(s)", bound)
}
