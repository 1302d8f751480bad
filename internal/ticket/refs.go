package ticket

import (
	"slices"
	"strings"
)

// Keys are the ids whose rows Refs has to hold before New or Apply can decide.
// An empty id needs no row.
type Keys struct {
	BoardID, StatusID, PriorityID, ClientID, ContactNameID string
	LocationID, CategoryID, SubcategoryID                  string
	AssignedTo, AssignedTeamID                             string
}

// Keys names the rows that New needs.
func (d Draft) Keys() Keys {
	return d.patch().Keys(Ticket{})
}

// Keys names the rows that Apply needs for the patch: one for every reference
// that changes, and the board whenever the status does, for its close rules.
func (p Patch) Keys(old Ticket) Keys {
	k := Keys{
		BoardID:        changedID(p.BoardID, old.BoardID),
		StatusID:       changedID(p.StatusID, old.StatusID),
		PriorityID:     changedID(p.PriorityID, old.PriorityID),
		ClientID:       changedID(p.ClientID, old.ClientID),
		ContactNameID:  changedRef(p.ContactNameID, old.ContactNameID),
		LocationID:     changedRef(p.LocationID, old.LocationID),
		CategoryID:     changedRef(p.CategoryID, old.CategoryID),
		SubcategoryID:  changedRef(p.SubcategoryID, old.SubcategoryID),
		AssignedTo:     changedRef(p.AssignedTo, old.AssignedTo),
		AssignedTeamID: changedRef(p.AssignedTeamID, old.AssignedTeamID),
	}
	if k.StatusID != "" && k.BoardID == "" {
		k.BoardID = old.BoardID
	}
	return k
}

// NeedsResolution says whether Apply will ask for Refs.HasResolution: the patch
// closes an open ticket of a board that wants a resolution comment first, and
// does not override that. Refs must already hold the status and the board.
func NeedsResolution(old Ticket, p Patch, r Refs) bool {
	return r.Status != nil && r.Status.IsClosed && !old.IsClosed && !p.OverrideCloseRules &&
		changedID(p.StatusID, old.StatusID) != "" &&
		r.Board != nil && slices.Contains(r.Board.CloseRules, CloseResolutionComment)
}

func changedID(o Opt[string], old string) string {
	if !o.Set || sameID(o.Value, old) {
		return ""
	}
	return o.Value
}

func changedRef(o Opt[*string], old *string) string {
	if !o.Set || o.Value == nil || (old != nil && sameID(*o.Value, *old)) {
		return ""
	}
	return *o.Value
}

// patch is the draft as a patch of the empty ticket, so that create and update
// share their rules.
func (d Draft) patch() Patch {
	p := Patch{
		Title:      Some(d.Title),
		BoardID:    Some(d.BoardID),
		ClientID:   Some(d.ClientID),
		StatusID:   Some(d.StatusID),
		PriorityID: Some(d.PriorityID),
		Attributes: Some(d.Attributes),
		Tags:       Some(d.Tags),
		Suppress:   d.Suppress,
	}
	p.URL = given(d.URL)
	p.LocationID = given(d.LocationID)
	p.ContactNameID = given(d.ContactNameID)
	p.CategoryID = given(d.CategoryID)
	p.SubcategoryID = given(d.SubcategoryID)
	p.AssignedTo = given(d.AssignedTo)
	p.DueDate = given(d.DueDate)
	p.Description = given(d.Description)
	return p
}

// given reads nil as absent, the meaning it has in a Draft.
func given[T any](v *T) Opt[*T] { return Opt[*T]{Set: v != nil, Value: v} }

// DisplayName is "first last" without outer spaces, nil only when both are empty
// (contract section 2.1, the webhook's reading).
func (u *User) DisplayName() *string {
	name := strings.TrimSpace(strings.TrimSpace(u.FirstName) + " " + strings.TrimSpace(u.LastName))
	if name == "" {
		return nil
	}
	return &name
}
