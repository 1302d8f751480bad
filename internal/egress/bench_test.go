package egress

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkDo is one attempt beside the same request by a tuned transport with
// nothing around it.
func BenchmarkDo(b *testing.B) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusOK)
	}))
	b.Cleanup(receiver.Close)
	body := bytes.Repeat([]byte("x"), 1300)
	header := http.Header{}
	for _, name := range []string{"content-type", "X-Alga-Webhook-Id", "X-Alga-Event-Id", "X-Alga-Event-Type", "X-Alga-Delivery-Id", "X-Alga-Signature"} {
		header[name] = []string{"0190b5e2-5a6f-7c3e-9f4a-1d2e3c4b5a69"}
	}
	b.Run("bare", func(b *testing.B) {
		transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
		b.Cleanup(transport.CloseIdleConnections)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, receiver.URL, bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				req.Header = header
				resp, err := transport.RoundTrip(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	})
	b.Run("guarded", func(b *testing.B) {
		c := New(Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
		b.Cleanup(c.Close)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				a := c.Do(b.Context(), Request{Method: http.MethodPost, URL: receiver.URL, Header: header, Body: body, Timeout: time.Minute, VerifySSL: true})
				if a.Err != "" {
					b.Error(a.Message)
					return
				}
			}
		})
	})
}
