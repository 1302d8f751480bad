package vault

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

const (
	apiKeyMark = "tw_" // makes a leaked key recognisable to secret scanners

	// apiKeyShown is how much of a key lists show: the mark and 8 of 43 random
	// characters. 210 random bits stay unknown.
	apiKeyShown = len(apiKeyMark) + 8
)

// NewSigningSecret returns 32 random bytes as base64url without padding, 43
// characters (contract section 3.3). The text itself is the HMAC key.
func NewSigningSecret() string { return randomText() }

// NewAPIKey mints an API key. key is shown once, prefix (11 characters) is what
// lists show, hash is what is stored.
func NewAPIKey() (key, prefix, hash string) {
	key = apiKeyMark + randomText()
	return key, key[:apiKeyShown], HashAPIKey(key)
}

// HashAPIKey returns the SHA-256 of a presented key in hex (contract section
// 1.1). One round without salt is enough for a key of 256 random bits, and the
// lookup by hash leaks no time about the key.
func HashAPIKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// NewToken mints what a session of the console or a link to it is known by, 43
// characters of 256 random bits. hash is what is stored, as with an API key.
func NewToken() (token, hash string) {
	token = randomText()
	return token, HashAPIKey(token)
}

func randomText() string {
	raw := make([]byte, KeySize)
	rand.Read(raw) // never fails: it ends the program instead
	return base64.RawURLEncoding.EncodeToString(raw)
}
