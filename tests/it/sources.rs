//! Sources as they are in clusters: the kubelet's volumes, Secrets, projected bundles, and what else may lie in a directory.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use nodetrust::{config::Settings, sources::SourceReader};
use nodetrust_core::source::{Content, Snapshot};
use serde_json::Value;

use crate::{
    agent::{LoweredAtEnd, extracts, fast},
    crash::Moments,
    support::{
        node::{Kind, Node},
        pki::Ca,
        wait_for,
    },
};

const LIMIT: Duration = Duration::from_secs(120);

/// Writes a volume as the kubelet's AtomicWriter does (facts D), step by step.
struct Volume {
    dir: PathBuf,
    generation: u32,
}

impl Volume {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), generation: 0 }
    }

    fn write(&mut self, files: &[(&str, String)]) {
        let at = |name: &str| self.dir.join(name);
        let old = fs::read_link(at("..data")).ok();
        self.generation += 1;
        let name = format!("..2026_11_22_04_00_00.{:010}", self.generation);
        fs::create_dir(at(&name)).unwrap();
        for (file, text) in files {
            fs::write(at(&name).join(file), text).unwrap();
        }
        symlink(&name, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        for (file, _) in files {
            if fs::symlink_metadata(at(file)).is_err() {
                symlink(Path::new("..data").join(file), at(file)).unwrap();
            }
        }
        for entry in fs::read_dir(&self.dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with("..") && !files.iter().any(|(file, _)| *file == name) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.dir.join(old)).unwrap();
        }
    }
}

/// The anchors that the report wants, whatever else it shows.
fn desired(status: &Value) -> BTreeSet<String> {
    let rows = status["anchors"].as_array().into_iter().flatten();
    rows.filter(|row| row["state"] == "desired").map(|row| row["sha256"].as_str().unwrap().to_owned()).collect()
}

fn set(cas: &[&Ca]) -> BTreeSet<String> {
    cas.iter().map(|ca| ca.sha256()).collect()
}

fn source<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["sources"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap_or(&Value::Null)
}

fn fingerprints(snapshots: &[Snapshot]) -> BTreeSet<String> {
    let Content::Files(parts) = &snapshots[0].content else { return BTreeSet::new() };
    parts.iter().flat_map(|part| &part.anchors).map(|(_, anchor)| anchor.fingerprint.to_string()).collect()
}

#[test]
fn a_kubelet_volume_is_followed_from_generation_to_generation() {
    let node = Node::new(Kind::Trixie, "");
    let (a, b, c) = (Ca::new("A"), Ca::new("B"), Ca::new("C"));
    let mut volume = Volume::new(&node.source);
    volume.write(&[("a.crt", a.pem()), ("b.crt", b.pem())]);
    let agent = node.agent(&fast("0s"));
    agent.wait_converged(&[&a, &b], LIMIT);
    // One key changes, one is removed, one is new.
    volume.write(&[("a.crt", c.pem())]);
    agent.wait_converged(&[&c], LIMIT);
    volume.write(&[("a.crt", c.pem()), ("new.crt", a.pem())]);
    agent.wait_converged(&[&a, &c], LIMIT);
    assert_eq!(agent.metric("nodetrust_reconciles_total{trigger=\"source\",outcome=\"changed\"}"), Some(2.0));
    assert!(agent.status().unwrap()["problems"].as_array().unwrap().is_empty());
}

