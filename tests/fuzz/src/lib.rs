//! What the fuzz targets check, one function for each parser of bytes that somebody else wrote.
//!
//! Beyond "no panic": what is accepted can be written and read back as the same, every reader of ours agrees on it, and no text
//! that came from outside can draw on a terminal.

use std::{fs, path::PathBuf, sync::LazyLock};

use nodetrust::{parsers, config::Settings, runtime::docker, sources::subpath::Mounts};
use nodetrust_core::{dns, pod_bundle, certificate::{bundle, pem, readers, anchor::Anchor, fingerprint::Fingerprint, name::{self, MAX_SENTENCE_CHARS, visible}}, store::{hash_link, os_release::OsRelease, p11kit::{Place, Sources}}, node_status::{ANNOTATION, NodeObject, NodeStatus, Taint}, probe::{Facts, Proxy, Target, judge}, runtime::{registry_dir, containerd}, source::SourceFile, observed::Hazard, ledger::Ledger, time::Moment, topology::{self, Member}, problem::{Problem, ProblemKind}};

/// A file of a source: PEM or DER.
pub fn pem(data: &[u8]) {
    let scan = pem::scan(data);
    assert!(scan.faults.len() <= pem::MAX_FAULTS + 1, "the number of faults is bounded");
    for block in &scan.blocks {
        let text = pem::encode(&block.der);
        let again = pem::scan(text.as_bytes());
        match again.blocks.as_slice() {
            [one] if again.faults.is_empty() && again.notes.is_empty() => assert_eq!(one.der, block.der),
            // bytes that are no certificate at all: accepted by the scanner, refused by `Anchor`
            _ => assert!(Anchor::from_der(&block.der).is_err(), "what was accepted is not accepted again"),
        }
        if let Ok(anchor) = Anchor::from_block(block.label, &block.der) {
            accepted(&anchor);
        }
    }
    for hazard in parsers::hazards(data) {
        match hazard {
            Hazard::Broken(fault) | Hazard::BrokenGnuTls(fault) => assert_clean(&fault.detail),
            Hazard::PrivateKey(line) => assert!(line <= data.len() + 1),
        }
    }
    let linked = parsers::linked(data);
    assert!(bundle::read(data).set.is_subset(&linked), "what the bundle's reader finds, a link leads to");
    let part = SourceFile::parse("file", data);
    for fault in &part.faults {
        assert_clean(&fault.detail);
    }
    for note in &part.notes {
        assert_clean(note);
    }
    for (_, anchor) in &part.anchors {
        assert_clean(&anchor.subject.text);
    }
}

/// One certificate in DER.
pub fn certificate(data: &[u8]) {
    let verdict = readers::verdict(data);
    for why in [&verdict.openssl, &verdict.gnutls, &verdict.go].into_iter().flatten() {
        assert_clean(why);
    }
    match Anchor::from_der(data) {
        Ok(anchor) => {
            assert_eq!(anchor.der(), data, "a certificate is kept as it came");
            assert!(verdict.keep_bundles_whole(), "accepted, and {:?}", verdict.bundle_fault());
            assert_eq!(anchor.go_reads(), verdict.go.is_none());
            accepted(&anchor);
        }
        Err(error) => assert_clean(&error.detail),
    }
}

/// What holds for every certificate that we would install.
fn accepted(anchor: &Anchor) {
    assert_clean(&anchor.subject.text);
    assert_clean(&anchor.subject.common);
    assert_clean(&anchor.issuer.text);
    assert_clean(&anchor.issuer.common);
    assert_eq!(anchor.fingerprint, Fingerprint::of_der(anchor.der()));
    let again = Anchor::from_der(anchor.der());
    assert!(again.as_ref() == Ok(anchor), "a certificate that was accepted is accepted again, as the same");

    let text = anchor.pem();
    let scan = pem::scan(text.as_bytes());
    assert!(scan.faults.is_empty() && scan.notes.is_empty(), "our own file has faults: {:?}", scan.faults);
    assert!(matches!(scan.blocks.as_slice(), [one] if one.der == anchor.der()), "our own file reads back as it is");

    for text in [&anchor.subject.text, &anchor.issuer.text, &anchor.serial] {
        assert!(text.chars().count() <= MAX_SENTENCE_CHARS, "a text of {} bytes", text.len());
    }
    // the bundle that holds it
    let effective = bundle::read(text.as_bytes());
    assert!(
        effective.set.contains(&anchor.fingerprint),
        "an accepted certificate is missing from the bundle that holds it"
    );
    assert_eq!(effective.count, 1);
    assert!(effective.faults.is_empty(), "OpenSSL would refuse it: {:?}", effective.faults);
    assert!(effective.gnutls_faults.is_empty(), "GnuTLS would refuse it: {:?}", effective.gnutls_faults);
    assert!(!effective.private_key);
    keep(anchor.der());
}

