//! Certificates and bundles as real programs read them: OpenSSL, GnuTLS, Python's ssl module and Go are asked, not simulated.
//!
//! Over real, odd and mutated certificates: nothing that a loader of bundles chokes on is accepted, and no certificate that all
//! readers take is refused. Here a sample, with Debian 12's readers; `scripts/readers` runs the whole, with those of Debian 13
//! and Debian unstable as well.

mod java;
mod mutate;
mod programs;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use nodetrust_core::certificate::{anchor::Anchor, bundle, pem, readers};
use programs::{Reader, ReaderKind};

use crate::support::{pki::Ca, random::Random};

/// Inputs by name, each once.
type Inputs = Vec<(String, Vec<u8>)>;

/// How many inputs are tried.
struct Amount {
    /// Mutated certificates.
    mutated: usize,
    /// Every n-th of the single-bit flips is tried.
    every: usize,
    /// Mutated PEM files.
    files: usize,
    seed: u64,
}

const SAMPLE: Amount = Amount { mutated: 4_000, every: 16, files: 3_000, seed: 1 };

/// What `scripts/readers` sets: numbers in the order of [`Amount`]'s fields.
fn amount() -> Amount {
    let Ok(text) = std::env::var("NODETRUST_READERS_AMOUNT") else { return SAMPLE };
    let numbers: Vec<usize> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [mutated, every, files, seed] = numbers[..] else { panic!("four numbers wanted: {text}") };
    Amount { mutated, every, files, seed: seed as u64 }
}

static CORPUS: LazyLock<Inputs> = LazyLock::new(|| {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let mut add = |name: String, bytes: &[u8]| {
        for block in pem::scan(bytes).blocks {
            if seen.insert(block.der.clone()) {
                all.push((format!("{name}:{}", block.line), block.der));
            }
        }
    };
    add("cases".into(), include_bytes!("../data/readers/certificates.pem"));
    for path in super::corpus::vectors() {
        add(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), &fs::read(&path).unwrap());
    }
    let certifi = super::corpus::corpus("NODETRUST_CERTIFI", "cacert.pem");
    add("certifi".into(), &fs::read(certifi).unwrap());
    all
});

fn ders(inputs: &Inputs) -> Vec<&[u8]> {
    inputs.iter().map(|(_, der)| &der[..]).collect()
}

