package ticket

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestAddAgent(t *testing.T) {
	t.Parallel()
	w := newWorld()
	free := create(t, w, draft())
	taken := free
	taken.AssignedTo = new(maraID)
	withPrimary := []Agent{{UserID: maraID, IsPrimary: true}}
	d := AgentDraft{UserID: theoID, Role: "helper", Suppress: Suppress{ContactNotifications: true}}

	first, err := AddAgent(free, nil, d, &w.users[1])
	if err != nil || first.Agent != nil || first.Patch == nil {
		t.Fatalf("first agent: %+v, %v", first, err)
	}
	next, changed, err := Apply(free, *first.Patch, Refs{Assignee: &w.users[1]}, mara(), start)
	if err != nil || !changed || *next.AssignedTo != theoID || !first.Patch.ContactNotifications {
		t.Errorf("promotion: %v %v %+v", changed, err, first.Patch)
	}

	second, err := AddAgent(taken, withPrimary, d, &w.users[1])
	want := AgentChange{Agent: &Agent{UserID: theoID, Name: new("Theo Okafor"), Email: "theo@desk.example", Role: "helper"}}
	if diff := cmp.Diff(want, second); diff != "" || err != nil {
		t.Errorf("second agent: %v %s", err, diff)
	}
}

func TestAddAgentRules(t *testing.T) {
	t.Parallel()
	w := newWorld()
	taken := create(t, w, draft())
	taken.AssignedTo = new(maraID)
	agents := []Agent{{UserID: theoID}, {UserID: maraID, IsPrimary: true}}
	tests := []struct {
		name    string
		role    string
		user    *User
		flags   Suppress
		kind    fault.Kind
		path    []any
		message string
	}{
		{"primary already", "r", &w.users[0], Suppress{}, fault.Conflict, nil, "User is already the primary agent of this ticket"},
		{"additional already", "r", &w.users[1], Suppress{}, fault.Conflict, nil, "User is already an additional agent of this ticket"},
		{"inactive", "r", &w.users[2], Suppress{}, fault.Invalid, []any{"user_id"}, "user_id " + goneID + " is inactive"},
		{"unknown", "r", nil, Suppress{}, fault.BadReference, nil, "Invalid reference"},
		{"no role", "", &w.users[1], Suppress{}, fault.Invalid, []any{"role"}, "String must contain at least 1 character(s)"},
		{"role of 51", strings.Repeat("r", 51), &w.users[1], Suppress{}, fault.Invalid, []any{"role"}, "String must contain at most 50 character(s)"},
		{"flags", "r", &w.users[1], Suppress{InternalNotifications: true}, fault.Invalid, []any{"suppressInternalNotifications"},
			"suppressInternalNotifications requires suppressContactNotifications"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := AddAgent(taken, agents, AgentDraft{Role: tt.role, Suppress: tt.flags}, tt.user)
			wantFault(t, err, tt.kind, tt.path, tt.message)
		})
	}
}

func TestRemoveAgent(t *testing.T) {
	t.Parallel()
	tk := Ticket{AssignedTo: new(maraID)}
	agents := []Agent{{UserID: theoID}, {UserID: maraID, IsPrimary: true}}
	if err := RemoveAgent(tk, agents, strings.ToUpper(theoID)); err != nil {
		t.Errorf("additional agent: %v", err)
	}
	both := append(agents, Agent{UserID: maraID}) // assigned after he was an additional one
	if err := RemoveAgent(tk, both, maraID); err != nil {
		t.Errorf("an additional agent who is the primary one too: %v", err)
	}
	wantFault(t, RemoveAgent(tk, agents, maraID), fault.Conflict, nil, "The primary agent is changed by assignment")
	wantFault(t, RemoveAgent(tk, agents, unknownID), fault.NotFound, nil, "Agent not found")
}
