package ticket

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// NormalizeTag returns the text under which a tag is kept: trimmed and in lower
// case (contract section 2.8). A result of 0 or more than MaxTag characters is an
// Invalid error with path tag_text.
func NormalizeTag(s string) (string, error) {
	text, issue, bad := normalTag(s, "tag_text")
	if bad {
		return "", invalid([]fault.Issue{issue})
	}
	return text, nil
}

// NormalizeTags returns a ticket's list of tags: each one normalised, without
// doubles, ascending by text in byte order (contract D22). The list is never nil.
// Errors are Invalid with path ["tags", i], or ["tags"] for more than MaxTags.
func NormalizeTags(list []string) ([]string, error) {
	tags, issues := normalTags(list)
	if len(issues) > 0 {
		return nil, invalid(issues)
	}
	return tags, nil
}

func normalTags(list []string) ([]string, []fault.Issue) {
	tags := make([]string, 0, len(list))
	var issues []fault.Issue
	for i, s := range list {
		text, issue, bad := normalTag(s, "tags", i)
		if bad {
			issues = append(issues, issue)
			continue
		}
		tags = append(tags, text)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > MaxTags {
		issues = append(issues, fault.Issue{
			Code: "too_big", Path: []any{"tags"}, Message: fmt.Sprintf("Array must contain at most %d element(s)", MaxTags),
			Extra: map[string]any{"maximum": MaxTags, "type": "array", "inclusive": true, "exact": false},
		})
	}
	return tags, issues
}

func normalTag(s string, path ...any) (text string, issue fault.Issue, bad bool) {
	text = strings.ToLower(strings.TrimSpace(s))
	issue, bad = textIssue(text, MaxTag, path...)
	return text, issue, bad
}
