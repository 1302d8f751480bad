package ticket

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// The length limits of contract section 2.4 and P11, in characters.
const (
	MaxTitle   = 255
	MaxComment = 5000
	MaxTag     = 50
	MaxRole    = 50
	MaxTags    = 50 // tags on one ticket
)

// MaxLink bounds a ticket's url, in characters. The contract sets no limit; browsers
// do.
const MaxLink = 2048

// IsLink reports whether a text is an address with a scheme, as Zod's url() has it:
// what a browser would open (contract section 1.2). A browser takes a % that begins
// no escape, and space around the address; net/url takes neither.
func IsLink(s string) bool {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(s), ":")
	u, err := url.Parse(scheme + ":" + strings.ReplaceAll(rest, "%", ""))
	if err != nil || u.Scheme == "" {
		return false
	}
	if port := u.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
	}
	return u.Host != "" || u.Opaque != "" || u.Path != ""
}

// linkIssue checks a ticket's url.
func linkIssue(s string) (issue fault.Issue, bad bool) {
	if issue, bad = textIssue(s, MaxLink, "url"); bad || IsLink(s) {
		return issue, bad
	}
	return fault.Issue{Code: "invalid_string", Path: []any{"url"}, Message: "Invalid url", Extra: map[string]any{"validation": "url"}}, true
}

// CheckFlags refuses to silence the team but not the contact: an Invalid error
// with path suppressInternalNotifications (contract section 2.2).
func (s Suppress) CheckFlags() error {
	if issue, bad := s.issue(); bad {
		return invalid([]fault.Issue{issue})
	}
	return nil
}

func (s Suppress) issue() (issue fault.Issue, bad bool) {
	if !s.InternalNotifications || s.ContactNotifications {
		return fault.Issue{}, false
	}
	return custom("suppressInternalNotifications",
		"suppressInternalNotifications requires suppressContactNotifications"), true
}

// invalid makes the Invalid error that carries issues.
func invalid(issues []fault.Issue) error {
	return &fault.Error{Kind: fault.Invalid, Message: "Validation failed", Issues: issues}
}

// custom makes an issue of the hand-made kind (contract section 1.2).
func custom(field, format string, args ...any) fault.Issue {
	return fault.Issue{Code: "custom", Path: []any{field}, Message: fmt.Sprintf(format, args...)}
}

// textIssue checks a text of 1 to limit characters in the words of Zod, which
// clients parse. PostgreSQL cannot store the character U+0000, so it is refused
// here rather than failing there.
func textIssue(s string, limit int, path ...any) (issue fault.Issue, bad bool) {
	switch {
	case s == "":
		return fault.Issue{
			Code: "too_small", Path: path, Message: "String must contain at least 1 character(s)",
			Extra: map[string]any{"minimum": 1, "type": "string", "inclusive": true, "exact": false},
		}, true
	case utf8.RuneCountInString(s) > limit:
		return fault.Issue{
			Code: "too_big", Path: path, Message: fmt.Sprintf("String must contain at most %d character(s)", limit),
			Extra: map[string]any{"maximum": limit, "type": "string", "inclusive": true, "exact": false},
		}, true
	case strings.ContainsRune(s, 0):
		return fault.Issue{Code: "custom", Path: path, Message: "String must not contain the character U+0000"}, true
	}
	return fault.Issue{}, false
}

// sameID compares two UUIDs; the contract takes them in any letter case.
func sameID(a, b string) bool { return strings.EqualFold(a, b) }

// sameText compares two nullable texts.
func sameText(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
