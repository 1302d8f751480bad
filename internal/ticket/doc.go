// Package ticket holds tickets and what happens to them as pure values: it
// checks a draft or a patch against the rows it refers to, makes the next state,
// decides which events the change brings, and builds the payload that those
// events carry for good. It does the same for comments, tags and agents.
//
// Everything here is a function of its arguments: no clock, no storage, no
// network. The rules are those of contract sections 2.1 to 2.8 and 4.4; where
// the section has a column or a paragraph "ours", that one counts.
//
// One change runs through the package like this, inside one transaction of the
// caller:
//
//	keys := patch.Keys(old)                    // which rows are needed
//	next, changed, err := Apply(old, patch, refs, actor, now)
//	events := Events(&old, &next, patch.Suppress, newID, publicURL)
//
// Two promises follow, and the tests hold the package to them. Whatever moves
// updated_at brings at least one event, and nothing else brings any. And the
// occurred_at of one ticket's events strictly increases, even when the clock
// stalls or is set back, because every change starts from LastOccurredAt.
//
// Left to others: the form of single fields as they arrive (UUIDs, URLs, dates:
// internal/api), finding the rows and storing the result (internal/store), and
// encoding and sending the envelope (internal/delivery, internal/dispatch).
//
// Errors are *fault.Error and safe to show to the caller. All functions may be
// called from several goroutines at once. Values that come out share memory with
// the values that went in, so treat a Ticket's pointers and slices as read-only.
package ticket
