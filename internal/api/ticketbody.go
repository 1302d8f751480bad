package api

import (
	"encoding/json"
	"time"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// suppress reads the two suppression flags. The rule between them (contract
// section 2.2) belongs to internal/ticket.
func (o *object) suppress() ticket.Suppress {
	return ticket.Suppress{
		ContactNotifications:  o.flag("suppressContactNotifications"),
		InternalNotifications: o.flag("suppressInternalNotifications"),
	}
}

// ticketDraft reads the body of a create (contract section 2.4). Optional ids may
// be absent but not null; due_date may be both, since it is our addition.
func (o *object) ticketDraft() ticket.Draft {
	return ticket.Draft{
		Title:         o.needText("title", 1, ticket.MaxTitle),
		URL:           o.link("url", ticket.MaxLink),
		BoardID:       o.needUUID("board_id"),
		ClientID:      o.needUUID("client_id"),
		StatusID:      o.needUUID("status_id"),
		PriorityID:    o.needUUID("priority_id"),
		LocationID:    o.uuid("location_id"),
		ContactNameID: o.uuid("contact_name_id"),
		CategoryID:    o.uuid("category_id"),
		SubcategoryID: o.uuid("subcategory_id"),
		AssignedTo:    o.uuid("assigned_to"),
		DueDate:       nullable(o, "due_date", o.datetime).Value,
		Attributes:    o.attributes(false).Value,
		Description:   o.description().Value,
		Tags:          o.texts("tags", 0, 0),
		Suppress:      o.suppress(),
	}
}

// ticketPatch reads the body of an update (contract section 2.5). A column that
// can be empty takes null, so that a ticket can be sent back as it was read.
// assigned_team_id is not read: teams have a route of their own (section 2.4).
func (o *object) ticketPatch() ticket.Patch {
	return ticket.Patch{
		Title:              given(o.text("title", 1, ticket.MaxTitle)),
		URL:                nullable(o, "url", func(key string) *string { return o.link(key, ticket.MaxLink) }),
		BoardID:            given(o.uuid("board_id")),
		ClientID:           given(o.uuid("client_id")),
		StatusID:           given(o.uuid("status_id")),
		PriorityID:         given(o.uuid("priority_id")),
		LocationID:         nullable(o, "location_id", o.uuid),
		ContactNameID:      nullable(o, "contact_name_id", o.uuid),
		CategoryID:         nullable(o, "category_id", o.uuid),
		SubcategoryID:      nullable(o, "subcategory_id", o.uuid),
		AssignedTo:         nullable(o, "assigned_to", o.uuid),
		DueDate:            nullable(o, "due_date", o.datetime),
		Attributes:         o.attributes(true),
		Description:        o.description(),
		Tags:               o.tagTexts(),
		OverrideCloseRules: o.overrideCloseRules(),
		Suppress:           o.suppress(),
	}
}

// statusPatch reads the body of PUT /tickets/{id}/status. closed_at and closed_by
// are checked and then left: the server decides both (contract section 2.5).
func (o *object) statusPatch() ticket.Patch {
	o.datetime("closed_at")
	o.uuid("closed_by")
	return ticket.Patch{
		StatusID:           ticket.Some(o.needUUID("status_id")),
		OverrideCloseRules: o.overrideCloseRules(),
		Suppress:           o.suppress(),
	}
}

// assignmentPatch reads the body of PUT /tickets/{id}/assignment; null takes the
// assignee away.
func (o *object) assignmentPatch() ticket.Patch {
	return ticket.Patch{AssignedTo: nullable(o, "assigned_to", o.uuid), Suppress: o.suppress()}
}

func (o *object) teamPatch() ticket.Patch {
	team := o.needUUID("team_id")
	return ticket.Patch{AssignedTeamID: ticket.Some(&team), Suppress: o.suppress()}
}

// overrideCloseRules reads the switch and the reason that may come with it. The
// reason is checked only: the contract has no place where it would be shown.
func (o *object) overrideCloseRules() bool {
	if !o.null("override_close_rules_reason") {
		o.text("override_close_rules_reason", 0, 0)
	}
	return o.flag("override_close_rules")
}

// attributes reads the free object of a ticket; null clears it where that is
// allowed.
func (o *object) attributes(orNull bool) ticket.Opt[json.RawMessage] {
	const key = "attributes"
	switch {
	case !o.has(key):
		return ticket.Opt[json.RawMessage]{}
	case o.null(key):
		if !orNull {
			o.wrongType(o.at(key), "object", o.fields[key])
		}
		return ticket.Some[json.RawMessage](nil)
	}
	return ticket.Some(o.raw(key))
}

// description reads the two short names of attributes.description (contract
// D26). The long name wins over both, because it is the one that AlgaPSA reads.
func (o *object) description() ticket.Opt[*string] {
	read := func(key string) *string { return o.text(key, 0, 0) }
	short := nullable(o, "description", read)
	if summary := nullable(o, "summary", read); !short.Set {
		short = summary
	}
	var long struct {
		Description json.RawMessage `json:"description"`
	}
	if raw := o.fields["attributes"]; len(raw) > 0 && json.Unmarshal(raw, &long) == nil && long.Description != nil {
		return ticket.Opt[*string]{}
	}
	return short
}

func (o *object) tagTexts() ticket.Opt[[]string] {
	list := o.texts("tags", 0, 0)
	return ticket.Opt[[]string]{Set: list != nil, Value: list}
}

// given turns a field that cannot be null into an optional value.
func given[T any](v *T) ticket.Opt[T] {
	return ticket.Opt[T]{Set: v != nil, Value: orZero(v)}
}

// nullable reads a field that may be null, with the reader for its other values.
func nullable[T string | time.Time](o *object, key string, read func(string) *T) ticket.Opt[*T] {
	if o.null(key) {
		return ticket.Some[*T](nil)
	}
	v := read(key)
	return ticket.Opt[*T]{Set: v != nil, Value: v}
}
