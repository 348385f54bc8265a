// What Go makes of certificates and of bundles. Built by two Go versions, statically, for tests/it/readers.rs.
//
// In, on stdin: frames, each a length of four bytes (big-endian) and as many bytes. Out: a line for each.
//
//	go certificates   each frame is the DER of one certificate: `ok`, or why x509.ParseCertificate refuses it
//	go bundles        each frame is a PEM file: `ok N` with the certificates that a CertPool takes of it
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"strings"
)

func certificate(der []byte) string {
	if _, err := x509.ParseCertificate(der); err != nil {
		return "refused " + strings.ReplaceAll(fmt.Sprintf("%q", err.Error()), "\n", " ")
	}
	return "ok"
}

func bundle(pem []byte) string {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return fmt.Sprintf("ok %d", len(pool.Subjects())) //nolint:staticcheck // only the count
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println(runtime.Version())
		return
	}
	kinds := map[string]func([]byte) string{"certificates": certificate, "bundles": bundle}
	if len(os.Args) != 2 || kinds[os.Args[1]] == nil {
		log.Fatal("usage: go certificates|bundles|version")
	}
	judge := kinds[os.Args[1]]
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriter(os.Stdout)
	for {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); err == io.EOF {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		frame := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(in, frame); err != nil {
			log.Fatal(err)
		}
		fmt.Fprintln(out, judge(frame))
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
