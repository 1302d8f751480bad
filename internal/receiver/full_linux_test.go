package receiver

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Case 117: a full disk refuses, says so, and loses nothing that it took.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a disk of its own needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var got seen
	alarms := make(chan Alarm, 10)
	cfg := config(t, got.react)
	cfg.DataDir = filepath.Join(disk, "data")
	cfg.Record = openRecord(t, filepath.Join(disk, "cutover"))
	cfg.OnAlarm = func(_ context.Context, a Alarm) { alarms <- a }
	r, c := start(t, cfg), caller(t)
	n, taken := 0, map[string]bool{}
	try := func() int {
		n++
		id := "E" + strconv.Itoa(n)
		status, _ := send(t, c, request(t, r.URL(), envelope(id, id, time.Now())))
		if status == http.StatusOK {
			taken[id] = true
		}
		return status
	}
	for range 20 {
		if try() != 200 {
			t.Fatal("refused on an empty disk")
		}
	}
	ballast, err := os.Create(filepath.Join(disk, "ballast"))
	must(t, err)
	for {
		if _, err := ballast.Write(make([]byte, 512)); err != nil {
			break
		}
	}
	must(t, ballast.Close())
	eventually(t, "a full disk refuses", func() bool {
		status := try()
		if status != 200 && status != 503 {
			t.Errorf("answered with %d", status)
		}
		return status == 503
	})
	if a := next(t, alarms); a.Kind != Unstored || a.Over {
		t.Errorf("the alarm is %+v", a)
	}
	if status, _ := get(t, c, r.AdminURL()+"/readyz"); status != 503 {
		t.Errorf("readiness on a full disk is %d", status)
	}
	must(t, os.Remove(ballast.Name()))
	eventually(t, "the receiver is ready again", func() bool {
		status, _ := get(t, c, r.AdminURL()+"/readyz")
		return status == 200
	})
	if a := next(t, alarms); a.Kind != Unstored || !a.Over {
		t.Errorf("then came %+v", a)
	}
	if status := try(); status != 200 {
		t.Errorf("then an event is answered with %d", status)
	}
	eventually(t, "everything that was taken is done", func() bool {
		done := map[string]bool{}
		for _, e := range got.all() {
			done[e.EventID] = true
		}
		for id := range taken {
			if !done[id] {
				return false
			}
		}
		return true
	})
	all := written(t, filepath.Join(disk, "cutover"))
	recorded := map[string]bool{}
	for _, x := range pick(all, receipt) {
		if x.HTTP == 200 {
			recorded[x.EventID] = true
		}
	}
	for id := range taken {
		if !recorded[id] {
			t.Errorf("event %s was acknowledged and is not in the record", id)
		}
	}
	t.Logf("%d events taken, %d refused", len(taken), n-len(taken))
}
