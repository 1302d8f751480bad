package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// On a server the events and the log are partitioned by day, in UTC, so that what
// is past its retention goes with the table of its day and not row by row:
//
//   - events by their number. Numbers begin anew each day (firstSeq), so they are
//     still in the order of the commits, and whoever knows one knows the day.
//   - deliveries by whether they are owed. What is owed is one table, of any age; a
//     row that ends moves to the day of its completed_at.
//
// Every statement about what is owed says status = 'pending', and about an event its
// number where that is known, so that it looks at one table. Each partitioned table
// has a rest, which takes what has no day of its own: nothing that is written ever
// depends on a day having been made. Sweep empties the rests row by row.

// day counts the days since 1970 in UTC.
type day int64

// numbersPerDay is how many events fit into a day. The migration has it too.
const numbersPerDay = 1 << 36

func dayOf(t time.Time) day { return day(micros(t) / microsPerDay) }

func (d day) begin() int64 { return int64(d) * microsPerDay }

// firstSeq is the number that the first event of the day gets, unless that of the
// event before is higher already.
func (d day) firstSeq() int64 { return int64(d) * numbersPerDay }

// dayFormat ends the names of the tables of days.
const dayFormat = "20060102"

// daily is a table that is partitioned by day.
type daily struct {
	name, key string
	first     func(day) int64 // the least key of a day
}

func (p *daily) table(d day) string { return p.name + "_" + instant(d.begin()).Format(dayFormat) }

func dailies() [2]daily {
	return [2]daily{{"logged_deliveries", "completed_at", day.begin}, {"events", "seq", day.firstSeq}}
}

// daysAhead is how many days are made beyond today: so long may nobody get the lock
// that it takes, as during a backup, before rows go to the rest.
const daysAhead = 3

// tableLock is how long a change of the partitions waits for a lock of a table:
// everybody else waits behind it.
const tableLock = "200"

// keptBodies is how many deliveries get the body of their event in one transaction,
// and droppedSoonest how old a day has to be in any case: an event of which a node
// holds a handover is younger.
const (
	keptBodies     = 500
	droppedSoonest = time.Hour
)

// keepDays makes the tables of the days to come and drops those of which everything
// is older than the retention. Any number of processes may do so at a time. What
// cannot have its lock soon is left for the next time.
func (s *Store) keepDays(ctx context.Context, now time.Time) error {
	if !s.dialect.server {
		return nil
	}
	today := dayOf(now)
	err := s.makeDays(ctx, today, today+daysAhead)
	for _, p := range dailies() {
		if err != nil {
			break
		}
		err = s.dropDays(ctx, &p, dayOf(now.Add(-max(s.cfg.Retention, droppedSoonest))))
	}
	if passing(err) {
		return nil
	}
	return err
}

// passing recognises what is left for the next time: a lock that cannot be had soon,
// and a row of a day that went to the rest while that day was made.
func passing(err error) bool { return isBusy(err) || postgresCode(err) == checkViolation }

// makeDays makes the tables of a span of days that are not there.
func (s *Store) makeDays(ctx context.Context, from, to day) error {
	return s.alone(ctx, s.dialect.lock, func(x *sql.Tx) error {
		for _, p := range dailies() {
			made, err := p.days(ctx, x)
			if err != nil {
				return err
			}
			for d := from; d <= to; d++ {
				if made[d] {
					continue
				}
				if err := p.makeDay(ctx, x, d); err != nil {
					return fmt.Errorf("make the partition %s: %w", p.table(d), err)
				}
			}
		}
		return nil
	})
}

