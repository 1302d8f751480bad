package store

import (
	"strings"
	"testing"

	"github.com/ticketwire/ticketwire/test/postgres"
)

// pooled returns a place behind a pooler that lends a session for one transaction.
// There are fewer sessions than connections, so that each is another's all the time.
func pooled(t testing.TB, p place) place {
	t.Helper()
	return place{dir: p.dir, url: postgres.Pool(t, p.url, "transaction", 3).URL()}
}

// behindPooler runs a test on an empty place behind a pooler.
func behindPooler(t *testing.T, test func(*testing.T, place)) {
	t.Helper()
	t.Run("pooler", func(t *testing.T) {
		t.Parallel()
		test(t, pooled(t, onPostgres(t)))
	})
}

// Whatever a pooler lends a session for, it is found out about at the start, and
// one that takes transactions apart is refused.
func TestPoolers(t *testing.T) {
	t.Parallel()
	p := onPostgres(t)
	for mode, want := range map[string]string{"transaction": "", "session": "", "statement": "pool_mode must be transaction or session"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			// Each has a database of its own: in session mode nobody waits for a session.
			behind := place{dir: p.dir, url: postgres.Pool(t, onPostgres(t).url, mode, 20).URL()}
			if want != "" {
				if err := openPlace(t, behind); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				return
			}
			s := openAt(t, behind)
			if !s.dialect.pooled {
				t.Error("the pooler was not noticed")
			}
			newDesk(t, s, "acme")
		})
	}
	if s := openAt(t, p); s.dialect.pooled {
		t.Error("a server is taken for a pooler")
	}
}