/// Writes what was accepted into the directory that `NODETRUST_ACCEPTED` names, if it is set: for the real readers, which
/// judge it in batches (scripts/fuzz, scripts/readers).
fn keep(der: &[u8]) {
    static DIR: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("NODETRUST_ACCEPTED").map(PathBuf::from));
    if let Some(dir) = &*DIR {
        let path = dir.join(format!("{}.der", Fingerprint::of_der(der)));
        if let Err(error) = fs::write(&path, der) {
            panic!("{}: {error}", path.display());
        }
    }
}

/// An extracted bundle, and the bundle for pods that is made from it.
pub fn bundle(data: &[u8]) {
    let effective = bundle::read(data);
    assert!(effective.set.len() <= effective.count);
    assert!(effective.repeated() < effective.count.max(1));
    for fault in effective.faults.iter().chain(&effective.gnutls_faults) {
        assert_clean(&fault.detail);
    }
    let certificates = bundle::certificates(data);
    assert_eq!(certificates.len(), effective.count, "both ways to read a bundle count the same");
    for der in &certificates {
        assert!(effective.set.contains(&Fingerprint::of_der(der)));
    }
    let exported = bundle::read(pod_bundle::content(data).as_bytes());
    assert!(exported.set.is_subset(&effective.set), "the bundle for pods has something of its own");
    assert!(exported.repeated() == 0 && !exported.private_key);
    // a sound bundle stays sound with one certificate more; OpenSSL takes a NUL byte at the start of a line for the file's end
    if let Some(der) = certificates.first()
        && effective.faults.is_empty()
        && data.ends_with(b"\n")
        && !data.contains(&0)
    {
        let more = [data, pem::encode(der).as_bytes()].concat();
        let read = bundle::read(&more);
        assert!(read.set.contains(&Fingerprint::of_der(der)));
        assert_eq!(read.faults, [], "joining two sound files breaks them");
    }
}

/// Files in the source directories of p11-kit: certificates, and objects with attributes.
pub fn p11kit(data: &[u8]) {
    let mut prints = hash_link::trusted(data);
    prints.extend(bundle::read(data).set);
    for place in [Place::Anchors, Place::Top, Place::Blocklist] {
        let mut sources = Sources::default();
        sources.add(place, data);
        let trusted = prints.iter().filter(|print| sources.is_anchor(print)).count();
        assert!(trusted == 0 || place != Place::Blocklist, "what is blocked is no anchor");
        // what is said twice is said once, and a blocklist has the last word
        sources.add(place, data);
        assert_eq!(prints.iter().filter(|print| sources.is_anchor(print)).count(), trusted);
        sources.add(Place::Blocklist, data);
        let _ = prints.iter().filter(|print| sources.is_anchor(print)).count();
    }
}

/// The ledger.
pub fn ledger(data: &[u8]) {
    let Ok(ledger) = Ledger::parse(data) else { return };
    let bytes = ledger.to_bytes();
    let Ok(again) = Ledger::parse(&bytes) else { panic!("a ledger that we wrote cannot be read") };
    assert_eq!(again, ledger);
    assert!(again.same_as(&ledger));
    assert_eq!(again.to_bytes(), bytes, "the same ledger has the same bytes");
    let _ = (ledger.is_blank(), ledger.bundle());
    for entry in ledger.anchors.values() {
        let _ = entry.anchor();
    }
}

/// The configuration.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Settings::parse(text) {
        Ok(settings) => assert_eq!(Settings::parse(text).as_ref(), Ok(&settings)),
        Err(why) => {
            assert!(!why.is_empty(), "an error says what is wrong");
            assert!(!why.contains("-----BEGIN"), "an error quotes a block: {why}");
            assert_clean(&why);
        }
    }
}

/// `/etc/os-release` of the host.
pub fn os_release(data: &[u8]) {
    let os = OsRelease::parse(&String::from_utf8_lossy(data));
    assert!(!os.id.is_empty() && !os.pretty_name.is_empty());
}