// makeDay makes the table of a day, unless the rest has rows of that day: they stay
// there until they are swept. A table that is made first and attached then keeps
// nobody from writing to the days that are there.
func (p *daily) makeDay(ctx context.Context, x *sql.Tx, d day) error {
	from, to := p.first(d), p.first(d+1)
	var late bool
	rest := fmt.Sprintf(`select exists (select 1 from %s_rest where %s >= $1 and %s < $2)`, p.name, p.key, p.key) //nolint:gosec // names of the schema
	if err := x.QueryRowContext(ctx, rest, from, to).Scan(&late); err != nil || late {
		return err
	}
	for _, q := range []string{
		fmt.Sprintf(`create table %s (like %s)`, p.table(d), p.name),
		fmt.Sprintf(`alter table %s attach partition %s for values from (%d) to (%d)`, p.name, p.table(d), from, to),
	} {
		if _, err := x.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// days returns the days that have a table.
func (p *daily) days(ctx context.Context, x *sql.Tx) (map[day]bool, error) {
	rows, err := x.QueryContext(ctx, `select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = $1::text::regclass`, p.name)
	names, err := collect(rows, err, func(r scanner) (name string, err error) { err = r.Scan(&name); return name, err })
	if err != nil {
		return nil, fmt.Errorf("list the partitions of %s: %w", p.name, err)
	}
	out := map[day]bool{}
	for _, n := range names {
		// The others of the same table, such as its rest, end with no date.
		if at, err := time.Parse(dayFormat, strings.TrimPrefix(n, p.name+"_")); err == nil {
			out[dayOf(at)] = true
		}
	}
	return out, nil
}

// dropDays drops the tables of the days before oldest, behind the gate: what a drop
// looks at does not change under it. The newest event keeps its day, see nextSeq.
func (s *Store) dropDays(ctx context.Context, p *daily, oldest day) error {
	for more := true; more; {
		err := s.alone(ctx, takeGate, func(x *sql.Tx) error {
			more = false
			made, err := p.days(ctx, x)
			if err != nil {
				return err
			}
			for d := range made {
				if d >= oldest {
					continue
				}
				if more, err = p.dropDay(ctx, x, d); err != nil || more {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("drop old partitions of %s: %w", p.name, err)
		}
	}
	return nil
}

// dropDay drops the table of a day; more says that it has to be called again.
func (p *daily) dropDay(ctx context.Context, x *sql.Tx, d day) (more bool, err error) {
	if p.name == "events" {
		var newest bool
		if err := x.QueryRowContext(ctx, `select not exists (select 1 from events where seq >= $1)`, p.first(d+1)).Scan(&newest); err != nil || newest {
			return false, err
		}
		if more, err := p.keepBodies(ctx, x, d); err != nil || more {
			return more, err
		}
	}
	_, err = x.ExecContext(ctx, `drop table `+p.table(d))
	return false, err
}

// keepBodies gives deliveries that outlive a day the bodies that they have shared
// with its events, a page of them; more says that there may be more. What is owed
// stays owed, and the log shows what was sent.
func (p *daily) keepBodies(ctx context.Context, x *sql.Tx, d day) (more bool, err error) {
	for _, of := range [2]struct{ table, late string }{
		{"owed_deliveries", ""},
		{"logged_deliveries", " and event_seq / " + strconv.Itoa(numbersPerDay) + " < completed_at / " + strconv.Itoa(microsPerDay)},
	} {
		//nolint:gosec // names of the schema
		q := `update ` + of.table + ` d set body = e.body from ` + p.table(d) + ` e
			where e.seq = d.event_seq and (d.tenant_id, d.delivery_id) in (select tenant_id, delivery_id from ` + of.table + `
				where body is null and event_seq >= $1 and event_seq < $2` + of.late + ` limit $3)`
		res, err := x.ExecContext(ctx, q, p.first(d), p.first(d+1), keptBodies)
		if err != nil {
			return false, fmt.Errorf("keep the bodies of %s: %w", of.table, err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return false, err
		}
		more = more || n > 0
	}
	return more, nil
}

// alone runs fn in a transaction behind a lock that admits one at a time, with
// little patience for locks.
func (s *Store) alone(ctx context.Context, lock string, fn func(*sql.Tx) error) (err error) {
	x, err := s.side.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := x.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
	}()
	if _, err := x.ExecContext(ctx, gateSettings, gateLimit); err != nil {
		return err
	}
	for _, q := range []string{lock, `set local lock_timeout = ` + tableLock} {
		if _, err := x.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	if err := fn(x); err != nil {
		return err
	}
	return x.Commit()
}
