package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestVerifyVectors(t *testing.T) {
	t.Parallel()
	vs := loadVectors(t)
	if want := time.Duration(vs.Policy.ToleranceSeconds) * time.Second; DefaultTolerance != want {
		t.Errorf("DefaultTolerance = %s, want %s", DefaultTolerance, want)
	}
	if maxHeaderLen != vs.Policy.MaxHeaderChars {
		t.Errorf("maxHeaderLen = %d, want %d", maxHeaderLen, vs.Policy.MaxHeaderChars)
	}
	for _, v := range vs.Verify {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			verifier := Verifier{
				Secrets:   NewSecretList(v.Secrets...).All,
				Tolerance: time.Duration(v.Tolerance) * time.Second,
				Now:       func() time.Time { return time.Unix(v.Now, 0) },
			}
			err := verifier.Verify(v.Header, v.Body)
			if got := ReasonOf(err); got != v.Expected || (err == nil) != v.Accept {
				t.Errorf("Verifier.Verify = %v (%s), want %s", err, got, v.Expected)
			}
			var typed *SignatureError
			if err != nil && (!errors.As(err, &typed) || !errors.Is(err, v.Expected)) {
				t.Errorf("%v is not a *SignatureError of %s", err, v.Expected)
			}
			if got := ReasonOf(Verify(v.Header, v.Body, time.Unix(v.Now, 0), v.Secrets...)); got != v.Expected {
				t.Errorf("Verify = %s, want %s", got, v.Expected)
			}
		})
	}
}

// TestReasonsArePolicy keeps the constants equal to the contract's list.
func TestReasonsArePolicy(t *testing.T) {
	t.Parallel()
	have := []Reason{Valid, NoSecret, MissingHeader, MalformedHeader, MissingTimestamp, DuplicateTimestamp,
		MalformedTimestamp, MissingV1, MalformedV1, TimestampOutOfTolerance, SignatureMismatch}
	want := loadVectors(t).Policy.Reasons
	if len(have) != len(want) {
		t.Fatalf("%d reasons, want %d", len(have), len(want))
	}
	for i := range want {
		if have[i] != want[i] {
			t.Errorf("reason %d = %s, want %s", i, have[i], want[i])
		}
	}
}

func TestVerifyHeaderForms(t *testing.T) {
	t.Parallel()
	now, body := time.Unix(1760000000, 0), []byte(`{"a":1}`)
	good := Sign("shh", now, body)
	_, v1, _ := strings.Cut(good, ",")
	bad := "v1=" + strings.Repeat("0", 64)
	tests := []struct {
		name, header string
		want         Reason
	}{
		{"only white space", " \t ", MissingHeader},
		{"no pair", "garbage", MalformedHeader},
		{"a part that is no pair", good + ",garbage", MalformedHeader},
		{"only commas", ",,,", MissingTimestamp},
		{"unknown keys", "v0=abc,x=," + good + ",v2=def", Valid},
		{"tabs around parts", "t=1760000000,\t" + v1 + "\t", Valid},
		{"space inside a part", "t= 1760000000," + v1, MalformedTimestamp},
		{"T is not t", "T=1760000000," + v1, MissingTimestamp},
		{"plus sign", "t=+1760000000," + v1, MalformedTimestamp},
		{"2^63", "t=9223372036854775808," + v1, MalformedTimestamp},
		{"13 digits", "t=0001760000000," + v1, MalformedTimestamp},
		{"12 digits are read, but another text was signed", "t=001760000000," + v1, SignatureMismatch},
		{"full-width digits", "t=１７６０," + v1, MalformedTimestamp},
		{"twice the same t", "t=1760000000," + good, DuplicateTimestamp},
		{"duplicate before malformed", "t=x,t=y," + v1, DuplicateTimestamp},
		{"one malformed v1 beside a good one", good + ",v1=12", MalformedV1},
		{"odd hex", "t=1760000000," + v1[:len(v1)-1], MalformedV1},
		{"65 digits", "t=1760000000," + v1 + "0", MalformedV1},
		{"empty v1", "t=1760000000,v1=", MalformedV1},
		{"the last of many v1", "t=1760000000," + strings.Repeat(bad+",", 50) + v1, Valid},
		{"1,000 v1", "t=1760000000," + strings.Repeat(bad+",", 1000) + v1, MalformedHeader},
		{"4,096 characters", padTo(good, 4096), Valid},
		{"4,097 characters", padTo(good, 4097), MalformedHeader},
		{"1 MB", padTo(good, 1<<20), MalformedHeader},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := Verify(tt.header, body, now, "shh"); ReasonOf(err) != tt.want {
				t.Errorf("Verify = %v, want %s", err, tt.want)
			}
		})
	}
}

func padTo(header string, n int) string {
	return header + ",x=" + strings.Repeat("y", n-len(header)-len(",x="))
}