/// `/proc` as the host shows it: mountinfo, and what processes call themselves.
pub fn proc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mounts = Mounts::parse(&text);
    for line in text.lines() {
        let point = line.split(' ').nth(4).unwrap_or("/");
        let _ = mounts.notes(point.as_ref());
    }
    if let (Some((_, started)), Some((_, ticks))) = (parsers::process(&text), parsers::descendant(&text)) {
        assert_eq!(started, ticks.saturating_mul(10), "two readers of one file: {text}");
    }
    let _ = parsers::command_line(data);
}

/// Targets, proxies, taints and fingerprints, as people write them, and what a proxy answers.
pub fn target(data: &[u8]) {
    let _ = parsers::proxy_answer(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(target) = Target::parse(text) {
        assert_eq!(target.text(), name::shown(text));
        let again = Target::parse(&target.authority()).map(|again| (again.host().to_owned(), again.port()));
        assert_eq!(again, Ok((target.host().to_owned(), target.port())), "{text}");
        for c in [' ', '\r', '\n', '\0', '/', '@'] {
            assert!(!target.host().contains(c), "{text}");
        }
        if let Ok(proxy) = Proxy::parse("http://user:password@proxy:3128") {
            assert_eq!(proxy.request(&target).matches("\r\n\r\n").count(), 1, "{text}");
        }
    }
    if let (Ok(proxy), Ok(target)) = (Proxy::parse(text), Target::parse("registry.test:443")) {
        assert_eq!(proxy.request(&target).matches("\r\n\r\n").count(), 1, "a proxy's words end the request: {text}");
        assert_eq!(proxy.request(&target).lines().count(), 3 + usize::from(proxy.has_password()), "{text}");
    }
    if let Ok(taint) = text.parse::<Taint>() {
        assert_eq!(taint.to_string().parse(), Ok(taint), "{text}");
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint), "{text}");
    }
}

/// `/etc/hosts`, `/etc/resolv.conf` and answers of name servers.
pub fn dns(data: &[u8]) {
    for (name, kind) in [("registry.test", dns::Kind::A), ("a.b", dns::Kind::Aaaa)] {
        let Some(question) = dns::question(7, name, kind) else { panic!("{name} is a name") };
        assert_eq!(dns::answer(&question, &question), None, "a question is no answer");
        if let Some(dns::Answer::Addresses(addresses)) = dns::answer(&question, data) {
            assert!(addresses.iter().all(|address| address.is_ipv4() == (kind == dns::Kind::A)));
        }
        // an answer to just this question
        let reply = [question.as_slice(), data].concat();
        let mut reply = reply;
        reply[2] |= 0x80;
        for (at, byte) in data.iter().take(2).enumerate() {
            reply[6 + at] = *byte & 0x07;
        }
        let _ = dns::answer(&question, &reply);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let resolv = dns::Resolv::parse(text);
    assert!((1..=3).contains(&resolv.servers.len()));
    for name in resolv.names("registry.test").iter().chain(&resolv.names(text)) {
        let _ = dns::question(1, name, dns::Kind::A);
    }
    let _ = dns::in_hosts(text, "localhost");
    let _ = dns::in_hosts("127.0.0.1 localhost", text);
}

/// Nodes as an API server lists them, and annotations that anybody may have written.
pub fn annotation(data: &[u8]) {
    let node = serde_json::from_slice::<NodeObject>(data).ok().map(Member::of);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(status) = NodeStatus::parse(text) {
        let again = NodeStatus::parse(&status.clone().text());
        assert!(again.is_some_and(|again| again.desired == status.desired), "an annotation that we write can be read");
    }
    let written = Member { name: "written".to_owned(), annotation: Some(text.to_owned()), ..Member::default() };
    let sound = Member { name: text.to_owned(), ready: Some(true), ..Member::default() };
    let fleet = topology::fleet(node.into_iter().chain([written, sound]).collect(), 1_800_000_000);
    assert_clean(&fleet.headline);
    for finding in &fleet.findings {
        assert_clean(&finding.text);
    }
    for row in &fleet.anchors {
        assert_clean(row.common_name.as_deref().unwrap_or_default());
    }
    let object = serde_json::json!({"metadata": {"name": "n", "annotations": {ANNOTATION: text}}});
    let Ok(object) = serde_json::from_value::<NodeObject>(object) else { panic!("a Node object") };
    assert_eq!(object.annotation(), Some(text));
}

/// What container runtimes answer: gRPC's frames and CRI's messages, Docker's JSON.
pub fn runtime_answer(data: &[u8]) {
    parsers::grpc(data);
    let _ = serde_json::from_slice::<docker::Info>(data);
}

/// What an API server answers: a `Status` that says why it refuses, and a page of Nodes.
pub fn api_answer(data: &[u8]) {
    for words in parsers::refusal(data) {
        assert_clean(&words);
        assert!(words.chars().count() <= MAX_SENTENCE_CHARS);
        assert!(words.is_empty() || words.starts_with(": "), "{words}");
    }
    if let Some((members, _)) = parsers::page(data) {
        let fleet = topology::fleet(members, 1_800_000_000);
        assert_clean(&fleet.headline);
    }
}

/// A host, and behind the first line end what a person wrote into `NO_PROXY`.
pub fn no_proxy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (host, list) = text.split_once('\n').unwrap_or((&text, ""));
    let direct = parsers::is_direct(host, list);
    assert!(direct || !parsers::is_direct(host, ""), "an empty list covers less than any other: {text}");
    assert!(parsers::is_direct(host, &format!("{list},*")), "{text}");
    if Target::parse(&format!("{host}:443")).is_ok() && !host.contains([',', '*', '/']) && host.trim() == host {
        assert!(parsers::is_direct(host, host.trim_matches(['[', ']'])), "a host is covered by itself: {text}");
    }
}

