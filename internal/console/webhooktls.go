package console

import (
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
)

// tlsView is what a page shows of a webhook's credentials: which they are, and until
// when they last. The key is shown nowhere.
type tlsView struct {
	Subject string // of the client certificate; "" without one
	Expires time.Time
	Expired bool
	CA      bool // it trusts authorities of its own
}

// viewTLS is nil for a webhook that brings nothing.
func viewTLS(t *delivery.TLS, now time.Time) *tlsView {
	if t == nil {
		return nil
	}
	v := &tlsView{CA: t.CABundle != ""}
	// It was checked when it was saved; without one there is nothing to show.
	if leaf, err := egress.Leaf(t.ClientCert); err == nil {
		v.Subject, v.Expires, v.Expired = leaf.Subject.String(), leaf.NotAfter, leaf.NotAfter.Before(now)
	}
	return v
}

// readTLS changes the credentials of a webhook as the form says: what is given
// replaces what there is, and empty fields leave it. They are checked when the form
// says something about them: a certificate that has expired since is no reason to
// refuse a new name.
func (f *hookForm) readTLS(s *delivery.Spec, now time.Time) error {
	var merged delivery.TLS
	if s.TLS != nil {
		merged = *s.TLS
	}
	old := merged
	if f.Has("drop_client") {
		merged.ClientCert, merged.ClientKey = "", ""
	}
	if f.Has("drop_ca") {
		merged.CABundle = ""
	}
	for _, part := range []struct {
		name string
		into *string
	}{{"client_cert", &merged.ClientCert}, {"client_key", &merged.ClientKey}, {"ca_bundle", &merged.CABundle}} {
		if text := strings.TrimSpace(f.Get(part.name)); text != "" {
			*part.into = text + "\n"
		}
	}
	if merged == old {
		return nil
	}
	if s.TLS = &merged; merged == (delivery.TLS{}) {
		s.TLS = nil
	}
	return egress.CheckTLS(now, s.TLS)
}
