package receiver

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/test/pipe"
)

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, body)
}

// apiServer is a server with an API of the test's own. Its client tries once.
func apiServer(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	api, err := client.New(s.URL, "key", client.WithTries(1), client.WithHTTPClient(&http.Client{Transport: transport}))
	must(t, err)
	return api
}

func next(t *testing.T, alarms <-chan Alarm) Alarm {
	t.Helper()
	select {
	case a := <-alarms:
		return a
	case <-time.After(patience):
		t.Fatal("no alarm")
		return Alarm{}
	}
}

// Case 122: silence is an alarm, once, until something comes.
func TestSilence(t *testing.T) {
	t.Parallel()
	alarms := make(chan Alarm, 10)
	cfg := config(t, new(seen).react)
	cfg.Silence = 300 * time.Millisecond
	cfg.OnAlarm = func(_ context.Context, a Alarm) { alarms <- a }
	cfg.Watch = &Watch{WebhookID: "W1", API: apiServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"data":{"webhook_id":"W1","is_active":true,"last_success_at":"2027-01-31T08:00:00Z"}}`)
	})}
	r, c := start(t, cfg), caller(t)
	a := next(t, alarms)
	if a.Kind != Silent || a.Over || !strings.Contains(a.Text, "the limit is 300ms; the server says that the webhook is enabled, last success 2027-01-31T08:00:00Z") {
		t.Errorf("the alarm is %+v", a)
	}
	if _, text := get(t, c, r.AdminURL()+"/metrics"); !strings.Contains(text, `ticketwire_receiver_alarm{kind="silence"} 1`) {
		t.Error("the metric does not show it")
	}
	// What nobody signed is no sign of life.
	req := request(t, r.URL(), envelope("E1", "T1", time.Now()))
	req.Header.Set("X-Alga-Signature", "t=1,v1=2")
	send(t, c, req)
	accepted(t, c, r, envelope("E1", "T1", time.Now()))
	if a := next(t, alarms); a.Kind != Silent || !a.Over {
		t.Errorf("then came %+v", a)
	}
	if a := next(t, alarms); a.Kind != Silent || a.Over {
		t.Errorf("then came %+v", a)
	}
}

// A webhook that is disabled calls nobody: the server is asked.
func TestWatch(t *testing.T) {
	t.Parallel()
	var now atomic.Pointer[string]
	say := func(status int, body string) {
		text := fmt.Sprint(status, " ", body)
		now.Store(&text)
	}
	say(200, `{"data":{"webhook_id":"W1","is_active":true}}`)
	alarms := make(chan Alarm, 10)
	cfg := config(t, new(seen).react)
	cfg.OnAlarm = func(_ context.Context, a Alarm) { alarms <- a }
	cfg.Watch = &Watch{WebhookID: "W1", Every: 20 * time.Millisecond, API: apiServer(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/api/v1/webhooks/W1" {
			t.Errorf("asked for %s", req.URL.Path)
		}
		status, body, _ := strings.Cut(*now.Load(), " ")
		code := 0
		fmt.Sscan(status, &code)
		answer(w, code, body)
	})}
	start(t, cfg)
	for _, x := range []struct {
		status int
		body   string
		kind   Kind
		over   bool
		text   string
	}{
		{200, `{"data":{"webhook_id":"W1","is_active":false,"auto_disabled_at":"2027-01-31T08:00:00Z"}}`, Disabled, false, "is disabled, disabled for its failures 2027-01-31T08:00:00Z"},
		{200, `{"data":{"webhook_id":"W1","is_active":true}}`, Disabled, true, "over"},
		{404, `{"error":{"code":"NOT_FOUND","message":"Webhook not found"}}`, Disabled, false, "the webhook W1 is not there any more"},
		{200, `{"data":{"webhook_id":"W1","is_active":true}}`, Disabled, true, "over"},
		{503, `{}`, Unwatched, false, "does not say"},
		{200, `{"data":{"webhook_id":"W1","is_active":true}}`, Unwatched, true, "over"},
	} {
		say(x.status, x.body)
		if a := next(t, alarms); a.Kind != x.kind || a.Over != x.over || !strings.Contains(a.Text, x.text) {
			t.Errorf("%d %s raised %+v", x.status, x.body, a)
		}
	}
}

// One answer that does not come is no alarm, and one that comes ends it, also that
// of a webhook which is gone.
func TestServerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	var status int
	var body string
	cfg := config(t, new(seen).react)
	cfg.Watch = &Watch{WebhookID: "W1", API: apiServer(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, status, body) })}
	r, err := New(t.Context(), cfg)
	must(t, err)
	defer stop(t, r)
	if r.cfg.Watch.Every != 5*time.Minute || cfg.Watch.Every != 0 {
		t.Errorf("asks every %s; the caller's is %s now", r.cfg.Watch.Every, cfg.Watch.Every)
	}
	const on, none, proxy = `{"data":{"webhook_id":"W1","is_active":true}}`, `{"error":{"code":"NOT_FOUND","message":"no"}}`, `<html>`
	for i, x := range []struct {
		status               int
		body                 string
		unwatched, isDisable bool
	}{
		{503, "", false, false}, {503, "", false, false}, {200, on, false, false},
		{503, "", false, false}, {404, proxy, false, false}, {404, proxy, true, false}, {503, "", true, false}, {200, on, false, false},
		{503, "", false, false}, {503, "", false, false}, {404, none, false, true},
		{503, "", false, true}, {503, "", false, true}, {503, "", true, true}, {404, none, false, true}, {200, on, false, false},
	} {
		status, body = x.status, x.body
		if r.alarms.ask(); r.alarms.isOn(Unwatched) != x.unwatched || r.alarms.isOn(Disabled) != x.isDisable {
			t.Errorf("answer %d, %d %s: unwatched %t, disabled %t", i, x.status, x.body, r.alarms.isOn(Unwatched), r.alarms.isOn(Disabled))
		}
	}
	status, body = 503, ""
	r.alarms.ask()
	r.alarms.ask()
	r.endQuit() // breaks the third question off
	if text := r.alarms.ask(); text != "the receiver is stopping" || r.alarms.isOn(Unwatched) {
		t.Errorf("at the end: %s, unwatched %t", text, r.alarms.isOn(Unwatched))
	}
}

// hang is a server that does not answer.
type hang struct{}

func (hang) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A server that hangs does not keep the receiver from hearing the silence.
func TestQuestionIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api, err := client.New("http://server", "key", client.WithHTTPClient(&http.Client{Transport: hang{}}), client.WithTimeout(time.Hour))
		must(t, err)
		cfg := config(t, new(seen).react)
		cfg.Listener, cfg.AdminListen = pipe.Listen(), ""
		cfg.Watch = &Watch{WebhookID: "W1", API: api}
		r, err := New(t.Context(), cfg)
		must(t, err)
		defer stop(t, r)
		began := time.Now()
		if r.alarms.ask(); time.Since(began) != askTimeout {
			t.Errorf("the question took %s", time.Since(began))
		}
	})
}

// The server is asked when the receiver starts, and not after the first pause only.
func TestWatchAsksAtTheStart(t *testing.T) {
	t.Parallel()
	alarms := make(chan Alarm, 10)
	cfg := config(t, new(seen).react)
	cfg.OnAlarm = func(_ context.Context, a Alarm) { alarms <- a }
	cfg.Watch = &Watch{WebhookID: "W1", Every: time.Hour, API: apiServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"data":{"webhook_id":"W1","is_active":false}}`)
	})}
	start(t, cfg)
	if a := next(t, alarms); a.Kind != Disabled || a.Over {
		t.Errorf("the alarm is %+v", a)
	}
}

