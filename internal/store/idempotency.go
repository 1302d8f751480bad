package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// Idempotency is one X-Idempotency-Key of one caller (contract P10). Put it into
// the context of the write that it guards, and the answer is stored in the
// write's own transaction: there is no moment at which the work is done and the
// key is unknown.
type Idempotency struct {
	TenantID    string
	KeyID       string // the API key: two callers may choose the same text
	Key         string // as the caller sent it
	Route       string // method and path
	Fingerprint string // of the request body
	Now         time.Time
	// Render makes the answer out of what the write returned. It runs inside the
	// transaction. A method with more than one result hands over the struct that
	// is named after it (CreatedWebhook, UpdatedWebhook, RotatedSecret); one with
	// an error only hands over struct{}{}.
	Render func(result any) (status int, body []byte, err error)
}

// ErrAnswered is in the chain of the Conflict that a write returns when another
// one with the same key was faster. Nothing was written; ask for its Answer.
var ErrAnswered = errors.New("another call with this idempotency key was faster")

type idempotencyKey struct{}

// WithIdempotency returns a context whose next write records its answer.
func WithIdempotency(ctx context.Context, i *Idempotency) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, i)
}

// answerPlace is where an answer is sealed: it may hold a signing secret, which
// is nowhere in the database in the clear.
func (i *Idempotency) answerPlace() string {
	return "idempotency_keys.body/" + i.TenantID + "/" + i.KeyID + "/" + i.Route + "/" + i.Key
}

// idempotencyOf returns the key that ctx has, nil without one.
func idempotencyOf(ctx context.Context) *Idempotency {
	i, _ := ctx.Value(idempotencyKey{}).(*Idempotency)
	return i
}

// recordAnswer stores the answer of a call. One that is older than a day does not
// count any more and is replaced.
func (t *tx) recordAnswer(i *Idempotency, v any) error {
	status, body, err := i.Render(v)
	if err != nil {
		return fmt.Errorf("render the answer: %w", err)
	}
	n, err := t.exec(`insert into idempotency_keys (tenant_id, api_key_id, key, route, fingerprint, status, body, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8)
		on conflict (tenant_id, api_key_id, route, key) do update
			set fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body, created_at = excluded.created_at
			where idempotency_keys.created_at <= $9`,
		i.TenantID, i.KeyID, i.Key, i.Route, i.Fingerprint, status,
		[]byte(t.w.s.cfg.Vault.Seal(i.answerPlace(), body)), micros(i.Now), micros(i.Now.Add(-answerLife)))
	if err != nil {
		return fmt.Errorf("store the answer: %w", err)
	}
	if n == 0 {
		return fault.Wrap(fault.Conflict, ErrAnswered, "X-Idempotency-Key is in use")
	}
	return nil
}

// KeepAnswer stores an answer that was only known after the write, as that of a
// test or a manual retry is. Without a key in ctx it does nothing.
func (s *Store) KeepAnswer(ctx context.Context, result any) error {
	i := idempotencyOf(ctx)
	if i == nil {
		return nil
	}
	return s.do(ctx, func(t *tx) error { return t.recordAnswer(i, result) })
}

// Answer returns the answer that was stored for the key within the last 24
// hours. The same key with another body is a Conflict.
func (s *Store) Answer(ctx context.Context, i *Idempotency) (status int, body []byte, found bool, err error) {
	var fingerprint, sealed string
	err = s.reader(ctx).row(`select fingerprint, status, body from idempotency_keys
		where tenant_id = $1 and api_key_id = $2 and route = $3 and key = $4 and created_at > $5`,
		i.TenantID, i.KeyID, i.Route, i.Key, micros(i.Now.Add(-answerLife))).Scan(&fingerprint, &status, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, false, nil
	}
	if err != nil {
		return 0, nil, false, fmt.Errorf("look up an idempotency key: %w", err)
	}
	if fingerprint != i.Fingerprint {
		return 0, nil, false, fault.New(fault.Conflict, "X-Idempotency-Key was used with another body")
	}
	body, err = s.cfg.Vault.Open(i.answerPlace(), sealed)
	if err != nil {
		return 0, nil, false, fmt.Errorf("stored answer: %w", err)
	}
	return status, body, true, nil
}