/// A key may have a path in a projected volume: what lies in a folder is not read, and must not be taken for installed.
#[test]
fn folders_of_a_projected_volume_are_named_and_an_empty_volume_is_called_what_it_is() {
    let node = Node::new(Kind::Trixie, "");
    let (ca, nested) = (Ca::new("Corp Root"), Ca::new("Nested"));
    let (generation, folders) = (node.source.join("..2026"), ["b", "a", "lost+found"]);
    fs::create_dir(&generation).unwrap();
    symlink("..2026", node.source.join("..data")).unwrap();
    let detail = |what: &str, holds: &dyn Fn(&str) -> bool| {
        let done = node.nodetrust(&["apply", "-o", "json"]);
        let text = source(&done.json(), "org")["detail"].as_str().unwrap().to_owned();
        assert!(holds(&text), "{what}: {text}");
    };
    detail("nothing", &|text| text.starts_with("empty: ") && text.contains("projected volume"));
    fs::write(generation.join("ca.crt"), "").unwrap();
    detail("an empty file", &|text| text.contains("no byte in ca.crt") && text.contains("optional ClusterTrustBundle"));
    for folder in folders {
        fs::create_dir(generation.join(folder)).unwrap();
        fs::write(generation.join(folder).join("ca.crt"), nested.pem()).unwrap();
        symlink(Path::new("..data").join(folder), node.source.join(folder)).unwrap();
    }
    detail("folders beside an empty file", &|text| text.contains("no byte") && text.ends_with("the folders a, b"));
    fs::write(generation.join("ca.crt"), ca.pem()).unwrap();
    detail("folders beside a CA", &|text| text.starts_with("passed over") && text.ends_with("the folders a, b"));
    assert!(node.trusts(&ca) && !node.trusts(&nested));
    let screen = node.nodetrust(&["status"]).expect(0).out;
    assert!(screen.contains("folders a, b"), "{screen}");
    fs::remove_file(generation.join("ca.crt")).unwrap();
    detail("folders alone", &|text| text.contains("last good set") && text.ends_with("the folders a, b"));
}

/// Swaps without a pause while the volume is read without a pause: each read is one generation, never a part of one and
/// never of two.
#[test]
fn each_read_of_a_kubelet_volume_is_one_generation() {
    let dir = tempfile::tempdir().unwrap();
    let generations: Vec<[Ca; 3]> =
        (0..4).map(|n| ["A", "B", "C"].map(|name| Ca::new(&format!("{name}{n}")))).collect();
    let whole: Vec<BTreeSet<String>> = generations.iter().map(|cas| set(&cas.each_ref())).collect();
    let texts: Vec<Vec<(&str, String)>> = generations
        .iter()
        .map(|cas| ["a.crt", "b.crt", "c.crt"].into_iter().zip(cas.iter().map(Ca::pem)).collect())
        .collect();
    let mut volume = Volume::new(dir.path());
    volume.write(&texts[0]);
    let settings = Settings::parse(&format!("sources: [{{name: org, path: {}}}]", dir.path().display())).unwrap();
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let stop = LoweredAtEnd(&goes_on);
        let writer = scope.spawn(|| {
            let mut swaps = 0;
            while goes_on.load(Ordering::Relaxed) {
                swaps += 1;
                volume.write(&texts[swaps % texts.len()]);
            }
            swaps
        });
        let mut reader = SourceReader::default();
        let mut seen = BTreeSet::new();
        let (mut reads, end) = (0, Instant::now() + Duration::from_secs(3));
        while Instant::now() < end {
            let snapshots = reader.read(&settings);
            let read = fingerprints(&snapshots);
            assert!(whole.contains(&read), "a read gave {} of 3 certificates: {snapshots:?}", read.len());
            seen.insert(read);
            reads += 1;
        }
        drop(stop);
        let swaps = writer.join().unwrap();
        assert!(seen.len() == whole.len() && swaps > 50 && reads > 50, "{swaps} swaps, {reads} reads");
    });
}

