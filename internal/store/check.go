package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// Check reads the database as a whole and returns an error that says what is
// wrong with it: pages that are missing or make no sense, indexes that disagree
// with their tables. It takes about three seconds for a gigabyte and holds up
// nobody. What it cannot see is a value that changed and is still one, since rows
// have no checksums, and changes that are missing because the end of the log is.
//
// A database over limit bytes is left alone, and checked is false; 0 means no
// limit. A database server checks itself.
func (s *Store) Check(ctx context.Context, limit int64) (checked bool, err error) {
	if s.dialect.check == "" {
		return false, nil
	}
	var size int64
	if err := s.reader(ctx).row(s.dialect.size).Scan(&size); err != nil {
		return false, fmt.Errorf("measure the database: %w", err)
	}
	if limit > 0 && size > limit {
		return false, nil
	}
	if err := s.checkLength(ctx, size); err != nil {
		return true, err
	}
	var found string
	if err := s.reader(ctx).row(s.dialect.check).Scan(&found); err != nil {
		return false, fmt.Errorf("check the database: %w", remedied(err))
	}
	if found != "ok" {
		return true, fault.Wrap(fault.Internal, ErrDamaged, "the database is damaged: %s", found)
	}
	return true, nil
}

// triedSecrets bounds what CheckSecrets reads: a key that is wrong opens none.
const triedSecrets = 1000

// CheckSecrets tries the signing secrets of webhooks, of 1,000 at most, and returns
// how many the key file does not open, of how many. Nothing is sent to those
// webhooks. They work again with the key that sealed them, or a new secret.
func (s *Store) CheckSecrets(ctx context.Context) (unopened, of int, err error) {
	rows, err := s.reader(ctx).query(`select tenant_id, webhook_id, secret from webhooks
		where deleted_at is null limit $1`, triedSecrets)
	_, err = collect(rows, err, func(r scanner) (struct{}, error) {
		var tenant, webhook, secret string
		err := r.Scan(&tenant, &webhook, &secret)
		of++
		if _, broken := s.cfg.Vault.Open(secretPlace(tenant, webhook), secret); broken != nil {
			unopened++
		}
		return struct{}{}, err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("try the secrets of webhooks: %w", err)
	}
	return unopened, of, nil
}

// checkLength compares the file with the pages that it should have: the check
// itself takes the missing rest of a last page for zeros. While the log holds
// pages that are not in their place yet, the file may be short of them.
func (s *Store) checkLength(ctx context.Context, size int64) error {
	var busy, log, moved int
	if err := s.reader(ctx).row(s.dialect.checkpoint).Scan(&busy, &log, &moved); err != nil {
		return fmt.Errorf("check the database: %w", remedied(err))
	}
	info, err := os.Stat(filepath.Join(s.cfg.Dir, fileName))
	if err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	if busy == 0 && log == moved && info.Size() < size {
		return fault.Wrap(fault.Internal, ErrDamaged, "the database is damaged: it has %d bytes and should have %d", info.Size(), size)
	}
	return nil
}
