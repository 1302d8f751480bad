package webhook

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// countingReader tells how much was read of a body without end.
type countingReader struct{ n int }

func (c *countingReader) Read(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

func TestHandlerReadsAtMostOneByteTooMany(t *testing.T) {
	t.Parallel()
	b, endless := newBench(nil), new(countingReader)
	r := delivery(testID, TicketCreated)
	r.Body, r.ContentLength = io.NopCloser(endless), -1
	b.want(t, r, 413, TooLarge)
	if endless.n > MaxBody+1 {
		t.Errorf("read %d bytes, want at most %d", endless.n, MaxBody+1)
	}

	body := []byte(fmt.Sprintf(`{"event_id":%q,"event_type":%q,"occurred_at":"2026-03-09T08:14:02.140Z","data":{},"x":"`, testID, TicketCreated))
	body = append(body, bytes.Repeat([]byte("x"), MaxBody-len(body)-2)...)
	body = append(body, `"}`...)
	r = signed(testID, TicketCreated, body)
	r.ContentLength = -1
	b.want(t, r, 200, Processed)
}

// TestHandlerBehindServer covers what only a real connection has.
func TestHandlerBehindServer(t *testing.T) {
	t.Parallel()
	b := newBench(nil)
	mux := http.NewServeMux()
	mux.Handle("/plain", b)
	mux.HandleFunc("/parsed", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		b.ServeHTTP(w, r)
	})
	mux.HandleFunc("/closed", func(w http.ResponseWriter, r *http.Request) {
		_ = r.Body.Close()
		b.ServeHTTP(w, r)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	post := func(path string, chunked bool, body []byte) (int, string) {
		t.Helper()
		r := signed(testID, TicketCreated, body)
		var reader io.Reader = bytes.NewReader(body)
		if chunked {
			reader = io.MultiReader(reader)
		}
		out, err := http.NewRequest(http.MethodPost, srv.URL+path, reader)
		if err != nil {
			t.Fatal(err)
		}
		out.Header = r.Header
		res, err := srv.Client().Do(out)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	good, err := io.ReadAll(delivery(testID, TicketCreated).Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path    string
		chunked bool
		body    []byte
		status  int
		text    string
	}{
		{"/plain", false, good, 200, "ok"},
		{"/plain", true, good, 200, "duplicate"},
		{"/plain", false, nil, 400, "malformed_json"},
		{"/plain", false, make([]byte, MaxBody+1), 413, "larger"},
		{"/plain", true, make([]byte, MaxBody+1), 413, "larger"},
		{"/parsed", false, good, 400, "already read"},
		{"/parsed", true, good, 400, "already read"},
		{"/closed", false, good, 400, "already read"},
	} {
		status, text := post(tt.path, tt.chunked, tt.body)
		if status != tt.status || !strings.Contains(text, tt.text) {
			t.Errorf("%s, chunked %t, %d bytes: %d %q, want %d %q", tt.path, tt.chunked, len(tt.body), status, text, tt.status, tt.text)
		}
	}
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	v := &Verifier{Secrets: NewSecretList(testSecret).All, Now: testNow}
	var calls int
	h := v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		e, ok := FromContext(r.Context())
		if !ok || e.EventID != testID {
			t.Errorf("FromContext = %+v, %t", e, ok)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || int64(len(body)) != r.ContentLength || !bytes.Contains(body, []byte(testTicket)) {
			t.Errorf("body %q of %d, %v", body, r.ContentLength, err)
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"good", func(*http.Request) {}, http.StatusTeapot},
		{"chunked", func(r *http.Request) { r.ContentLength = -1 }, http.StatusTeapot},
		{"unsigned", func(r *http.Request) { r.Header.Del(SignatureHeader) }, 401},
		{"another id", func(r *http.Request) { r.Header.Set(EventIDHeader, "x") }, 400},
		{"too large", func(r *http.Request) { r.ContentLength = MaxBody + 1 }, 413},
	} {
		r, w := delivery(testID, TicketCreated), httptest.NewRecorder()
		tt.change(r)
		h.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, w.Code, tt.status)
		}
	}
	if calls != 2 {
		t.Errorf("next was called %d times, want 2", calls)
	}
	if _, ok := FromContext(context.Background()); ok {
		t.Error("FromContext of an empty context")
	}
}
