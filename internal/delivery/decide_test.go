package delivery_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// ended is when the attempt of a test ended.
func ended() time.Time { return time.Date(2026, 3, 9, 8, 0, 10, 0, time.UTC) }

// exact is the default policy without jitter.
func exact() delivery.Policy {
	p := delivery.DefaultPolicy()
	p.Jitter = 0
	return p
}

func active() *delivery.Webhook { return &delivery.Webhook{Spec: delivery.Spec{IsActive: true}} }

// status is an answer with this status line.
func status(code int) delivery.Answer {
	a := delivery.Answer{StatusCode: code, Err: delivery.ErrStatus}
	if code >= 200 && code <= 299 {
		a.Err = ""
	}
	return a
}

func TestDecideStatuses(t *testing.T) {
	t.Parallel()
	for _, code := range []int{200, 201, 202, 204, 299} {
		got := exact().Decide(active(), &delivery.Delivery{}, status(code), ended(), 0)
		if diff := cmp.Diff(delivery.Verdict{Status: delivery.Delivered}, got); diff != "" {
			t.Errorf("%d (-want +got):\n%s", code, diff)
		}
	}
	for code, message := range map[int]string{
		199: "receiver answered 199",
		300: "receiver answered 300; redirects are not followed",
		301: "receiver answered 301 Moved Permanently; redirects are not followed",
		302: "receiver answered 302 Found; redirects are not followed",
		303: "receiver answered 303 See Other; redirects are not followed",
		304: "receiver answered 304 Not Modified; redirects are not followed",
		307: "receiver answered 307 Temporary Redirect; redirects are not followed",
		308: "receiver answered 308 Permanent Redirect; redirects are not followed",
		400: "receiver answered 400 Bad Request",
		401: "receiver answered 401 Unauthorized",
		403: "receiver answered 403 Forbidden",
		404: "receiver answered 404 Not Found",
		405: "receiver answered 405 Method Not Allowed",
		408: "receiver answered 408 Request Timeout",
		409: "receiver answered 409 Conflict",
		413: "receiver answered 413 Content Too Large",
		415: "receiver answered 415 Unsupported Media Type",
		422: "receiver answered 422 Unprocessable Content",
		429: "receiver answered 429 Too Many Requests",
		500: "receiver answered 500 Internal Server Error",
		501: "receiver answered 501 Not Implemented",
		502: "receiver answered 502 Bad Gateway",
		503: "receiver answered 503 Service Unavailable",
		504: "receiver answered 504 Gateway Timeout",
		600: "receiver answered 600",
		999: "receiver answered 999",
	} {
		got := exact().Decide(active(), &delivery.Delivery{}, status(code), ended(), 0)
		want := delivery.Verdict{
			Status:       delivery.Retrying,
			RetryAt:      ended().Add(time.Minute),
			ErrorType:    delivery.ErrStatus,
			ErrorMessage: message,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d (-want +got):\n%s", code, diff)
		}
	}
}

// Whatever went wrong on the way is tried again, a name that is not found
// included; only a place that we do not call is final.
func TestDecideByClass(t *testing.T) {
	t.Parallel()
	for class, want := range map[delivery.ErrorType]delivery.Status{
		delivery.ErrDNS: delivery.Retrying, delivery.ErrConnect: delivery.Retrying, delivery.ErrTLS: delivery.Retrying,
		delivery.ErrTimeout: delivery.Retrying, delivery.ErrProtocol: delivery.Retrying, delivery.ErrUnknown: delivery.Retrying,
		delivery.ErrSSRF: delivery.Abandoned,
	} {
		got := exact().Decide(active(), &delivery.Delivery{}, delivery.Answer{Err: class, Message: "why"}, ended(), 0)
		if got.Status != want || got.ErrorType != class || got.ErrorMessage != "why" {
			t.Errorf("%s: got %+v, want %s", class, got, want)
		}
	}
}

