//! Each text is one that the named runtime gave when it was asked, with another digest.

use super::{PullEnd, RefusedServer, classify, image, with_port};
use crate::runtime::witness::WitnessAnswer::{self, NotReached, Refuses, Trusts};

const DIGITS: &str = "6f1ed002ab5595859014ebf0951522d96f1ed002ab5595859014ebf0951522d9";
const OTHER: &str = "949e99c82af5588d38a6c81000b9733033b5b6ac470aa09e2efdbe4248d99e53";

/// containerd 1.6, 1.7 and 2.1 differ in what they say before, and in how Go names an error of TLS.
#[derive(Clone, Copy, PartialEq)]
enum Containerd {
    V16,
    V17,
    V21,
}

/// How a containerd of this version tells that it could not resolve the image.
fn unresolved(from: Containerd, registry: &str, why: &str) -> String {
    let name = image(registry, DIGITS);
    let resolving = if from == Containerd::V21 { "image".into() } else { format!("reference \"{name}\"") };
    format!("failed to pull and unpack image \"{name}\": failed to resolve {resolving}: {why}")
}

/// What it says of a request that could not be made: of a certificate, with the name of the error.
fn request(from: Containerd, registry: &str, why: &str) -> String {
    let url = format!("https://{registry}/v2/nodetrust/witness/manifests/sha256:{DIGITS}");
    let why = match why.strip_prefix("x509: ") {
        Some(_) if from != Containerd::V16 => format!("tls: failed to verify certificate: {why}"),
        _ => why.to_owned(),
    };
    unresolved(from, registry, &format!("failed to do request: Head \"{url}\": {why}"))
}

fn answer(end: PullEnd<'_>) -> (WitnessAnswer, Option<RefusedServer>) {
    let answer = classify(end, DIGITS);
    assert!(answer.words.chars().count() < 400 && !answer.words.contains(DIGITS), "{}", answer.words);
    (answer.answer, answer.refused)
}

#[track_caller]
fn every_version(code: u32, text: impl Fn(Containerd) -> String, expected: (WitnessAnswer, Option<RefusedServer>)) {
    for from in [Containerd::V16, Containerd::V17, Containerd::V21] {
        let text = text(from);
        assert_eq!(answer(PullEnd::Grpc(code, &text)), expected, "{text}");
    }
}

const HOST: &str = "a.test:5500";

#[test]
fn a_registry_that_has_answered_is_trusted_by_the_runtime() {
    let trusts = (Trusts, None);
    let name = image(HOST, DIGITS);
    every_version(5, |from| unresolved(from, HOST, &format!("{name}: not found")), trusts.clone());
    // The registry answers HEAD as if it had the image.
    let promised = format!(
        "failed to pull and unpack image \"{name}\": failed to copy: httpReadSeeker: failed open: content at \
         https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS} not found: not found"
    );
    every_version(5, |_| promised.clone(), trusts.clone());
    // These registries answer to every name.
    for kind in ["manifest", "unknown"] {
        let other = format!(
            "failed to pull and unpack image \"{name}\": failed commit on ref \"{kind}-sha256:{DIGITS}\": unexpected commit \
             digest sha256:{OTHER}, expected sha256:{DIGITS}: failed precondition"
        );
        every_version(9, |_| other.clone(), trusts.clone());
    }
    // These registries ask for credentials or refuse.
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let said = |from| match from {
            Containerd::V16 => {
                format!("pulling from host {HOST} failed with status code [manifests sha256:{DIGITS}]: {status}")
            }
            _ => format!(
                "unexpected status from HEAD request to https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS}: {status}"
            ),
        };
        every_version(2, |from| unresolved(from, HOST, &said(from)), trusts.clone());
        let token = |from| match from {
            Containerd::V16 => format!("unexpected status: {status}"),
            _ => format!(
                "unexpected status from GET request to https://token.test:5520/token?scope=repository%3Anodetrust%2Fwitness%3Apull&service=x: {status}"
            ),
        };
        let failed = |from| format!("failed to authorize: failed to fetch anonymous token: {}", token(from));
        every_version(2, |from| unresolved(from, HOST, &failed(from)), trusts.clone());
    }
    let denied = "pull access denied, repository does not exist or may require authorization: authorization failed: no basic \
                  auth credentials";
    every_version(2, |from| unresolved(from, HOST, denied), trusts);
}

