package egress

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

func TestAnswerIsStored(t *testing.T) {
	t.Parallel()
	r := listen(t, answering("HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nretry-after: 9\r\nX-Odd: a\xffb\r\n"+
		"Content-Length: 12\r\n\r\n<b>\x00\xff\x1b[31m=x"))
	a := localClient(t).Do(t.Context(), post(r.url(), patience))
	wantErr(t, a, delivery.ErrStatus, r.addr, "429")
	if want := "<b>\ufffd\ufffd\x1b[31m=x"; a.Body != want {
		t.Errorf("body %q, want %q", a.Body, want)
	}
	if diff := cmp.Diff([]string{"7", "9"}, a.RetryAfter); diff != "" {
		t.Errorf("Retry-After (-want +got):\n%s", diff)
	}
	want := map[string]string{"retry-after": "7, 9", "x-odd": "a\ufffdb", "content-length": "12"}
	if diff := cmp.Diff(want, a.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if a.RemoteAddr != netip.MustParseAddrPort(r.addr) || a.Duration <= 0 {
		t.Errorf("remote %v, duration %v", a.RemoteAddr, a.Duration)
	}
}

func TestStoredText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw   string
		limit int
		want  string
	}{
		{"", 3, ""},
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"ééé", 2, "éé"},
		{"ab😀", 4, "ab😀"},
		{"ab😀", 3, "ab"}, // no half of a surrogate pair
		{"a\x00b", 9, "a\ufffdb"},
		{"a\xe2\x82", 9, "a\ufffd\ufffd"},
		{"\xed\xa0\x80", 9, "\ufffd\ufffd\ufffd"},
	}
	for _, tt := range tests {
		if got := storedText(tt.raw, tt.limit); got != tt.want {
			t.Errorf("%q to %d: got %q, want %q", tt.raw, tt.limit, got, tt.want)
		}
	}
}
