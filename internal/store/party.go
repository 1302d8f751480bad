package store

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

func clients() resource[ticket.Client] {
	return resource[ticket.Client]{
		columns: `tenant_id, client_id, client_name, email, phone_no, url, billing_cycle, is_inactive, created_at, updated_at`,
		table:   "clients", id: "client_id", order: "client_name", search: []string{"client_name"}, inactive: true,
		scan: func(row scanner) (ticket.Client, error) {
			var c ticket.Client
			var created, updated int64
			err := row.Scan(&c.TenantID, &c.ClientID, &c.Name, &c.Email, &c.Phone, &c.URL, &c.BillingCycle, &c.IsInactive,
				&created, &updated)
			c.CreatedAt, c.UpdatedAt = wireTime(created), wireTime(updated)
			return c, err
		},
	}
}

func clientOf(q querier, tenant, id string) (ticket.Client, error) {
	return clients().one(q, tenant, id, "Client not found")
}

// Clients lists the tenant's clients.
func (s *Store) Clients(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Client, int, error) {
	return clients().list(ctx, s, tenant, q)
}

// Client returns one client.
func (s *Store) Client(ctx context.Context, tenant, id string) (ticket.Client, error) {
	return clientOf(s.reader(ctx), tenant, id)
}

// CreateClient makes a client.
func (s *Store) CreateClient(ctx context.Context, now time.Time, tenant string, c ticket.Client) (ticket.Client, error) {
	return write(ctx, s, func(t *tx) (ticket.Client, error) { return t.createClient(now, tenant, c) })
}

func (t *tx) createClient(now time.Time, tenant string, c ticket.Client) (ticket.Client, error) {
	c.TenantID, c.ClientID = tenant, NewID()
	c.CreatedAt, c.UpdatedAt = webhook.At(now), webhook.At(now)
	err := t.change("insert into clients", `
		insert into clients (tenant_id, client_id, client_name, email, phone_no, url, billing_cycle, is_inactive,
			created_at, updated_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)`,
		tenant, c.ClientID, c.Name, c.Email, c.Phone, c.URL, c.BillingCycle, c.IsInactive, micros(now))
	return c, err
}

func contacts() resource[ticket.Contact] {
	return resource[ticket.Contact]{
		columns: `tenant_id, contact_name_id, full_name, email, phone_number, client_id, is_inactive, created_at, updated_at`,
		table:   "contacts", id: "contact_name_id", order: "full_name", search: []string{"full_name", "email"}, inactive: true,
		filters: []filter{{"client_id = ?", byClient}, {"email = ?", byEmail}},
		scan: func(row scanner) (ticket.Contact, error) {
			var c ticket.Contact
			var created, updated int64
			err := row.Scan(&c.TenantID, &c.ContactNameID, &c.FullName, &c.Email, &c.Phone, &c.ClientID, &c.IsInactive,
				&created, &updated)
			c.CreatedAt, c.UpdatedAt = wireTime(created), wireTime(updated)
			return c, err
		},
	}
}

func contactOf(q querier, tenant, id string) (ticket.Contact, error) {
	return contacts().one(q, tenant, id, "Contact not found")
}

// Contacts lists the tenant's contacts.
func (s *Store) Contacts(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Contact, int, error) {
	return contacts().list(ctx, s, tenant, q)
}

// Contact returns one contact.
func (s *Store) Contact(ctx context.Context, tenant, id string) (ticket.Contact, error) {
	return contactOf(s.reader(ctx), tenant, id)
}

// CreateContact makes a contact, with its address in lower case. An unknown
// client is a BadReference, an address that a contact of the tenant has already a
// Conflict.
func (s *Store) CreateContact(ctx context.Context, now time.Time, tenant string, c ticket.Contact) (ticket.Contact, error) {
	return write(ctx, s, func(t *tx) (ticket.Contact, error) { return t.createContact(now, tenant, c) })
}

