package main

import (
	"encoding/json"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// madeEventTypes are what trigger can make up.
func madeEventTypes() []string {
	return []string{
		webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged, webhook.TicketAssigned,
		webhook.TicketClosed, webhook.TicketCommentAdded, webhook.Test,
	}
}

// The made tenant and ticket are the same in every run, so that a receiver that
// watches one ticket can be told which.
const (
	madeTenant = "01a2b3c4-d5e6-4f70-8192-a3b4c5d6e7f8"
	madeTicket = "5b1c9f3e-7a24-4d88-b0f1-6c4d2e8f0a55"
)

// madeEvent is an event of the type as the service would send it, with every key
// of contract section 4.4, that happened now.
func madeEvent(eventType string, now time.Time) webhook.Envelope {
	e := webhook.Envelope{EventID: store.NewID(), EventType: eventType, OccurredAt: webhook.At(now), TenantID: madeTenant}
	if eventType == webhook.Test {
		e.Data = plainJSON(struct {
			WebhookID   string `json:"webhook_id"`
			WebhookName string `json:"webhook_name"`
			IsTest      bool   `json:"is_test"`
		}{madeWebhook, "made by trigger", true})
		return e
	}
	d := webhook.TicketData{
		TicketID: madeTicket, TicketNumber: new("TKT-7"), Title: new("Badge reader at gate B reads nothing"),
		StatusID: new("c0ffee00-0000-4000-8000-000000000001"), StatusName: new("Open"),
		PriorityID: new("c0ffee00-0000-4000-8000-000000000012"), PriorityName: new("Medium"),
		ClientID: new("c0ffee00-0000-4000-8000-000000000020"), ClientName: new("Søren & Daughters"),
		ContactNameID: new("c0ffee00-0000-4000-8000-000000000021"), ContactName: new("Ada Søren"), ContactEmail: new("ada@example.com"),
		BoardID: new("c0ffee00-0000-4000-8000-000000000030"), BoardName: new("Service Desk"),
		EnteredAt: new(webhook.At(now.Add(-2 * time.Hour))), UpdatedAt: new(webhook.At(now)),
		Tags: []string{"access", "gate-b"}, URL: "https://desk.example.com/msp/tickets/" + madeTicket,
	}
	switch eventType {
	case webhook.TicketCreated:
		d.EnteredAt = d.UpdatedAt
	case webhook.TicketUpdated:
		d.PriorityID, d.PriorityName = new("c0ffee00-0000-4000-8000-000000000013"), new("High")
		d.Changes = webhook.Changes{{
			Field: "priority_id", Previous: json.RawMessage(`"c0ffee00-0000-4000-8000-000000000012"`), New: plainJSON(d.PriorityID),
		}}
	case webhook.TicketStatusChanged:
		d.PreviousStatusID, d.PreviousStatusName = d.StatusID, d.StatusName
		d.StatusID, d.StatusName = new("c0ffee00-0000-4000-8000-000000000002"), new("In Progress")
	case webhook.TicketAssigned:
		d.AssignedTo, d.AssignedToName = new("c0ffee00-0000-4000-8000-000000000040"), new("Noor Example")
	case webhook.TicketClosed:
		d.StatusID, d.StatusName = new("c0ffee00-0000-4000-8000-000000000003"), new("Closed")
		d.IsClosed, d.ClosedAt = true, d.UpdatedAt
	case webhook.TicketCommentAdded:
		d.Comment = &webhook.Comment{
			Text: "The reader was unplugged — it works again. ✅", Author: new("Ada Søren"), Timestamp: *d.UpdatedAt, AuthorType: new("client"),
		}
	}
	e.Data = plainJSON(d)
	return e
}
