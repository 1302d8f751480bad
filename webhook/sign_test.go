package webhook

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vectors is testdata/vectors.json, the shared vectors of the contract.
type vectors struct {
	Policy struct {
		ToleranceSeconds int      `json:"tolerance_seconds"`
		MaxHeaderChars   int      `json:"max_header_chars"`
		Reasons          []Reason `json:"reasons"`
	} `json:"receiver_policy"`
	Sign []struct {
		ID        string `json:"id"`
		Secret    string `json:"secret"`
		Timestamp int64  `json:"timestamp"`
		Body      []byte `json:"body_base64"`
		BodyBytes int    `json:"body_bytes"`
		Hex       string `json:"hex"`
		Header    string `json:"header"`
		WrongHex  string `json:"wrong_hex_if_secret_is_base64url_decoded"`
	} `json:"sign"`
	Verify []struct {
		ID        string   `json:"id"`
		Secrets   []string `json:"secrets"`
		Header    string   `json:"header"`
		Body      []byte   `json:"body_base64"`
		Now       int64    `json:"now"`
		Tolerance int      `json:"tolerance_seconds"`
		Expected  Reason   `json:"expected"`
		Accept    bool     `json:"accept"`
	} `json:"verify"`
	Envelope []struct {
		ID        string            `json:"id"`
		Secret    string            `json:"secret"`
		Timestamp int64             `json:"timestamp"`
		Body      string            `json:"body"`
		Headers   map[string]string `json:"headers"`
		Expected  string            `json:"expected"`
		Reason    Reason            `json:"reason"`
	} `json:"envelope"`
	Deliveries []struct {
		ID        string            `json:"id"`
		File      string            `json:"file"`
		Secret    string            `json:"secret"`
		Timestamp int64             `json:"timestamp"`
		Body      string            `json:"body"`
		BodyBytes int               `json:"body_bytes"`
		Headers   map[string]string `json:"headers"`
	} `json:"deliveries"`
}

func loadVectors(t testing.TB) *vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	if len(v.Sign) == 0 || len(v.Verify) == 0 || len(v.Envelope) == 0 || len(v.Deliveries) == 0 {
		t.Fatal("a section of the vectors is empty")
	}
	return v
}

func TestSignVectors(t *testing.T) {
	t.Parallel()
	for _, v := range loadVectors(t).Sign {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			if len(v.Body) != v.BodyBytes {
				t.Fatalf("body has %d bytes, want %d", len(v.Body), v.BodyBytes)
			}
			got := Sign(v.Secret, time.Unix(v.Timestamp, 0), v.Body)
			if got != v.Header {
				t.Errorf("Sign = %q, want %q", got, v.Header)
			}
			if !strings.HasSuffix(got, ",v1="+v.Hex) {
				t.Errorf("Sign = %q, want the hex %q", got, v.Hex)
			}
			if v.WrongHex == "" {
				return
			}
			// The vector is only worth something if decoding gives the other hex.
			key, err := base64.RawURLEncoding.DecodeString(v.Secret)
			if err != nil {
				t.Fatal(err)
			}
			if wrong := Sign(string(key), time.Unix(v.Timestamp, 0), v.Body); !strings.HasSuffix(wrong, v.WrongHex) {
				t.Errorf("Sign with the decoded key = %q, want the hex %q", wrong, v.WrongHex)
			}
		})
	}
}

func TestSignIgnoresZoneAndFraction(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 999_999_999).In(time.FixedZone("", 5*3600))
	want := "t=1700000000,v1=be310eac0f84daf469d630347a950258de768b365563ab68f29f2f783473d547"
	if got := Sign("shh", at, []byte(`{"a":1}`)); got != want {
		t.Errorf("Sign = %q, want %q", got, want)
	}
}

func TestSignRotating(t *testing.T) {
	t.Parallel()
	at, body := time.Unix(1760000000, 0), []byte(`{"a":1}`)
	_, before, _ := strings.Cut(Sign("old", at, body), ",")
	_, after, _ := strings.Cut(Sign("new", at, body), ",")
	got := SignRotating("old", "new", at, body)
	if want := "t=1760000000," + before + "," + after + "," + before; got != want {
		t.Fatalf("SignRotating = %q, want %q", got, want)
	}
	for _, secret := range []string{"old", "new"} {
		if err := Verify(got, body, at, secret); err != nil {
			t.Errorf("any-match verifier with the %s secret: %v", secret, err)
		}
	}
	// The verifiers in the field look at the first or at the last v1 alone.
	parts := strings.Split(got, ",")
	if parts[1] != before || parts[len(parts)-1] != before {
		t.Errorf("first and last v1 of %q must be the old secret's", got)
	}
}

func BenchmarkSign(b *testing.B) {
	const secret = "kQ3v9xTn2b7LwUeYp0sJ4hGdR8aFzCmE1iOoXtVuNqA"
	at := time.Unix(1760000000, 0)
	for _, size := range []int{256, 1024, 16 << 10} {
		body := []byte(strings.Repeat("x", size))
		b.Run(strconv.Itoa(size)+"B", func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				Sign(secret, at, body)
			}
		})
	}
}