#[test]
fn a_certificate_that_is_refused_is_named_by_its_server() {
    let of = |server: &str| (Refuses, Some(RefusedServer::Server(server.to_owned())));
    for why in [
        "x509: certificate signed by unknown authority",
        "x509: certificate has expired or is not yet valid: current time 2026-11-29T13:30:23Z is after 2026-11-28T13:29:56Z",
        "x509: certificate is valid for b.test, not a.test",
        "x509: certificate specifies an incompatible key usage",
        "x509: cannot validate certificate for 198.51.100.1 because it doesn't contain any IP SANs",
    ] {
        every_version(2, |from| request(from, HOST, why), of(HOST));
        every_version(2, |from| request(from, "registry.test", why), of("registry.test:443"));
        every_version(2, |from| request(from, "[fd00::1]:5000", why), of("[fd00::1]:5000"));
        every_version(2, |from| request(from, "[fd00::1]", why), of("[fd00::1]:443"));
    }
    // The registry redirects to another server.
    let elsewhere = |from| {
        let said = request(from, "b.test:5530", "x509: certificate signed by unknown authority");
        unresolved(from, HOST, said.split_once("failed to do request").unwrap().1)
    };
    every_version(2, elsewhere, of("b.test:5530"));
    // The registry is trusted, its token server is not.
    let token = |from| {
        let (query, tls) = match from {
            Containerd::V16 => ("scope=repository%3Anodetrust%2Fwitness%3Apull&service=x", ""),
            Containerd::V17 => {
                ("scope=repository%3Anodetrust%2Fwitness%3Apull&service=x", "tls: failed to verify certificate: ")
            }
            Containerd::V21 => ("scope=%5BREDACTED%5D&service=%5BREDACTED%5D", "tls: failed to verify certificate: "),
        };
        let why = format!(
            "failed to authorize: failed to fetch anonymous token: Get \"https://token.test:5521/token?{query}\": {tls}x509: \
             certificate signed by unknown authority"
        );
        unresolved(from, HOST, &why)
    };
    every_version(2, token, of("token.test:5521"));
    // The proxy itself speaks TLS.
    let proxy = |from| {
        let tls = if from == Containerd::V16 { "" } else { "tls: failed to verify certificate: " };
        request(from, HOST, &format!("proxyconnect tcp: {tls}x509: certificate signed by unknown authority"))
    };
    every_version(2, proxy, (Refuses, Some(RefusedServer::Proxy)));
    let unnamed = "cannot use the registry: x509: malformed certificate";
    assert_eq!(answer(PullEnd::Grpc(2, unnamed)), (Refuses, Some(RefusedServer::Unnamed)));
    let without_host = "failed to do request: Head \"https://:5000/v2/\": x509: certificate has expired";
    assert_eq!(answer(PullEnd::Grpc(2, without_host)), (Refuses, Some(RefusedServer::Unnamed)));
}