// Whoever is called may hang: nobody waits for him.
func TestAlarmsDoNotWait(t *testing.T) {
	t.Parallel()
	cfg := config(t, new(seen).react)
	cfg.OnAlarm = func(ctx context.Context, _ Alarm) { <-ctx.Done() }
	r := start(t, cfg)
	for range queuedMost + 2 {
		r.alarms.set(Silent, "quiet")
		r.alarms.set(Silent, "")
	}
}

// A limit that was learned is one like any other, and is in the record: a day while
// nothing is learned. Without a limit silence is no alarm.
func TestSilenceThatIsLearned(t *testing.T) {
	t.Parallel()
	began := time.Date(2027, 1, 4, 8, 0, 0, 0, time.UTC)
	now, dir := began, t.TempDir()
	var asked int
	cfg := config(t, new(seen).react)
	cfg.Now = func() time.Time { return now }
	cfg.Silence, cfg.SkipStale, cfg.Record = LearnSilence, true, openRecord(t, dir)
	api := apiServer(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		answer(w, 200, `{"data":{"webhook_id":"W1","is_active":true}}`)
	})
	cfg.Refetch, cfg.Watch = api, &Watch{WebhookID: "W1", API: api}
	r, err := New(t.Context(), cfg)
	must(t, err)
	defer stop(t, r)
	must(t, r.begin())
	if s := pick(written(t, dir), started); len(s) != 1 || s[0].Silence != learnFor.Seconds() || !s[0].SkipStale || !s[0].Refetch {
		t.Errorf("the beginning is %+v", s)
	}
	now = began.Add(23 * time.Hour)
	if r.alarms.listen(); r.alarms.isOn(Silent) {
		t.Error("an alarm before anything is learned")
	}
	for range 30 {
		now = now.Add(time.Hour)
		r.pulse.event(now)
	}
	for quiet, on := range map[time.Duration]bool{90*time.Minute - time.Second: false, 90 * time.Minute: true} {
		r.cfg.Now = func() time.Time { return now.Add(quiet) }
		r.alarms.set(Silent, "")
		asked = 0
		r.alarms.listen()
		r.alarms.listen()
		if r.alarms.isOn(Silent) != on || on && asked != 1 {
			t.Errorf("quiet for %s: alarm %t, the server was asked %d times", quiet, r.alarms.isOn(Silent), asked)
		}
	}
	r.cfg.Silence = 0
	if r.alarms.listen(); r.alarms.isOn(Silent) {
		t.Error("an alarm without a limit")
	}
}

