package delivery

import (
	"slices"

	"github.com/ticketwire/ticketwire/webhook"
)

// EventTypes returns the 40 names a webhook may subscribe to, in the order of
// contract section 3.4. The slice is the caller's.
func EventTypes() []string {
	return []string{
		webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged,
		webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded,
		"project.created", "project.updated", "project.status_changed",
		"project.assigned", "project.closed", "project.completed",
		"project.task.created", "project.task.updated", "project.task.status_changed",
		"project.task.assigned", "project.task.completed",
		"client.created", "client.updated", "contact.created", "contact.updated",
		"time.entry.created", "time.entry.updated", "time.entry.approved",
		"invoice.created", "invoice.finalized", "invoice.sent", "invoice.paid",
		"asset.created", "asset.updated",
		"asset.maintenance.scheduled", "asset.maintenance.completed",
		"system.backup.completed", "system.backup.failed",
		"system.maintenance.started", "system.maintenance.completed",
		"workflow.execution.started", "workflow.execution.completed",
		"workflow.execution.failed", "custom.event",
	}
}

// Known reports whether a webhook may subscribe to name. webhook.Test is not
// known: nobody subscribes to tests.
func Known(name string) bool { return slices.Contains(EventTypes(), name) }

// Fires reports whether name is ever delivered. The other known names can be
// subscribed to and stay silent (contract section 3.4).
func Fires(name string) bool {
	switch name {
	case webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged,
		webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded:
		return true
	}
	return false
}