#[test]
fn a_registry_that_was_not_reached_proves_nothing() {
    let nothing = (NotReached, None);
    for why in [
        "dial tcp 198.51.100.1:5: connect: connection refused",
        "dial tcp 203.0.113.1:443: connect: network is unreachable",
        "dial tcp: lookup nosuch.test on [::1]:53: read udp [::1]:57709->[::1]:53: read: connection refused",
        "dial tcp: lookup nosuch.test: no such host",
        "dial tcp 198.51.100.1:5500: i/o timeout",
        "read tcp 198.51.100.11:57216->198.51.100.1:5550: read: connection reset by peer",
        "EOF",
        "net/http: TLS handshake timeout",
        "tls: first record does not look like a TLS handshake",
        "http: server gave HTTP response to HTTPS client",
        "remote error: tls: handshake failure",
        "remote error: tls: protocol version not supported",
        "remote error: tls: certificate required",
        // A proxy that refuses the request answers in its own name.
        "Forbidden",
        "Unauthorized",
        "Not Found",
        "Proxy Authentication Required",
        "Bad Gateway",
        "proxyconnect tcp: dial tcp 198.51.100.1:5: connect: connection refused",
        "malformed HTTP response \"SSH-2.0-OpenSSH\"",
    ] {
        every_version(2, |from| request(from, HOST, why), nothing.clone());
        let docker = format!("Get \"https://{HOST}/v2/\": {why}");
        assert_eq!(answer(PullEnd::Docker(&docker)), nothing, "{docker}");
    }
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ] {
        let said = |from| match from {
            Containerd::V16 => {
                format!("pulling from host {HOST} failed with status code [manifests sha256:{DIGITS}]: {status}")
            }
            _ => format!(
                "unexpected status from HEAD request to https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS}: {status}"
            ),
        };
        every_version(2, |from| unresolved(from, HOST, &said(from)), nothing.clone());
    }
    let down = "failed to authorize: failed to fetch anonymous token: Get \"https://token.test:1/token?service=x\": dial tcp \
                198.51.100.1:1: connect: connection refused";
    every_version(2, |from| unresolved(from, HOST, down), nothing.clone());
    for end in [
        PullEnd::Pulled,
        PullEnd::NoAnswer("the runtime had not answered after 20 s"),
        PullEnd::Grpc(3, "failed to parse image reference"),
        PullEnd::Grpc(12, "unknown service runtime.v1.ImageService"),
        PullEnd::Grpc(5, "snapshotter overlayfs was not found: not found"),
        PullEnd::Grpc(5, "namespace \"k8s.io\": not found"),
        PullEnd::Grpc(2, ""),
        PullEnd::Docker(""),
    ] {
        assert_eq!(answer(end), nothing, "{end:?}");
    }
}

#[test]
fn what_others_write_is_not_taken_for_the_runtimes_words() {
    // A registry that is a cache reports its own failure with the registry above it.
    for (status, expected) in [("500 Internal Server Error", NotReached), ("403 Forbidden", Trusts)] {
        let text = format!(
            "failed to resolve image: unexpected status from GET request to https://{HOST}/v2/x: {status}\\nserver message: Get \
             \"https://upstream.test/v2/\": x509: certificate signed by unknown authority"
        );
        assert_eq!(answer(PullEnd::Grpc(2, &text)), (expected, None), "{text}");
    }
    let cancelled = request(Containerd::V21, HOST, "x509: certificate signed by unknown authority");
    assert_eq!(answer(PullEnd::Grpc(1, &cancelled)), (NotReached, None), "a call that was cancelled");
    // The answer is about another image than the one that was asked for.
    let other = format!("{HOST}/nodetrust/witness@sha256:{OTHER}: not found");
    assert_eq!(answer(PullEnd::Grpc(5, &other)), (NotReached, None));
}

