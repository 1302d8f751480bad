package ticket

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// The world of the golden payloads, and a second board, client and so on beside
// it so that rules about belonging can be broken.
const (
	tenantID   = "7c1d2f0a-5b64-4e0e-9a3b-2f6d8c41e7b5"
	ticketID   = "e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5"
	openID     = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e01"
	progressID = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e02"
	closedID   = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e09"
	doneID     = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e0a"
	highID     = "3b9c1f50-7e24-4d88-a0f1-2c4d6e8f0a13"
	urgentID   = "3b9c1f50-7e24-4d88-a0f1-2c4d6e8f0a14"
	clientID   = "8f21d0b4-59aa-4c3d-9e76-0a1b2c3d4e5f"
	contactID  = "c64e1a09-2d3f-4b5c-8a7e-6f5e4d3c2b1a"
	maraID     = "51f4c7de-08b2-4a35-b6c9-1e2f3a4b5c61"
	theoID     = "51f4c7de-08b2-4a35-b6c9-1e2f3a4b5c62"
	goneID     = "51f4c7de-08b2-4a35-b6c9-1e2f3a4b5c63" // inactive
	teamID     = "d7c6b5a4-9382-4716-8054-3f2e1d0c9b8a"
	boardID    = "19e8d7c6-b5a4-4392-8170-6f5e4d3c2b10"
	categoryID = "a1b2c3d4-e5f6-4711-8899-aabbccddeeff"
	childID    = "a1b2c3d4-e5f6-4711-8899-aabbccddee01" // of categoryID
	freeID     = "a1b2c3d4-e5f6-4711-8899-aabbccddee02" // a category of no board
	locationID = "b1b2c3d4-e5f6-4711-8899-aabbccddee01"

	otherBoardID    = "29e8d7c6-b5a4-4392-8170-6f5e4d3c2b10"
	otherOpenID     = "2d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e01"
	otherClosedID   = "2d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e09"
	otherClientID   = "2f21d0b4-59aa-4c3d-9e76-0a1b2c3d4e5f"
	otherLocationID = "22b2c3d4-e5f6-4711-8899-aabbccddee01"
	otherCategoryID = "21b2c3d4-e5f6-4711-8899-aabbccddeeff"
	otherChildID    = "21b2c3d4-e5f6-4711-8899-aabbccddee01"
	unknownID       = "ffffffff-0000-4000-8000-000000000000"

	publicURL = "https://desk.example.test"
)

// world holds the rows of one tenant, as a store would.
type world struct {
	boards     []Board
	statuses   []Status
	priorities []Priority
	clients    []Client
	contacts   []Contact
	locations  []Location
	categories []Category
	users      []User
	teams      []Team
}

func newWorld(closeRules ...string) *world {
	return &world{
		boards: []Board{
			{BoardID: boardID, Name: "Service Desk", CloseRules: closeRules},
			{BoardID: otherBoardID, Name: "Projects"},
		},
		statuses: []Status{
			{StatusID: openID, BoardID: boardID, Name: "Open"},
			{StatusID: progressID, BoardID: boardID, Name: "In Progress"},
			{StatusID: closedID, BoardID: boardID, Name: "Closed", IsClosed: true},
			{StatusID: doneID, BoardID: boardID, Name: "Done", IsClosed: true},
			{StatusID: otherOpenID, BoardID: otherBoardID, Name: "New"},
			{StatusID: otherClosedID, BoardID: otherBoardID, Name: "Archived", IsClosed: true},
		},
		priorities: []Priority{{PriorityID: highID, Name: "High"}, {PriorityID: urgentID, Name: "Urgent"}},
		clients: []Client{
			{ClientID: clientID, Name: "Harbour & Pine Logistics", Email: new("hello@harbourpine.example"), Phone: new("+351 1")},
			{ClientID: otherClientID, Name: "<Kite> Foods"},
		},
		contacts: []Contact{{
			ContactNameID: contactID, FullName: "Inês Duarte", Email: "ines.duarte@harbourpine.example", Phone: new("+351 2"),
		}},
		locations: []Location{
			{LocationID: locationID, ClientID: clientID, Name: "Warehouse 3"},
			{LocationID: otherLocationID, ClientID: otherClientID, Name: "Kitchen"},
		},
		categories: []Category{
			{CategoryID: categoryID, BoardID: boardID, Name: "Hardware"},
			{CategoryID: childID, BoardID: boardID, Name: "Printers", ParentCategory: new(categoryID)},
			{CategoryID: freeID, Name: "Anything"},
			{CategoryID: otherCategoryID, BoardID: otherBoardID, Name: "Rollout"},
			{CategoryID: otherChildID, BoardID: otherBoardID, Name: "Phase 1", ParentCategory: new(otherCategoryID)},
		},
		users: []User{
			{UserID: maraID, FirstName: "Mara", LastName: "Lindqvist", Email: "mara@desk.example"},
			{UserID: theoID, FirstName: "Theo", LastName: "Okafor", Email: "theo@desk.example"},
			{UserID: goneID, FirstName: "Gone", IsInactive: true},
		},
		teams: []Team{{TeamID: teamID, Name: "Field"}},
	}
}

