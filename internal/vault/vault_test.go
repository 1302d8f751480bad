package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/ticketwire/ticketwire/internal/fault"
)

const place = "webhooks.signing_secret/0198c0de"

// known is "whsec", sealed for place with key(1).
const known = "v1.e2dfd40b.zGKOrtC7ktmrBMj7QVTaOjdakBhRANzRInIZzlRiuY_F"

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

func keyText(b byte) string { return hex.EncodeToString(key(b)) }

func mustNew(t testing.TB, b byte) *Vault {
	t.Helper()
	v, err := New(key(b))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func writeKeys(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret.key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	v := mustNew(t, 1)
	for _, plain := range []string{"", "x", "whsec", strings.Repeat("long ", 10_000)} {
		sealed := v.Seal(place, []byte(plain))
		if !regexp.MustCompile(`^v1\.[0-9a-f]{8}\.[A-Za-z0-9_-]+$`).MatchString(sealed) {
			t.Errorf("sealed value %.60q", sealed)
		}
		if len(plain) > 3 && strings.Contains(sealed, plain) {
			t.Error("the sealed value holds the plain one")
		}
		got, err := v.Open(place, sealed)
		if err != nil || string(got) != plain {
			t.Errorf("opened %.20q, %v", got, err)
		}
		if v.Seal(place, []byte(plain)) == sealed {
			t.Error("sealing twice gives the same value")
		}
	}
}

// A value sealed by this version must open in every later one.
func TestOpenKnownValue(t *testing.T) {
	t.Parallel()
	got, err := mustNew(t, 1).Open(place, known)
	if err != nil || string(got) != "whsec" {
		t.Errorf("got %q, %v", got, err)
	}
}

// otherBits spells a value of 32 bytes in another way: the last two bits of its last
// character say nothing.
func otherBits(sealed string) string {
	last := len(sealed) - 1
	return sealed[:last] + string(sealed[last]+1)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	v := mustNew(t, 1)
	sealed := v.Seal(place, []byte("whsec"))
	flip := func(i int) string {
		raw := []byte(sealed)
		if raw[i]++; raw[i] == 'z'+1 || raw[i] == '9'+1 || raw[i] == 'Z'+1 || raw[i] == '_'+1 || raw[i] == '-'+1 {
			raw[i] = 'a'
		}
		return string(raw)
	}
	for i := range sealed {
		if changed := flip(i); changed != sealed {
			if _, err := v.Open(place, changed); err == nil {
				t.Errorf("opened with byte %d changed", i)
			}
		}
	}
	tests := map[string]struct {
		vault   *Vault
		context string
		sealed  string
	}{
		"other row":     {v, "webhooks.signing_secret/0198c0df", sealed},
		"other purpose": {v, "webhooks.custom_headers/0198c0de", sealed},
		"no context":    {v, "", sealed},
		"other key":     {mustNew(t, 2), place, sealed},
		"empty":         {v, place, ""},
		"plain text":    {v, place, "whsec"},
		"no key id":     {v, place, "v1." + strings.SplitN(sealed, ".", 3)[2]},
		"other format":  {v, place, "v2" + sealed[2:]},
		"cut":           {v, place, sealed[:len(sealed)-4]},
		"only a nonce":  {v, place, sealed[:12+16]},
		"longer":        {v, place, sealed + "AAAA"},
		"padded":        {v, place, sealed + "="},
		"line break":    {v, place, sealed + "\n"},
		"other bits":    {v, place, otherBits(v.Seal(place, []byte("whse")))},
		"break inside":  {v, place, sealed[:20] + "\r\n" + sealed[20:]},
	}
	for name, tt := range tests {
		got, err := tt.vault.Open(tt.context, tt.sealed)
		if err == nil || got != nil {
			t.Errorf("%s: opened as %q", name, got)
			continue
		}
		if !fault.Is(err, fault.Internal) || !errors.Is(err, ErrUnopened) || strings.Contains(err.Error(), "0198c0de") || len(tt.sealed) > 10 && strings.Contains(err.Error(), tt.sealed) {
			t.Errorf("%s: error %q", name, err)
		}
	}
}

func TestNewRefusesOtherSizes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes is taken", n)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	before, err := Open(writeKeys(t, keyText(1)+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := Open(writeKeys(t, "# new first\n"+keyText(2)+"\r\n\n  "+strings.ToUpper(keyText(1))+"  "))
	if err != nil {
		t.Fatal(err)
	}
	old := before.Seal(place, []byte("whsec"))
	if got, err := after.Open(place, old); err != nil || string(got) != "whsec" {
		t.Errorf("old value: %q, %v", got, err)
	}
	fresh := after.Seal(place, []byte("whsec"))
	if _, err := before.Open(place, fresh); err == nil {
		t.Error("after the rotation the old key still seals")
	}
	if got, err := mustNew(t, 2).Open(place, fresh); err != nil || string(got) != "whsec" {
		t.Errorf("new value: %q, %v", got, err)
	}
}

func TestOpenCreatesKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "secret.key")
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{64}\n$`).Match(text) {
		t.Errorf("the file holds %d bytes, %v", len(text), err)
	}
	other, err := Open(filepath.Join(t.TempDir(), "secret.key"))
	if err != nil || other.keys[0].id == first.keys[0].id {
		t.Errorf("another file has the same key, or none: %v", err)
	}
	second, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := second.Open(place, first.Seal(place, []byte("whsec"))); err != nil || string(got) != "whsec" {
		t.Errorf("after reopening: %q, %v", got, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOpenRace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret.key")
	vaults := make([]*Vault, 16)
	var wg sync.WaitGroup
	for i := range vaults {
		wg.Go(func() {
			v, err := Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			vaults[i] = v
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	sealed := vaults[0].Seal(place, []byte("whsec"))
	for i, v := range vaults {
		if _, err := v.Open(place, sealed); err != nil {
			t.Errorf("vault %d has another key: %v", i, err)
		}
	}
}

func TestOpenRefusesKeyFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, says string }{
		"empty":         {"", "secret.key holds no key"},
		"only comments": {"# nothing\n\n", "secret.key holds no key"},
		"short":         {keyText(1)[:62] + "\n", "secret.key, line 1: expected 64 hex digits"},
		"long":          {keyText(1) + "00\n", "secret.key, line 1: expected 64 hex digits"},
		"not hex":       {"zz" + keyText(1)[2:] + "\n", "secret.key, line 1: expected 64 hex digits"},
		"third bad":     {"# the key\n" + keyText(1) + "\n" + keyText(2)[:10] + "\n", "secret.key, line 3: expected 64 hex digits"},
		"twice":         {keyText(1) + "\n" + keyText(1) + "\n", "listed twice"},
		"huge":          {strings.Repeat("#\n", maxKeyFile) + keyText(1) + "\n", "secret.key is not a key file"},
	} {
		path := writeKeys(t, c.text)
		_, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %q", name, err, c.says)
			continue
		}
		if strings.Contains(err.Error(), "0101") || strings.Contains(err.Error(), "0202") {
			t.Errorf("%s: error %q quotes a key", name, err)
		}
		if after, _ := os.ReadFile(path); string(after) != c.text {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestOpenRefusesReadableFiles(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o620, 0o660, 0o666} {
		path := writeKeys(t, keyText(1)+"\n")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
	path := writeKeys(t, keyText(1)+"\n")
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err != nil {
		t.Errorf("mode 0400: %v", err)
	}
}

func TestOpenWithoutDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "missing", "secret.key")); err == nil {
		t.Error("opened in a directory that does not exist")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "is not a key file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestNewSigningSecret(t *testing.T) {
	t.Parallel()
	a, b := NewSigningSecret(), NewSigningSecret()
	raw, err := base64.RawURLEncoding.DecodeString(a)
	if err != nil || len(raw) != 32 || len(a) != 43 || a == b {
		t.Errorf("secrets %q and %q, %v", a, b, err)
	}
}

func TestNewAPIKey(t *testing.T) {
	t.Parallel()
	key, prefix, hash := NewAPIKey()
	if !regexp.MustCompile(`^tw_[A-Za-z0-9_-]{43}$`).MatchString(key) {
		t.Errorf("key %q", key)
	}
	if prefix != key[:11] || hash != HashAPIKey(key) {
		t.Errorf("prefix %q, hash %q of %q", prefix, hash, key)
	}
	if other, _, _ := NewAPIKey(); other == key {
		t.Error("the same key twice")
	}
	// SHA-256 of "abc", FIPS 180-4.
	if got := HashAPIKey("abc"); got != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("hash of abc: %s", got)
	}
}

// FuzzOpen looks for a panic, and for a value that opens although nobody sealed
// it.
func FuzzOpen(f *testing.F) {
	v := mustNew(f, 1)
	f.Add(place, known)
	f.Add("", "v1..")
	f.Add(place, "v1."+v.keys[0].id+".")
	f.Add(place, "v1."+v.keys[0].id+".AAAA")
	f.Fuzz(func(t *testing.T, context, sealed string) {
		plain, err := v.Open(context, sealed)
		if err == nil && (context != place || sealed != known) {
			t.Errorf("%q for %q opens as %q", sealed, context, plain)
		}
	})
}