#[test]
fn the_set_in_force_is_always_a_generation() {
    let node = Node::new(Kind::Trixie, "");
    let mut random = Moments::new();
    let (old, new) = ([Ca::new("A0"), Ca::new("B0")], [Ca::new("A1"), Ca::new("B1")]);
    let files = |cas: &[Ca; 2]| [("a.crt", cas[0].pem()), ("b.crt", cas[1].pem())];
    let wanted = [set(&old.each_ref()), set(&new.each_ref())];
    let mut volume = Volume::new(&node.source);
    volume.write(&files(&old));
    let agent = node.agent(&fast("0s"));
    agent.wait_converged(&old.each_ref(), LIMIT);
    let goes_on = AtomicBool::new(true);
    let seen = thread::scope(|scope| {
        let stop = LoweredAtEnd(&goes_on);
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while goes_on.load(Ordering::Relaxed) {
                let status = agent.status().unwrap();
                seen.insert((desired(&status), source(&status, "org")["status"].as_str().unwrap().to_owned()));
                thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        // Changes follow each other for longer than the agent waits for a pause in events.
        for swap in 0..120 {
            volume.write(&files(if swap % 2 == 0 { &new } else { &old }));
            thread::sleep(Duration::from_millis(10 + random.below(130)));
        }
        volume.write(&files(&new));
        agent.wait_converged(&new.each_ref(), LIMIT);
        drop(stop);
        reader.join().unwrap()
    });
    for (desired, state) in &seen {
        assert!(wanted.contains(desired) && state == "ok", "a mixture was in force: {desired:?} ({state})");
    }
    assert!(agent.metric("nodetrust_reconciles_total{trigger=\"source\",outcome=\"changed\"}").unwrap() >= 1.0);
    // The report may belong to an earlier turn of the same generation.
    wait_for("the last generation in the bundle", LIMIT, || {
        (!node.trusts(&old[0]) && node.trusts(&new[0]) && node.trusts(&new[1])).then_some(())
    });
}

/// Every text of a directory tree, for looking for what must be nowhere.
fn contains(dir: &Path, needle: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            contains(&entry.path(), needle, found);
        } else if kind.is_file() && fs::read(entry.path()).is_ok_and(|b| String::from_utf8_lossy(&b).contains(needle)) {
            found.push(entry.path());
        }
    }
}

fn a_secret_with_its_key(kind: Kind) {
    let node = Node::new(kind, "");
    let ca = Ca::new("Corp Root");
    let (_, key) = ca.leaf("registry.test");
    let mut volume = Volume::new(&node.source);
    volume.write(&[("ca.crt", ca.pem()), ("tls.key", key.clone())]);
    let agent = node.agent(&fast("1h"));
    let status = agent.wait_converged(&[&ca], LIMIT);
    let rejections = source(&status, "org")["rejections"].as_array().unwrap();
    assert_eq!(rejections.len(), 1, "{status:#}");
    assert_eq!(rejections[0]["reason"], "private-key");
    assert!(rejections[0]["file"].as_str().unwrap().ends_with("/tls.key"), "{status:#}");
    assert_eq!(rejections[0]["line"], 1);
    assert_eq!(status["verdict"], "trusted-with-findings");
    assert_eq!(agent.metric("nodetrust_rejections{source=\"org\",reason=\"private-key\"}"), Some(1.0));
    node.nodetrust(&["apply"]).expect(2);

    // The same with the key in the certificate's file: the whole file is refused, with its certificate.
    let joined = Ca::new("Joined");
    volume.write(&[("ca.crt", ca.pem()), ("joined.pem", format!("{}{key}", joined.pem()))]);
    let status = agent.wait_status("the second refusal", LIMIT, |status| {
        let rejections = source(status, "org")["rejections"].as_array().unwrap();
        rejections.iter().any(|row| row["file"].as_str().unwrap().ends_with("/joined.pem"))
    });
    assert_eq!(desired(&status), set(&[&ca]));
    let table = node.nodetrust(&["status"]).expect(2);
    assert!(table.out.contains("private-key"), "{}", table.out);

    for line in key.lines().filter(|line| !line.starts_with('-')) {
        let page = |path: &str| agent.get(path).unwrap().1;
        for (place, text) in [
            ("the log", agent.log_text()),
            ("/status", page("/status")),
            ("/metrics", page("/metrics")),
            ("the page", page("/")),
            ("status", format!("{}{}", table.out, table.err)),
            ("inspect", {
                let file = node.source.join("joined.pem");
                let done = node.nodetrust(&["inspect", file.to_str().unwrap()]).expect(2);
                format!("{}{}", done.out, done.err)
            }),
        ] {
            assert!(!text.contains(line), "the key is in {place}");
        }
        let mut found = Vec::new();
        contains(&node.beside("upper"), line, &mut found);
        assert!(found.is_empty(), "the key is on the host: {found:?}");
    }
    assert!(!node.bundle().is_empty() && node.trusts(&ca) && !node.trusts(&joined));
}