// refs looks up the rows for keys, nil where there is none.
func (w *world) refs(k Keys) Refs {
	return Refs{
		Board:       find(w.boards, k.BoardID, func(v Board) string { return v.BoardID }),
		Status:      find(w.statuses, k.StatusID, func(v Status) string { return v.StatusID }),
		Priority:    find(w.priorities, k.PriorityID, func(v Priority) string { return v.PriorityID }),
		Client:      find(w.clients, k.ClientID, func(v Client) string { return v.ClientID }),
		Contact:     find(w.contacts, k.ContactNameID, func(v Contact) string { return v.ContactNameID }),
		Location:    find(w.locations, k.LocationID, func(v Location) string { return v.LocationID }),
		Category:    find(w.categories, k.CategoryID, func(v Category) string { return v.CategoryID }),
		Subcategory: find(w.categories, k.SubcategoryID, func(v Category) string { return v.CategoryID }),
		Assignee:    find(w.users, k.AssignedTo, func(v User) string { return v.UserID }),
		Team:        find(w.teams, k.AssignedTeamID, func(v Team) string { return v.TeamID }),
	}
}

func find[T any](rows []T, id string, key func(T) string) *T {
	i := slices.IndexFunc(rows, func(v T) bool { return sameID(key(v), id) })
	if i < 0 {
		return nil
	}
	return &rows[i]
}

var start = at("2026-03-09T08:14:02.117Z")

func at(s string) time.Time {
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return v
}

func mara() Actor { return Actor{TenantID: tenantID, UserID: maraID, Name: new("Mara Lindqvist")} }

// draft is the ticket of the golden payloads as it was created.
func draft() Draft {
	return Draft{
		Title: "Label printer offline in warehouse 3", BoardID: boardID, ClientID: clientID, StatusID: openID,
		PriorityID: highID, ContactNameID: new(contactID), CategoryID: new(categoryID), Tags: []string{"printer"},
	}
}

func create(t testing.TB, w *world, d Draft) Ticket {
	t.Helper()
	got, err := New(d, w.refs(d.Keys()), ticketID, "TKT-1042", mara(), start)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return got
}

func apply(t testing.TB, w *world, old Ticket, p Patch, now time.Time) Ticket {
	t.Helper()
	next, changed, err := Apply(old, p, w.refs(p.Keys(old)), mara(), now)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if !changed {
		t.Fatal("Apply: nothing changed")
	}
	return next
}

// counter makes event ids that differ.
func counter() func() string {
	n := 0
	return func() string {
		n++
		return fmt.Sprintf("4f0c2f5e-9b1d-4c77-9f0e-%012d", n)
	}
}

func types(events []Event) []string {
	list := make([]string, len(events))
	for i, e := range events {
		list[i] = e.Type
	}
	return list
}

func wire(s string) webhook.Time { return webhook.At(at(s)) }
