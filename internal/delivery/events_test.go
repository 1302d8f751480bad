package delivery_test

import (
	"slices"
	"testing"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestEventTypes(t *testing.T) {
	t.Parallel()
	names := delivery.EventTypes()
	if len(names) != 40 || names[0] != "ticket.created" || names[39] != "custom.event" {
		t.Fatalf("EventTypes = %d names from %q to %q, want 40 from ticket.created to custom.event",
			len(names), names[0], names[len(names)-1])
	}
	sorted := slices.Sorted(slices.Values(names))
	if len(slices.Compact(sorted)) != 40 {
		t.Error("EventTypes repeats a name")
	}
	fires := 0
	for _, n := range names {
		if !delivery.Known(n) {
			t.Errorf("Known(%q) = false", n)
		}
		if delivery.Fires(n) {
			fires++
		}
	}
	if fires != 6 {
		t.Errorf("%d names fire, want 6", fires)
	}
	names[0] = "changed"
	if delivery.EventTypes()[0] != "ticket.created" {
		t.Error("EventTypes shares its slice")
	}
	for _, n := range []string{"", "ticket", "ticket.deleted", "Ticket.created", webhook.Test} {
		if delivery.Known(n) || delivery.Fires(n) {
			t.Errorf("%q is known or fires", n)
		}
	}
}
