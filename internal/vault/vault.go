// Package vault seals secrets at rest and mints the random ones: signing secrets
// and API keys.
//
// It hides the cipher, the key file, the rotation of its keys and the form of a
// sealed value. It leaves to internal/store where sealed values and key hashes
// are kept, and to the webhook package how a signing secret signs.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// ErrUnopened is in every error of Vault.Open: it is the value that is at fault or
// the key file, and neither the store nor the caller.
var ErrUnopened = errors.New("it cannot be opened")

// KeySize is the length of a key in bytes.
const KeySize = 32

// format is the first part of every sealed value. A change of cipher gets a new
// one, so that old values stay readable.
const format = "v1"

// Vault seals and opens secrets. It is immutable and safe for concurrent use.
//
// A sealed value is "v1.<key id>.<base64url of nonce and ciphertext>", sealed
// with AES-256-GCM under a random nonce. That is safe for 2^32 values per key
// (NIST SP 800-38D section 8.3).
type Vault struct {
	keys []sealingKey // the first one seals, all of them open
}

type sealingKey struct {
	id   string // 8 hex digits derived from the key; tells which key opens a value
	aead cipher.AEAD
}

// New makes a vault with one key of KeySize bytes.
func New(key []byte) (*Vault, error) {
	return newVault([][]byte{key})
}

// newVault makes a vault with one key or more.
func newVault(keys [][]byte) (*Vault, error) {
	v := &Vault{}
	for _, key := range keys {
		k, err := derive(key)
		if err != nil {
			return nil, err
		}
		if v.find(k.id) != nil {
			return nil, fault.New(fault.Internal, "vault: the same key is listed twice")
		}
		v.keys = append(v.keys, k)
	}
	return v, nil
}

// derive makes the cipher and the public id from a key. Each gets its own HKDF
// label (RFC 5869), so the id says nothing about the cipher's key.
func derive(key []byte) (sealingKey, error) {
	if len(key) != KeySize {
		return sealingKey{}, fault.New(fault.Internal, "vault: a key has %d bytes instead of %d", len(key), KeySize)
	}
	id, err := hkdf.Key(sha256.New, key, nil, "ticketwire vault key id", 4)
	if err != nil {
		return sealingKey{}, fmt.Errorf("vault: derive key id: %w", err)
	}
	seal, err := hkdf.Key(sha256.New, key, nil, "ticketwire vault seal "+format, KeySize)
	if err != nil {
		return sealingKey{}, fmt.Errorf("vault: derive sealing key: %w", err)
	}
	block, err := aes.NewCipher(seal)
	if err != nil {
		return sealingKey{}, fmt.Errorf("vault: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return sealingKey{}, fmt.Errorf("vault: %w", err)
	}
	return sealingKey{id: hex.EncodeToString(id), aead: aead}, nil
}

func (v *Vault) find(id string) *sealingKey {
	for i := range v.keys {
		if v.keys[i].id == id {
			return &v.keys[i]
		}
	}
	return nil
}

// Seal encrypts plain for one place. context names that place, for example
// "webhooks.signing_secret/<webhook id>"; the value opens with the same context
// only, so a row's secret cannot be moved to another row.
func (v *Vault) Seal(context string, plain []byte) string {
	k := v.keys[0]
	sealed := k.aead.Seal(nil, nil, plain, []byte(context))
	return format + "." + k.id + "." + base64.RawURLEncoding.EncodeToString(sealed)
}

// Open decrypts a value that Seal made for context. The errors are of kind
// fault.Internal: a value that does not open is damage or a missing key, never
// the caller's mistake. They hold no part of the value.
func (v *Vault) Open(context, sealed string) ([]byte, error) {
	version, rest, _ := strings.Cut(sealed, ".")
	id, text, ok := strings.Cut(rest, ".")
	if version != format || !ok {
		return nil, fault.Wrap(fault.Internal, ErrUnopened, "vault: %s: not a sealed value", purpose(context))
	}
	k := v.find(id)
	if k == nil {
		return nil, fault.Wrap(fault.Internal, ErrUnopened, "vault: %s: sealed with a key that is not in the key file", purpose(context))
	}
	// Strict: a value has one spelling, so that damage is always noticed.
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, fault.Wrap(fault.Internal, ErrUnopened, "vault: %s: the sealed value is damaged", purpose(context))
	}
	plain, err := k.aead.Open(nil, nil, raw, []byte(context))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, ErrUnopened, "vault: %s: the sealed value is damaged or belongs elsewhere", purpose(context))
	}
	return plain, nil
}

// purpose is the part of a context that is fit for a log.
func purpose(context string) string {
	p, _, _ := strings.Cut(context, "/")
	return p
}
