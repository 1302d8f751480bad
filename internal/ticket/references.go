package ticket

// The methods below apply one reference each. They take the id and the names
// from the row, not from the request: the request may spell an id in upper case.
// A reference that stays the same is not looked at, so that a client can send a
// whole ticket back although its assignee has left since.

// wants reports whether a required reference changes. On create every one does,
// even the empty id, which then has no row.
func (e *edit) wants(o Opt[string], old string) bool {
	return o.Set && (e.old == nil || !sameID(o.Value, old))
}

// absent notes an id that has no row.
func (e *edit) absent(noRow bool) bool {
	e.missing = e.missing || noRow
	return noRow
}

// alone is absent for a reference that belongs to another one: once any row is
// missing, belonging cannot be judged, and the missing row is the better answer.
func (e *edit) alone(noRow bool) bool { return e.absent(noRow) || e.missing }

// clears applies a null and reports whether the reference is done with: absent,
// null, or the same as before.
func (e *edit) clears(o Opt[*string], id **string, names ...**string) bool {
	if o.Set && o.Value == nil && *id != nil {
		*id, e.changed = nil, true
		for _, name := range names {
			*name = nil
		}
	}
	return changedRef(o, *id) == ""
}

func (e *edit) issue(field, format string, args ...any) {
	e.issues = append(e.issues, custom(field, format, args...))
}

func (e *edit) board() (changed bool) {
	if !e.wants(e.p.BoardID, e.next.BoardID) || e.absent(e.r.Board == nil) {
		return false
	}
	e.next.BoardID, e.next.BoardName = e.r.Board.BoardID, e.r.Board.Name
	e.changed = true
	return true
}

// status follows the board: a status belongs to exactly one, so a ticket cannot
// move and keep its status.
func (e *edit) status(boardChanged bool) (changed bool) {
	if !e.wants(e.p.StatusID, e.next.StatusID) {
		switch {
		case boardChanged && e.p.StatusID.Set:
			e.issue("status_id", "status_id %s does not belong to board_id %s", e.p.StatusID.Value, e.p.BoardID.Value)
		case boardChanged:
			e.issue("status_id", "status_id is required when board_id changes")
		}
		return false
	}
	row := e.r.Status
	if e.alone(row == nil) {
		return false
	}
	if !sameID(row.BoardID, e.next.BoardID) {
		e.issue("status_id", "status_id %s does not belong to board_id %s", row.StatusID, e.next.BoardID)
	}
	e.next.StatusID, e.next.StatusName = row.StatusID, row.Name
	e.next.StatusIsClosed, e.next.IsClosed = row.IsClosed, row.IsClosed
	e.changed = true
	return true
}

func (e *edit) priority() {
	if !e.wants(e.p.PriorityID, e.next.PriorityID) || e.absent(e.r.Priority == nil) {
		return
	}
	e.next.PriorityID, e.next.PriorityName = e.r.Priority.PriorityID, e.r.Priority.Name
	e.changed = true
}

func (e *edit) client() (changed bool) {
	if !e.wants(e.p.ClientID, e.next.ClientID) || e.absent(e.r.Client == nil) {
		return false
	}
	row := e.r.Client
	e.next.ClientID, e.next.ClientName = row.ClientID, row.Name
	e.next.ClientEmail, e.next.ClientPhone = row.Email, row.Phone
	e.changed = true
	return true
}

func (e *edit) location(clientChanged bool) {
	const format = "location_id %s does not belong to client_id %s"
	if e.clears(e.p.LocationID, &e.next.LocationID, &e.next.LocationName) {
		if clientChanged && e.next.LocationID != nil {
			e.issue("location_id", format, *e.next.LocationID, e.next.ClientID)
		}
		return
	}
	row := e.r.Location
	if e.alone(row == nil) {
		return
	}
	if !sameID(row.ClientID, e.next.ClientID) {
		e.issue("location_id", format, row.LocationID, e.next.ClientID)
	}
	e.next.LocationID, e.next.LocationName = &row.LocationID, &row.Name
	e.changed = true
}

func (e *edit) contact() {
	names := []**string{&e.next.ContactName, &e.next.ContactEmail, &e.next.ContactPhone}
	if e.clears(e.p.ContactNameID, &e.next.ContactNameID, names...) || e.absent(e.r.Contact == nil) {
		return
	}
	row := e.r.Contact
	e.next.ContactNameID, e.next.ContactName = &row.ContactNameID, &row.FullName
	e.next.ContactEmail, e.next.ContactPhone = &row.Email, row.Phone
	e.changed = true
}

// category holds a new category against the board. One that stays is left alone
// when the board changes: contract section 2.5 does not forbid it, and a client
// that sends only board_id and status_id should not be refused.
func (e *edit) category() (changed bool) {
	before := e.next.CategoryID
	if e.clears(e.p.CategoryID, &e.next.CategoryID, &e.next.CategoryName) {
		return before != e.next.CategoryID
	}
	row := e.r.Category
	if e.alone(row == nil) {
		return false
	}
	if row.BoardID != "" && !sameID(row.BoardID, e.next.BoardID) {
		e.issue("category_id", "category_id %s does not belong to board_id %s", row.CategoryID, e.next.BoardID)
	}
	e.next.CategoryID, e.next.CategoryName = &row.CategoryID, &row.Name
	e.changed = true
	return true
}

func (e *edit) subcategory(categoryChanged bool) {
	const format = "subcategory_id %s is not a child of the ticket's category_id"
	if e.clears(e.p.SubcategoryID, &e.next.SubcategoryID, &e.next.SubcategoryName) {
		if categoryChanged && e.next.SubcategoryID != nil {
			e.issue("subcategory_id", format, *e.next.SubcategoryID)
		}
		return
	}
	row := e.r.Subcategory
	if e.alone(row == nil) {
		return
	}
	parent := e.next.CategoryID
	if parent == nil || row.ParentCategory == nil || !sameID(*row.ParentCategory, *parent) {
		e.issue("subcategory_id", format, row.CategoryID)
	}
	e.next.SubcategoryID, e.next.SubcategoryName = &row.CategoryID, &row.Name
	e.changed = true
}

// assignment applies the user and the team; a ticket may have either or both.
func (e *edit) assignment() {
	if !e.clears(e.p.AssignedTo, &e.next.AssignedTo, &e.next.AssignedToName) && !e.absent(e.r.Assignee == nil) {
		row := e.r.Assignee
		if row.IsInactive {
			e.issue("assigned_to", "assigned_to %s is inactive", row.UserID)
		}
		e.next.AssignedTo, e.next.AssignedToName = &row.UserID, row.DisplayName()
		e.changed = true
	}
	if !e.clears(e.p.AssignedTeamID, &e.next.AssignedTeamID) && !e.absent(e.r.Team == nil) {
		e.next.AssignedTeamID = &e.r.Team.TeamID
		e.changed = true
	}
}
