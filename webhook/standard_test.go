package webhook

import (
	"testing"
	"time"
)

// The values are those of openssl dgst -sha256 -hmac.
func TestSignStandard(t *testing.T) {
	t.Parallel()
	at, body := time.Unix(1700000000, 999), []byte(`{"a":1}`)
	const current, previous = "v1,w6n6/6R0pQ8pkaErPA3rS19EOPiaSR+eSJxRiCMbFx8=", "v1,tIlxzt/552QhkUTwC0Yl+xLC/pmMb1bG+ib/IEwPM80="
	for _, c := range []struct {
		want    string
		secrets []string
	}{
		{current, []string{"shh"}},
		{current + " " + previous, []string{"shh", "old"}},
		{"", nil},
	} {
		if got := SignStandard("evt_1", at, body, c.secrets...); got != c.want {
			t.Errorf("with %q: %q, want %q", c.secrets, got, c.want)
		}
	}
}
