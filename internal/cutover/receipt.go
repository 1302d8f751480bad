package cutover

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

const (
	// keptBody is the longest body that is kept in the record, in bytes. Of a
	// longer one there are the hashes.
	keptBody = 256 << 10

	// keptHeader bounds what a stranger can write into the record.
	keptHeader = 200
)

// NewReceipt describes a request for the record, from what came in and what
// package webhook says became of it. The body is kept where its event was taken.
func NewReceipt(at, done time.Time, header http.Header, body []byte, got webhook.Receipt) *Receipt {
	sum := sha256.Sum256(body)
	r := &Receipt{
		At: at, Done: done, HTTP: got.Status, Outcome: string(got.Outcome),
		// An envelope is looked at when the signature was good.
		Signed:     got.Event != nil || got.Outcome == webhook.BadEnvelope,
		EventID:    cut(header.Get(webhook.EventIDHeader)),
		EventType:  cut(header.Get(webhook.EventTypeHeader)),
		DeliveryID: cut(got.DeliveryID), Attempt: got.Attempt, WebhookID: cut(header.Get(webhook.WebhookIDHeader)),
		BodyHash: hex.EncodeToString(sum[:]),
	}
	if r.Signed {
		r.describe(body, got.Event)
	}
	return r
}

// describe adds what the body says. It was signed.
func (r *Receipt) describe(body []byte, e *webhook.Envelope) {
	var says struct {
		EventID   string `json:"event_id"`
		EventType string `json:"event_type"`
		Synthetic bool   `json:"synthetic"`
		Data      struct {
			UpdatedAt webhook.Time `json:"updated_at"`
		} `json:"data"`
	}
	// What is of another type stays empty; the rest is read all the same.
	_ = json.Unmarshal(body, &says)
	if says.EventID != "" {
		r.EventID = says.EventID
	}
	if says.EventType != "" {
		r.EventType = says.EventType
	}
	if e == nil {
		return
	}
	r.Synthetic, r.UpdatedAt = says.Synthetic, says.Data.UpdatedAt.Time
	r.OccurredAt, r.Ticket = e.OccurredAt.Time, e.TicketID()
	if _, hash, err := stateOf(e.Data); err == nil { // data of another form has no state to compare
		r.Hash = hash
	}
	if r.HTTP < http.StatusMultipleChoices && len(body) <= keptBody {
		r.Body = string(body)
	}
}

func cut(s string) string { return s[:min(len(s), keptHeader)] }