#[test]
fn trixie_a_private_key_beside_the_ca_goes_nowhere() {
    a_secret_with_its_key(Kind::Trixie);
}

#[test]
fn rhelish_a_private_key_beside_the_ca_goes_nowhere() {
    a_secret_with_its_key(Kind::Rhelish);
}

#[test]
fn a_shuffled_bundle_is_no_change() {
    let node = Node::new(Kind::Trixie, "");
    let mut cas: Vec<Ca> = (0..6).map(|n| Ca::new(&format!("CA {n}"))).collect();
    let write = |cas: &[Ca], name: &str| {
        let mut volume = Volume::new(&node.source);
        // A ClusterTrustBundle is one file.
        volume.generation = u32::try_from(name.len()).unwrap();
        volume.write(&[("trust-bundle.pem", cas.iter().map(Ca::pem).collect())]);
    };
    write(&cas, "1");
    let agent = node.agent(&fast("0s"));
    agent.wait_converged(&cas.iter().collect::<Vec<_>>(), LIMIT);
    let ledger = fs::read(node.path("/var/lib/nodetrust/ledger.json")).unwrap();
    let unchanged = || agent.metric("nodetrust_reconciles_total{trigger=\"source\",outcome=\"unchanged\"}").unwrap();
    let (runs, footprint) = (extracts(&agent), node.footprint());
    for name in ["22", "333"] {
        cas.rotate_left(2);
        let before = unchanged();
        write(&cas, name);
        wait_for("a look at the shuffled bundle", LIMIT, || (unchanged() > before).then_some(()));
    }
    assert_eq!(extracts(&agent), runs, "no run of the tool");
    assert_eq!(agent.metric("nodetrust_reconciles_total{trigger=\"source\",outcome=\"changed\"}"), Some(0.0));
    assert_eq!(fs::read(node.path("/var/lib/nodetrust/ledger.json")).unwrap(), ledger);
    let changed = |path: &String| path.as_str() != "/run/nodetrust.lock";
    assert!(node.footprint().iter().filter(|(path, _)| changed(path)).eq(footprint.iter().filter(|(p, _)| changed(p))));
}