func TestVerifyTolerance(t *testing.T) {
	t.Parallel()
	sent, body := time.Unix(1760000000, 0), []byte("x")
	header := Sign("shh", sent, body)
	tests := []struct {
		tolerance, now time.Duration // now is relative to sent
		want           Reason
	}{
		{0, -301 * time.Second, TimestampOutOfTolerance},
		{0, -300 * time.Second, Valid},
		{0, -299 * time.Second, Valid},
		{0, 299 * time.Second, Valid},
		{0, 300 * time.Second, Valid},
		{0, 300*time.Second + 999*time.Millisecond, Valid},
		{0, 301 * time.Second, TimestampOutOfTolerance},
		{time.Second, time.Second, Valid},
		{time.Second, 2 * time.Second, TimestampOutOfTolerance},
		{24 * time.Hour, 24 * time.Hour, Valid},
	}
	for _, tt := range tests {
		v := Verifier{Secrets: NewSecretList("shh").All, Tolerance: tt.tolerance, Now: func() time.Time { return sent.Add(tt.now) }}
		err := v.Verify(header, body)
		if ReasonOf(err) != tt.want {
			t.Errorf("tolerance %s, clock off by %s: %v, want %s", tt.tolerance, tt.now, err, tt.want)
		}
		var e *SignatureError
		if errors.As(err, &e) && e.Skew != -tt.now {
			t.Errorf("Skew = %s, want %s", e.Skew, -tt.now)
		}
	}
	// The farthest time that a header can name must not wrap around.
	if err := Verify("t=999999999999,v1="+strings.Repeat("0", 64), body, sent, "shh"); !errors.Is(err, TimestampOutOfTolerance) {
		t.Errorf("farthest time: %v", err)
	}
}

func TestVerifySecrets(t *testing.T) {
	t.Parallel()
	now, body := time.Unix(1760000000, 0), []byte("x")
	tests := []struct {
		name    string
		signed  string
		secrets []string
		want    Reason
	}{
		{"none", "a", nil, NoSecret},
		{"an empty key must not verify what it signed", "", []string{""}, NoSecret},
		{"an empty one beside a good one", "", []string{"", "a"}, SignatureMismatch},
		{"first of two", "a", []string{"a", "b"}, Valid},
		{"last of two", "b", []string{"a", "b"}, Valid},
		{"none of two", "c", []string{"a", "b"}, SignatureMismatch},
	}
	for _, tt := range tests {
		if err := Verify(Sign(tt.signed, now, body), body, now, tt.secrets...); ReasonOf(err) != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	if err := new(Verifier).Verify(Sign("", time.Now(), body), body); !errors.Is(err, NoSecret) {
		t.Errorf("zero Verifier: %v, want %s", err, NoSecret)
	}
}

// TestSecretListIsLive removes a secret while requests are checked: those that
// begin after Set returned must be refused.
func TestSecretListIsLive(t *testing.T) {
	t.Parallel()
	now, body := time.Unix(1760000000, 0), []byte("x")
	header := Sign("old", now, body)
	list := NewSecretList("old", "new")
	v := Verifier{Secrets: list.All, Now: func() time.Time { return now }}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for v.Verify(header, body) == nil {
			}
		})
	}
	list.Set("new")
	if err := v.Verify(header, body); !errors.Is(err, SignatureMismatch) {
		t.Errorf("after removal: %v, want %s", err, SignatureMismatch)
	}
	wg.Wait()
	if got := new(SecretList).All(); got != nil {
		t.Errorf("zero SecretList has %q", got)
	}
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	err := Verify(Sign("other", time.Unix(1, 0), nil), nil, time.Unix(1, 0), "top-secret")
	right, _ := strings.CutPrefix(Sign("top-secret", time.Unix(1, 0), nil), "t=1,v1=")
	if s := err.Error(); strings.Contains(s, "top-secret") || strings.Contains(s, right) {
		t.Errorf("the error tells too much: %s", s)
	}
}

func TestReasonOfOtherErrors(t *testing.T) {
	t.Parallel()
	if got := ReasonOf(errors.New("other")); got != "" {
		t.Errorf("ReasonOf = %q, want none", got)
	}
}

// FuzzVerify holds Verify against a check that was written apart from it:
// whatever is accepted carries a v1 that is the HMAC of its own t and the body,
// with a t inside the tolerance.
func FuzzVerify(f *testing.F) {
	for _, v := range loadVectors(f).Verify {
		f.Add(v.Header, v.Body, v.Now, strings.Join(v.Secrets, "\n"))
	}
	f.Fuzz(func(t *testing.T, header string, body []byte, now int64, secrets string) {
		list := strings.Split(secrets, "\n")
		err := Verify(header, body, time.Unix(now, 0), list...)
		if err != nil {
			var e *SignatureError
			if !errors.As(err, &e) || e.Reason == "" || e.Reason == Valid {
				t.Fatalf("untyped refusal: %v", err)
			}
			return
		}
		if len(header) > 4096 {
			t.Fatal("accepted an overlong header")
		}
		var stamp string
		given := make(map[string]bool)
		for part := range strings.SplitSeq(header, ",") {
			part = strings.Trim(part, " \t")
			if v, ok := strings.CutPrefix(part, "t="); ok {
				if stamp != "" {
					t.Fatal("accepted two t")
				}
				stamp = v
			}
			if v, ok := strings.CutPrefix(part, "v1="); ok {
				given[strings.ToLower(v)] = true
			}
		}
		for _, s := range list {
			h := hmac.New(sha256.New, []byte(s))
			h.Write([]byte(stamp + "." + string(body)))
			if s != "" && given[hex.EncodeToString(h.Sum(nil))] {
				return
			}
		}
		t.Fatalf("accepted %q without a fitting v1", header)
	})
}

func BenchmarkVerify(b *testing.B) {
	now, body := time.Unix(1760000000, 0), []byte(strings.Repeat("x", 1024))
	header := SignRotating("old", "new", now, body)
	b.Run("one secret", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Verify(header, body, now, "old"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("two secrets", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Verify(header, body, now, "old", "new"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
