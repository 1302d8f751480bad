package ticket

import (
	"slices"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// AgentDraft is the body of POST /tickets/{id}/agents.
type AgentDraft struct {
	UserID string
	Role   string // 1..MaxRole characters
	Suppress
}

// AgentChange is what adding an agent comes to: exactly one of the two is set.
type AgentChange struct {
	// Patch makes the user the ticket's primary agent. It goes through Apply, with
	// the user as Refs.Assignee, and brings the events of an assignment.
	Patch *Patch
	// Agent is a new additional agent. It changes no field of the ticket, so
	// updated_at stays and there is no event (contract section 2.2).
	Agent *Agent
}

// AddAgent puts a user on a ticket: the first one on an unassigned ticket becomes
// the primary agent, any other an additional one. agents are those that the
// ticket has, user is the row of d.UserID.
//
// Errors: Invalid for the role, the suppression flags and an inactive user,
// BadReference without a row, Conflict for a user who is on the ticket already.
func AddAgent(t Ticket, agents []Agent, d AgentDraft, user *User) (AgentChange, error) {
	var issues []fault.Issue
	if issue, bad := textIssue(d.Role, MaxRole, "role"); bad {
		issues = append(issues, issue)
	}
	if issue, bad := d.Suppress.issue(); bad {
		issues = append(issues, issue)
	}
	if user != nil && user.IsInactive {
		issues = append(issues, custom("user_id", "user_id %s is inactive", user.UserID))
	}
	switch {
	case len(issues) > 0:
		return AgentChange{}, invalid(issues)
	case user == nil:
		return AgentChange{}, fault.New(fault.BadReference, "Invalid reference")
	case isPrimary(t, user.UserID):
		return AgentChange{}, fault.New(fault.Conflict, "User is already the primary agent of this ticket")
	case indexAgent(agents, user.UserID) >= 0:
		return AgentChange{}, fault.New(fault.Conflict, "User is already an additional agent of this ticket")
	case t.AssignedTo == nil:
		return AgentChange{Patch: &Patch{AssignedTo: Some(&user.UserID), Suppress: d.Suppress}}, nil
	}
	return AgentChange{Agent: &Agent{
		UserID: user.UserID, Name: user.DisplayName(), Email: user.Email, Role: d.Role,
	}}, nil
}

// RemoveAgent checks that userID may be taken off the ticket's additional agents.
// The primary agent is changed by assignment, which brings events; this brings
// none.
//
// Errors: Conflict for the primary agent, NotFound for anybody else who is not an
// additional agent.
func RemoveAgent(t Ticket, agents []Agent, userID string) error {
	if indexAgent(agents, userID) >= 0 {
		return nil
	}
	if isPrimary(t, userID) {
		return fault.New(fault.Conflict, "The primary agent is changed by assignment")
	}
	return fault.New(fault.NotFound, "Agent not found")
}

func isPrimary(t Ticket, userID string) bool {
	return t.AssignedTo != nil && sameID(*t.AssignedTo, userID)
}

// indexAgent finds an additional agent; a list may also hold the primary one.
func indexAgent(agents []Agent, userID string) int {
	return slices.IndexFunc(agents, func(a Agent) bool { return !a.IsPrimary && sameID(a.UserID, userID) })
}
