package store

import (
	"database/sql"
	"fmt"
	"slices"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

const (
	// maxSubscribed bounds how many tenants the writer remembers the subscriptions
	// of; over it, all are forgotten.
	maxSubscribed = 4096
	// maxMoves bounds how many webhooks are read one by one; over it, all of the
	// tenant are read at once.
	maxMoves = 1000
)

// subscriptions are the webhooks of one tenant as the writer knows them.
//
// Each change of a webhook replaces the tenant's webhooks_version by a random
// text, so a version names one state of the webhooks, also where a rollback has
// undone others or another process has made some. active and inactive are the
// state that version names. A change that this writer makes is not applied to
// them, but noted as a move: whoever needs them next reads the rows of the moves
// again, whether or not they were rolled back meanwhile. So the state of any
// move's version, and that of version, differs from what is here in the rows of
// the moves at most. In any other state the webhooks are all read again.
type subscriptions struct {
	active   delivery.Subscriptions // webhooks with only ids, event types, filter, fields and modes
	inactive map[string]bool        // by id
	version  string
	moves    []move
}

// move is a change of a webhook, and the version that it made.
type move struct{ version, webhookID string }

// count returns how many webhooks the tenant has.
func (s *subscriptions) count() int { return s.active.Len() + len(s.inactive) }

// knows reports whether the state of a version differs from what is here in the
// rows of the moves at most.
func (s *subscriptions) knows(version string) bool {
	return s.version == version || slices.ContainsFunc(s.moves, func(m move) bool { return m.version == version })
}

// subscriptionChanged tells every process that a webhook is not what it was.
// Every change of what an event looks at must call it in its transaction.
func (t *tx) subscriptionChanged(tenant, webhookID string) error {
	t.moved = true
	delete(t.w.recent.checked, tenant)
	seen, err := t.webhooksVersion(tenant)
	if err != nil {
		return err
	}
	next := move{NewID(), webhookID}
	known := t.w.subscribed[tenant]
	if known != nil && known.knows(seen) && len(known.moves) < maxMoves {
		// Where writers of several processes are not kept apart by the database,
		// another may have come in between: then his move is not among ours.
		n, err := t.exec(`update tenants set webhooks_version = $2 where tenant_id = $1 and webhooks_version = $3`,
			tenant, next.version, seen)
		if err != nil {
			return fmt.Errorf("change subscriptions: %w", err)
		}
		if n == 1 {
			known.moves = append(known.moves, next)
			return nil
		}
	}
	// Nobody knows this version, so all are read again.
	if _, err := t.exec(`update tenants set webhooks_version = $2 where tenant_id = $1`, tenant, next.version); err != nil {
		return fmt.Errorf("change subscriptions: %w", err)
	}
	return nil
}

// webhooksVersion names the state of the tenant's webhooks.
func (t *tx) webhooksVersion(tenant string) (version string, err error) {
	err = t.row(`select webhooks_version from tenants where tenant_id = $1`, tenant).Scan(&version)
	if err != nil {
		return "", fmt.Errorf("version of the webhooks of tenant %s: %w", tenant, err)
	}
	return version, nil
}

// subscribed returns the webhooks of the tenant. What is returned is right until
// the transaction changes a webhook.
func (t *tx) subscribed(tenant string) (*subscriptions, error) {
	known := t.w.subscribed[tenant]
	if known != nil && t.w.recent.checked[tenant] {
		return known, nil
	}
	version, err := t.webhooksVersion(tenant)
	if err != nil {
		return nil, err
	}
	if known == nil || !known.knows(version) {
		known = &subscriptions{inactive: map[string]bool{}}
		if err := known.readAll(t, tenant); err != nil {
			return nil, fmt.Errorf("subscriptions of tenant %s: %w", tenant, err)
		}
		if len(t.w.subscribed) >= maxSubscribed {
			clear(t.w.subscribed)
		}
		t.w.subscribed[tenant] = known
	}
	for _, m := range known.moves {
		if err := known.read(t, tenant, m.webhookID); err != nil {
			return nil, fmt.Errorf("subscription %s of tenant %s: %w", m.webhookID, tenant, err)
		}
	}
	known.version, known.moves = version, nil
	t.w.recent.checked[tenant] = true
	return known, nil
}

const subscriptionColumns = `select webhook_id, event_types, event_filter, payload_fields, is_active, is_test_mode
	from webhooks where tenant_id = $1 and deleted_at is null`

// readAll reads the webhooks of the tenant.
func (s *subscriptions) readAll(t *tx, tenant string) error {
	rows, err := t.query(subscriptionColumns+` order by webhook_id`, tenant)
	return s.put(tenant, rows, err)
}

// read reads one webhook again.
func (s *subscriptions) read(t *tx, tenant, webhookID string) error {
	s.active.Remove(webhookID)
	delete(s.inactive, webhookID)
	rows, err := t.query(subscriptionColumns+` and webhook_id = $2`, tenant, webhookID)
	return s.put(tenant, rows, err)
}

// put takes the webhooks of rows and closes rows.
func (s *subscriptions) put(tenant string, rows *sql.Rows, err error) error {
	list, err := collect(rows, err, func(row scanner) (*delivery.Webhook, error) {
		w := &delivery.Webhook{TenantID: tenant}
		var types string
		var filter, fields sql.NullString
		if err := row.Scan(&w.WebhookID, &types, &filter, &fields, &w.IsActive, &w.IsTestMode); err != nil {
			return nil, err
		}
		if err := fromJSON(sql.NullString{String: types, Valid: true}, &w.EventTypes); err != nil {
			return nil, err
		}
		if err := fromJSON(filter, &w.EventFilter); err != nil {
			return nil, err
		}
		return w, fromJSON(fields, &w.PayloadFields)
	})
	for _, w := range list {
		if w.IsActive {
			s.active.Put(w)
		} else {
			s.inactive[w.WebhookID] = true
		}
	}
	return err
}
