package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// DefaultTolerance is how far a signature's time may lie from the
	// receiver's clock, in the past or in the future, bounds included. It is
	// the replay window: inside it only deduplication stops a captured request.
	DefaultTolerance = 5 * time.Minute

	// maxHeaderLen bounds the work that a header can cause. Three v1, the most
	// that Ticketwire sends, need 230 characters.
	maxHeaderLen = 4096

	// maxTimeDigits keeps t within int64 and refuses milliseconds.
	maxTimeDigits = 12
)

// Verify checks an X-Alga-Signature header value against the raw body bytes
// with DefaultTolerance around now. It accepts when any v1 of the header fits
// any non-empty secret, so pass the old and the new one while a rotation runs.
// The error is a *SignatureError; errors.Is tells its Reason.
//
// body must be the bytes as received. Parsing and encoding them again changes
// them. Safe for concurrent use.
func Verify(header string, body []byte, now time.Time, secrets ...string) error {
	return verify(header, body, now, DefaultTolerance, secrets)
}

// Verifier is Verify with the receiver's settings. Set the fields before first
// use; after that it is safe for concurrent use.
type Verifier struct {
	// Secrets returns the secrets that are valid now. It is called for every
	// request, from many goroutines, so that a rotation takes effect without a
	// restart: SecretList.All and SecretFile.All are made for it. Required.
	Secrets func() []string
	// Tolerance replaces DefaultTolerance where it is positive. It is used in
	// whole seconds, rounded down.
	Tolerance time.Duration
	// MaxBody replaces the constant MaxBody where it is positive.
	MaxBody int64
	// Now replaces time.Now, for tests.
	Now func() time.Time
}

// Verify checks header against body like the function Verify.
func (v *Verifier) Verify(header string, body []byte) error {
	tolerance := v.Tolerance
	if tolerance <= 0 {
		tolerance = DefaultTolerance
	}
	var secrets []string
	if v.Secrets != nil {
		secrets = v.Secrets()
	}
	return verify(header, body, v.now(), tolerance, secrets)
}

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

// SecretList holds signing secrets that can be replaced while requests are
// being verified. The zero SecretList is empty, so that nothing verifies.
type SecretList struct{ list atomic.Pointer[[]string] }

// NewSecretList returns a list of the given secrets.
func NewSecretList(secrets ...string) *SecretList {
	l := new(SecretList)
	l.Set(secrets...)
	return l
}

// Set replaces all secrets. Requests whose check has begun still use the old
// ones; those that begin after Set returned use the new ones.
func (l *SecretList) Set(secrets ...string) {
	own := append([]string(nil), secrets...)
	l.list.Store(&own)
}

// All returns the current secrets. The caller must not change the slice.
func (l *SecretList) All() []string {
	if list := l.list.Load(); list != nil {
		return *list
	}
	return nil
}

func verify(header string, body []byte, now time.Time, tolerance time.Duration, secrets []string) error {
	usable := false
	for _, s := range secrets {
		usable = usable || s != ""
	}
	// An empty key is a key that everybody knows: it must never verify.
	if !usable {
		return &SignatureError{Reason: NoSecret}
	}
	sig, reason := parseSignature(header)
	if reason != Valid {
		return &SignatureError{Reason: reason}
	}
	skew := sig.unix - now.Unix()
	bound := int64(tolerance / time.Second)
	if skew > bound || skew < -bound {
		return &SignatureError{Reason: TimestampOutOfTolerance, Skew: seconds(skew)}
	}

	// The text of t as sent, not a number printed again, is what was signed.
	prefix := append(make([]byte, 0, maxTimeDigits+1), sig.time...)
	prefix = append(prefix, '.')
	match := false
	for _, s := range secrets {
		if s == "" {
			continue
		}
		want := mac(s, prefix, body)
		// No early exit: the time must not tell which secret or v1 fitted.
		for i := range sig.sums {
			match = hmac.Equal(want, sig.sums[i][:]) || match
		}
	}
	if !match {
		return &SignatureError{Reason: SignatureMismatch, Skew: seconds(skew)}
	}
	return nil
}

// seconds converts without overflow: twelve digits of seconds are more than a
// Duration can hold.
func seconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(max(-most, min(n, most))) * time.Second
}

// signature is a header that has the right form.
type signature struct {
	time string // as sent
	unix int64
	sums [][sha256.Size]byte
}

// parseSignature reads a header value. Keys are exact, unknown keys and empty
// parts are ignored. The whole header is read before one reason is chosen, so
// that the reason does not depend on the order of its parts.
func parseSignature(header string) (signature, Reason) {
	var (
		sig              signature
		times, v1s       int
		noPair, badDigit bool
	)
	if strings.Trim(header, " \t") == "" {
		return sig, MissingHeader
	}
	if len(header) > maxHeaderLen {
		return sig, MalformedHeader
	}
	for part := range strings.SplitSeq(header, ",") {
		part = strings.Trim(part, " \t")
		if part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		switch {
		case !ok:
			noPair = true
		case key == "t":
			times++
			sig.time = value
		case key == "v1":
			v1s++
			sum, ok := parseSum(value)
			badDigit = badDigit || !ok
			sig.sums = append(sig.sums, sum)
		}
	}
	unix, timeOK := parseTime(sig.time)
	sig.unix = unix
	switch {
	case noPair:
		return sig, MalformedHeader
	case times == 0:
		return sig, MissingTimestamp
	case times > 1:
		return sig, DuplicateTimestamp
	case !timeOK:
		return sig, MalformedTimestamp
	case v1s == 0:
		return sig, MissingV1
	case badDigit:
		return sig, MalformedV1
	}
	return sig, Valid
}

// parseTime reads 1 to 12 ASCII digits. strconv would take signs as well.
func parseTime(s string) (int64, bool) {
	if len(s) == 0 || len(s) > maxTimeDigits {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// parseSum reads exactly 64 hex digits of either case.
func parseSum(s string) (sum [sha256.Size]byte, ok bool) {
	if len(s) != 2*sha256.Size {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(s))
	return sum, err == nil
}
