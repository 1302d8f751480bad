package app_test

import (
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/test/alga"
)

// algaScenarios are what AlgaPSA does and our own server does not.
func algaScenarios() []scenario {
	tidy := alga.Config{FreshPayloads: true, InOrder: true, Webhooks: alga.Documented}
	closes := alga.Closed
	return []scenario{
		{cutover.Unmoved, "tags do not move updated_at", func(t *testing.T) (*stage, want) {
			s := algas(t, tidy, "a")
			s.ready()
			s.retitles("a1")
			sleep(3 * time.Minute)
			s.did("a2", func() { s.alga.Update(alga.WebUI, alga.Change{Tags: []string{"vip"}}, s.ids["a"]) })
			settle()
			return s, want{cutover.Unmoved: {"event a2 updated", "receipt a2 updated 1"}, cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.StalePayload, "the row was in the cache", func(t *testing.T) (*stage, want) {
			s := algas(t, alga.Config{InOrder: true, Webhooks: alga.Documented}, "a")
			s.ready()
			s.retitles("a1")
			sleep(56 * time.Second) // the poller has looked, and the cache keeps a row for a minute
			s.retitles("a2")
			settle()
			return s, want{
				cutover.StalePayload: {"event a2 updated", "receipt a2 updated 1"}, cutover.WebhookFirst: append(onTime("a1"), "change a2"),
			}
		}},
		{cutover.FieldsMissing, "none, where AlgaPSA's answers have less than its payloads", func(t *testing.T) (*stage, want) {
			s := algas(t, tidy, "a")
			s.ready()
			s.retitles("a1")
			sleep(2 * time.Minute)
			s.did("a2", func() { s.alga.Update(alga.WebUI, alga.Change{Assign: new(alga.Mara)}, s.ids["a"]) })
			settle()
			return s, want{cutover.WebhookFirst: append(onTime("a1"), "change a2", "event a2 assigned", "receipt a2 assigned 1")}
		}},
		{cutover.FieldsMissing, "none, where AlgaPSA's list has less than its payloads", func(t *testing.T) (*stage, want) {
			s := algas(t, tidy, "a")
			s.watch = nil
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.OutOfOrder, "the sender holds an event back", func(t *testing.T) (*stage, want) {
			cfg := tidy
			cfg.Fate = func(e alga.Event) alga.Fate {
				if e.N == 2 {
					return alga.Fate{Hold: 2 * time.Minute}
				}
				return alga.Fate{}
			}
			s := algas(t, cfg, "a")
			s.ready()
			s.retitles("a1")
			sleep(70 * time.Second)
			s.retitles("a2")
			settle()
			return s, want{
				cutover.OutOfOrder: {"receipt a1 updated 1"}, cutover.PollerFirstS: {"change a1", "event a1 updated"}, cutover.WebhookFirst: onTime("a2"),
			}
		}},
		{cutover.SameMoment, "two events of one change", func(t *testing.T) (*stage, want) {
			s := algas(t, tidy, "a")
			s.ready()
			s.did("a1", func() { s.alga.Update(alga.REST, alga.Change{Status: &closes}, s.ids["a"]) })
			settle()
			return s, want{
				cutover.SameMoment: {"receipt a1 closed 1"}, cutover.SameChange: {"event a1 closed"}, cutover.WebhookFirst: onTime("a1"),
			}
		}},
		{cutover.Unexplained, "the sender loses an event, and there is no feed", func(t *testing.T) (*stage, want) {
			cfg := tidy
			cfg.Fate = func(e alga.Event) alga.Fate { return alga.Fate{Lose: e.N == 2} }
			s := algas(t, cfg, "a")
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.Unexplained: {"change a1"}}
		}},
		{cutover.Unexplained, "a sweep at the end finds what neither side was told", func(t *testing.T) (*stage, want) {
			cfg := tidy
			cfg.Fate = func(e alga.Event) alga.Fate { return alga.Fate{Lose: e.N == 4} }
			s := algas(t, cfg, "a", "x")
			s.ready()
			s.retitles("a1") // event 3
			s.retitles("x1")
			settle()
			if n, err := cutover.ClosingSweep(t.Context(), cutover.CollectorConfig{
				URL: "http://desk.example", Key: alga.Key, HTTP: s.http, Dir: s.dir, Since: s.began, Budget: 0.5, Now: time.Now,
			}); n != 2 || err != nil {
				t.Errorf("swept %d tickets, %v", n, err)
			}
			return s, want{cutover.Unexplained: {"truth x1"}, cutover.WebhookFirst: append(onTime("a1"), "truth a1")}
		}},
		{cutover.NoEvent, "sent again by hand", func(t *testing.T) (*stage, want) {
			cfg := tidy
			cfg.Fate = func(e alga.Event) alga.Fate { return alga.Fate{Copies: e.N - 1} }
			s := algas(t, cfg, "a")
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.NoEvent: {"receipt a1 updated 2"}, cutover.WebhookFirst: onTime("a1")}
		}},
		{cutover.Pending, "the sender loses an event, and there is neither feed nor log", func(t *testing.T) (*stage, want) {
			s := algas(t, alga.Config{FreshPayloads: true, InOrder: true, Fate: func(e alga.Event) alga.Fate { return alga.Fate{Lose: e.N == 2} }}, "a")
			s.ready()
			s.retitles("a1")
			settle()
			return s, want{cutover.Pending: {"change a1"}}
		}},
		{cutover.NoType, "a ticket is deleted, and there is no feed", func(t *testing.T) (*stage, want) {
			s := algas(t, tidy, "a")
			s.ready()
			s.alga.Delete(s.ids["a"])
			settle()
			return s, want{cutover.NoType: {"change a"}}
		}},
	}
}
