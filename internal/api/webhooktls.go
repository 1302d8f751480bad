package api

import (
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/webhook"
)

// readTLS reads what a webhook brings to TLS. It merges where the other objects
// replace: a key is never shown, so who changes the bundle could not send it
// back. Whether the parts are fit for use is asked when they are all known, see
// egress.CheckTLS. The keys of tlsView may be sent back and mean nothing.
func readTLS(o *object, p *specPatch) {
	if o.null("tls") {
		p.set(func(s *delivery.Spec) { s.TLS = nil })
		return
	}
	t := o.child("tls")
	if t == nil {
		return
	}
	t.only("client_cert", "client_key", "ca_bundle",
		"client_cert_subject", "client_cert_expires_at", "has_client_key", "has_ca_bundle")
	cert, key, bundle := readPEM(t, "client_cert"), readPEM(t, "client_key"), readPEM(t, "ca_bundle")
	p.set(func(s *delivery.Spec) {
		var merged delivery.TLS
		if s.TLS != nil {
			merged = *s.TLS
		}
		for _, part := range []struct {
			sent *string
			into *string
		}{{cert, &merged.ClientCert}, {key, &merged.ClientKey}, {bundle, &merged.CABundle}} {
			if part.sent != nil {
				*part.into = *part.sent
			}
		}
		s.TLS = &merged
		if merged == (delivery.TLS{}) {
			s.TLS = nil
		}
	})
}

// readPEM reads one part; null removes it, and nil leaves it as it is.
func readPEM(t *object, key string) *string {
	if t.null(key) {
		return new(string)
	}
	return t.text(key, 1, 0)
}

// tlsView is what records show of a webhook's credentials: enough to know which
// they are and until when they last.
type tlsView struct {
	ClientCertSubject   *string       `json:"client_cert_subject"`
	ClientCertExpiresAt *webhook.Time `json:"client_cert_expires_at"`
	HasClientKey        bool          `json:"has_client_key"`
	HasCABundle         bool          `json:"has_ca_bundle"`
}

func viewTLS(t *delivery.TLS) *tlsView {
	if t == nil {
		return nil
	}
	v := &tlsView{HasClientKey: t.ClientKey != "", HasCABundle: t.CABundle != ""}
	// It was checked when it was saved; without one there is nothing to show.
	if leaf, err := egress.Leaf(t.ClientCert); err == nil {
		v.ClientCertSubject, v.ClientCertExpiresAt = new(leaf.Subject.String()), new(webhook.At(leaf.NotAfter))
	}
	return v
}
