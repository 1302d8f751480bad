package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/test/pipe"
)

// arrivals are the times of the requests that reached the server.
type arrivals struct {
	mu sync.Mutex
	at []time.Time
}

// add notes a request and returns how many there were before it.
func (a *arrivals) add() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, time.Now())
	return len(a.at) - 1
}

func (a *arrivals) all() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at
}

// inBubble runs f with a client whose server answers with steps, one per
// request; the last one answers all further requests.
func inBubble(t *testing.T, steps []http.HandlerFunc, f func(*testing.T, *Client, *arrivals), opts ...Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		at := new(arrivals)
		p := pipe.Listen()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			steps[min(at.add(), len(steps)-1)](w, r)
		})}
		served := make(chan error)
		go func() { served <- srv.Serve(p) }()
		tr := &http.Transport{DialContext: p.Dial}
		c, err := New("http://server", testKey, append([]Option{WithHTTPClient(&http.Client{Transport: tr})}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		f(t, c, at)
		tr.CloseIdleConnections()
		_ = srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func answer(status int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"data":{"ticket_id":"`+id1+`"},"error":{"code":"X","message":"m"}}`)
	}
}

// lose drops the connection without an answer.
func lose(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

func get(ctx context.Context, c *Client) error { _, err := c.Ticket(ctx, id1); return err }
func put(ctx context.Context, c *Client) error {
	_, err := c.UpdateTicket(ctx, id1, TicketUpdate{Title: Set("x")})
	return err
}
func post(ctx context.Context, c *Client) error {
	_, err := c.CreateTicket(ctx, TicketInput{Title: "x"})
	return err
}
func postWithKey(ctx context.Context, c *Client) error {
	_, err := c.CreateTicket(ctx, TicketInput{Title: "x"}, WithIdempotencyKey("k1"))
	return err
}

func TestRetries(t *testing.T) {
	t.Parallel()
	const second = time.Second
	ok := answer(200, "")
	date := time.Date(2000, 1, 1, 0, 0, 7, 0, time.UTC).Format(http.TimeFormat) // a bubble begins at 00:00:00
	tests := []struct {
		name     string
		steps    []http.HandlerFunc
		do       func(context.Context, *Client) error
		tries    int
		status   int           // of the error; 0 for none, -1 for one without an answer
		min, max time.Duration // over all tries
	}{
		{"first try", []http.HandlerFunc{ok}, get, 1, 0, 0, 0},
		{"429 with seconds", []http.HandlerFunc{answer(429, "3"), ok}, get, 2, 0, 3 * second, 4 * second},
		{"429 with a date", []http.HandlerFunc{answer(429, date), ok}, get, 2, 0, 7 * second, 8 * second},
		{"429 without", []http.HandlerFunc{answer(429, ""), ok}, get, 2, 0, second / 8, second},
		{"429 with nonsense", []http.HandlerFunc{answer(429, "soon"), ok}, get, 2, 0, second / 8, second},
		{"429 with the past", []http.HandlerFunc{answer(429, "-5"), ok}, get, 2, 0, second / 8, second},
		{"429 with as long as we wait", []http.HandlerFunc{answer(429, "60"), ok}, get, 2, 0, 60 * second, 60 * second},
		{"429 with too long", []http.HandlerFunc{answer(429, "61"), ok}, get, 1, 429, 0, 0},
		{"429 with more than int64", []http.HandlerFunc{answer(429, "9223372036854775807"), ok}, get, 1, 429, 0, 0},
		{"429 for ever", []http.HandlerFunc{answer(429, "2")}, get, 4, 429, 6 * second, 7 * second},
		{"429 of a post", []http.HandlerFunc{answer(429, "1"), ok}, post, 2, 0, second, 2 * second},
		{"503", []http.HandlerFunc{answer(503, ""), answer(503, ""), ok}, put, 3, 0, second / 4, 2 * second},
		{"503 of a post with Retry-After", []http.HandlerFunc{answer(503, "1"), ok}, post, 2, 0, second, 2 * second},
		{"503 of a post without", []http.HandlerFunc{answer(503, ""), ok}, post, 1, 503, 0, 0},
		{"503 of a post with a key", []http.HandlerFunc{answer(503, ""), ok}, postWithKey, 2, 0, second / 8, second},
		{"500", []http.HandlerFunc{answer(500, "1"), ok}, get, 1, 500, 0, 0},
		{"404", []http.HandlerFunc{answer(404, ""), ok}, get, 1, 404, 0, 0},
		{"lost get", []http.HandlerFunc{lose, ok}, get, 2, 0, second / 8, second},
		{"lost put", []http.HandlerFunc{lose, ok}, put, 2, 0, second / 8, second},
		{"lost post", []http.HandlerFunc{lose, ok}, post, 1, -1, 0, 0},
		{"lost post with a key", []http.HandlerFunc{lose, ok}, postWithKey, 2, 0, second / 8, second},
		{"lost for ever", []http.HandlerFunc{lose}, get, 4, -1, second / 2, 4 * second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, tt.steps, func(t *testing.T, c *Client, at *arrivals) {
				err := tt.do(t.Context(), c)
				var e *Error
				switch status := 0; {
				case errors.As(err, &e):
					status = e.Status
					fallthrough
				case err == nil:
					if status != tt.status {
						t.Errorf("error %v, want the status %d", err, tt.status)
					}
				case tt.status != -1:
					t.Errorf("error %v, want the status %d", err, tt.status)
				}
				if len(at.all()) != tt.tries {
					t.Fatalf("%d tries, want %d", len(at.all()), tt.tries)
				}
				if took := at.all()[tt.tries-1].Sub(at.all()[0]); took < tt.min || took > tt.max {
					t.Errorf("took %s, want %s to %s", took, tt.min, tt.max)
				}
			})
		})
	}
}

// The waits double, up to the longest one, and no two clients come at one moment
// because they were refused at one.
func TestWaits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		step     http.HandlerFunc
		min, max func(try int) time.Duration
	}{
		{
			"not told", answer(503, ""),
			func(try int) time.Duration { return min(firstWait<<min(try, 10)/2, DefaultMaxWait) },
			func(try int) time.Duration { return min(firstWait<<min(try, 10)*3/2, DefaultMaxWait) },
		},
		{
			"told", answer(503, "3"),
			func(int) time.Duration { return 3 * time.Second },
			func(int) time.Duration { return 3100 * time.Millisecond },
		},
	} {
		inBubble(t, []http.HandlerFunc{tt.step}, func(t *testing.T, c *Client, at *arrivals) {
			if err := get(t.Context(), c); err == nil {
				t.Error("no error")
			}
			all := at.all()
			if len(all) != 80 {
				t.Fatalf("%s: %d tries", tt.name, len(all))
			}
			wait := func(try int) time.Duration { return all[try+1].Sub(all[try]) }
			for try := range len(all) - 1 {
				if w := wait(try); w < tt.min(try) || w > tt.max(try) {
					t.Errorf("%s: wait %d is %s, want %s to %s", tt.name, try, w, tt.min(try), tt.max(try))
				}
			}
			if wait(0) == tt.min(0)+(tt.max(0)-tt.min(0))/2 || wait(0) == tt.min(0) {
				t.Errorf("%s: the first wait is %s, which is no matter of chance", tt.name, wait(0))
			}
		}, WithTries(80))
	}
}

// TestRetrySendsTheSame: every try has the whole body and the same key.
func TestRetrySendsTheSame(t *testing.T) {
	t.Parallel()
	var bodies, keys []string
	step := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			bodies, keys = append(bodies, string(b)), append(keys, r.Header.Get("X-Idempotency-Key"))
			next(w, r)
		}
	}
	inBubble(t, []http.HandlerFunc{step(lose), step(answer(503, "1")), step(answer(201, ""))}, func(t *testing.T, c *Client, _ *arrivals) {
		if err := postWithKey(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if len(bodies) != 3 || bodies[0] == "" || bodies[1] != bodies[0] || bodies[2] != bodies[0] {
			t.Errorf("bodies %q", bodies)
		}
		if strings.Join(keys, " ") != "k1 k1 k1" {
			t.Errorf("keys %q", keys)
		}
	})
}

func TestTimeoutPerTry(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	inBubble(t, []http.HandlerFunc{hang, answer(200, "")}, func(t *testing.T, c *Client, at *arrivals) {
		start := time.Now()
		if err := get(t.Context(), c); err != nil || len(at.all()) != 2 || time.Since(start) > 6*time.Second {
			t.Errorf("%v after %d tries and %s, want an answer to the second", err, len(at.all()), time.Since(start))
		}
	}, WithTimeout(5*time.Second))

	inBubble(t, []http.HandlerFunc{hang}, func(t *testing.T, c *Client, at *arrivals) {
		err := get(t.Context(), c)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 5s") || len(at.all()) != 1 {
			t.Errorf("%v after %d tries, want the timeout as the cause", err, len(at.all()))
		}
	}, WithTimeout(5*time.Second), WithTries(1))
}

func TestWaitObeysContext(t *testing.T) {
	t.Parallel()
	t.Run("deadline before the wait would end", func(t *testing.T) {
		t.Parallel()
		inBubble(t, []http.HandlerFunc{answer(429, "30")}, func(t *testing.T, c *Client, _ *arrivals) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			start := time.Now()
			var e *Error
			if err := get(ctx, c); !errors.As(err, &e) || e.RetryAfter != 30*time.Second || time.Since(start) != 0 {
				t.Errorf("%v after %s, want the 429 at once", err, time.Since(start))
			}
		})
	})
	t.Run("cancelled while waiting", func(t *testing.T) {
		t.Parallel()
		inBubble(t, []http.HandlerFunc{answer(429, "30")}, func(t *testing.T, c *Client, at *arrivals) {
			ctx, cancel := context.WithCancel(t.Context())
			defer time.AfterFunc(10*time.Second, cancel).Stop()
			start := time.Now()
			var e *Error
			if err := get(ctx, c); !errors.As(err, &e) || time.Since(start) != 10*time.Second || len(at.all()) != 1 {
				t.Errorf("%v after %s, want the 429 after 10s", err, time.Since(start))
			}
		})
	})
	t.Run("cancelled before", func(t *testing.T) {
		t.Parallel()
		inBubble(t, []http.HandlerFunc{answer(200, "")}, func(t *testing.T, c *Client, at *arrivals) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := get(ctx, c); !errors.Is(err, context.Canceled) || len(at.all()) != 0 {
				t.Errorf("%v after %d tries, want none", err, len(at.all()))
			}
		})
	})
}

// TestAnswerCutOff: an answer that breaks off half way is a lost one.
func TestAnswerCutOff(t *testing.T) {
	t.Parallel()
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"data":`)
	}
	inBubble(t, []http.HandlerFunc{half, answer(200, "")}, func(t *testing.T, c *Client, at *arrivals) {
		if err := get(t.Context(), c); err != nil || len(at.all()) != 2 {
			t.Errorf("%v after %d tries, want an answer to the second", err, len(at.all()))
		}
	})
	stall := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"data":`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	inBubble(t, []http.HandlerFunc{stall}, func(t *testing.T, c *Client, at *arrivals) {
		if err := post(t.Context(), c); !errors.Is(err, context.DeadlineExceeded) || len(at.all()) != 1 {
			t.Errorf("%v after %d tries, want one that timed out", err, len(at.all()))
		}
	})
}

// Whatever can be made safe to repeat sends its idempotency key.
func TestIdempotencyKeyIsSent(t *testing.T) {
	t.Parallel()
	var key string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		key = r.Header.Get("X-Idempotency-Key")
		_, _ = io.WriteString(w, `{"data":{}}`)
	})
	ctx, o := t.Context(), WithIdempotencyKey("k1")
	for name, do := range map[string]func() error{
		"CreateTicket":         func() error { _, err := c.CreateTicket(ctx, TicketInput{}, o); return err },
		"UpdateTicket":         func() error { _, err := c.UpdateTicket(ctx, id1, TicketUpdate{}, o); return err },
		"AddComment":           func() error { _, err := c.AddComment(ctx, id1, CommentInput{}, o); return err },
		"CreateWebhook":        func() error { _, err := c.CreateWebhook(ctx, WebhookInput{}, o); return err },
		"UpdateWebhook":        func() error { _, err := c.UpdateWebhook(ctx, id1, WebhookInput{}, o); return err },
		"TestWebhook":          func() error { _, err := c.TestWebhook(ctx, id1, o); return err },
		"SendTestEvent":        func() error { _, err := c.SendTestEvent(ctx, TestEvent{}, o); return err },
		"RotateSecret":         func() error { _, err := c.RotateSecret(ctx, id1, 0, o); return err },
		"RetryDelivery":        func() error { _, err := c.RetryDelivery(ctx, id1, id2, o); return err },
		"StartReplay":          func() error { _, err := c.StartReplay(ctx, id1, ReplayInput{}, o); return err },
		"CreateKey":            func() error { _, err := c.CreateKey(ctx, KeyInput{}, o); return err },
		"UpdateKey":            func() error { _, err := c.UpdateKey(ctx, id1, KeyInput{}, o); return err },
		"PublishCutoverReport": func() error { _, err := c.PublishCutoverReport(ctx, json.RawMessage(`{}`), o); return err },
	} {
		if err := do(); err != nil || key != "k1" {
			t.Errorf("%s sends the key %q, %v", name, key, err)
		}
		key = ""
	}
}
