//! What the fuzz targets check, one function for each parser of bytes that somebody else wrote.
//! Long because each of these functions stands on its own, beside the others.
//!
//! Beyond "no panic": what is accepted can be written and read back as the same, every reader of ours agrees on it, and no text
//! that came from outside can draw on a terminal.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use nodetrust::{config::Settings, parsers, runtime::docker, sources::subpath::Mounts};
use nodetrust_core::{
    action::ExportFormat,
    certificate::{
        anchor::Anchor,
        bundle,
        fingerprint::Fingerprint,
        name::{self, MAX_SENTENCE_CHARS, visible},
        pem, readers,
    },
    dns,
    fleet::{
        lease::FleetLeases,
        removal::{Approvals, MAX_APPROVALS},
        slots::{SlotAnswer, SlotEvent, SlotTiming, SlotWish, Slots},
    },
    ledger::Ledger,
    node_status::{ANNOTATION, NodeObject, NodeStatus, Taint},
    observed::Hazard,
    pod_bundle,
    probe::{Facts, Proxy, Target, judge},
    problem::{Problem, ProblemKind},
    render::{self, FirstBoot, RenderFormat, check::TemplateVerdict, find},
    runtime::{
        containerd,
        environment::Environment,
        pull_answer::{self, PullEnd, RefusedServer, classify},
        registry::{MAX_REGISTRIES, Registry, of_images},
        registry_dir,
        registry_way::{RegistryFolder, RegistryWay},
        witness::WitnessAnswer,
    },
    source::{
        Content, Snapshot, SourceFile, SourceLayout,
        policy::{Acceptance, Circumstances, Policy},
        resolve::resolve,
    },
    store::{
        hash_link,
        os_release::OsRelease,
        p11kit::{TrustDirectory, TrustSources},
        settings::{patch, read_pki},
    },
    time::Moment,
    topology::{self, FleetRestarts, Member},
};

