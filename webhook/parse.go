package webhook

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// Parse reads body as an envelope and checks it against the request's headers.
// It does not verify the signature: do that first, on the same bytes.
//
// The X-Alga-* headers are not signed. X-Alga-Event-Id and X-Alga-Event-Type
// must be there and agree with the body, else a captured body could be sent
// again under a fresh event id and slip past whoever deduplicates on the header
// (contract section 4.2). Ids are compared without regard to case. Unknown keys
// are ignored, and so is an unknown event type: deciding that is the caller's.
//
// The error is an *EnvelopeError; errors.Is tells its Reason. The envelope does
// not alias body.
func Parse(header http.Header, body []byte) (*Envelope, error) {
	var e Envelope
	// Unmarshal takes null for a struct without a complaint.
	if !isObject(body) || json.Unmarshal(body, &e) != nil {
		if !json.Valid(body) {
			return nil, &EnvelopeError{Reason: MalformedJSON}
		}
		return nil, &EnvelopeError{Reason: MalformedEnvelope}
	}
	switch {
	case e.EventID == "":
		return nil, &EnvelopeError{Reason: MissingEventID, Detail: "event_id"}
	case e.EventType == "":
		return nil, &EnvelopeError{Reason: MalformedEnvelope, Detail: "event_type"}
	case e.OccurredAt.IsZero():
		return nil, &EnvelopeError{Reason: MalformedEnvelope, Detail: "occurred_at"}
	case !isObject(e.Data):
		return nil, &EnvelopeError{Reason: MalformedEnvelope, Detail: "data"}
	}
	ids, types := header.Values(EventIDHeader), header.Values(EventTypeHeader)
	if len(ids) == 0 {
		return nil, &EnvelopeError{Reason: MissingEventID, Detail: EventIDHeader}
	}
	for _, id := range ids {
		if !strings.EqualFold(id, e.EventID) {
			return nil, &EnvelopeError{Reason: EventIDMismatch, Detail: EventIDHeader}
		}
	}
	if len(types) == 0 {
		return nil, &EnvelopeError{Reason: EventTypeMismatch, Detail: EventTypeHeader}
	}
	for _, t := range types {
		if t != e.EventType {
			return nil, &EnvelopeError{Reason: EventTypeMismatch, Detail: EventTypeHeader}
		}
	}
	return &e, nil
}

// isObject tells whether JSON, if it is valid, is an object.
func isObject(b []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte{'{'})
}
