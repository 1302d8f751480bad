package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Key is an API key as the API answers it, without the key itself.
type Key struct {
	KeyID       string       `json:"api_key_id"`
	Name        string       `json:"name"`
	UserID      string       `json:"user_id"` // whose permissions the key has
	Prefix      string       `json:"prefix"`  // the key's first characters, to tell keys apart
	Active      bool         `json:"active"`
	ExpiresAt   *time.Time   `json:"expires_at"`
	LastUsedAt  *time.Time   `json:"last_used_at"`
	UsageCount  int64        `json:"usage_count"`
	UsageLimit  *int64       `json:"usage_limit"` // nil for none
	Permissions []string     `json:"permissions"`
	RateLimit   KeyRateLimit `json:"rate_limit"`
	CreatedAt   *time.Time   `json:"created_at"`

	// APIKey is there in the answer to CreateKey and never again.
	APIKey string `json:"api_key,omitempty"`
}

// KeyRateLimit is a key's own budget of calls (contract section 1.6). What is nil
// is as the tenant, or else the server, has it.
type KeyRateLimit struct {
	Enabled      *bool `json:"enabled,omitempty"`        // false: no limit
	MaxTokens    *int  `json:"max_tokens,omitempty"`     // burst
	RefillPerMin *int  `json:"refill_per_min,omitempty"` // calls per minute in the long run
}

// KeyInput is what CreateKey and UpdateKey send. In an update, fields that are
// not set stay as they are.
type KeyInput struct {
	Name        Field[string]       `json:"name,omitzero"`
	UserID      Field[string]       `json:"user_id,omitzero"` // only to create; the caller's user if not set
	Active      Field[bool]         `json:"active,omitzero"`
	ExpiresAt   Field[time.Time]    `json:"expires_at,omitzero"`
	UsageLimit  Field[int64]        `json:"usage_limit,omitzero"`
	Permissions Field[[]string]     `json:"permissions,omitzero"`
	RateLimit   Field[KeyRateLimit] `json:"rate_limit,omitzero"`
}

// utc keeps offsets out of the body: the server takes Z only (contract section
// 1.2).
func (in KeyInput) utc() KeyInput {
	in.ExpiresAt.value = in.ExpiresAt.value.UTC()
	return in
}

// Keys walks through the tenant's API keys. An error comes as the last pair.
func (c *Client) Keys(ctx context.Context) iter.Seq2[*Key, error] {
	return pages[Key](ctx, c, nil, "api-keys")
}

// CreateKey mints a key. Keep the answer's APIKey: it is not shown again.
// Without WithIdempotencyKey it is not sent again after a lost connection.
func (c *Client) CreateKey(ctx context.Context, in KeyInput, opts ...CallOption) (*Key, error) {
	return one[Key](ctx, c, call{method: http.MethodPost, path: []string{"api-keys"}, in: in.utc()}, opts...)
}

// UpdateKey changes a key and returns it.
func (c *Client) UpdateKey(ctx context.Context, id string, in KeyInput, opts ...CallOption) (*Key, error) {
	return one[Key](ctx, c, call{method: http.MethodPut, path: []string{"api-keys", id}, in: in.utc()}, opts...)
}

// DeleteKey ends a key at once. After a lost connection it is sent again, and
// then a 404 can mean that the first one worked.
func (c *Client) DeleteKey(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: []string{"api-keys", id}}, nil)
}
