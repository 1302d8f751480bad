package store

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// The products a tenant can have and the types of a user (contract section 1.1).
const (
	productPSA      = "psa"
	productAlgadesk = "algadesk"
	userInternal    = "internal"
	userClient      = "client"
)

// AllPermissions returns every "resource:action" there is (contract section 1.1).
// The slice is the caller's.
func AllPermissions() []string {
	var all []string
	for _, resource := range []string{
		"ticket", "ticket_settings", "tag", "client", "contact", "user", "team", "api_key",
	} {
		for _, action := range []string{"read", "create", "update", "delete"} {
			all = append(all, resource+":"+action)
		}
	}
	for _, action := range []string{
		"read", "create", "update", "delete", "test", "retry", "analytics", "verify", "manage_security", "system_settings",
	} {
		all = append(all, "webhook:"+action)
	}
	return all
}

func checkPermissions(names []string) error {
	all := AllPermissions()
	for _, n := range names {
		if !slices.Contains(all, n) {
			return fault.Field("permissions", "Unknown permission: %s", n)
		}
	}
	return nil
}

// BootstrapDraft says whom a new tenant belongs to. Only TicketPrefix and the
// names have defaults: "TKT-", and the part of Email before the @.
type BootstrapDraft struct {
	Tenant       string
	Email        string
	TicketPrefix string
	FirstName    string
	LastName     string
}

// Bootstrapped is everything that is needed to create the first ticket. APIKey
// is shown this once.
type Bootstrapped struct {
	TenantID   string            `json:"tenant_id"`
	UserID     string            `json:"user_id"`
	APIKey     string            `json:"api_key"`
	BoardID    string            `json:"board_id"`
	ClientID   string            `json:"client_id"`
	ContactID  string            `json:"contact_id"`
	Statuses   map[string]string `json:"statuses"`   // name to id
	Priorities map[string]string `json:"priorities"` // name to id
}

// Bootstrap makes a tenant with a user who may do everything, a key, and the
// rows that a first ticket refers to. It may run beside a serving process. Two
// calls with one name make two tenants.
func (s *Store) Bootstrap(ctx context.Context, now time.Time, d BootstrapDraft) (Bootstrapped, error) {
	if strings.TrimSpace(d.Tenant) == "" {
		return Bootstrapped{}, fault.Field("tenant", "Required")
	}
	if d.TicketPrefix == "" {
		d.TicketPrefix = defaultPrefix
	}
	if err := checkPrefix(d.TicketPrefix); err != nil {
		return Bootstrapped{}, err
	}
	if d.FirstName == "" && d.LastName == "" {
		d.FirstName, _, _ = strings.Cut(d.Email, "@")
	}
	return write(ctx, s, func(t *tx) (Bootstrapped, error) {
		out := Bootstrapped{TenantID: NewID(), Statuses: map[string]string{}, Priorities: map[string]string{}}
		if err := t.change("insert into tenants", `
			insert into tenants (tenant_id, name, product, ticket_prefix, created_at) values ($1, $2, $3, $4, $5)`,
			out.TenantID, d.Tenant, productPSA, d.TicketPrefix, micros(now)); err != nil {
			return Bootstrapped{}, err
		}
		u, err := t.addUser(now, out.TenantID, ticket.User{
			FirstName: d.FirstName, LastName: d.LastName, Email: d.Email,
			UserType: userInternal, Permissions: AllPermissions(),
		})
		if err != nil {
			return Bootstrapped{}, err
		}
		out.UserID = u.UserID
		_, out.APIKey, err = t.createKey(now, out.TenantID, KeyDraft{UserID: u.UserID, Name: "bootstrap"})
		if err != nil {
			return Bootstrapped{}, err
		}
		if err := t.seedBoard(now, &out); err != nil {
			return Bootstrapped{}, err
		}
		if err := t.seedParties(now, &out); err != nil {
			return Bootstrapped{}, err
		}
		return out, nil
	})
}

// seedBoard makes the board with its workflow, the priorities and two
// categories.
func (t *tx) seedBoard(now time.Time, out *Bootstrapped) error {
	board, err := t.createBoard(now, out.TenantID, ticket.Board{Name: "Service Desk", IsDefault: true})
	if err != nil {
		return err
	}
	out.BoardID = board.BoardID
	for i, name := range []string{"Open", "In Progress", "Waiting on Client", "Closed"} {
		st, err := t.createStatus(now, out.TenantID, ticket.Status{
			BoardID: board.BoardID, Name: name, OrderNumber: i + 1, IsDefault: i == 0, IsClosed: name == "Closed",
		})
		if err != nil {
			return err
		}
		out.Statuses[name] = st.StatusID
	}
	for i, name := range []string{"Low", "Medium", "High", "Urgent"} {
		p, err := t.addPriority(now, out.TenantID, ticket.Priority{Name: name, OrderNumber: i + 1})
		if err != nil {
			return err
		}
		out.Priorities[name] = p.PriorityID
	}
	hardware, err := t.createCategory(now, out.TenantID, ticket.Category{BoardID: board.BoardID, Name: "Hardware"})
	if err != nil {
		return err
	}
	_, err = t.createCategory(now, out.TenantID, ticket.Category{
		BoardID: board.BoardID, Name: "Printer", ParentCategory: &hardware.CategoryID, DisplayOrder: 1,
	})
	return err
}

