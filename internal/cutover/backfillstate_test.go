package cutover

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What a job has done is kept until its end, and then only up to where nothing is
// missing: the file does not grow from job to job.
func TestALedgerIsShortenedWithItsJob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		l, err := openLedger(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.save(ledgerLine{Job: &job{Server: "s", Source: FromFeed, From: day}}); err != nil {
			t.Fatal(err)
		}
		for n := range 50 {
			if err := l.save(ledgerLine{Accepted: &accepted{EventID: fmt.Sprint(n), Ticket: "a", UpdatedAt: day}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if l, err = openLedger(dir); err != nil || l.sent != 50 || l.job == nil {
			t.Fatalf("%+v, %v", l, err)
		}
		if err := l.finish(day); err != nil {
			t.Fatal(err)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if l, err = openLedger(dir); err != nil || l.sent != 0 || l.job != nil || !l.done.Equal(day) {
			t.Fatalf("%+v, %v", l, err)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, ledgerName)); err != nil || info.Size() > 100 {
			t.Errorf("the file has %d bytes, %v", info.Size(), err)
		}
	}
}
