package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// authorityName is the name of the CA's files.
const authorityName = "ca"

const (
	// validity is that of a certificate, authorityValidity that of the CA, so that
	// names can be added and renewed under it.
	validity          = 365 * 24 * time.Hour
	authorityValidity = 5 * validity
	// backdating is for hosts whose clock is behind.
	backdating = time.Hour
)

// pair is a certificate with its key.
type pair struct {
	name            string
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

// newAuthority makes a CA.
func newAuthority(now time.Time) (*pair, error) {
	return sign(authorityName, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Tenure development CA"}, NotBefore: now.Add(-backdating), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
}

// issue makes a certificate for hosts, which are names or IP addresses, for both
// ends of connections.
func (ca *pair) issue(name string, hosts []string, now time.Time) (*pair, error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdating), NotAfter: now.Add(validity),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if end := ca.cert.NotAfter; end.Before(template.NotAfter) {
		template.NotAfter = end
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return sign(name, ca, template)
}

// sign makes a key and a certificate for it, signed by ca, or by itself if that is
// nil.
func sign(name string, ca *pair, template *x509.Certificate) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	parent, signer := template, crypto.Signer(key)
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &pair{
		name: name, cert: cert, key: key,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// readAuthority reads a CA that can sign now.
func readAuthority(certificate, key string, now time.Time) (*pair, error) {
	both, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("the CA of %s and %s cannot be read: %w", certificate, key, err)
	}
	signer, ok := both.PrivateKey.(crypto.Signer)
	switch {
	case !ok || !both.Leaf.IsCA:
		return nil, fmt.Errorf("%s is not the certificate of a CA", certificate)
	case now.After(both.Leaf.NotAfter):
		return nil, fmt.Errorf("the CA %s has expired on %s", certificate, both.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &pair{name: authorityName, cert: both.Leaf, key: signer}, nil
}

// readCertificate reads the first certificate of a file.
func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