func (t *tx) createContact(now time.Time, tenant string, c ticket.Contact) (ticket.Contact, error) {
	c.TenantID, c.ContactNameID = tenant, NewID()
	c.Email = strings.ToLower(strings.TrimSpace(c.Email))
	c.CreatedAt, c.UpdatedAt = webhook.At(now), webhook.At(now)
	if c.ClientID != nil {
		client, err := clientOf(t, tenant, *c.ClientID)
		if err != nil {
			return ticket.Contact{}, reference(err)
		}
		c.ClientID = &client.ClientID
	}
	err := t.change("insert into contacts", `
		insert into contacts (tenant_id, contact_name_id, full_name, email, phone_number, client_id, is_inactive,
			created_at, updated_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $8)`,
		tenant, c.ContactNameID, c.FullName, c.Email, c.Phone, c.ClientID, c.IsInactive, micros(now))
	return c, err
}

func locations() resource[ticket.Location] {
	return resource[ticket.Location]{
		columns: `tenant_id, location_id, client_id, location_name`,
		table:   "locations", id: "location_id", order: "location_name", search: []string{"location_name"},
		filters: []filter{{"client_id = ?", byClient}},
		scan: func(row scanner) (ticket.Location, error) {
			var l ticket.Location
			err := row.Scan(&l.TenantID, &l.LocationID, &l.ClientID, &l.Name)
			return l, err
		},
	}
}

func locationOf(q querier, tenant, id string) (ticket.Location, error) {
	return locations().one(q, tenant, id, "Location not found")
}

// Locations lists the tenant's locations.
func (s *Store) Locations(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Location, int, error) {
	return locations().list(ctx, s, tenant, q)
}

// Location returns one location.
func (s *Store) Location(ctx context.Context, tenant, id string) (ticket.Location, error) {
	return locationOf(s.reader(ctx), tenant, id)
}

// CreateLocation makes a location of a client. An unknown client is a
// BadReference.
func (s *Store) CreateLocation(ctx context.Context, now time.Time, tenant string, l ticket.Location) (ticket.Location, error) {
	return write(ctx, s, func(t *tx) (ticket.Location, error) {
		client, err := clientOf(t, tenant, l.ClientID)
		if err != nil {
			return ticket.Location{}, reference(err)
		}
		l.TenantID, l.LocationID, l.ClientID = tenant, NewID(), client.ClientID
		err = t.change("insert into locations", `
			insert into locations (tenant_id, location_id, client_id, location_name, created_at) values ($1, $2, $3, $4, $5)`,
			tenant, l.LocationID, l.ClientID, l.Name, micros(now))
		return l, err
	})
}

func users() resource[ticket.User] {
	return resource[ticket.User]{
		columns: `tenant_id, user_id, first_name, last_name, email, user_type, is_inactive, permissions`,
		table:   "users", id: "user_id", order: "first_name, last_name", inactive: true,
		search:  []string{"first_name", "last_name", "email"},
		filters: []filter{{"lower(email) = ?", byEmail}},
		scan: func(row scanner) (ticket.User, error) {
			var u ticket.User
			var permissions sql.NullString
			err := row.Scan(&u.TenantID, &u.UserID, &u.FirstName, &u.LastName, &u.Email, &u.UserType, &u.IsInactive, &permissions)
			if err == nil {
				err = fromJSON(permissions, &u.Permissions)
			}
			return u, err
		},
	}
}

func userOf(q querier, tenant, id string) (ticket.User, error) {
	return users().one(q, tenant, id, "User not found")
}

// Users lists the tenant's users.
func (s *Store) Users(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.User, int, error) {
	return users().list(ctx, s, tenant, q)
}

// User returns one user.
func (s *Store) User(ctx context.Context, tenant, id string) (ticket.User, error) {
	return userOf(s.reader(ctx), tenant, id)
}

func teams() resource[ticket.Team] {
	return resource[ticket.Team]{
		columns: `tenant_id, team_id, team_name, manager_id`,
		table:   "teams", id: "team_id", order: "team_name", search: []string{"team_name"},
		scan: func(row scanner) (ticket.Team, error) {
			var team ticket.Team
			err := row.Scan(&team.TenantID, &team.TeamID, &team.Name, &team.ManagerID)
			return team, err
		},
	}
}

func teamOf(q querier, tenant, id string) (ticket.Team, error) {
	return teams().one(q, tenant, id, "Team not found")
}

// Teams lists the tenant's teams.
func (s *Store) Teams(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Team, int, error) {
	return teams().list(ctx, s, tenant, q)
}

// Team returns one team.
func (s *Store) Team(ctx context.Context, tenant, id string) (ticket.Team, error) {
	return teamOf(s.reader(ctx), tenant, id)
}
