package delivery

// TLS is what a webhook brings to the connections to its receiver (ours, beyond
// the contract): a certificate to show, and authorities to trust. Whether the
// parts are fit for use is checked by internal/egress. It is comparable: equal
// values mean the same connections will do.
type TLS struct {
	ClientCert string `json:"client_cert,omitempty"` // PEM chain, our own certificate first; "" shows none
	ClientKey  string `json:"client_key,omitempty"`  // PEM, without a pass phrase. Secret: sealed at rest, in no answer, no log
	CABundle   string `json:"ca_bundle,omitempty"`   // PEM certificates trusted beside the system's; ignored without VerifySSL
}