/// The note of a cycle that the lock's file holds.
pub fn note(data: &[u8]) {
    let Some(cycle) = parsers::note(&String::from_utf8_lossy(data)) else { return };
    assert_clean(&cycle.trigger);
    assert_clean(&cycle.outcome);
    assert!(cycle.trigger.len() <= 20 && cycle.outcome.len() <= 20, "both are words of ours");
}

/// What the host's tools print, and the list that they read.
pub fn tool_output(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(words) = parsers::last_words(&text) {
        assert_eq!(words.lines().count(), 1, "{words:?}");
        let problem = Problem::new(ProblemKind::Extract, words, "");
        assert_clean(&problem.text);
        assert!(problem.text.chars().count() <= MAX_SENTENCE_CHARS);
    } else {
        assert!(text.trim().is_empty());
    }
    for name in parsers::selection(&text) {
        assert!(!name.is_empty() && !name.contains('\n') && !name.starts_with(['#', '!']));
    }
}

/// A containerd configuration.
pub fn containerd(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(file) = containerd::ContainerdFile::parse(text) else { return };
    for import in file.imports() {
        let place = containerd::import_place("/etc/containerd/config.toml", &import);
        assert!(place.starts_with('/') && !place.split('/').any(|name| name == ".."), "{place}");
        let (dir, names) = containerd::pattern_parts(&place);
        assert!(dir.starts_with('/'), "{dir}");
        for name in names {
            let _ = containerd::fits(name, "10-corp.toml");
        }
    }
    let _ = file.address();
    for setting in [Ok(file.dumped()), containerd::joined(&[file.clone(), file], None)] {
        if let Ok(registry_dir::Setting::Directory(dir)) = setting {
            assert!(dir.is_empty() || dir.starts_with('/'), "{dir}");
            assert!(!dir.contains(':'), "{dir}");
        }
    }
}

/// Texts that others wrote.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = visible(&text);
    assert_clean(&shown);
    assert_eq!(visible(&shown), shown, "a visible text stays as it is");
    for bounded in [name::shown(&text), name::sentence(&text)] {
        assert_clean(&bounded);
        assert!(bounded.chars().count() <= MAX_SENTENCE_CHARS);
    }
}

/// The certificates that a server presents: length (2 bytes) and DER, again and again. The first one is in the bundle too if the
/// first byte is odd.
pub fn chain(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let mut presented = Vec::new();
    while let [high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (der, tail) = tail.split_at(length);
        presented.push(der.to_vec());
        rest = tail;
    }
    let trusted: Vec<Vec<u8>> = match first & 1 {
        1 => presented.last().cloned().into_iter().collect(),
        _ => Vec::new(),
    };
    let Ok(target) = Target::parse("registry.test:443") else { return };
    let now = Moment { wall: 1_800_000_000, boottime: 1000, boot_id: "a".to_owned() };
    let facts =
        Facts { bundle: &trusted, ledger: &Ledger::new(), said: None, removal_grace: 0, now: &now, behind: None };
    let probe = judge(&target, &presented, facts);
    assert!(!probe.is_trusted() || !trusted.is_empty(), "nothing is trusted without a root");
    assert_clean(&probe.text);
    for text in probe.notes.iter().chain(&probe.next) {
        assert_clean(text);
    }
    for element in &probe.chain {
        assert_clean(&element.subject);
    }
}

/// Nothing in it can draw on a terminal.
fn assert_clean(text: &str) {
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
}