#[test]
fn sources_are_merged_and_an_optional_one_may_be_missing() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two, three, late) = (Ca::new("One"), Ca::new("Two"), Ca::new("Three"), Ca::new("Late"));
    node.set_source(&[&one, &two]);
    let more = node.beside("more");
    fs::create_dir(&more).unwrap();
    let file = more.join("single.pem");
    fs::write(&file, format!("some words before\n{}{}", two.pem(), two.pem())).unwrap();
    let later = more.join("later");
    let inline: String = three.pem().lines().map(|line| format!("    {line}\n")).collect();
    let sources = format!(
        "- {{name: single, path: {}}}\n- {{name: later, path: {}, optional: true}}\n- name: pinned\n  inline: |\n{inline}{}",
        file.display(),
        later.display(),
        fast("0s")
    );
    let agent = node.agent(&fast("0s"));
    agent.wait_converged(&[&one, &two], LIMIT);
    node.configure(&sources);
    let status = agent.wait_converged(&[&one, &two, &three], LIMIT);
    assert_eq!(status["verdict"], "trusted", "a missing optional source is no finding: {status:#}");
    let state =
        |name: &str| (source(&status, name)["status"].as_str().unwrap(), source(&status, name)["anchors"].clone());
    assert_eq!(state("org"), ("ok", 2.into()));
    assert_eq!(state("single"), ("ok", 1.into()), "the same certificate twice counts once");
    assert_eq!(state("later"), ("absent", 0.into()));
    assert_eq!(state("pinned"), ("ok", 1.into()));
    let row = status["anchors"].as_array().unwrap().iter().find(|row| row["sha256"] == two.sha256()).unwrap();
    assert_eq!(row["sources"], serde_json::json!(["org", "single"]));
    node.nodetrust(&["status"]).expect(0);

    // The optional source appears. Then one of two sources of an anchor drops it.
    fs::create_dir(&later).unwrap();
    fs::write(later.join("ca.crt"), late.pem()).unwrap();
    agent.wait_converged(&[&one, &two, &three, &late], LIMIT);
    node.set_source(&[&one]);
    let status = agent.wait_status("one owner less", LIMIT, |status| source(status, "org")["anchors"] == 1);
    assert_eq!(desired(&status), set(&[&one, &two, &three, &late]), "the other still wants it");
    // The source is missing again: that removes nothing.
    fs::remove_dir_all(&later).unwrap();
    let status = agent.wait_status("silence", LIMIT, |status| source(status, "later")["status"] != "ok");
    assert_eq!(source(&status, "later")["status"], "held");
    assert!(node.trusts(&late));
}

#[test]
fn odd_things_in_a_source_directory_are_passed_over() {
    let node = Node::new(Kind::Trixie, "");
    let (ca, linked) = (Ca::new("Corp Root"), Ca::new("Linked"));
    node.set_source(&[&ca]);
    mkfifo(&node.source.join("fifo.crt"), Mode::from_bits_truncate(0o644)).unwrap();
    let _socket = UnixListener::bind(node.source.join("socket.crt")).unwrap();
    fs::create_dir(node.source.join("directory.crt")).unwrap();
    fs::write(node.source.join("directory.crt/inner.crt"), Ca::new("Not Read").pem()).unwrap();
    symlink("/nowhere/ca.crt", node.source.join("dangling.crt")).unwrap();
    fs::write(node.source.join(".hidden.crt"), Ca::new("Hidden").pem()).unwrap();
    fs::write(node.source.join("empty.crt"), "").unwrap();
    fs::write(node.beside("elsewhere.pem"), linked.pem()).unwrap();
    symlink(node.beside("elsewhere.pem"), node.source.join("linked.crt")).unwrap();
    let agent = node.agent(&fast("0s"));
    let status = agent.wait_converged(&[&ca, &linked], LIMIT);
    assert_eq!(status["verdict"], "trusted", "{status:#}");

    // An unreadable file holds the source and is named. Root reads everything, so a loop of links stands for it.
    symlink("loop.crt", node.source.join("loop.crt")).unwrap();
    fs::remove_file(node.source.join("linked.crt")).unwrap();
    let status = agent.wait_status("the hold", LIMIT, |status| source(status, "org")["status"] == "held");
    assert!(source(&status, "org")["detail"].as_str().unwrap().contains("loop.crt"), "{status:#}");
    assert_eq!(desired(&status), set(&[&ca, &linked]), "nobody knows what the unreadable file says");
    fs::remove_file(node.source.join("loop.crt")).unwrap();
    agent.wait_converged(&[&ca], LIMIT);
}

/// The result of reading a directory once.
fn read(dir: &Path) -> Content {
    let settings = Settings::parse(&format!("sources: [{{name: org, path: {}}}]", dir.display())).unwrap();
    SourceReader::default().read(&settings).remove(0).content
}

