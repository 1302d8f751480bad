package ticket

import (
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// New makes the ticket that a draft asks for (contract section 2.4). r must hold
// the rows that d.Keys names; id is a UUIDv7 and number the next ticket number.
//
// Errors: Invalid with issues for broken rules, BadReference for an id without a
// row. A draft may name a closed status; the ticket is then closed from the start
// and close rules do not apply, because nothing was open before.
func New(d Draft, r Refs, id, number string, actor Actor, now time.Time) (Ticket, error) {
	e := edit{p: d.patch(), r: r}
	e.next = Ticket{
		TenantID:      actor.TenantID,
		TicketID:      id,
		Number:        number,
		EnteredBy:     actor.UserID,
		EnteredByName: actor.Name,
		Source:        "api",
		Origin:        "api",
		Tags:          []string{},
		Unused:        Unused{Documents: []string{}},
	}
	if err := e.run(); err != nil {
		return Ticket{}, err
	}
	at := Instant(time.Time{}, now)
	e.next.EnteredAt, e.next.UpdatedAt, e.next.LastOccurredAt = webhook.At(at), webhook.At(at), at
	if e.next.IsClosed {
		e.close(actor)
	}
	return e.next, nil
}

// Apply makes the state of old after the patch (contract section 2.5). r must
// hold the rows that p.Keys(old) names.
//
// changed is false, and next is old to the bit, when the patch says nothing new;
// no event may be sent then. Otherwise updated_at is Instant(old.LastOccurredAt,
// now) and updated_by the actor.
//
// Errors: Invalid with issues for broken rules and refused closing, BadReference
// for an id without a row, Internal when r lacks the board of a status change.
// next is old whenever there is an error.
func Apply(old Ticket, p Patch, r Refs, actor Actor, now time.Time) (next Ticket, changed bool, err error) {
	e := edit{p: p, r: r, old: &old, next: old}
	if err := e.run(); err != nil {
		return old, false, err
	}
	if !e.changed {
		return old, false, nil
	}
	e.next.stamp(actor, now)
	switch {
	case e.next.IsClosed && !old.IsClosed:
		e.close(actor)
	case !e.next.IsClosed && old.IsClosed:
		e.next.ClosedAt, e.next.ClosedBy = nil, nil
	}
	return e.next, true, nil
}

// Touch returns t as changed by the actor in a way that no field shows: a comment
// was added (contract section 2.1). Give the comment the new UpdatedAt as its
// time.
func Touch(t Ticket, actor Actor, now time.Time) Ticket {
	t.stamp(actor, now)
	return t
}

// Instant is when a change happens that follows one at last: now to the
// millisecond, but at least a millisecond after last. So a clock that stalls or
// is set back cannot reorder the changes of one ticket (contract P14).
func Instant(last, now time.Time) time.Time {
	at := webhook.At(now).Time
	if earliest := webhook.At(last).Add(time.Millisecond); at.Before(earliest) {
		return earliest
	}
	return at
}

// stamp moves updated_at past everything that has happened to the ticket. A row
// from before events were kept has no LastOccurredAt, so updated_at counts too.
func (t *Ticket) stamp(actor Actor, now time.Time) {
	last := t.LastOccurredAt
	if t.UpdatedAt.After(last) {
		last = t.UpdatedAt.Time
	}
	at := Instant(last, now)
	t.UpdatedAt, t.LastOccurredAt = webhook.At(at), at
	t.UpdatedBy = &actor.UserID
}

// edit is one patch on its way into one ticket. Rules that are broken are
// collected, so that the caller sees all of them at once.
type edit struct {
	p    Patch
	r    Refs
	old  *Ticket // nil when the ticket is being created
	next Ticket

	changed bool
	missing bool // an id was given that has no row
	issues  []fault.Issue
}

// run applies every field and reports what was wrong. Broken rules win over
// missing rows: they are the more precise answer.
func (e *edit) run() error {
	if issue, bad := e.p.Suppress.issue(); bad {
		e.issues = append(e.issues, issue)
	}
	e.texts()
	boardChanged := e.board()
	statusChanged := e.status(boardChanged)
	e.priority()
	clientChanged := e.client()
	e.location(clientChanged)
	e.contact()
	categoryChanged := e.category()
	e.subcategory(categoryChanged)
	e.assignment()
	switch {
	case len(e.issues) > 0:
		return invalid(e.issues)
	case e.missing:
		return fault.New(fault.BadReference, "Invalid reference")
	case statusChanged && e.old != nil:
		return e.closeRules()
	}
	return nil
}

// texts applies the fields that refer to nothing.
func (e *edit) texts() {
	if e.p.Title.Set {
		if issue, bad := textIssue(e.p.Title.Value, MaxTitle, "title"); bad {
			e.issues = append(e.issues, issue)
		}
		e.set(&e.next.Title, e.p.Title.Value)
	}
	if e.p.URL.Set {
		if link := e.p.URL.Value; link != nil && !sameText(link, e.next.URL) {
			if issue, bad := linkIssue(*link); bad {
				e.issues = append(e.issues, issue)
			}
		}
		e.setRef(&e.next.URL, e.p.URL.Value)
	}
	if e.p.DueDate.Set {
		e.dueDate(e.p.DueDate.Value)
	}
	e.attributes()
	if e.p.Tags.Set {
		tags, issues := normalTags(e.p.Tags.Value)
		e.issues = append(e.issues, issues...)
		if !slices.Equal(tags, e.next.Tags) {
			e.next.Tags, e.changed = tags, true
		}
	}
}

// dueDate compares in wire form: a microsecond that nobody sees is no change.
func (e *edit) dueDate(v *time.Time) {
	var due *webhook.Time
	if v != nil {
		at := webhook.At(*v)
		due = &at
	}
	if !sameTime(due, e.next.DueDate) {
		e.next.DueDate, e.changed = due, true
	}
}

// attributes merges the description into the object first and compares once:
// a patch with both would otherwise count as a change each time it is sent.
func (e *edit) attributes() {
	merged := e.next.Attributes
	if e.p.Attributes.Set {
		compact, issue, bad := object(e.p.Attributes.Value, "attributes")
		if bad {
			e.issues = append(e.issues, issue)
			return
		}
		merged = compact
	}
	if e.p.Description.Set {
		merged = withDescription(merged, e.p.Description.Value)
	}
	if sameJSON(merged, e.next.Attributes) {
		return
	}
	e.next.Attributes, e.changed = merged, true
	e.next.DescriptionHTML = DescriptionHTML(merged)
}

// close fills who closed the ticket and when. Times that the caller sent are not
// taken (contract section 2.5).
func (e *edit) close(actor Actor) {
	at := e.next.UpdatedAt
	e.next.ClosedAt, e.next.ClosedBy = &at, &actor.UserID
}

// closeRules refuses open-to-closed while the board's close rules are not met.
func (e *edit) closeRules() error {
	if e.r.Board == nil {
		return fault.New(fault.Internal, "ticket %s: the board's row is needed to change the status", e.next.TicketID)
	}
	if !NeedsResolution(*e.old, e.p, e.r) || e.r.HasResolution {
		return nil
	}
	return &fault.Error{
		Kind:    fault.Invalid,
		Message: "Ticket close rules not satisfied",
		Issues: []fault.Issue{{
			Code: "custom", Path: []any{"status_id"}, Message: "A resolution comment is required to close this ticket",
			Extra: map[string]any{"rule": CloseResolutionComment},
		}},
	}
}

func (e *edit) set(field *string, v string) {
	if *field != v {
		*field, e.changed = v, true
	}
}

func (e *edit) setRef(field **string, v *string) {
	if !sameText(*field, v) {
		*field, e.changed = v, true
	}
}

func sameTime(a, b *webhook.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(b.Time)
}
