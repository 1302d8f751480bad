package cutover

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestSetupIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	if _, err := LoadSetup(dir); fault.KindOf(err) != fault.NotFound {
		t.Errorf("without a setup: %v", err)
	}
	want := &Setup{
		Server: "https://desk.example", WebhookID: "w", Tickets: []string{"a"}, Interval: 60, Started: day,
		Rules: Rules{Ignore: []Ignore{{"due_date", "Ann", day, "computed"}}, Waived: []string{"ticket.closed"}, MissRate: 0.02, Window: 3600},
		Turns: []Turn{{At: day, From: day, Side: SidePoller}},
	}
	for range 2 { // the second one replaces the first
		if err := want.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadSetup(dir)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	if err := os.WriteFile(filepath.Join(dir, SetupName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSetup(dir); err == nil {
		t.Error("a setup that is cut off was accepted")
	}
}

// Whoever looks, and whenever: one change is acted on by one side.
func TestTurns(t *testing.T) {
	t.Parallel()
	s := &Setup{Turns: []Turn{
		{From: day, Side: SidePoller},
		{From: day.Add(time.Hour), Side: SideReceiver},
		{From: day.Add(2 * time.Hour), Side: SidePoller},
	}}
	for after, want := range map[time.Duration]Side{
		-time.Minute:              SidePoller,
		0:                         SidePoller,
		time.Hour - 1:             SidePoller,
		time.Hour:                 SideReceiver,
		2*time.Hour - 1:           SideReceiver,
		2 * time.Hour:             SidePoller,
		1000 * time.Hour:          SidePoller,
		time.Hour + 1*time.Minute: SideReceiver,
	} {
		if got := s.Acts(day.Add(after)); got != want {
			t.Errorf("%s after the beginning: %s, want %s", after, got, want)
		}
	}
}