// seedParties makes a client with a contact, and a team.
func (t *tx) seedParties(now time.Time, out *Bootstrapped) error {
	c, err := t.createClient(now, out.TenantID, ticket.Client{Name: "Acme Corp", BillingCycle: "monthly"})
	if err != nil {
		return err
	}
	out.ClientID = c.ClientID
	contact, err := t.createContact(now, out.TenantID, ticket.Contact{
		FullName: "Alex Doe", Email: "alex.doe@acme.example", ClientID: &c.ClientID,
	})
	if err != nil {
		return err
	}
	out.ContactID = contact.ContactNameID
	_, err = t.addTeam(now, out.TenantID, ticket.Team{Name: "Support", ManagerID: &out.UserID})
	return err
}

// defaultPrefix starts the ticket numbers of a tenant that chose none (contract
// D7).
const defaultPrefix = "TKT-"

// checkPrefix refuses a prefix that runs into the number behind it: after a
// change of prefix, two tickets could get the same text.
func checkPrefix(prefix string) error {
	if strings.TrimRight(prefix, "0123456789") == prefix {
		return nil
	}
	return fault.Field("ticket_prefix", "Must not end in a digit")
}

// Tenant is one customer of the service. Rows of different tenants never meet.
type Tenant struct {
	TenantID     string    `json:"tenant_id"`
	Name         string    `json:"name"`
	Product      string    `json:"product"`   // "psa" or "algadesk", which may not use webhooks
	Suspended    bool      `json:"suspended"` // no key of the tenant opens anything
	TicketPrefix string    `json:"ticket_prefix"`
	Rate         RateLimit `json:"rate"`
	CreatedAt    time.Time `json:"created_at"`
}

const tenantColumns = `select tenant_id, name, product, suspended, ticket_prefix, rate_enabled, rate_max_tokens,
	rate_refill_per_min, created_at from tenants `

func scanTenant(row scanner) (Tenant, error) {
	var t Tenant
	var created int64
	err := row.Scan(&t.TenantID, &t.Name, &t.Product, &t.Suspended, &t.TicketPrefix,
		&t.Rate.Enabled, &t.Rate.MaxTokens, &t.Rate.RefillPerMin, &created)
	t.CreatedAt = instant(created)
	return t, err
}

// Tenants returns every tenant, oldest first. It is for the operator, not for
// the API.
func (s *Store) Tenants(ctx context.Context) ([]Tenant, error) {
	rows, err := s.reader(ctx).query(tenantColumns + `order by created_at, tenant_id`)
	return collect(rows, err, scanTenant)
}

// UpdateTenant changes name, product, suspension, ticket prefix or rate; what
// change does to other fields is ignored. Tickets keep the numbers they have.
func (s *Store) UpdateTenant(ctx context.Context, id string, change func(*Tenant) error) (Tenant, error) {
	return write(ctx, s, func(t *tx) (Tenant, error) {
		next, err := scanTenant(t.row(tenantColumns+`where tenant_id = $1`, lowerID(id)))
		if err != nil {
			return Tenant{}, found(err, "Tenant not found")
		}
		tenantID, created := next.TenantID, next.CreatedAt
		if err := change(&next); err != nil {
			return Tenant{}, err
		}
		next.TenantID, next.CreatedAt = tenantID, created
		if next.Product != productPSA && next.Product != productAlgadesk {
			return Tenant{}, fault.Field("product", "Expected %s or %s", productPSA, productAlgadesk)
		}
		if err := checkPrefix(next.TicketPrefix); err != nil {
			return Tenant{}, err
		}
		if err := next.Rate.check(); err != nil {
			return Tenant{}, err
		}
		t.moved = true
		err = t.change("update tenants", `
			update tenants set name = $1, product = $2, suspended = $3, ticket_prefix = $4,
				rate_enabled = $5, rate_max_tokens = $6, rate_refill_per_min = $7
			where tenant_id = $8`,
			next.Name, next.Product, next.Suspended, next.TicketPrefix,
			next.Rate.Enabled, next.Rate.MaxTokens, next.Rate.RefillPerMin, tenantID)
		return next, err
	})
}

