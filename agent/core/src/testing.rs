//! What several test files build on: certificates, fixed and fresh, and golden files. Nothing of it is in a release.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint, pem},
    observed::{Effective, Observed, OwnAnchorFile},
    source::{Content, Snapshot, SourceFile, SourceLayout},
    store::{Family, anchor_file::file_name},
    time::Moment,
};

/// 2026-12-01T00:00:00Z: all certificates of `tests/data/pem` are valid.
pub(crate) const NOW: i64 = 1_796_083_200;

/// A moment in a boot that began when `boot` says so.
pub(crate) fn at(wall: i64, boottime: u64, boot: &str) -> Moment {
    Moment { wall, boottime, boot_id: boot.to_owned() }
}

/// A certificate of `tests/data/pem`.
pub(crate) fn fixed(name: &str) -> Arc<Anchor> {
    let text = data(&format!("pem/{name}.pem"));
    let block = pem::scan(text.as_bytes()).blocks.remove(0);
    Arc::new(Anchor::from_block(block.label, &block.der).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// The DER of a self-signed CA, after the edit of its parameters.
pub(crate) fn self_signed(edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    params(edit).self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// A certificate that says of its signature with ECDSA and SHA-256 that it is of SHA-224, which is not known here.
pub(crate) fn unchecked(der: &[u8]) -> Vec<u8> {
    const SHA256: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let mut der = der.to_vec();
    let places: Vec<usize> = memchr::memmem::find_iter(&der, SHA256).map(|at| at + SHA256.len() - 1).collect();
    assert_eq!(places.len(), 2, "inside and outside of what is signed");
    for place in places {
        der[place] = 1;
    }
    der
}

/// A fresh self-signed CA.
pub(crate) fn ca(common_name: &str) -> Arc<Anchor> {
    anchor(&self_signed(|params| params.distinguished_name.push(DnType::CommonName, common_name)))
}

/// An anchor, from DER that is known to be one.
pub(crate) fn anchor(der: &[u8]) -> Arc<Anchor> {
    Arc::new(Anchor::from_der(der).unwrap())
}

/// Parameters of a CA without a fault, then edited.
pub(crate) fn params(edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    edit(&mut params);
    params
}

/// A source that holds these certificates in one file.
pub(crate) fn source(name: &str, anchors: &[&Arc<Anchor>]) -> Snapshot {
    let text: String = anchors.iter().map(|anchor| anchor.pem()).collect();
    source_of(name, files(&[&text]))
}

/// A source with this content.
pub(crate) fn source_of(name: &str, content: Content) -> Snapshot {
    Snapshot {
        name: name.to_owned(),
        origin: format!("/sources/{name}"),
        optional: false,
        content,
        layout: SourceLayout::default(),
        notes: Vec::new(),
    }
}

/// A directory of files with these texts.
pub(crate) fn files(texts: &[&str]) -> Content {
    let part = |(n, text): (usize, &&str)| Arc::new(SourceFile::parse(&format!("ca-{n}.crt"), text.as_bytes()));
    Content::Files(texts.iter().enumerate().map(part).collect())
}

/// A host with one root of the distribution's, these files of ours, and a bundle that has all of them.
pub(crate) fn host(family: Family, ours: &[&Arc<Anchor>]) -> Observed {
    let store = family.store();
    let file = |anchor: &&Arc<Anchor>| {
        (file_name(store, &anchor.fingerprint), OwnAnchorFile { anchor: Some((*anchor).clone()), intact: true })
    };
    let shipped = fixed("rsa-2048").fingerprint;
    let set: BTreeSet<Fingerprint> = ours.iter().map(|anchor| anchor.fingerprint).chain([shipped]).collect();
    Observed {
        anchors_dir_exists: true,
        ours: ours.iter().map(file).collect(),
        effective: Effective { present: true, count: set.len(), set, ..Effective::default() },
        ..Observed::empty(store)
    }
}

/// The text of a file in `tests/data`.
#[expect(clippy::disallowed_methods, reason = "tests read their data where the decisions must not")]
pub(crate) fn data(path: &str) -> String {
    let path = data_path(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes of a file in `tests/data`.
#[expect(clippy::disallowed_methods, reason = "tests read their data where the decisions must not")]
pub(crate) fn bytes(path: &str) -> Vec<u8> {
    let path = data_path(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in a directory of `tests/data`.
#[expect(clippy::disallowed_methods, reason = "tests read their data where the decisions must not")]
pub(crate) fn names(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(data_path(path)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Compares with a file in `tests/data`, which is written anew with `UPDATE_GOLDEN=1`. Read it in review.
#[expect(clippy::disallowed_methods, reason = "tests write their golden files when told to")]
pub(crate) fn assert_golden(path: &str, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        let path = data_path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        return std::fs::write(&path, actual).unwrap();
    }
    assert!(data(path) == actual, "tests/data/{path} differs (UPDATE_GOLDEN=1 writes it anew); actual:\n{actual}");
}

fn data_path(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../tests/data", path].iter().collect()
}
