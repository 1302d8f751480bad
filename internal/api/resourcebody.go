package api

import (
	"slices"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// The bounds of the texts that name and describe resources, in characters. The
// contract sets none.
const (
	maxName = 255
	maxText = 5000
)

// boardQuery orders by display_order and, as everywhere, descending unless asked
// otherwise (contract section 2.9).
func boardQuery(p *params) (store.ResourceQuery, paging) {
	return store.ResourceQuery{Search: p.text("search"), IncludeInactive: orZero(p.boolean("include_inactive"))},
		p.paging("display_order", []string{"display_order", "board_name", "created_at"}, false)
}

// statusQuery wants a board: a status without one means nothing for tickets.
func statusQuery(p *params) (store.ResourceQuery, paging) {
	p.oneOf("type", "ticket", []string{"ticket"})
	p.needText("board_id")
	return store.ResourceQuery{BoardID: p.uuid("board_id"), Search: p.text("search")},
		p.paging("order_number", []string{"order_number", "name", "created_at"}, false)
}

func priorityQuery(p *params) (store.ResourceQuery, paging) {
	p.oneOf("item_type", "ticket", []string{"ticket"})
	return store.ResourceQuery{Search: p.text("search")},
		p.paging("order_number", []string{"order_number", "priority_name", "created_at"}, false)
}

func clientQuery(p *params) (store.ResourceQuery, paging) {
	return store.ResourceQuery{
			Search: p.text("search"), Name: p.text("client_name"), IncludeInactive: orZero(p.boolean("include_inactive")),
		},
		p.paging("created_at", []string{"created_at", "client_name"}, false)
}

func contactQuery(p *params) (store.ResourceQuery, paging) {
	return store.ResourceQuery{
			Search: p.text("search"), Email: p.text("email"), ClientID: p.uuid("client_id"),
			IncludeInactive: orZero(p.boolean("include_inactive")),
		},
		p.paging("created_at", []string{"created_at", "full_name", "email"}, false)
}

func locationQuery(p *params) (store.ResourceQuery, paging) {
	return store.ResourceQuery{Search: p.text("search")},
		p.paging("created_at", []string{"created_at", "location_name"}, false)
}

func userQuery(p *params) (store.ResourceQuery, paging) {
	return store.ResourceQuery{
			Search: p.text("search"), Email: p.text("email"), IncludeInactive: orZero(p.boolean("include_inactive")),
		},
		p.paging("created_at", []string{"created_at", "first_name", "last_name", "email"}, false)
}

func teamQuery(p *params) (store.ResourceQuery, paging) {
	return store.ResourceQuery{Search: p.text("search")},
		p.paging("created_at", []string{"created_at", "team_name"}, false)
}

func categoryQuery(p *params) (store.ResourceQuery, paging) {
	return store.ResourceQuery{BoardID: p.uuid("board_id"), Search: p.text("search")},
		p.paging("display_order", []string{"display_order", "category_name", "created_at"}, false)
}

// note reads an optional text that may be null.
func (o *object) note(key string, maxLen int) *string {
	return nullable(o, key, func(key string) *string { return o.text(key, 0, maxLen) }).Value
}

// position reads an order number, 0 when absent.
func (o *object) position(key string) int { return int(orZero(o.integer(key, 0, 1_000_000))) }

// board reads the body of POST /boards. close_rules is ours: AlgaPSA keeps the
// rules where its API does not reach.
func (o *object) board() ticket.Board {
	rules := o.texts("close_rules", 0, 0)
	for i, r := range rules {
		if r != ticket.CloseResolutionComment {
			o.issue(o.at("close_rules", i), "invalid_enum_value",
				"Invalid enum value. Expected '"+ticket.CloseResolutionComment+"', received '"+r+"'",
				map[string]any{"received": r, "options": []string{ticket.CloseResolutionComment}})
		}
	}
	return ticket.Board{
		Name:         o.needText("board_name", 1, maxName),
		Description:  o.note("description", maxText),
		DisplayOrder: o.position("display_order"),
		IsDefault:    o.flag("is_default"),
		IsInactive:   o.flag("is_inactive"),
		CloseRules:   slices.Compact(rules),
	}
}

func (o *object) status() ticket.Status {
	if o.need("status_type", "string") {
		o.enum("status_type", "ticket")
	}
	return ticket.Status{
		BoardID:     o.needUUID("board_id"),
		Name:        o.needText("name", 1, maxName),
		StatusType:  "ticket",
		IsClosed:    o.flag("is_closed"),
		IsDefault:   o.flag("is_default"),
		OrderNumber: o.position("order_number"),
		Color:       nullable(o, "color", o.color).Value,
		Icon:        o.note("icon", maxName),
	}
}

func (o *object) client() ticket.Client {
	c := ticket.Client{
		Name:       o.needText("client_name", 1, maxName),
		Email:      nullable(o, "email", o.email).Value,
		Phone:      o.note("phone_no", maxName),
		URL:        o.note("url", ticket.MaxLink),
		IsInactive: o.flag("is_inactive"),
	}
	if o.need("billing_cycle", "string") {
		c.BillingCycle = orZero(o.enum("billing_cycle", "weekly", "bi-weekly", "monthly", "quarterly", "semi-annually", "annually"))
	}
	return c
}

// contact reads the one body that refuses unknown keys (contract section 1.3).
func (o *object) contact() ticket.Contact {
	o.only("full_name", "email", "phone_number", "client_id", "is_inactive")
	c := ticket.Contact{
		FullName:   o.needText("full_name", 1, maxName),
		Phone:      o.note("phone_number", maxName),
		ClientID:   nullable(o, "client_id", o.uuid).Value,
		IsInactive: o.flag("is_inactive"),
	}
	if o.need("email", "string") {
		c.Email = orZero(o.email("email"))
	}
	return c
}

func (o *object) category() ticket.Category {
	return ticket.Category{
		Name:           o.needText("category_name", 1, maxName),
		BoardID:        o.needUUID("board_id"),
		ParentCategory: nullable(o, "parent_category", o.uuid).Value,
		DisplayOrder:   o.position("display_order"),
	}
}