// AddUser makes a user. An empty UserType is "internal".
func (s *Store) AddUser(ctx context.Context, now time.Time, tenant string, u ticket.User) (ticket.User, error) {
	return write(ctx, s, func(t *tx) (ticket.User, error) { return t.addUser(now, tenant, u) })
}

func (t *tx) addUser(now time.Time, tenant string, u ticket.User) (ticket.User, error) {
	u.TenantID, u.UserID = tenant, NewID()
	if u.UserType == "" {
		u.UserType = userInternal
	}
	if err := t.haveTenant(tenant); err != nil {
		return ticket.User{}, err
	}
	permissions, err := userPermissions(&u)
	if err != nil {
		return ticket.User{}, err
	}
	err = t.change("insert into users", `
		insert into users (tenant_id, user_id, first_name, last_name, email, user_type, is_inactive, permissions, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		tenant, u.UserID, u.FirstName, u.LastName, u.Email, u.UserType, u.IsInactive, permissions, micros(now))
	return u, err
}

// userPermissions checks a user and returns the text of its permissions column.
func userPermissions(u *ticket.User) (any, error) {
	if !strings.Contains(u.Email, "@") {
		return nil, fault.Field("email", "Invalid email")
	}
	if u.UserType != userInternal && u.UserType != userClient {
		return nil, fault.Field("user_type", "Expected %s or %s", userInternal, userClient)
	}
	if err := checkPermissions(u.Permissions); err != nil {
		return nil, err
	}
	if u.Permissions == nil {
		u.Permissions = []string{}
	}
	return jsonText(u.Permissions)
}

// haveTenant refuses rows of a tenant that does not exist.
func (t *tx) haveTenant(tenant string) error {
	var one int
	return found(t.row(`select 1 from tenants where tenant_id = $1`, tenant).Scan(&one), "Tenant not found")
}

// UpdateUser changes a user's names, email, type, permissions or IsInactive;
// what change does to other fields is ignored.
func (s *Store) UpdateUser(ctx context.Context, tenant, id string, change func(*ticket.User) error) (ticket.User, error) {
	return write(ctx, s, func(t *tx) (ticket.User, error) {
		u, err := userOf(t, tenant, id)
		if err != nil {
			return ticket.User{}, err
		}
		userID := u.UserID
		if err := change(&u); err != nil {
			return ticket.User{}, err
		}
		u.TenantID, u.UserID = tenant, userID
		permissions, err := userPermissions(&u)
		if err != nil {
			return ticket.User{}, err
		}
		t.w.recent.forget() // tickets show the user's name
		t.moved = true
		err = t.change("update users", `
			update users set first_name = $1, last_name = $2, email = $3, user_type = $4, is_inactive = $5, permissions = $6
			where tenant_id = $7 and user_id = $8`,
			u.FirstName, u.LastName, u.Email, u.UserType, u.IsInactive, permissions, tenant, userID)
		return u, err
	})
}

// AddPriority makes a priority; the API cannot (contract section 2.9).
func (s *Store) AddPriority(ctx context.Context, now time.Time, tenant string, p ticket.Priority) (ticket.Priority, error) {
	return write(ctx, s, func(t *tx) (ticket.Priority, error) { return t.addPriority(now, tenant, p) })
}

func (t *tx) addPriority(now time.Time, tenant string, p ticket.Priority) (ticket.Priority, error) {
	if err := t.haveTenant(tenant); err != nil {
		return ticket.Priority{}, err
	}
	p.TenantID, p.PriorityID, p.ItemType = tenant, NewID(), itemTicket
	err := t.change("insert into priorities", `
		insert into priorities (tenant_id, priority_id, priority_name, order_number, color, created_at)
		values ($1, $2, $3, $4, $5, $6)`,
		tenant, p.PriorityID, p.Name, p.OrderNumber, p.Color, micros(now))
	return p, err
}

// AddTeam makes a team. An unknown manager is a BadReference.
func (s *Store) AddTeam(ctx context.Context, now time.Time, tenant string, team ticket.Team) (ticket.Team, error) {
	return write(ctx, s, func(t *tx) (ticket.Team, error) { return t.addTeam(now, tenant, team) })
}

func (t *tx) addTeam(now time.Time, tenant string, team ticket.Team) (ticket.Team, error) {
	if err := t.haveTenant(tenant); err != nil {
		return ticket.Team{}, err
	}
	team.TenantID, team.TeamID = tenant, NewID()
	if team.ManagerID != nil {
		u, err := userOf(t, tenant, *team.ManagerID)
		if err != nil {
			return ticket.Team{}, reference(err)
		}
		team.ManagerID = &u.UserID
	}
	err := t.change("insert into teams", `
		insert into teams (tenant_id, team_id, team_name, manager_id, created_at) values ($1, $2, $3, $4, $5)`,
		tenant, team.TeamID, team.Name, team.ManagerID, micros(now))
	return team, err
}
