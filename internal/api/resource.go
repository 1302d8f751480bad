package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// resourceRoutes are the routes of contract section 2.9: what a ticket refers
// to. Priorities, users and teams are made by the operator; locations are ours,
// since tickets take a location_id.
func (s *Server) resourceRoutes() []route {
	st := s.cfg.Store
	return []route{
		{http.MethodGet, "/boards", "ticket", "read", listOf(st.Boards, boardQuery)},
		{http.MethodPost, "/boards", "ticket", "create", createOf(st.CreateBoard, (*object).board)},
		{http.MethodGet, "/boards/{id}", "ticket", "read", oneOf(st.Board, "board")},
		{http.MethodGet, "/statuses", "ticket", "read", listOf(st.Statuses, statusQuery)},
		{http.MethodPost, "/statuses", "ticket", "create", createOf(st.CreateStatus, (*object).status)},
		{http.MethodGet, "/statuses/{id}", "ticket", "read", oneOf(st.Status, "status")},
		{http.MethodGet, "/priorities", "ticket", "read", listOf(st.Priorities, priorityQuery)},
		{http.MethodGet, "/priorities/{id}", "ticket", "read", oneOf(st.Priority, "priority")},
		{http.MethodGet, "/clients", "client", "read", listOf(st.Clients, clientQuery)},
		{http.MethodPost, "/clients", "client", "create", createOf(st.CreateClient, (*object).client)},
		{http.MethodGet, "/clients/{id}", "client", "read", oneOf(st.Client, "client")},
		{http.MethodGet, "/clients/{id}/contacts", "contact", "read", ofClient(st.Contacts, contactQuery)},
		{http.MethodGet, "/clients/{id}/locations", "client", "read", ofClient(st.Locations, locationQuery)},
		{http.MethodPost, "/clients/{id}/locations", "client", "update", (*call).createLocation},
		{http.MethodGet, "/contacts", "contact", "read", listOf(st.Contacts, contactQuery)},
		{http.MethodPost, "/contacts", "contact", "create", createOf(st.CreateContact, (*object).contact)},
		{http.MethodGet, "/contacts/{id}", "contact", "read", oneOf(st.Contact, "contact")},
		{http.MethodGet, "/users", "user", "read", listOf(st.Users, userQuery)},
		{http.MethodGet, "/users/{id}", "user", "read", oneOf(st.User, "user")},
		{http.MethodGet, "/teams", "team", "read", listOf(st.Teams, teamQuery)},
		{http.MethodGet, "/teams/{id}", "team", "read", oneOf(st.Team, "team")},
		{http.MethodGet, "/categories/ticket", "ticket_settings", "read", listOf(st.Categories, categoryQuery)},
		{http.MethodPost, "/categories/ticket", "ticket_settings", "create", createOf(st.CreateCategory, (*object).category)},
		{http.MethodGet, "/categories/ticket/{id}", "ticket_settings", "read", oneOf(st.Category, "category")},
	}
}

// lister and the two types below are the methods that the store has for every
// resource.
type (
	lister[T any]  func(ctx context.Context, tenant string, q store.ResourceQuery) ([]T, int, error)
	getter[T any]  func(ctx context.Context, tenant, id string) (T, error)
	creator[T any] func(ctx context.Context, now time.Time, tenant string, v T) (T, error)
)

// listOf answers a paginated list. read takes the filters and the paging that
// the resource has from the query string.
func listOf[T any](list lister[T], read func(*params) (store.ResourceQuery, paging)) func(*call) (answer, error) {
	return func(c *call) (answer, error) {
		p := c.params()
		q, pg := read(p)
		return pageOf(c, p, q, pg, list)
	}
}

// ofClient is listOf for what belongs to the client in the path.
func ofClient[T any](list lister[T], read func(*params) (store.ResourceQuery, paging)) func(*call) (answer, error) {
	return func(c *call) (answer, error) {
		id, err := c.id("id", "client")
		if err != nil {
			return answer{}, err
		}
		if _, err := c.store().Client(c.ctx, c.tenant(), id); err != nil {
			return answer{}, err
		}
		p := c.params()
		q, pg := read(p)
		q.ClientID = id
		return pageOf(c, p, q, pg, list)
	}
}

func pageOf[T any](c *call, p *params, q store.ResourceQuery, pg paging, list lister[T]) (answer, error) {
	if err := p.err(); err != nil {
		return answer{}, err
	}
	q.Sort, q.Desc, q.Page, q.Limit = pg.sort, pg.desc, pg.page, pg.limit
	rows, total, err := list(c.ctx, c.tenant(), q)
	if err != nil {
		return answer{}, err
	}
	return page(rows, pg, total, p.filters), nil
}

// oneOf answers with one row; resource is its name in messages.
func oneOf[T any](get getter[T], resource string) func(*call) (answer, error) {
	return func(c *call) (answer, error) {
		id, err := c.id("id", resource)
		if err != nil {
			return answer{}, err
		}
		v, err := get(c.ctx, c.tenant(), id)
		if err != nil {
			return answer{}, err
		}
		return ok(v), nil
	}
}

// createOf reads a body and stores what it describes.
func createOf[T any](create creator[T], read func(*object) T) func(*call) (answer, error) {
	return func(c *call) (answer, error) {
		o, err := c.object()
		if err != nil {
			return answer{}, err
		}
		v := read(o)
		if err := o.err(); err != nil {
			return answer{}, err
		}
		return change(c, func(ctx context.Context) (T, error) {
			return create(ctx, c.now, c.tenant(), v)
		}, func(v T) answer { return created(v) })
	}
}

// createLocation takes the client from the path.
func (c *call) createLocation() (answer, error) {
	id, err := c.id("id", "client")
	if err != nil {
		return answer{}, err
	}
	if _, err := c.store().Client(c.ctx, c.tenant(), id); err != nil {
		return answer{}, err
	}
	return createOf(c.store().CreateLocation, func(o *object) ticket.Location {
		return ticket.Location{ClientID: id, Name: o.needText("location_name", 1, maxName)}
	})(c)
}
