package egress

import (
	"container/list"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

const (
	// maxPools bounds how many sets of credentials keep a pool. The one that was
	// not used for longest goes first; its webhook dials anew.
	maxPools = 128

	// minRSABits refuses keys that can be factored.
	minRSABits = 2048

	// pingAfter, pingLimit and writeLimit find out that an HTTP/2 connection is
	// dead. Without them every request would go into it and run out of time.
	pingAfter  = 5 * time.Second
	pingLimit  = 5 * time.Second
	writeLimit = 5 * time.Second

	// streamBuffer and connBuffer are how much a receiver may send on an HTTP/2
	// stream and connection before we have read it. Go's defaults, 4 MiB and
	// 1 GiB, are memory that a receiver could fill at will.
	streamBuffer = maxBodyBytes
	connBuffer   = 1 << 20
	frameBuffer  = 16 << 10
)

var errWeakKey = errors.New("the certificate chain has an RSA key shorter than 2048 bits")

// poolKey is what connections and TLS sessions depend on. Two webhooks share a
// pool only if they are equal in all of it, so a certificate shown for one is
// never seen on a connection, nor in a resumed session, of another.
type poolKey struct {
	anyCert bool // verify_ssl=false
	tls     delivery.TLS
}

// pool is the connections of one poolKey.
type pool struct {
	key       poolKey
	transport *http.Transport
	leaf      *x509.Certificate // our own; nil without a client certificate
}

// pools hands out transports: one for each way to verify, and one for each set
// of credentials in use. Never one per request: that costs a handshake each time
// and leaks sockets (contract W32).
type pools struct {
	cfg     Config
	connect connectFunc
	closing context.Context // ends when the Client is closed

	verified *http.Transport
	anyCert  *http.Transport

	mu     sync.Mutex
	byKey  map[poolKey]*list.Element
	recent *list.List // of *pool, the last used one in front
}

func newPools(closing context.Context, cfg Config, connect connectFunc) *pools {
	p := &pools{cfg: cfg, connect: connect, closing: closing, byKey: map[poolKey]*list.Element{}, recent: list.New()}
	p.verified = p.newTransport(verifyingTLS(cfg.RootCAs))
	p.anyCert = p.newTransport(acceptingTLS())
	return p
}

// transport returns the pool for r, or why there is none.
func (c *Client) transport(r Request, scheme string) (t *http.Transport, refusal string) {
	if scheme == "https" && !r.VerifySSL && c.verifyAlways {
		return nil, "verify_ssl=false is not permitted on this server"
	}
	if r.TLS == nil || scheme != "https" {
		if r.VerifySSL {
			return c.pools.verified, ""
		}
		return c.pools.anyCert, ""
	}
	p, err := c.pools.get(poolKey{!r.VerifySSL, *r.TLS})
	if err != nil {
		return nil, "the webhook's own credentials cannot be used"
	}
	if p.leaf != nil {
		// A receiver says "bad certificate" at best. We know better.
		switch now := time.Now(); {
		case now.After(p.leaf.NotAfter):
			return nil, "the webhook's client certificate expired on " + p.leaf.NotAfter.UTC().Format(time.DateOnly)
		case now.Before(p.leaf.NotBefore):
			return nil, "the webhook's client certificate is not valid before " + p.leaf.NotBefore.UTC().Format(time.DateOnly)
		}
	}
	return p.transport, ""
}

// get returns the pool of key, made if need be.
func (p *pools) get(key poolKey) (*pool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.byKey[key]; e != nil {
		p.recent.MoveToFront(e)
		return e.Value.(*pool), nil
	}
	made, err := p.newPool(key)
	if err != nil {
		return nil, err
	}
	p.byKey[key] = p.recent.PushFront(made)
	if p.recent.Len() > maxPools {
		oldest := p.recent.Back()
		p.recent.Remove(oldest)
		old := oldest.Value.(*pool)
		delete(p.byKey, old.key)
		// Those in use close idleTimeout after their last request.
		old.transport.CloseIdleConnections()
	}
	return made, nil
}

func (p *pools) newPool(key poolKey) (*pool, error) {
	made := &pool{key: key}
	cfg := acceptingTLS()
	if !key.anyCert {
		roots, err := trusted(p.cfg.RootCAs, key.tls.CABundle)
		if err != nil {
			return nil, err
		}
		cfg = verifyingTLS(roots)
	}
	if key.tls.ClientCert != "" {
		cert, err := tls.X509KeyPair([]byte(key.tls.ClientCert), []byte(key.tls.ClientKey))
		if err != nil {
			return nil, err
		}
		made.leaf = cert.Leaf
		// Shown to whoever asks: with Certificates Go would show none where the
		// receiver's hints do not fit, and the receiver could not say why.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	made.transport = p.newTransport(cfg)
	return made, nil
}

// trusted is the base with the certificates of a bundle added to it.
func trusted(base *x509.CertPool, bundle string) (*x509.CertPool, error) {
	if bundle == "" {
		return base, nil
	}
	if base == nil {
		system, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		base = system
	} else {
		base = base.Clone()
	}
	certs, err := parseCertificates(bundle)
	for _, c := range certs {
		base.AddCert(c)
	}
	return base, err
}

func (p *pools) newTransport(cfg *tls.Config) *http.Transport {
	idle := p.cfg.MaxIdlePerHost
	if idle == 0 {
		idle = defaultIdlePerHost
	}
	d := &dialer{connect: p.connect, closing: p.closing, tls: cfg}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		Proxy:                  nil, // never from the environment
		DialContext:            d.plain,
		DialTLSContext:         d.secure,
		Protocols:              protocols,
		DisableCompression:     true, // nothing is inflated, so there are no bombs
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    idle,
		MaxConnsPerHost:        p.cfg.MaxConnsPerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        writeBuffer,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingLimit,
			WriteByteTimeout:              writeLimit,
			MaxReceiveBufferPerStream:     streamBuffer,
			MaxReceiveBufferPerConnection: connBuffer,
			MaxReadFrameSize:              frameBuffer,
		},
	}
}

func (p *pools) closeIdle() {
	p.verified.CloseIdleConnections()
	p.anyCert.CloseIdleConnections()
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.recent.Front(); e != nil; e = e.Next() {
		e.Value.(*pool).transport.CloseIdleConnections()
	}
}

// verifyingTLS is the policy for receivers whose certificate counts.
func verifyingTLS(roots *x509.CertPool) *tls.Config {
	cfg := baseTLS()
	cfg.RootCAs = roots
	cfg.VerifyConnection = refuseWeakKeys
	return cfg
}

// acceptingTLS is the policy for webhooks with verify_ssl=false: encrypted, but
// to whoever answers.
func acceptingTLS() *tls.Config {
	cfg := baseTLS()
	cfg.InsecureSkipVerify = true
	return cfg
}

// baseTLS has the rest of the policy from Go: no renegotiation, no RC4 or 3DES,
// no SHA-1 in certificates.
func baseTLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(256),
	}
}

// refuseWeakKeys runs after the chain was verified. One way up with strong keys
// only is enough. The root's own key is the business of whoever trusts it.
func refuseWeakKeys(state tls.ConnectionState) error {
	if slices.ContainsFunc(state.VerifiedChains, strongChain) {
		return nil
	}
	return errWeakKey
}

func strongChain(chain []*x509.Certificate) bool {
	for i, c := range chain {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSABits && (i == 0 || i < len(chain)-1) {
			return false
		}
	}
	return true
}
