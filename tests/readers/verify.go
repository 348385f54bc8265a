// What Go's crypto/tls says of a server, with the certificates of a bundle as its roots: exit 0 if it trusts it, else 1 and why.
//
// verify BUNDLE ADDRESS NAME
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	bundle, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle) // it leaves out what it cannot parse, as for the system's pool
	dialer := net.Dialer{Timeout: 20 * time.Second}
	conn, err := tls.DialWithDialer(&dialer, "tcp", os.Args[2], &tls.Config{RootCAs: roots, ServerName: os.Args[3]})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	conn.Close()
}
