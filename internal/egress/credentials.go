package egress

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// Bounds of what a webhook brings to TLS: long chains and bundles, short enough
// to be parsed at any time.
const (
	maxChainBytes   = 32 << 10
	maxKeyBytes     = 16 << 10
	maxBundleBytes  = 128 << 10
	maxBundleLength = 100
)

// CheckTLS checks the credentials of a webhook when it is created or changed. It
// returns nil, or a *fault.Error of kind Invalid with all issues at once, their
// paths below ["tls"]. No part of a key is in it.
func CheckTLS(now time.Time, t *delivery.TLS) error {
	if t == nil {
		return nil
	}
	var issues []fault.Issue
	note := func(field, format string, args ...any) {
		issues = append(issues, fault.Issue{Code: "custom", Path: []any{"tls", field}, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case t.ClientCert == "" && t.ClientKey == "":
	case t.ClientCert == "":
		note("client_cert", "client_key needs client_cert")
	case t.ClientKey == "":
		note("client_key", "client_cert needs client_key")
	default:
		if field, err := checkPair(now, t); err != nil {
			note(field, "%s", err)
		}
	}
	if t.CABundle != "" {
		if err := checkBundle(now, t.CABundle); err != nil {
			note("ca_bundle", "%s", err)
		}
	}
	if len(issues) == 0 {
		return nil
	}
	return &fault.Error{Kind: fault.Invalid, Message: "Validation failed", Issues: issues}
}

// checkPair returns what is wrong with the client certificate or its key, and in
// which of the two fields.
func checkPair(now time.Time, t *delivery.TLS) (field string, err error) {
	if len(t.ClientCert) > maxChainBytes {
		return "client_cert", fmt.Errorf("is longer than %d bytes", maxChainBytes)
	}
	if len(t.ClientKey) > maxKeyBytes {
		return "client_key", fmt.Errorf("is longer than %d bytes", maxKeyBytes)
	}
	chain, err := parseCertificates(t.ClientCert)
	if err != nil {
		return "client_cert", err
	}
	if err := inTime(now, chain[0]); err != nil {
		return "client_cert", err
	}
	if key, ok := chain[0].PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSABits {
		return "client_cert", fmt.Errorf("has an RSA key shorter than %d bits", minRSABits)
	}
	block, _ := pem.Decode([]byte(t.ClientKey))
	switch {
	case block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return "client_key", errors.New("is no private key in PEM form")
	case strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "":
		return "client_key", errors.New("is encrypted with a pass phrase; send it without, it is sealed at rest")
	}
	if _, err := tls.X509KeyPair([]byte(t.ClientCert), []byte(t.ClientKey)); err != nil {
		return "client_key", errors.New("is damaged or does not belong to client_cert")
	}
	return "", nil
}

func checkBundle(now time.Time, bundle string) error {
	if len(bundle) > maxBundleBytes {
		return fmt.Errorf("is longer than %d bytes", maxBundleBytes)
	}
	certs, err := parseCertificates(bundle)
	if err != nil {
		return err
	}
	if len(certs) > maxBundleLength {
		return fmt.Errorf("has more than %d certificates", maxBundleLength)
	}
	for _, c := range certs {
		if err := inTime(now, c); err != nil {
			return fmt.Errorf("%s: %w", excerpt(c.Subject.String()), err)
		}
	}
	return nil
}

func inTime(now time.Time, c *x509.Certificate) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("expired on %s", c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// Leaf returns the first certificate of a PEM chain, which is the one that is
// the owner's own. The error says what is wrong in words for the owner.
func Leaf(chain string) (*x509.Certificate, error) {
	certs, err := parseCertificates(chain)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// parseCertificates reads PEM certificates, at least one. Text between the
// blocks is fine, as many tools write some; another kind of block is not.
func parseCertificates(text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("has a block %q among the certificates", excerpt(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("has a damaged certificate")
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("has no certificate in PEM form")
	}
	return out, nil
}