/// A file of a source: PEM or DER.
pub fn pem(data: &[u8]) {
    let scan = pem::scan(data);
    assert!(scan.faults.len() <= pem::MAX_FAULTS + 1, "the number of faults is bounded");
    for block in &scan.blocks {
        let text = pem::encode(&block.der);
        let again = pem::scan(text.as_bytes());
        match again.blocks.as_slice() {
            [one] if again.faults.is_empty() && again.notes.is_empty() => assert_eq!(one.der, block.der),
            // The scanner accepts these blocks; `Anchor` refuses bytes that are no certificate.
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
    // A bundle that holds the certificate loads.
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
    for earlier in [data, &data[data.len() / 2..]] {
        assert_eq!(bundle::read_after(data, &bundle::read(earlier)), effective, "what is known of another changes nothing");
    }
    let exported = bundle::read(&pod_bundle::content(ExportFormat::Pem, data).bytes);
    assert!(exported.set.is_subset(&effective.set), "the bundle for pods has something of its own");
    assert!(exported.repeated() == 0 && !exported.private_key);
    let java = pod_bundle::content(ExportFormat::Pkcs12, data);
    assert_eq!(java.certificates + java.left_out, effective.set.len());
    let is_ours = pod_bundle::format_of(&java.bytes) == Some(ExportFormat::Pkcs12);
    assert_eq!(is_ours, java.certificates > 0);
    // A sound bundle with one more certificate stays sound. OpenSSL takes a NUL byte at the start of a line for the end of the file.
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
    for place in [TrustDirectory::Anchors, TrustDirectory::Top, TrustDirectory::Blocklist] {
        let mut sources = TrustSources::default();
        sources.add(place, data);
        let trusted = prints.iter().filter(|print| sources.is_anchor(print)).count();
        assert!(trusted == 0 || place != TrustDirectory::Blocklist, "what is blocked is no anchor");
        // Duplicates count once, and a blocklist overrules everything else.
        sources.add(place, data);
        assert_eq!(prints.iter().filter(|print| sources.is_anchor(print)).count(), trusted);
        sources.add(TrustDirectory::Blocklist, data);
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

/// The fleet's approvals of removals.
pub fn approvals(data: &[u8]) {
    let Ok(approvals) = Approvals::parse(data) else { return };
    assert!(approvals.0.len() <= MAX_APPROVALS);
    assert_eq!(
        Approvals::parse(approvals.text().as_bytes()).as_ref(),
        Ok(&approvals),
        "what we write reads back as the same"
    );
    for approval in &approvals.0 {
        assert_clean(&approval.fingerprint.to_string());
    }
}

/// The Leases of a fleet, which anybody may have written who may write Leases in that namespace.
pub fn leases(data: &[u8]) {
    let Ok(items) = serde_json::from_slice::<Vec<serde_json::Value>>(data) else { return };
    let leases = FleetLeases::read(&items);
    assert!(leases.slots.is_sorted_by_key(|slot| slot.index), "a slot is looked up by bisection");
    let restarts = FleetRestarts::of(&leases);
    assert!(restarts.held.len() + restarts.halts.len() <= leases.slots.len());
    for text in restarts.halts.iter().flat_map(|halt| [&halt.node, &halt.reason, &halt.since]).chain(&restarts.paused) {
        assert_clean(text);
        assert!(text.chars().count() <= MAX_SENTENCE_CHARS, "a text from a Lease is bounded");
    }
    // a node that waits makes something of them
    let mut slots = Slots::new("node", 1, SlotTiming::default(), false, Duration::ZERO);
    let _ = slots.step(SlotEvent::Limit(3), Duration::ZERO);
    let _ = slots.step(SlotEvent::Wish(SlotWish::Slot), Duration::ZERO);
    let now = slots.due().unwrap_or_default();
    if slots.step(SlotEvent::Elapsed, now).is_some() {
        let next = slots.step(SlotEvent::Answered(SlotAnswer::Listed(leases)), now);
        assert!(next.is_some() || slots.due().is_some_and(|due| due > now), "it goes on, and does not spin");
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
    for (name, kind) in [("registry.test", dns::RecordType::A), ("a.b", dns::RecordType::Aaaa)] {
        let Some(question) = dns::question(7, name, kind) else { panic!("{name} is a name") };
        assert_eq!(dns::answer(&question, &question), None, "a question is no answer");
        if let Some(dns::DnsAnswer::Addresses(addresses)) = dns::answer(&question, data) {
            assert!(addresses.iter().all(|address| address.is_ipv4() == (kind == dns::RecordType::A)));
        }
        // The answer belongs to this question.
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
        let _ = dns::question(1, name, dns::RecordType::A);
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

/// What container runtimes answer: CRI's messages and errors, Docker's JSON.
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
    let text = String::from_utf8_lossy(data);
    let Some(cycle) = parsers::note(&text) else { return };
    let (trigger, outcome) = (cycle.trigger.as_str(), cycle.outcome.as_str());
    assert!(trigger.len() <= 20 && outcome.len() <= 20, "both are words of ours: {text}");
}

/// What Bottlerocket's API says of its settings.
pub fn pki_settings(data: &[u8]) {
    let Ok(settings) = read_pki(data) else { return };
    for (name, entry) in &settings {
        let again = read_pki(patch(name, entry).as_bytes()).expect("what is set is read back");
        assert_eq!(again.get(name), Some(entry));
        if let Some(pem) = entry.pem() {
            drop(SourceFile::parse(name, &pem));
        }
    }
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

/// A file of a unit's `EnvironmentFile`, and the proxy that it leads to.
pub fn environment(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let of_file = |text: &str| {
        let mut environment = Environment::default();
        environment.assign_file(text);
        environment
    };
    let of_assignments = |assignments: &[&str]| {
        let mut environment = Environment::default();
        environment.assign(assignments.iter().copied());
        environment
    };
    let environment = of_file(&text);
    let mut twice = environment.clone();
    twice.assign_file(&text);
    assert_eq!(twice, environment, "a file that is read twice gives what it gives once");
    // Any value can be written in double quotes and read back.
    let quoted: String =
        text.chars().flat_map(|c| "\"\\`$".contains(c).then_some('\\').into_iter().chain([c])).collect();
    assert_eq!(of_file(&format!("NAME=\"{quoted}\"")), of_assignments(&[&format!("NAME={text}")]));
    // Without quotes and backslashes, each line is one assignment.
    if !text.contains(['"', '\'', '\\']) {
        let lines: Vec<&str> = text.split('\n').map(str::trim).filter(|line| !line.starts_with(['#', ';'])).collect();
        assert_eq!(environment, of_assignments(&lines), "{text}");
    }
    for target in ["registry.test:443", "10.0.0.1:5000", "[fd00::1]:443", "localhost:5000"] {
        let Ok(target) = Target::parse(target) else { panic!("{target} is a target") };
        match environment.proxy_for(&target) {
            Ok(None) => {}
            Ok(Some(proxy)) => {
                assert_ne!(target.host(), "localhost", "Go reaches the node itself without a proxy");
                assert_eq!(proxy.request(&target).matches("\r\n\r\n").count(), 1, "{text}");
            }
            Err(why) => {
                assert_clean(&why);
                let kinds =
                    ["one of https,", "one of socks5,", "one of socks5h,", "one of another scheme,", "no address"];
                let is_ours = |kind: &&str| why.starts_with(&format!("its HTTPS_PROXY is {kind}"));
                assert!(kinds.iter().any(|kind| is_ours(&kind)), "an error quotes the value: {why}");
            }
        }
    }
}

/// How a pull of an image that cannot exist ended: gRPC's code in the first byte, then the runtime's message.
pub fn pull_answer(data: &[u8]) {
    const DIGITS: &str = "6f1ed002ab5595859014ebf0951522d96f1ed002ab5595859014ebf0951522d9";
    let Some((code, message)) = data.split_first() else { return };
    // The fuzzer cannot guess the random digits, so DIGITS in the input stands for them.
    let text = String::from_utf8_lossy(message).replace("DIGITS", DIGITS);
    let code = u32::from(code % 20);
    let of_code = classify(PullEnd::Grpc(code, &text), DIGITS);
    assert!(
        matches!(code, 2 | 5 | 7 | 9 | 16) || of_code.answer == WitnessAnswer::NotReached,
        "code {code} does not come from a registry: {text}"
    );
    let of_docker = classify(PullEnd::Docker(&text), DIGITS);
    assert_eq!(of_docker, classify(PullEnd::Grpc(2, &text), DIGITS), "{text}");
    for answer in [&of_code, &of_docker] {
        assert_clean(&answer.words);
        assert!(answer.words.chars().count() <= MAX_SENTENCE_CHARS);
        assert!(!answer.words.contains(DIGITS), "{}", answer.words);
        assert_eq!(answer.refused.is_some(), answer.answer == WitnessAnswer::Refuses, "{text}");
        if let Some(RefusedServer::Server(server)) = &answer.refused {
            assert!(!server.contains(char::is_whitespace) && !server.starts_with(':'), "{server:?}");
            assert_eq!(&pull_answer::with_port(server), server, "a server has a port");
        }
    }
    // These codes prove nothing, whatever the text says.
    let quoted = format!("unexpected status from HEAD request to https://registry.test/v2/: {text}");
    let silent = [PullEnd::Pulled, PullEnd::NoAnswer(&text), PullEnd::Grpc(code, ""), PullEnd::Docker("")];
    for end in silent {
        assert_eq!(classify(end, DIGITS).answer, WitnessAnswer::NotReached, "{end:?}");
    }
    assert_ne!(
        classify(PullEnd::Docker(&quoted), DIGITS).answer,
        WitnessAnswer::Refuses,
        "what a server writes is taken for the runtime's own refusal: {text}"
    );
}

/// In the first line the name of an image, then what a runtime's configuration says of its registry: `hosts.toml`, containerd's
/// tables, or `registries.conf`.
pub fn registry(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (image, file) = text.split_once('\n').unwrap_or((&text, ""));
    let all = of_images(text.lines());
    assert!(all.len() <= MAX_REGISTRIES);
    for (at, registry) in all.iter().enumerate() {
        assert!(!all[..at].contains(registry), "a registry stands twice: {registry}");
    }
    if let Err(why) = Registry::parse(image) {
        assert_clean(&why);
    }
    let Some(registry) = Registry::of_image(image).or_else(|| Registry::parse(image).ok()) else { return };
    for name in [registry.to_string(), registry.key()] {
        assert_eq!(Registry::parse(&name).as_ref(), Ok(&registry), "a registry is read back from its name");
    }
    for folder in registry.folders() {
        assert!(!folder.contains(['/', '\0']) && !matches!(folder.as_str(), "" | "." | ".."), "{folder:?}");
    }
    let folder = |hosts: &str, has_certs| RegistryFolder {
        path: "/etc/containerd/certs.d/registry".to_owned(),
        hosts: Some(Ok(hosts.to_owned())),
        has_certs,
    };
    let by_tables = |way: RegistryWay| match containerd::ContainerdFile::parse(file) {
        Ok(tables) => way.by_tables(&tables, &registry),
        Err(_) => way,
    };
    let ways: [&dyn Fn(RegistryWay) -> RegistryWay; 4] = [
        &|way| way.by_folder(&folder(file, false), &registry),
        &|way| way.by_folder(&folder(file, true), &registry),
        &by_tables,
        &|way| way.by_registries("/etc/containers/registries.conf", Ok(file)),
    ];
    let straight = RegistryWay::straight(&registry);
    for change in ways {
        let way = change(straight.clone());
        assert_eq!(way.verifies_tls, way.because.is_none(), "{way:?}");
        assert_eq!(change(way.clone()), way, "a file that is read twice says what it says once");
        assert!(straight.verifies_tls || !way.verifies_tls, "configuration makes no proof of what proves nothing");
        let unknown = RegistryWay::unknown("it cannot be read");
        assert_eq!(change(unknown.clone()), unknown, "what is unknown stays unknown");
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
        Facts { bundle: &trusted, ledger: &Ledger::new(), sources: None, removal_grace: 0, now: &now, behind: None };
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

/// The template of a node, in any format.
pub fn template(data: &[u8]) {
    const MOST_RENDERED: usize = 8; // more would only take time
    let found = find::find(data);
    assert!(found.notes.len() <= 21, "the number of notes is bounded");
    for note in &found.notes {
        assert_clean(note);
    }
    if found.anchors.is_empty() || found.anchors.len() > MOST_RENDERED {
        return;
    }
    // What is found can be rendered, and is found again in every format.
    let pem: String = found.anchors.values().map(|anchor| anchor.pem()).collect();
    let snapshot = Snapshot {
        name: "template".to_owned(),
        origin: "template".to_owned(),
        optional: false,
        content: Content::Files(vec![Arc::new(SourceFile::parse("template", pem.as_bytes()))]),
        layout: SourceLayout::default(),
        notes: Vec::new(),
    };
    let policy = Policy { expired: Acceptance::Accept, ..Policy::default() };
    let at = Circumstances { drops_not_ca: None, installed: &|_| false, now: 1_800_000_000 };
    let resolved = resolve(&[snapshot], &Ledger::new(), &policy, at);
    let set: BTreeSet<Fingerprint> = resolved.desired.keys().copied().collect();
    if set.is_empty() {
        return; // two of one name, one of them damaged
    }
    let first_boot = FirstBoot::new(&resolved, &policy, None);
    for format in RenderFormat::ALL.into_iter().filter(|format| format.holds_anchors()) {
        let text = render::render(&first_boot, format);
        let again = find::find(text.as_bytes());
        assert!(again.anchors.keys().eq(&set) && again.notes.is_empty(), "{}: {text}", format.as_str());
        let check = render::check::check("template", again, &resolved, &policy, 1_800_000_000);
        assert_eq!(check.verdict, TemplateVerdict::Current, "{text}");
    }
}

/// Nothing in it can draw on a terminal.
fn assert_clean(text: &str) {
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
}