#[test]
fn docker_tells_by_its_text_alone() {
    for (text, expected) in [
        (format!("manifest for {} not found: manifest unknown: manifest unknown", image(HOST, DIGITS)), Trusts),
        ("manifest unknown".into(), Trusts),
        (
            "error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: \"<html>\""
                .into(),
            Trusts,
        ),
        (
            format!("Get \"https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS}\": no basic auth credentials"),
            Trusts,
        ),
        (format!("Get \"https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS}\": unauthorized"), Trusts),
        (format!("Get \"https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS}\": denied: denied"), Trusts),
        ("denied".into(), Trusts),
        ("unauthorized: authentication required".into(), Trusts),
        (
            format!(
                "pull access denied for {HOST}/nodetrust/witness, repository does not exist or may require 'docker login': denied: denied"
            ),
            Trusts,
        ),
        (format!("manifest verification failed for digest sha256:{DIGITS}"), Trusts),
        ("toomanyrequests: x".into(), NotReached),
        ("received unexpected HTTP status: 500 Internal Server Error".into(), NotReached),
        (
            "error parsing HTTP 400 response body: invalid character 'x' looking for beginning of value: \"x\"".into(),
            NotReached,
        ),
        ("Encountered remote \"x\"(unknown) when fetching".into(), NotReached),
        ("error unmarshalling content: invalid character '<' looking for beginning of value".into(), NotReached),
        (format!("Get \"https://{HOST}/v2/\": context deadline exceeded"), NotReached),
        (
            format!(
                "Get \"https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS}\": received unexpected HTTP status: 500 Internal Server Error"
            ),
            NotReached,
        ),
        ("authorization denied by plugin opa: no".into(), NotReached),
    ] {
        assert_eq!(answer(PullEnd::Docker(&text)), (expected, None), "{text}");
    }
    let unknown = "x509: certificate signed by unknown authority";
    for (text, server) in [
        (format!("Get \"https://{HOST}/v2/\": {unknown}"), RefusedServer::Server(HOST.into())),
        (format!("Get \"https://{HOST}/v2/\": proxyconnect tcp: {unknown}"), RefusedServer::Proxy),
        (
            format!(
                "Get \"https://{HOST}/v2/nodetrust/witness/manifests/sha256:{DIGITS}\": Get \"https://token.test/token?x=y\": {unknown}"
            ),
            RefusedServer::Server("token.test:443".into()),
        ),
    ] {
        assert_eq!(answer(PullEnd::Docker(&text)), (Refuses, Some(server)), "{text}");
    }
}

/// As its source has it: there is no CRI-O to ask here.
#[test]
fn what_simulated_cri_o_says_is_understood_as_far_as_its_source_tells() {
    let trouble = |why: &str| format!("initializing source docker://{}: {why}", image(HOST, DIGITS));
    let manifest = format!("reading manifest sha256:{DIGITS} in {HOST}/nodetrust/witness: ");
    for (text, expected) in [
        (trouble(&format!("{manifest}manifest unknown")), Trusts),
        (trouble(&format!("{manifest}unauthorized: authentication required")), Trusts),
        (trouble(&format!("{manifest}requested access to the resource is denied")), Trusts),
        (
            trouble(&format!(
                "pinging container registry {HOST}: Get \"https://{HOST}/v2/\": dial tcp: connection refused"
            )),
            NotReached,
        ),
        (trouble(&format!("{manifest}received unexpected HTTP status: 502 Bad Gateway")), NotReached),
    ] {
        assert_eq!(answer(PullEnd::Grpc(2, &text)), (expected, None), "{text}");
    }
    let text = trouble(&format!(
        "pinging container registry {HOST}: Get \"https://{HOST}/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
    ));
    assert_eq!(answer(PullEnd::Grpc(2, &text)), (Refuses, Some(RefusedServer::Server(HOST.into()))));
}

#[test]
fn the_words_are_what_happened_and_no_more() {
    let refused = "x509: certificate signed by unknown authority";
    let said = |text: &str| classify(PullEnd::Grpc(2, text), DIGITS).words;
    let expected =
        format!("failed to do request: Head \"https://{HOST}/v2/nodetrust/witness/manifests/sha256:…\": {refused}");
    assert_eq!(said(&request(Containerd::V16, HOST, refused)), expected);
    let newer = expected.replace(refused, &format!("tls: failed to verify certificate: {refused}"));
    assert_eq!(said(&request(Containerd::V17, HOST, refused)), newer);
    assert_eq!(said(&request(Containerd::V21, HOST, refused)), newer);
    assert_eq!(said("\u{1b}[31mred"), "\\u{1b}[31mred");
    assert_eq!(
        (with_port("h"), with_port("h:1"), with_port("[::1]")),
        ("h:443".into(), "h:1".into(), "[::1]:443".into())
    );
}
