package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// ignored hears of a copy and does nothing.
func ignored(CopyStep) {}

// transfer makes one that ends with the test at the latest.
func transfer(t *testing.T, from, to *Store) *Transfer {
	t.Helper()
	x := must(Hold(t.Context(), from, to))(t)
	t.Cleanup(func() {
		if err := x.Release(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// copyAll copies one place to another, and closes both.
func copyAll(t *testing.T, from, to place) CopyReport {
	t.Helper()
	var r CopyReport
	t.Run("copy", func(t *testing.T) {
		x := transfer(t, openAt(t, from), openAt(t, to, copyTarget))
		r = must(x.Copy(t.Context(), "here", ignored))(t)
		if !Same(r.Tables) {
			t.Errorf("the copy differs: %+v", r.Tables)
		}
	})
	return r
}

func copyTarget(c *Config) { c.CopyTarget = true }

// schemaTables asks a database for its tables, in words of its own.
func schemaTables(t *testing.T, s *Store) []string {
	t.Helper()
	q := `select name from sqlite_schema where type = 'table' order by name`
	if s.dialect.server {
		q = `select relname from pg_class where relkind in ('r', 'p') and not relispartition and relnamespace = current_schema()::regnamespace order by relname`
	}
	rows, err := s.read.QueryContext(t.Context(), q)
	return must(collect(rows, err, func(r scanner) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	}))(t)
}

// A table of the schema is copied, or is one of those that are not, on purpose.
func TestCopyKnowsEveryTable(t *testing.T) {
	t.Parallel()
	embedded, server := openAt(t, place{dir: t.TempDir()}), openAt(t, onPostgres(t))
	x := transfer(t, embedded, server)
	known := map[string]bool{}
	for _, table := range x.tables {
		known[table.name] = true
	}
	if len(known) < 20 || !known["tickets"] || !known["handovers"] {
		t.Errorf("only %v are copied", slices.Sorted(maps.Keys(known)))
	}
	for _, s := range []*Store{embedded, server} {
		for _, name := range schemaTables(t, s) {
			if known[name] == (notCopied(name) != "") {
				t.Errorf("table %s: copied %t, to be left out %q", name, known[name], notCopied(name))
			}
		}
	}
}

// A table that only one side has ends a copy before it begins.
func TestCopyRefusesASchemaOfOneSide(t *testing.T) {
	t.Parallel()
	for name, q := range map[string]string{
		"a table":  `create table later (id bigint primary key)`,
		"a column": `alter table tickets add column later text`,
	} {
		for _, onServer := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, on the server %t", name, onServer), func(t *testing.T) {
				t.Parallel()
				embedded, server := openAt(t, place{dir: t.TempDir()}), openAt(t, onPostgres(t))
				db := embedded.read
				if onServer {
					db = server.read
				}
				if _, err := db.ExecContext(t.Context(), q); err != nil {
					t.Fatal(err)
				}
				if _, err := Hold(t.Context(), embedded, server); err == nil || !strings.Contains(err.Error(), "later") {
					t.Errorf("got %v, want an error that names it", err)
				}
			})
		}
	}
}

// random returns a value that a column can have, often one at the edge.
func random(r *rand.Rand, c tableColumn, key, null bool) any {
	if null && !key && r.IntN(4) == 0 {
		return nil
	}
	switch c.kind {
	case "boolean":
		return r.IntN(2) == 0
	case "integer":
		return int64(r.Int32()) * int64(1-2*r.IntN(2))
	case "bigint":
		return []int64{0, -1, math.MaxInt64, math.MinInt64, r.Int64()}[r.IntN(5)]
	case "blob":
		return []([]byte){{}, {0}, {0xff, 0, 0xfe}, []byte("{}"), fmt.Appendf(nil, "%0*d", r.IntN(3000), 7)}[r.IntN(5)]
	}
	if key {
		return fmt.Sprintf("%s-%x", []string{"a", "Z", "ä", "~", "日本", " "}[r.IntN(6)], r.Uint64())
	}
	return []string{"", " ", "é\u2028\U0001f600", "'; --", `\N\.`, "\t\r\n", strings.Repeat("x", r.IntN(5000)), fmt.Sprint(r.Uint64())}[r.IntN(8)]
}