func TestDecideSpecialCases(t *testing.T) {
	t.Parallel()
	inactive := active()
	inactive.IsActive = false
	noRetries := active()
	noRetries.RetryConfig = &delivery.RetryConfig{MaxAttempts: ptr(1)}
	tolerant := exact()
	tolerant.GoneDisables = false
	refused := delivery.Answer{Err: delivery.ErrSSRF, Message: "10.0.0.1 is a private address"}
	timeout := delivery.Answer{Err: delivery.ErrTimeout, Message: "no answer within 10s"}
	brokenGone := delivery.Answer{StatusCode: 410, Err: delivery.ErrTimeout, Message: "body not finished within 10s"}
	tests := []struct {
		name   string
		policy delivery.Policy
		w      *delivery.Webhook
		d      delivery.Delivery
		a      delivery.Answer
		want   delivery.Verdict
	}{
		{"transport failure keeps its message", exact(), active(), delivery.Delivery{Step: 4}, timeout,
			delivery.Verdict{Status: delivery.Retrying, RetryAt: ended().Add(12 * time.Hour), ErrorType: delivery.ErrTimeout, ErrorMessage: "no answer within 10s"}},
		{"transport failure without a message", exact(), active(), delivery.Delivery{Step: 5}, delivery.Answer{Err: delivery.ErrDNS},
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrDNS, ErrorMessage: "delivery failed (dns)"}},
		{"a 2xx that broke off", exact(), active(), delivery.Delivery{Step: 5}, delivery.Answer{StatusCode: 200, Err: delivery.ErrConnect, Message: "reset"},
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrConnect, ErrorMessage: "reset"}},
		{"no answer at all", exact(), active(), delivery.Delivery{Step: 5}, delivery.Answer{},
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrUnknown, ErrorMessage: "no answer from the receiver"}},
		{"schedule used up", exact(), active(), delivery.Delivery{Step: 5}, status(500),
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 500 Internal Server Error"}},
		{"webhook without retries", exact(), noRetries, delivery.Delivery{}, status(500),
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 500 Internal Server Error"}},
		{"refused address", exact(), active(), delivery.Delivery{}, refused,
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrSSRF, ErrorMessage: refused.Message}},
		{"test", exact(), active(), delivery.Delivery{IsTest: true}, status(404),
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 404 Not Found"}},
		{"manual", exact(), active(), delivery.Delivery{IsManual: true}, status(404),
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 404 Not Found"}},
		{"gone", exact(), active(), delivery.Delivery{}, status(410),
			delivery.Verdict{Status: delivery.Abandoned, Disable: delivery.DisabledGone, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 410 Gone"}},
		{"gone, manual", exact(), active(), delivery.Delivery{IsManual: true}, status(410),
			delivery.Verdict{Status: delivery.Abandoned, Disable: delivery.DisabledGone, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 410 Gone"}},
		{"gone, test", exact(), active(), delivery.Delivery{IsTest: true}, status(410),
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 410 Gone"}},
		{"gone, inactive already", exact(), inactive, delivery.Delivery{}, status(410),
			delivery.Verdict{Status: delivery.Abandoned, ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 410 Gone"}},
		{"gone, policy off", tolerant, active(), delivery.Delivery{}, status(410),
			delivery.Verdict{Status: delivery.Retrying, RetryAt: ended().Add(time.Minute), ErrorType: delivery.ErrStatus, ErrorMessage: "receiver answered 410 Gone"}},
		{"gone, but not completely received", exact(), active(), delivery.Delivery{}, brokenGone,
			delivery.Verdict{Status: delivery.Retrying, RetryAt: ended().Add(time.Minute), ErrorType: delivery.ErrTimeout, ErrorMessage: brokenGone.Message}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := tt.policy.Decide(tt.w, &tt.d, tt.a, ended(), 0.5)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// chain runs one event against a receiver that always gives this answer and
// returns when each attempt ended. took is how long an attempt lasts.
func chain(t interface{ Fatalf(string, ...any) }, p delivery.Policy, w *delivery.Webhook, a delivery.Answer, took time.Duration, jitter float64) []time.Duration {
	start := ended()
	var ends []time.Duration
	now := start
	for step := 0; ; step++ {
		if step > 30 {
			t.Fatalf("the chain does not end")
		}
		now = now.Add(took)
		ends = append(ends, now.Sub(start))
		v := p.Decide(w, &delivery.Delivery{Step: step, Attempt: step + 1}, a, now, jitter)
		if v.Status == delivery.Abandoned {
			return ends
		}
		if v.Status != delivery.Retrying {
			t.Fatalf("attempt %d: %s", step+1, v.Status)
		}
		now = v.RetryAt
	}
}

// TestChainOfTheGuide is the outage of the guide: six attempts over 14 h 36 m.
func TestChainOfTheGuide(t *testing.T) {
	t.Parallel()
	got := chain(t, exact(), active(), status(500), 0, 0)
	want := []time.Duration{0, time.Minute, 6 * time.Minute, 36 * time.Minute, 156 * time.Minute, 876 * time.Minute}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	// A receiver that hangs for ten seconds does not shorten a delay.
	slow := chain(t, exact(), active(), delivery.Answer{Err: delivery.ErrTimeout}, 10*time.Second, 0)
	for i := range slow {
		if d := slow[i] - want[i]; d != time.Duration(i+1)*10*time.Second {
			t.Errorf("attempt %d ends %v after the quick one, want %v", i+1, d, time.Duration(i+1)*10*time.Second)
		}
	}
}

func TestChainProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.SliceOfN(rapid.Int64Range(1, 604800000), 1, 20).Draw(t, "schedule")
		w := active()
		w.RetryConfig = &delivery.RetryConfig{Schedule: ms}
		p := delivery.DefaultPolicy()
		p.Jitter = rapid.Float64Range(0, 1).Draw(t, "share")
		jitter := rapid.Float64Range(0, 0.999).Draw(t, "jitter")
		took := time.Duration(rapid.Int64Range(0, 10000).Draw(t, "took")) * time.Millisecond
		ends := chain(t, p, w, status(rapid.SampledFrom([]int{302, 404, 500, 429}).Draw(t, "status")), took, jitter)
		if len(ends) != 1+len(ms) {
			t.Fatalf("%d attempts for %d delays", len(ends), len(ms))
		}
		for i, delay := range ms {
			gap := ends[i+1] - ends[i] - took
			least := time.Duration(delay) * time.Millisecond
			most := least + time.Duration(float64(least)*p.Jitter)
			if gap < least || gap > most {
				t.Fatalf("retry %d after %v, want %v to %v", i+1, gap, least, most)
			}
		}
	})
}

// TestJitterSpreads: a thousand retries of one instant do not come back in one
// second, none is early, none is later than the policy says.
func TestJitterSpreads(t *testing.T) {
	t.Parallel()
	p := delivery.DefaultPolicy()
	p.Jitter = 0.1 // of half an hour
	seconds := make(map[int64]int)
	for i := range 1000 {
		d := &delivery.Delivery{Step: 2}
		v := p.Decide(active(), d, status(500), ended(), float64(i)/1000)
		late := v.RetryAt.Sub(ended()) - 30*time.Minute
		if late < 0 || late > 3*time.Minute {
			t.Fatalf("retry is %v late, want 0 to 3m", late)
		}
		seconds[int64(late/time.Second)]++
	}
	if len(seconds) < 170 {
		t.Errorf("1000 retries fall into %d seconds, want about 180", len(seconds))
	}
}

func TestRetryAfterInDecide(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		code   int
		step   int
		values []string
		want   time.Duration
	}{
		{"longer than the delay", 429, 0, []string{"120"}, 120 * time.Second},
		{"503 too", 503, 0, []string{"120"}, 120 * time.Second},
		{"not on a 500", 500, 0, []string{"120"}, time.Minute},
		{"shorter than the delay", 429, 1, []string{"120"}, 5 * time.Minute},
		{"zero", 429, 0, []string{"0"}, time.Minute},
		{"negative", 429, 0, []string{"-5"}, time.Minute},
		{"absurd", 429, 0, []string{"99999999"}, time.Hour},
		{"absurd, on a longer delay", 429, 3, []string{"99999999"}, 2 * time.Hour},
		{"decimals", 429, 0, []string{"120.6"}, 121 * time.Second},
		{"date", 429, 0, []string{"Mon, 09 Mar 2026 08:03:10 GMT"}, 3 * time.Minute},
		{"past date", 429, 0, []string{"Mon, 09 Mar 2020 08:03:10 GMT"}, time.Minute},
		{"garbage", 429, 0, []string{"soon"}, time.Minute},
		{"two", 429, 0, []string{"90", "180"}, 180 * time.Second},
		{"none", 429, 0, nil, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := status(tt.code)
			a.RetryAfter = tt.values
			v := exact().Decide(active(), &delivery.Delivery{Step: tt.step}, a, ended(), 0)
			if got := v.RetryAt.Sub(ended()); got != tt.want {
				t.Errorf("retry after %v, want %v", got, tt.want)
			}
		})
	}
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	tests := []struct {
		values []string
		want   time.Duration
		ok     bool
	}{
		{[]string{"120"}, 120 * time.Second, true},
		{[]string{" 120\t"}, 120 * time.Second, true},
		{[]string{"0"}, 0, true},
		{[]string{"007"}, 7 * time.Second, true},
		{[]string{"120.6"}, 121 * time.Second, true},
		{[]string{"120.0"}, 120 * time.Second, true},
		{[]string{"0.001"}, time.Second, true},
		{[]string{"99999999999999999999999999"}, year, true},
		{[]string{"31536000.5"}, year, true},
		{[]string{"Mon, 09 Mar 2026 08:00:40 GMT"}, 30 * time.Second, true},
		{[]string{"Monday, 09-Mar-26 08:00:40 GMT"}, 30 * time.Second, true},
		{[]string{"Mon Mar  9 08:00:40 2026"}, 30 * time.Second, true},
		{[]string{"Mon, 09 Mar 2026 07:00:00 GMT"}, 0, true},
		{[]string{"Tue, 09 Mar 9999 07:00:00 GMT"}, year, true},
		{[]string{"120, 60"}, 120 * time.Second, true},
		{[]string{"60", "soon", "120"}, 120 * time.Second, true},
		{[]string{"60", "Mon, 09 Mar 2026 08:02:10 GMT"}, 2 * time.Minute, true},
		{[]string{"-5"}, 0, false},
		{[]string{"+5"}, 0, false},
		{[]string{"1e3"}, 0, false},
		{[]string{"5s"}, 0, false},
		{[]string{"."}, 0, false},
		{[]string{"5."}, 0, false},
		{[]string{".5"}, 0, false},
		{[]string{"1.2.3"}, 0, false},
		{[]string{"Mon, 09 Mar 2026 08:00:40 PST"}, 0, false},
		{[]string{"٣"}, 0, false}, // a digit, but not an ASCII one
		{[]string{""}, 0, false},
		{nil, 0, false},
	}
	for _, tt := range tests {
		got, ok := delivery.ParseRetryAfter(tt.values, ended())
		if got != tt.want || ok != tt.ok {
			t.Errorf("ParseRetryAfter(%q) = %v, %v, want %v, %v", tt.values, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"120", "-5", "120.6", "Mon, 09 Mar 2026 08:00:40 GMT", "1,2", "Mon Mar  9 08:00:40 2026", "9999999999999999999999"} {
		f.Add(s, "60")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		wait, ok := delivery.ParseRetryAfter([]string{a, b}, ended())
		if wait < 0 || wait > 365*24*time.Hour || !ok && wait != 0 {
			t.Errorf("ParseRetryAfter(%q, %q) = %v, %v", a, b, wait, ok)
		}
		one, oneOK := delivery.ParseRetryAfter([]string{a}, ended())
		if one > wait || oneOK && !ok {
			t.Errorf("a second field %q shortened %q from %v to %v", b, a, one, wait)
		}
	})
}

// TestRetryBounds: whatever the receiver says, a retry is never before the
// schedule's delay and never after its cap.
func TestRetryBounds(t *testing.T) {
	t.Parallel()
	value := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`-?[0-9]{1,12}(\.[0-9]{0,3})?`),
		rapid.Map(rapid.Int64Range(-1e9, 1e9), func(s int64) string {
			return ended().Add(time.Duration(s) * time.Second).Format("Mon, 02 Jan 2006 15:04:05 GMT")
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		p := delivery.DefaultPolicy()
		p.Jitter = rapid.Float64Range(0, 1).Draw(t, "share")
		jitter := rapid.Float64Range(0, 0.999).Draw(t, "jitter")
		step := rapid.IntRange(0, 4).Draw(t, "step")
		a := status(rapid.SampledFrom([]int{429, 503, 500}).Draw(t, "status"))
		a.RetryAfter = rapid.SliceOf(value).Draw(t, "retry-after")
		v := p.Decide(active(), &delivery.Delivery{Step: step}, a, ended(), jitter)
		delay := p.Schedule[step]
		got := v.RetryAt.Sub(ended())
		if most := max(delay+time.Duration(float64(delay)*p.Jitter), time.Hour); got < delay || got > most {
			t.Fatalf("retry after %v, want %v to %v", got, delay, most)
		}
	})
}