/// Whether we take it, but for its self-signature, which is not a matter of decoding.
fn accepts(der: &[u8]) -> Result<Option<Anchor>, String> {
    match Anchor::from_der(der) {
        Ok(anchor) => Ok(Some(anchor)),
        Err(error) if error.detail.contains("signature does not match") => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks all readers about all certificates, and compares. Prints figures; returns what is wrong.
fn compare(what: &str, inputs: &Inputs) -> Vec<String> {
    let readers = programs::all();
    let answers: Vec<Vec<String>> = readers.iter().map(|reader| reader.certificates(&ders(inputs))).collect();
    let mut wrong = Vec::new();
    let mut figures: BTreeMap<&str, usize> = BTreeMap::new();
    let mut strict: BTreeMap<String, usize> = BTreeMap::new();
    for (n, (name, der)) in inputs.iter().enumerate() {
        let refused: Vec<(&Reader, &str)> = readers
            .iter()
            .zip(&answers)
            .filter(|(_, lines)| !lines[n].starts_with("ok"))
            .map(|(reader, lines)| (*reader, lines[n].as_str()))
            .collect();
        let verdict = readers::verdict(der);
        let mut tell = |what: String| {
            keep(name, der);
            wrong.push(format!("{name}: {what}"));
        };
        for (kind, ours) in [
            (ReaderKind::OpenSsl, &verdict.openssl),
            (ReaderKind::GnuTls, &verdict.gnutls),
            (ReaderKind::Go, &verdict.go),
        ] {
            let theirs = refused.iter().find(|(reader, _)| reader.kind == kind);
            match (ours, theirs) {
                (None, Some((reader, line))) => tell(format!("{} says {line}, we that it reads it", reader.name)),
                (Some(why), None) if with_all_versions() && !is_old_rule(why) => {
                    tell(format!("{kind:?} reads it, we say {why}"))
                }
                _ => {}
            }
        }
        let chokes = refused.iter().any(|(reader, _)| reader.kind != ReaderKind::Go);
        let accepted = accepts(der);
        let go_reads = refused.is_empty();
        *figures
            .entry(match (&accepted, chokes, go_reads) {
                (Ok(_), true, _) => "ACCEPTED, AND A LOADER OF BUNDLES CHOKES",
                (Ok(_), false, true) => "accepted, all read it",
                (Ok(_), false, false) => "accepted, Go does not read it",
                (Err(_), true, _) => "refused, a loader of bundles chokes",
                (Err(_), false, true) => "refused, though all read it",
                (Err(_), false, false) => "refused, only Go does not read it",
            })
            .or_default() += 1;
        match &accepted {
            Ok(_) if chokes => tell(format!("accepted, but refused by {}", names(&refused))),
            Ok(Some(anchor))
                if anchor.go_refuses.is_some() == go_reads && (with_all_versions() || anchor.go_refuses.is_none()) =>
            {
                tell(format!("refused by {}, and the anchor says of Go: {:?}", names(&refused), anchor.go_refuses));
            }
            Err(why) if !chokes => {
                *strict.entry(why.clone()).or_default() += 1;
                let is_invalid = answers.iter().any(|lines| lines[n] == "ok invalid");
                if go_reads && with_all_versions() && !is_beyond_use(why, is_invalid || !may_be_ca(der)) {
                    tell(format!("all read it, and we refuse: {why}"));
                }
            }
            _ => {}
        }
    }
    let names: Vec<&str> = readers.iter().map(|reader| reader.name.as_str()).collect();
    println!("{what}: {} certificates, {} readers ({})", inputs.len(), readers.len(), names.join(", "));
    figures.iter().for_each(|(figure, count)| println!("  {count:7} {figure}"));
    strict.iter().for_each(|(why, count)| println!("  {count:7} refused, though bundles load: {why}"));
    println!("  {:7} disagreements", wrong.len());
    wrong
}

/// Whether newer readers than the machine's are asked too: the rules are those of the strictest version, so without them it
/// only counts what a reader refuses and we do not.
fn with_all_versions() -> bool {
    std::env::var_os("NODETRUST_READERS").is_some()
}

fn names(refused: &[(&Reader, &str)]) -> String {
    refused.iter().map(|(reader, line)| format!("{} ({line})", reader.name)).collect::<Vec<_>>().join(", ")
}

/// Debian 12 had OpenSSL 3.0.19 for months; what that alone refuses, a later one reads.
fn is_old_rule(why: &str) -> bool {
    why.contains("a length of several bytes at the end")
}

/// Whether basicConstraints of a certificate says CA:TRUE: 2.5.29.19, perhaps `critical`, and a sequence that begins with TRUE.
fn may_be_ca(der: &[u8]) -> bool {
    let Some(at) = der.windows(5).position(|bytes| bytes == b"\x06\x03\x55\x1d\x13") else { return false };
    let value = der[at + 5..].strip_prefix(b"\x01\x01\xff").unwrap_or(&der[at + 5..]);
    value.get(4..7).is_some_and(|first| first[..2] == [1, 1] && first[2] != 0)
}

/// Certificates that we refuse although readers decode them: no reader can use them, or OpenSSL takes no chain to them, or they are no
/// CA and have a path length beyond 32 bits.
fn is_beyond_use(why: &str, is_no_issuer: bool) -> bool {
    is_old_rule(why)
        || why.contains("16,384 bits")
        || (is_no_issuer && why.contains("basicConstraints extension cannot be read"))
}

/// Keeps a certificate that is disagreed about, where NODETRUST_READERS_KEEP says.
fn keep(name: &str, bytes: &[u8]) {
    if let Some(dir) = std::env::var_os("NODETRUST_READERS_KEEP") {
        let _ = fs::write(PathBuf::from(dir).join(name.replace(['/', ' '], "_")), bytes);
    }
}

#[track_caller]
fn none(wrong: &[String]) {
    // One of each kind is enough.
    let kinds: BTreeMap<&str, &String> =
        wrong.iter().map(|line| (line.split_once(": ").map_or("", |(_, what)| what), line)).collect();
    let kinds: Vec<&str> = kinds.values().take(40).map(|line| line.as_str()).collect();
    assert!(wrong.is_empty(), "{} disagreements, e.g.\n{}", wrong.len(), kinds.join("\n"));
}

#[test]
fn on_real_and_odd_certificates_we_agree_with_openssl_gnutls_and_go() {
    none(&compare("real and odd certificates", &CORPUS));
}

#[test]
fn on_mutated_certificates_we_agree_with_openssl_gnutls_and_go() {
    let amount = amount();
    let pool: Vec<Vec<u8>> = CORPUS.iter().map(|(_, der)| der.clone()).collect();
    let mut random = Random(amount.seed);
    let mut wrong = Vec::new();
    let mut left = amount.mutated;
    while left > 0 {
        let share = left.min(20_000);
        let mutated: Inputs = (0..share)
            .map(|n| {
                let der = &pool[random.below(pool.len())];
                (
                    format!("mutated-{}-{}", amount.seed, amount.mutated - left + n),
                    mutate::certificate(&mut random, der, &pool),
                )
            })
            .collect();
        wrong.extend(compare("mutated certificates", &mutated));
        left -= share;
    }
    none(&wrong);
}

#[test]
fn on_single_bit_flips_of_roots_we_agree_with_openssl_gnutls_and_go() {
    let amount = amount();
    let mut inputs = Inputs::new();
    let ordinary = |kind: &str| {
        let mut roots = CORPUS.iter().filter(|(name, _)| name.starts_with("certifi"));
        roots
            .find(|(_, der)| Anchor::from_der(der).is_ok_and(|anchor| anchor.key.to_string() == kind))
            .unwrap()
            .1
            .clone()
    };
    for kind in ["RSA 2048", "RSA 4096", "EC 384"] {
        let root = ordinary(kind);
        for bit in (0..root.len() * 8).step_by(amount.every) {
            let mut flipped = root.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            inputs.push((format!("flip-{kind}-{bit}"), flipped));
        }
    }
    none(&compare("single-bit flips of three roots", &inputs));
}

/// Asks all readers about PEM files, and compares with what we say of a bundle.
fn compare_files(what: &str, files: &Inputs) -> Vec<String> {
    let all = programs::of_bundles();
    let answers: Vec<Vec<String>> = all.iter().map(|reader| reader.bundles(&ders(files))).collect();
    let mut wrong = Vec::new();
    let mut figures: BTreeMap<&str, usize> = BTreeMap::new();
    for (n, (name, file)) in files.iter().enumerate() {
        let ours = bundle::read(file);
        let of = |kinds: &[ReaderKind]| -> Vec<(&Reader, &str)> {
            all.iter()
                .zip(&answers)
                .filter(|(reader, _)| kinds.contains(&reader.kind))
                .map(|(reader, lines)| (reader, lines[n].as_str()))
                .collect()
        };
        let mut tell = |what: String| {
            keep(name, file);
            wrong.push(format!("{name}: {what}"));
        };
        let mut check = |kinds: &[ReaderKind], faults: &[pem::Fault]| {
            let refused: Vec<_> = of(kinds)
                .into_iter()
                // A file without a certificate counts as not broken.
                .filter(|(_, line)| {
                    line.starts_with("refused")
                        && !line.contains("no certificate or crl found")
                        && !line.contains("No certificate was found")
                        && !line.contains("NO_CERTIFICATE_OR_CRL_FOUND")
                })
                .collect();
            // It loads without the certificates after that line.
            let lost =
                faults.iter().any(|fault| fault.detail.contains("next BEGIN") || fault.detail.contains("NUL byte"));
            match (refused.is_empty(), faults) {
                (false, []) => tell(format!("refused by {}, and we find no fault", names(&refused))),
                (true, [first, ..]) if !lost && with_all_versions() => {
                    tell(format!("{kinds:?} load it, we say {}: {}", first.line, first.detail))
                }
                _ => {}
            }
            refused.is_empty()
        };
        let openssl = check(&[ReaderKind::OpenSsl, ReaderKind::Python], &ours.faults);
        let gnutls = check(&[ReaderKind::GnuTls], &ours.gnutls_faults);
        if ours.faults.is_empty() {
            let go = of(&[ReaderKind::Go])
                .iter()
                .filter_map(|(_, line)| line.strip_prefix("ok ")?.parse::<usize>().ok())
                .min();
            let parsed: BTreeSet<Vec<u8>> =
                bundle::certificates(file).into_iter().filter(|der| readers::go_fault(der).is_none()).collect();
            if go != Some(parsed.len()) {
                tell(format!("Go loads {go:?} certificates, we say {}", parsed.len()));
            }
        }
        *figures
            .entry(match (openssl, gnutls) {
                (true, true) => "load everywhere",
                (true, false) => "load but in GnuTLS",
                (false, true) => "load but in OpenSSL",
                (false, false) => "load in neither",
            })
            .or_default() += 1;
    }
    let names: Vec<&str> = all.iter().map(|reader| reader.name.as_str()).collect();
    println!("{what}: {} files, {} readers ({})", files.len(), all.len(), names.join(", "));
    figures.iter().for_each(|(figure, count)| println!("  {count:7} {figure}"));
    println!("  {:7} disagreements", wrong.len());
    wrong
}

/// The roots that Go reads too.
fn ordinary() -> Vec<Vec<u8>> {
    let roots = CORPUS.iter().filter(|(name, der)| name.starts_with("certifi") && readers::go_fault(der).is_none());
    roots.map(|(_, der)| der.clone()).collect()
}

#[test]
fn on_mutated_bundles_we_agree_with_the_loaders_of_openssl_gnutls_python_and_go() {
    let amount = amount();
    let pool = ordinary();
    let mut random = Random(amount.seed);
    let files: Inputs = (0..amount.files)
        .map(|n| (format!("bundle-{}-{n}", amount.seed), mutate::bundle(&mut random, &pool)))
        .collect();
    none(&compare_files("mutated bundles", &files));
}

/// Writes the bundle and asks the programs themselves whether a leaf of the CA in it still verifies.
fn programs_verify(dir: &Path, bundle: &str, leaf: &str) -> [bool; 3] {
    let [bundle_file, leaf_file] = [("bundle.pem", bundle), ("leaf.pem", leaf)].map(|(name, text)| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    });
    let python = "import ssl, sys; ssl.create_default_context(cafile=sys.argv[1])";
    [
        Command::new("openssl").args(["verify", "-CAfile"]).args([&bundle_file, &leaf_file]),
        Command::new("certtool")
            .args(["--verify", "--load-ca-certificate"])
            .arg(&bundle_file)
            .arg("--infile")
            .arg(&leaf_file),
        Command::new("/usr/bin/python3").args(["-c", python]).arg(&bundle_file),
    ]
    .map(|command| command.output().unwrap().status.success())
}

/// openssl verify, certtool --verify and python3 on bundles with one odd CA each, beside the CA that matters.
#[test]
fn the_programs_themselves_trust_a_ca_beside_what_is_accepted_and_not_beside_what_is_refused() {
    let ca = Ca::new("Corp Root");
    let (leaf, _) = ca.leaf("registry.example");
    let dir = tempfile::tempdir().unwrap();
    let mut figures = BTreeMap::<[bool; 2], usize>::new();
    let cases = CORPUS.iter().filter(|(name, _)| name.starts_with("cases"));
    for (name, der) in cases.step_by(if std::env::var_os("NODETRUST_READERS").is_some() { 1 } else { 3 }) {
        let verdict = readers::verdict(der);
        let before = pem::encode(der);
        let [openssl, certtool, python] = programs_verify(dir.path(), &format!("{before}{}", ca.pem()), &leaf);
        // Newer versions than this machine's may be stricter, but everything that this one refuses must be known.
        assert!(openssl || verdict.openssl.is_some(), "{name}: openssl verify fails, and we say nothing");
        assert!(python || verdict.openssl.is_some(), "{name}: Python fails, and we say nothing");
        assert!(certtool || verdict.gnutls.is_some(), "{name}: certtool fails, and we say nothing");
        if accepts(der).is_ok() {
            assert!(openssl && certtool && python, "{name}: accepted, and the bundle is broken");
        }
        *figures.entry([openssl, certtool]).or_default() += 1;
    }
    assert!(figures.len() > 2, "{figures:?}: the odd ones are missing");
}

/// Files that somebody else may leave in an anchor directory, each between two roots, as a tool would copy them together.
#[test]
fn on_foreign_files_in_a_bundle_we_agree_with_the_loaders() {
    let [first, last] = [&ordinary()[0], &ordinary()[1]].map(|der| pem::encode(der));
    let mut files = Inputs::new();
    for dir in ["../tests/data/readers/foreign", "../tests/data/readers/files"] {
        for entry in fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let file = fs::read(&path).unwrap();
            let end: &[u8] = if file.ends_with(b"\n") { b"" } else { b"\n" };
            files.push((name.clone(), [first.as_bytes(), &file, end, last.as_bytes()].concat()));
            files.push((format!("{name} alone"), file));
        }
    }
    none(&compare_files("foreign files", &files));
}

