package cutover

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestSetupFileFollowsTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenSetupFile(dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a cutover: %v", err)
	}
	from := time.Date(2027, 1, 31, 8, 0, 0, 0, time.UTC)
	s := &Setup{Server: "http://localhost", WebhookID: "W1", Turns: []Turn{{From: from, Side: SidePoller}}}
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
	f, err := OpenSetupFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if side := f.Current().Acts(from.Add(time.Hour)); side != SidePoller || f.Err() != nil {
		t.Errorf("it is the turn of the %s, %v", side, f.Err())
	}
	s.Turns = append(s.Turns, Turn{From: from.Add(time.Minute), Side: SideReceiver})
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
	if side := f.Current().Acts(from.Add(time.Hour)); side != SideReceiver {
		t.Errorf("after the switch it is the turn of the %s", side)
	}
	for what, breakIt := range map[string]func(string) error{
		"damaged": func(name string) error { return os.WriteFile(name, []byte("{"), 0o600) },
		"gone":    os.Remove,
	} {
		if err := breakIt(filepath.Join(dir, SetupName)); err != nil {
			t.Fatal(err)
		}
		if side := f.Current().Acts(from.Add(time.Hour)); side != SideReceiver || f.Err() == nil {
			t.Errorf("with a file that is %s it is the turn of the %s, and the error is %v", what, side, f.Err())
		}
		if err := s.Save(dir); err != nil {
			t.Fatal(err)
		}
		if f.Current(); f.Err() != nil {
			t.Errorf("after the file was %s: %v", what, f.Err())
		}
	}
}