// What LearnSilence makes of the traffic.
func TestUsualSilence(t *testing.T) {
	t.Parallel()
	began := time.Date(2027, 1, 4, 8, 0, 0, 0, time.UTC) // a Monday
	file := filepath.Join(t.TempDir(), "receiver.json")
	p := readPulse(file, began)
	now := began
	for n := 1; n <= 9; n++ { // an event an hour until 17 h
		now = began.Add(time.Duration(n) * time.Hour)
		p.event(now)
	}
	if got := p.usual(now); got != 0 {
		t.Errorf("after a day's work the limit is %s", got)
	}
	for day := 1; day <= 4; day++ { // nights of 15 hours
		for h := range 10 {
			now = began.AddDate(0, 0, day).Add(time.Duration(h) * time.Hour)
			p.event(now)
		}
	}
	want := 15 * time.Hour * 3 / 2
	if got := p.usual(now); got != want {
		t.Errorf("after a week the limit is %s, want %s", got, want)
	}
	must(t, p.save(now))
	p = readPulse(file, now.Add(time.Minute))
	if got := p.usual(now); got != want || !p.alive().Equal(now) || !p.last().Equal(now) {
		t.Errorf("after a restart the limit is %s, alive %s", got, p.alive())
	}
	if got := p.quietSince(); !got.Equal(now.Add(time.Minute)) {
		t.Errorf("a receiver that was away is quiet since %s", got)
	}
	// What was long ago is forgotten: events come every minute now.
	for range 16 * 24 * 60 {
		now = now.Add(time.Minute)
		p.event(now)
	}
	if got := p.usual(now); got != leastLimit {
		t.Errorf("in dense traffic the limit is %s", got)
	}
	if n := len(p.kept.Pauses); n > learnDays {
		t.Errorf("%d days are kept", n)
	}
	p.event(now.Add(-time.Hour))
	if !p.last().Equal(now) {
		t.Errorf("after a late request the last event is of %s", p.last())
	}

	// Neither many events of a few hours nor a few of many days say enough, and what
	// is older than two weeks says nothing.
	p = readPulse(file+".hours", began)
	for n := range 3 * learnEvents {
		now = began.Add(time.Duration(n) * 20 * time.Minute)
		p.event(now)
	}
	if got := p.usual(now); got != 0 {
		t.Errorf("after %s the limit is %s", now.Sub(began), got)
	}
	p = readPulse(file+".days", began)
	for n := range learnEvents {
		if got := p.usual(now); got != 0 {
			t.Errorf("after %d events the limit is %s", n, got)
		}
		now = began.AddDate(0, 0, 10+2*n)
		p.event(now)
	}
	p.event(now.AddDate(0, 0, 5))
	now = now.AddDate(0, 0, 5)
	for range 8 {
		now = now.AddDate(0, 0, 2)
		p.event(now)
	}
	if got := p.usual(now); got != 3*24*time.Hour {
		t.Errorf("the limit is %s, want that of the last two weeks", got)
	}

	// A file that cannot be read is none.
	must(t, os.WriteFile(file, []byte(`{"alive":"2027-01-01T00:00:00Z","events":50,"began":1}`), 0o600))
	if p = readPulse(file, now); !p.kept.Began.Equal(now) || p.kept.Events != 0 || !p.alive().IsZero() {
		t.Errorf("a file that is damaged is read as %+v", p.kept)
	}
}