#[test]
fn a_name_that_is_no_utf8_is_read_and_shown_as_well_as_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let (odd, plain) = (Ca::new("Odd Name"), Ca::new("Plain Name"));
    fs::write(dir.path().join(OsStr::from_bytes(b"caf\xe9.crt")), format!("{}words", odd.pem())).unwrap();
    fs::write(dir.path().join("plain.crt"), plain.pem()).unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b".\xe9.crt")), Ca::new("Hidden").pem()).unwrap();
    let Content::Files(parts) = read(dir.path()) else { panic!("it is readable") };
    let found: Vec<_> = parts.iter().flat_map(|part| &part.anchors).map(|(_, a)| a.fingerprint.to_string()).collect();
    assert_eq!(found, [odd.sha256(), plain.sha256()]);
    assert!(parts[0].file.ends_with("/caf\u{fffd}.crt"), "{}", parts[0].file);
}

#[test]
fn a_source_beyond_its_limits_is_read_no_further() {
    let excess = |dir: &Path| match read(dir) {
        Content::Excess(reason, detail) => (reason.as_str(), detail),
        content => panic!("{content:?}"),
    };
    // Limit of certificates: each file is below it.
    let dir = tempfile::tempdir().unwrap();
    let text = Ca::new("Corp Root").pem().repeat(4_000);
    for name in ["a.crt", "b.crt", "c.crt"] {
        fs::write(dir.path().join(name), &text).unwrap();
    }
    symlink("loop.crt", dir.path().join("loop.crt")).unwrap(); // unreadable, and never reached
    assert_eq!(excess(dir.path()), ("too-many", "more than the limit of 10000 certificates".to_owned()));

    // Limit of bytes: files with comments only, and files that are refused for their own size.
    for size in [4 << 20, (4 << 20) + 1] {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..17 {
            fs::write(dir.path().join(format!("{n}.crt")), vec![b'#'; size]).unwrap();
        }
        assert_eq!(excess(dir.path()).0, "too-large", "{size}");
        fs::remove_file(dir.path().join("16.crt")).unwrap();
        assert!(matches!(read(dir.path()), Content::Files(_)), "64 MiB are read");
    }

    // Limit of files.
    let dir = tempfile::tempdir().unwrap();
    for n in 0..10_001 {
        fs::write(dir.path().join(format!("{n}.crt")), "").unwrap();
    }
    assert_eq!(excess(dir.path()), ("too-many", "more than the limit of 10000 files".to_owned()));
    fs::rename(dir.path().join("0.crt"), dir.path().join(".hidden")).unwrap();
    assert!(matches!(read(dir.path()), Content::Files(parts) if parts.is_empty()));
}

#[test]
fn a_file_that_is_written_slowly_counts_when_it_has_settled() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two, three) = (Ca::new("One"), Ca::new("Two"), Ca::new("Three"));
    let file = node.source.join("ca.crt");
    fs::write(&file, one.pem()).unwrap();
    let agent = node.agent("settle: 1s\nrotation: {removalGrace: 0s}\n");
    agent.wait_converged(&[&one], LIMIT);
    let goes_on = AtomicBool::new(true);
    let seen = thread::scope(|scope| {
        let stop = LoweredAtEnd(&goes_on);
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while goes_on.load(Ordering::Relaxed) {
                let status = agent.status().unwrap();
                let org = source(&status, "org");
                seen.insert((desired(&status), org["status"].to_string(), org["rejections"].to_string()));
                thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        // The file is truncated and written a few bytes at a time: it holds one, then two whole certificates for a while.
        let text = format!("{}{}{}", two.pem(), three.pem(), one.pem());
        let mut out = fs::File::create(&file).unwrap();
        for piece in text.as_bytes().chunks(text.len() / 30) {
            out.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        drop(out);
        agent.wait_converged(&[&one, &two, &three], LIMIT);
        drop(stop);
        reader.join().unwrap()
    });
    let ends = [set(&[&one]), set(&[&one, &two, &three])];
    for (desired, status, rejections) in &seen {
        assert!(
            ends.contains(desired) && status == "\"ok\"" && rejections == "[]",
            "half a file counted: {desired:?} {status} {rejections}"
        );
    }
}
