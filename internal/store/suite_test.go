package store

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
	"github.com/ticketwire/ticketwire/test/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is a database of one test, which may be opened more than once: each store
// on it is a process, as far as the database knows.
type place struct {
	dir string // of the key, and of the embedded database
	url string // of a PostgreSQL; "" for the embedded database
}

// opener opens an empty store that is closed when the test ends. A behaviour is
// written against an opener, so that each database can be held to it.
type opener func(t *testing.T, change ...func(*Config)) *Store

// onEach runs a test on an empty place of each kind of database, side by side.
func onEach(t *testing.T, test func(*testing.T, place)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, place{dir: t.TempDir()})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, onPostgres(t))
	})
}

// onServers runs a test on an empty place on a server, and on one behind a pooler.
func onServers(t *testing.T, test func(*testing.T, place)) {
	t.Helper()
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, onPostgres(t))
	})
	behindPooler(t, test)
}

// onPostgres returns an empty place on PostgreSQL.
func onPostgres(t testing.TB) place { return place{dir: t.TempDir(), url: postgres.Start(t)} }

// beside opens the place of a store once more, as another process does.
func beside(t *testing.T, s *Store, change ...func(*Config)) *Store {
	t.Helper()
	return openAt(t, place{dir: s.cfg.Dir, url: s.cfg.DatabaseURL}, change...)
}

// exercise runs behaviours side by side on each kind of database, each on stores
// of its own.
func exercise(t *testing.T, behaviours map[string]func(*testing.T, opener)) {
	t.Helper()
	for _, kind := range []struct {
		name string
		make func(*testing.T) place
	}{
		{"sqlite", func(t *testing.T) place { return place{dir: t.TempDir()} }},
		{"postgres", func(t *testing.T) place { return onPostgres(t) }},
	} {
		for name, behaviour := range behaviours {
			t.Run(kind.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				behaviour(t, func(t *testing.T, change ...func(*Config)) *Store { return openAt(t, kind.make(t), change...) })
			})
		}
	}
}

// openAt opens a place, which may be open already.
func openAt(t *testing.T, p place, change ...func(*Config)) *Store {
	t.Helper()
	v, err := vault.Open(filepath.Join(p.dir, "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: p.dir, DatabaseURL: p.url, Now: time.Now, Vault: v, PublicURL: "https://desk.example"}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// start is when the tests begin. It has microseconds, which the wire does not.
func start() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 891234000, time.UTC) }

// desk is a bootstrapped tenant and its user.
type desk struct {
	*Store
	ticket.Actor
	rows Bootstrapped
	t    *testing.T
}

// newDesk bootstraps a tenant in s.
func newDesk(t *testing.T, s *Store, name string) *desk {
	t.Helper()
	b, err := s.Bootstrap(t.Context(), start(), BootstrapDraft{
		Tenant: name, Email: name + "@desk.example", FirstName: "Ada", LastName: "Lovelace",
	})
	if err != nil {
		t.Fatal(err)
	}
	return &desk{
		Store: s, rows: b, t: t,
		Actor: ticket.Actor{TenantID: b.TenantID, UserID: b.UserID, Name: new("Ada Lovelace")},
	}
}

// draft is the smallest draft of a ticket.
func (d *desk) draft(title string) ticket.Draft {
	return ticket.Draft{
		Title: title, BoardID: d.rows.BoardID, ClientID: d.rows.ClientID,
		StatusID: d.rows.Statuses["Open"], PriorityID: d.rows.Priorities["Medium"],
	}
}

// create makes a ticket.
func (d *desk) create(now time.Time, draft ticket.Draft) ticket.Ticket {
	d.t.Helper()
	return must(d.CreateTicket(context.Background(), now, d.Actor, draft))(d.t)
}

// update changes a ticket.
func (d *desk) update(now time.Time, id string, p ticket.Patch) ticket.Ticket {
	d.t.Helper()
	return must(d.UpdateTicket(context.Background(), now, d.Actor, id, p))(d.t)
}

// must fails the test when there is an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantKind fails the test unless err is of kind k.
func wantKind(t *testing.T, what string, err error, k fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != k {
		t.Errorf("%s: got error %v (kind %d), want kind %d", what, err, fault.KindOf(err), k)
	}
}