/// A verdict on a single certificate holds for a bundle: each stands between two others in a file.
#[test]
fn a_certificate_that_a_reader_does_not_decode_breaks_its_bundle() {
    let [first, last] = [&ordinary()[0], &ordinary()[1]].map(|der| pem::encode(der));
    let amount = amount();
    let pool: Vec<Vec<u8>> = CORPUS.iter().map(|(_, der)| der.clone()).collect();
    let mut random = Random(amount.seed);
    let mut inputs = CORPUS.clone();
    for n in 0..amount.files / 4 {
        let der = &pool[random.below(pool.len())];
        let der = mutate::certificate(&mut random, der, &pool);
        inputs.push((format!("mutated-in-bundle-{n}"), der));
    }
    inputs.retain(|(_, der)| !der.is_empty());
    let files: Inputs = inputs
        .iter()
        .map(|(name, der)| (name.clone(), format!("{first}{}{last}", pem::encode(der)).into_bytes()))
        .collect();
    let mut wrong = Vec::new();
    for reader in programs::of_bundles().iter().filter(|reader| reader.kind != ReaderKind::Python) {
        let alone = reader.certificates(&ders(&inputs));
        let together = reader.bundles(&ders(&files));
        for (n, (name, _)) in inputs.iter().enumerate() {
            // Go leaves it out instead. OpenSSL and Go keep one of equal certificates.
            let breaks =
                if reader.kind == ReaderKind::Go { together[n] == "ok 2" } else { together[n].starts_with("refused") };
            let is_there_twice = together[n] == "ok 2" && alone[n].starts_with("ok");
            if breaks == alone[n].starts_with("ok") && !is_there_twice {
                wrong.push(format!("{name}: {}: alone {}, in a bundle {}", reader.name, alone[n], together[n]));
            }
        }
    }
    none(&wrong);
}