// fill puts rows into every table that is copied, whatever it is, past what the
// service would write.
func fill(t *testing.T, p place, rows int) {
	t.Helper()
	s := openAt(t, p)
	other := openAt(t, onPostgres(t))
	x := transfer(t, s, other)
	r := rand.New(rand.NewPCG(1, 2)) // the same rows each time
	nulls := map[string]bool{}
	at, err := x.from.conn.QueryContext(t.Context(), `select t.name || '.' || c.name from sqlite_schema t, pragma_table_info(t.name) c where not c."notnull"`)
	must(collect(at, err, func(r scanner) (struct{}, error) {
		var name string
		err := r.Scan(&name)
		nulls[name] = true
		return struct{}{}, err
	}))(t)
	for i := range x.tables {
		table := &x.tables[i]
		var all [][]any
		for n := range rows {
			var row []any
			for j, c := range table.columns {
				key := slices.Contains(table.keys, j) || c.name == "key_hash" || c.name == "ticket_number" || c.name == "email" || c.name == "dedupe_key"
				v := random(r, c, key, nulls[table.name+"."+c.name])
				if key && c.kind != "text" {
					v = int64(n*n + 1)
				}
				if strings.HasSuffix(c.name, "_id") && c.kind == "text" && v != nil {
					v = NewID()
				}
				row = append(row, v)
			}
			all = append(all, row)
		}
		if err := x.from.insert(t.Context(), table, all); err != nil {
			t.Fatalf("fill %s: %v", table.name, err)
		}
	}
	// The secrets of the webhooks are what opens; those that were deleted have none.
	at, err = x.from.conn.QueryContext(t.Context(), `select tenant_id, webhook_id from webhooks`)
	lanes := must(collect(at, err, func(r scanner) (l Lane, err error) {
		err = r.Scan(&l.TenantID, &l.WebhookID)
		return l, err
	}))(t)
	for _, l := range lanes {
		if _, err := x.from.conn.ExecContext(t.Context(), `update webhooks set secret = case when deleted_at is null then ? else '' end where tenant_id = ? and webhook_id = ?`,
			s.cfg.Vault.Seal(secretPlace(l.TenantID, l.WebhookID), []byte("secret")), l.TenantID, l.WebhookID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := x.from.conn.ExecContext(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
}

// dump returns every row of an embedded database as SQLite writes it, types and all.
func dump(t *testing.T, p place) map[string][]string {
	t.Helper()
	s := openAt(t, p)
	out := map[string][]string{}
	for _, name := range schemaTables(t, s) {
		if notCopied(name) != "" {
			continue
		}
		rows, err := s.read.QueryContext(t.Context(), `select group_concat('quote(' || name || ')', ' || '','' || ') from pragma_table_info('`+name+`')`)
		columns := must(collect(rows, err, func(r scanner) (c string, err error) {
			err = r.Scan(&c)
			return c, err
		}))(t)
		rows, err = s.read.QueryContext(t.Context(), `select `+columns[0]+` from `+name)
		out[name] = must(collect(rows, err, func(r scanner) (c string, err error) {
			err = r.Scan(&c)
			return c, err
		}))(t)
		slices.Sort(out[name])
	}
	return out
}

// Whatever the columns hold, it is the same after the way there and back: read by
// the store's own comparison, and by SQLite itself.
func TestCopyThereAndBack(t *testing.T) {
	t.Parallel()
	here, server := place{dir: t.TempDir()}, onPostgres(t)
	server.dir = here.dir // its key
	rows := pageRows + 1
	if testing.Short() {
		rows = 50
	}
	t.Run("fill", func(t *testing.T) { fill(t, here, rows) })
	there := copyAll(t, here, server)
	if want := int64(len(there.Tables) * rows); there.Rows != want {
		t.Errorf("%d rows were copied, want %d", there.Rows, want)
	}
	back := place{dir: t.TempDir()}
	copyKeyFile(t, here, back)
	again := copyAll(t, server, back)
	for i, x := range again.Tables {
		if x.Checksum != there.Tables[i].Checksum || x.Rows != int64(rows) {
			t.Errorf("%s: %+v, and on the way there %+v", x.Name, x, there.Tables[i])
		}
	}
	want, got := dump(t, here), dump(t, back)
	for name := range want {
		if !slices.Equal(want[name], got[name]) {
			t.Errorf("%s is not what it was", name)
		}
	}
}

// A copy that is broken off at any moment goes on where it was, and what it ends
// with is identical. No server starts on it before.
func TestCopyIsBrokenOff(t *testing.T) {
	t.Parallel()
	for _, toServer := range []bool{true, false} {
		t.Run(fmt.Sprintf("to the server %t", toServer), func(t *testing.T) {
			t.Parallel()
			from, to := place{dir: t.TempDir()}, onPostgres(t)
			to.dir = from.dir
			t.Run("fill", func(t *testing.T) { fill(t, from, 30) })
			if !toServer {
				copyAll(t, from, to)
				from, to = to, place{dir: t.TempDir()}
				copyKeyFile(t, from, to)
			}
			rounds := 0
			for finished := false; !finished; rounds++ {
				t.Run(fmt.Sprint(rounds), func(t *testing.T) {
					x := transfer(t, openAt(t, from), openAt(t, to, copyTarget))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					steps := 0
					_, err := x.Copy(ctx, "here", func(CopyStep) {
						if steps++; steps > 3 {
							cancel()
						}
					})
					finished = err == nil
				})
				if err := openPlace(t, to); !finished && !fault.Is(err, fault.Conflict) {
					t.Fatalf("round %d: opening what is unfinished: %v, want a Conflict", rounds, err)
				}
			}
			if rounds < 5 {
				t.Errorf("it took %d rounds only", rounds)
			}
			if r := copyAll(t, from, to); !r.Done || r.Rows != 0 {
				t.Errorf("one more run: %+v, want that it is done", r)
			}
			openAt(t, to)
		})
	}
}

// What the source has got after a copy was broken off is in the copy.
func TestCopyOfASourceThatHasChanged(t *testing.T) {
	t.Parallel()
	for _, toServer := range []bool{true, false} {
		t.Run(fmt.Sprintf("to the server %t", toServer), func(t *testing.T) {
			t.Parallel()
			from, to := place{dir: t.TempDir()}, onPostgres(t)
			to.dir = from.dir
			if !toServer {
				from, to = to, from
			}
			var tk ticket.Ticket
			var tenant string
			t.Run("work", func(t *testing.T) {
				d := newDesk(t, openAt(t, from), "desk")
				tk, tenant = d.create(start(), d.draft("before")), d.TenantID
			})
			t.Run("a part", func(t *testing.T) {
				x := transfer(t, openAt(t, from), openAt(t, to, copyTarget))
				ctx, cancel := context.WithCancel(t.Context())
				_, err := x.Copy(ctx, "here", func(s CopyStep) {
					if s.Table == "tickets" {
						cancel()
					}
				})
				if err == nil {
					t.Error("it was not broken off")
				}
			})
			t.Run("a change", func(t *testing.T) {
				s := openAt(t, from)
				u := must(s.Tenants(t.Context()))(t)[0]
				must(s.UpdateTenant(t.Context(), u.TenantID, func(x *Tenant) error { x.Name = "renamed"; return nil }))(t)
			})
			if r := copyAll(t, from, to); !r.Again {
				t.Errorf("it did not begin again: %+v", r)
			}
			s := openAt(t, to)
			if got := must(s.Tenants(t.Context()))(t); got[0].Name != "renamed" {
				t.Errorf("the copy has the name from before: %+v", got)
			}
			if got := must(s.Ticket(t.Context(), tenant, tk.TicketID))(t); got.Title != "before" {
				t.Errorf("the copy has the ticket %+v", got)
			}
		})
	}
}

// Numbers go on: no event, delivery or list of handovers gets one that was copied.
func TestCopyContinuesNumbers(t *testing.T) {
	t.Parallel()
	const copied = 5000 * listsOfCommit
	from, to := place{dir: t.TempDir()}, onPostgres(t)
	to.dir = from.dir
	var d *desk
	t.Run("fill", func(t *testing.T) {
		d = newDesk(t, openAt(t, from), "desk")
		for i := range 3 {
			d.create(start(), d.draft(fmt.Sprint(i)))
		}
		if err := d.do(t.Context(), func(x *tx) error {
			return errors.Join(
				x.change("", `insert into handovers (handover_id, owner, list) values ($1, 'gone', $2)`, int64(copied), []byte{}),
				x.change("", insertNumbered+` values (7000, 'a', 'old', 'c', 'd', 'e', 'f', 1, 0, 'delivered', 1, 1)`))
		}); err != nil {
			t.Fatal(err)
		}
	})
	copyAll(t, from, to)
	back := place{dir: t.TempDir()}
	copyKeyFile(t, from, back)
	copyAll(t, to, back)
	for _, p := range []place{to, back} {
		on := *d
		on.Store, on.t = openAt(t, p), t
		on.create(start(), on.draft("the next"))
		rows, err := on.read.QueryContext(t.Context(), `select seq from events order by seq`)
		seqs := must(collect(rows, err, func(r scanner) (n int64, err error) {
			err = r.Scan(&n)
			return n, err
		}))(t)
		next := int64(4)
		if on.dialect.server { // which begins anew each day
			next = dayOf(start()).firstSeq()
		}
		if !slices.Equal(seqs, []int64{1, 2, 3, next}) {
			t.Errorf("the events are %v, want 1, 2, 3 and %d", seqs, next)
		}
		var delivery, list int64
		if err := on.do(t.Context(), func(x *tx) error {
			list = x.w.listID(0)
			return x.row(strings.Replace(insertNumbered, "(id, ", "(", 1) +
				` values ('a', 'new', 'c', 'd', 'e', 'f', 1, 0, 'delivered', 1, 1) returning id`).Scan(&delivery)
		}); err != nil {
			t.Fatal(err)
		}
		if delivery != 7001 || on.dialect.server && (list <= copied || list > copied+1000*listsOfCommit) {
			t.Errorf("the next delivery is %d, want 7001; the next list %d, want one soon after %d", delivery, list, copied)
		}
	}
}

const insertNumbered = `insert into deliveries (id, tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id, attempt, step, status, due_at, created_at)`

// What PostgreSQL does not take in a text is made storable and counted; what it
// takes in bytes stays.
func TestCopyAltersTexts(t *testing.T) {
	t.Parallel()
	from, to := place{dir: t.TempDir()}, onPostgres(t)
	to.dir = from.dir
	t.Run("fill", func(t *testing.T) {
		d := newDesk(t, openAt(t, from), "desk")
		for i, text := range []string{"a\x00b", "a b", "a\xffb", "b"} {
			if err := d.do(t.Context(), func(x *tx) error {
				return x.change("", `insert into ticket_tags (tenant_id, ticket_id, tag_text, tag_id, created_by, created_at) values ($1, $2, $3, 'x', $4, 1)`,
					"a", fmt.Sprint(i/2), text, "\x00\xff")
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
	r := copyAll(t, from, to)
	i := slices.IndexFunc(r.Tables, func(c CopiedTable) bool { return c.Name == "ticket_tags" })
	if !maps.Equal(r.Tables[i].Altered, map[string]int64{"tag_text": 2, "created_by": 4}) {
		t.Errorf("altered were %v", r.Tables[i].Altered)
	}
}

// A comparison names what differs, whatever it is and wherever.
func TestCompareFindsDifferences(t *testing.T) {
	t.Parallel()
	from, to := place{dir: t.TempDir()}, onPostgres(t)
	to.dir = from.dir
	t.Run("fill", func(t *testing.T) { fill(t, from, 12) })
	copyAll(t, from, to)
	for q, want := range map[string][2]string{
		`update events set body = body || '\x00' where seq = 1`:                                                         {"events", "seq 1 has another body"},
		`delete from handovers where handover_id = 5`:                                                                   {"handovers", "handover_id 5 is missing in the target"},
		`insert into handovers (handover_id, list) values (3, '')`:                                                      {"handovers", "handover_id 3 is not in the source"},
		`insert into handovers (handover_id, list) values (300000, '')`:                                                 {"handovers", "handover_id 300000 is not in the source"},
		`update deliveries set is_test = not is_test where id = 2`:                                                      {"deliveries", "id 2 has another is_test"},
		`update deliveries set status_code = coalesce(status_code + 1, 0), error_type = error_type || ' ' where id = 5`: {"deliveries", "id 5 has another status_code, error_type"},
	} {
		t.Run(q, func(t *testing.T) {
			x := transfer(t, openAt(t, from), openAt(t, to))
			ctx := t.Context()
			for _, q := range []string{"begin", q} {
				if _, err := x.to.conn.ExecContext(ctx, q); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range must(x.Compare(ctx, ignored))(t) {
				if (c.Name == want[0]) != (c.Difference != "") || c.Name == want[0] && c.Difference != want[1] {
					t.Errorf("%s: first difference %q", c.Name, c.Difference)
				}
			}
		})
	}
}

// While somebody writes to either side, nothing is copied; and while it is copied,
// nobody writes.
func TestCopyIsAlone(t *testing.T) {
	t.Parallel()
	embedded, server := place{dir: t.TempDir()}, onPostgres(t)
	server.dir = embedded.dir
	t.Run("fill", func(t *testing.T) { newDesk(t, openAt(t, embedded), "desk") })
	t.Run("the data directory is in use", func(t *testing.T) {
		s := openAt(t, embedded)
		if err := s.LockDeliveries(); err != nil {
			t.Fatal(err)
		}
		for _, back := range []bool{false, true} {
			from, to := openAt(t, embedded), openAt(t, server)
			if back {
				from, to = to, from
			}
			_, err := Hold(t.Context(), from, to)
			wantKind(t, "in use", err, fault.Conflict)
		}
	})
	t.Run("a node lives", func(t *testing.T) {
		s := openAt(t, server)
		if err := s.Join(t.Context(), "node-1"); err != nil {
			t.Fatal(err)
		}
		_, err := Hold(t.Context(), openAt(t, embedded), openAt(t, server))
		wantKind(t, "a node", err, fault.Conflict)
		if err == nil || !strings.Contains(err.Error(), "node-1") {
			t.Errorf("%v does not name the node", err)
		}
	})
	t.Run("writers wait", func(t *testing.T) {
		other := openAt(t, server)
		conn := must(openAt(t, embedded).read.Conn(t.Context()))(t)
		defer conn.Close()
		x := transfer(t, openAt(t, embedded), openAt(t, server))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := other.Ping(ctx); err == nil {
			t.Error("somebody else writes to the server")
		}
		for _, q := range []string{`pragma busy_timeout = 50`, `begin immediate`} {
			_, err := conn.ExecContext(t.Context(), q)
			if q != "begin immediate" {
				continue
			}
			if !isBusy(err) {
				t.Errorf("somebody else writes to the data directory: %v", err)
			}
		}
		if err := x.Release(); err != nil {
			t.Error(err)
		}
	})
}

// What is in the target stays there, and the error says what it is.
func TestCopyRefusesATarget(t *testing.T) {
	t.Parallel()
	embedded, server := place{dir: t.TempDir()}, onPostgres(t)
	server.dir = embedded.dir
	t.Run("fill", func(t *testing.T) { newDesk(t, openAt(t, embedded), "desk") })
	refused := func(t *testing.T, from, to place, source, want string) {
		t.Helper()
		x := transfer(t, openAt(t, from), openAt(t, to, copyTarget))
		_, err := x.Copy(t.Context(), source, ignored)
		wantKind(t, "a copy to it", err, fault.Conflict)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something about %q", err, want)
		}
	}
	t.Run("full", func(t *testing.T) {
		to := onPostgres(t)
		to.dir = embedded.dir
		t.Run("fill", func(t *testing.T) { newDesk(t, openAt(t, to), "harbour") })
		refused(t, embedded, to, "here", "harbour")
	})
	t.Run("unfinished from elsewhere", func(t *testing.T) {
		t.Run("a part", func(t *testing.T) {
			x := transfer(t, openAt(t, embedded), openAt(t, server, copyTarget))
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := x.Copy(ctx, "here", func(CopyStep) { cancel() }); err == nil {
				t.Error("it was not broken off")
			}
		})
		refused(t, embedded, server, "elsewhere", "unfinished copy of here")
	})
	t.Run("a key that opens nothing", func(t *testing.T) {
		from, to := place{dir: t.TempDir()}, onPostgres(t)
		t.Run("fill", func(t *testing.T) { fill(t, from, 10) })
		other := t.TempDir()
		key := func(c *Config) { c.Vault = openKey(t, place{dir: other}); c.CopyTarget = true }
		x := transfer(t, openAt(t, from, key), openAt(t, to, key))
		if _, err := x.Copy(t.Context(), "here", ignored); err == nil || !strings.Contains(err.Error(), "--secret-key-file") {
			t.Errorf("got %v", err)
		}
	})
}

func openKey(t testing.TB, p place) *vault.Vault {
	t.Helper()
	return must(vault.Open(filepath.Join(p.dir, "secret.key")))(t)
}

func copyKeyFile(t testing.TB, from, to place) {
	t.Helper()
	key := must(os.ReadFile(filepath.Join(from.dir, "secret.key")))(t)
	if err := os.WriteFile(filepath.Join(to.dir, "secret.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A pooler lends the session whose lock keeps others out to those others, so a copy
// refuses one, and leaves no lock behind.
func TestCopyRefusesAPooler(t *testing.T) {
	t.Parallel()
	server := onPostgres(t)
	server.dir = t.TempDir()
	embedded := openAt(t, place{dir: server.dir})
	there := openAt(t, pooled(t, server))
	for _, sides := range [][2]*Store{{embedded, there}, {there, embedded}} {
		if _, err := Hold(t.Context(), sides[0], sides[1]); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "pooler") {
			t.Errorf("got %v", err)
		}
	}
	newDesk(t, there, "acme") // writes
}
