//! Links of ours leave OpenSSL's directory without hiding anybody else's for a moment.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use nodetrust_core::{certificate::anchor::Anchor, store::anchor_file::file_name};

use super::*;

/// A root with certificates of one name, and the hash links that Debian's tool makes: the order is that of the numbers.
struct LinkedRoot {
    dir: tempfile::TempDir,
    anchors: Vec<Anchor>,
}

/// Which of them are files of ours.
fn debian(ours: &[bool]) -> LinkedRoot {
    let store = Family::Debian.store();
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
    for path in [store.anchors_dir, store.hash_dir.unwrap(), "/usr/share/ca-certificates"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    let mut anchors = Vec::new();
    for (number, ours) in ours.iter().enumerate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let anchor = Anchor::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        let (path, link) = match ours {
            true => {
                let name = file_name(store, &anchor.fingerprint);
                let link = name.replace(".crt", ".pem");
                (format!("{}/{name}", store.anchors_dir), link)
            }
            false => (format!("/usr/share/ca-certificates/{number}.crt"), format!("{number}.pem")),
        };
        fs::write(at(&path), anchor.pem()).unwrap();
        symlink(&path, at("/etc/ssl/certs").join(&link)).unwrap();
        symlink(&link, at("/etc/ssl/certs").join(format!("{:08x}.{number}", anchor.subject.hash))).unwrap();
        anchors.push(anchor);
    }
    LinkedRoot { dir, anchors }
}

impl LinkedRoot {
    fn host(&self) -> HostRoot {
        HostRoot::open(self.dir.path()).unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, n: usize) -> String {
        file_name(Family::Debian.store(), &self.anchors[n].fingerprint)
    }

    /// Which of the certificates OpenSSL finds.
    fn found(&self) -> Vec<usize> {
        let linked = linked(&self.host(), Family::Debian.store(), &Effective::default()).unwrap();
        let linked = &linked["/etc/ssl/certs"];
        (0..self.anchors.len()).filter(|n| linked.contains(&self.anchors[*n].fingerprint)).collect()
    }

    fn names(&self) -> usize {
        fs::read_dir(self.path("/etc/ssl/certs")).unwrap().count()
    }
}

#[test]
fn the_last_link_closes_the_gap() {
    for leaving in 0..4 {
        let mut ours = [false; 4];
        ours[leaving] = true;
        let root = debian(&ours);
        assert_eq!(root.found(), [0, 1, 2, 3]);
        retire(&root.host(), Family::Debian.store(), &root.file(leaving)).unwrap();
        let others: Vec<usize> = (0..4).filter(|n| *n != leaving).collect();
        assert_eq!(root.found(), others, "{leaving}");
        assert_eq!(root.names(), 6, "its own two are gone");
    }
}

#[test]
fn what_a_killed_run_left_is_retired_and_nothing_else() {
    let root = debian(&[true, false, true, true]);
    let store = Family::Debian.store();
    for n in [0, 2] {
        fs::remove_file(root.path(&format!("{}/{}", store.anchors_dir, root.file(n)))).unwrap();
    }
    assert_eq!(root.found(), [] as [usize; 0], "the first leads nowhere and hides the rest");
    retire_dangling(&root.host(), store).unwrap();
    assert_eq!(root.found(), [1, 3]);
    // Somebody else's dangling link stays.
    fs::remove_file(root.path("/usr/share/ca-certificates/1.crt")).unwrap();
    let names = root.names();
    retire_dangling(&root.host(), store).unwrap();
    assert_eq!(root.names(), names);
}

#[test]
fn a_link_that_went_is_seen_by_the_next_look() {
    let root = debian(&[false, false]);
    let (host, store) = (root.host(), Family::Debian.store());
    let (mut cache, none) = (LinkCache::default(), Effective::default());
    let all = cache.linked(&host, store, &none).unwrap();
    assert_eq!(all["/etc/ssl/certs"].len(), 2);
    fs::remove_file(root.path(&format!("/etc/ssl/certs/{:08x}.0", root.anchors[0].subject.hash))).unwrap();
    assert_eq!(
        cache.linked(&host, store, &none).unwrap()["/etc/ssl/certs"].len(),
        0,
        "OpenSSL stops at the first number"
    );
}

#[test]
fn a_link_without_a_name_is_taken_out_and_nobody_elses() {
    let root = debian(&[false, false, true]);
    let at = |name: &str| root.path("/etc/ssl/certs").join(name);
    assert!(!retire_nameless(&root.host(), Family::Debian.store()).unwrap());
    let names = root.names();
    // The tool leaves this link for our third anchor.
    let link = root.file(2).replace(".crt", ".pem");
    fs::rename(at(&link), at(".pem")).unwrap();
    let hash = format!("{:08x}.2", root.anchors[2].subject.hash);
    fs::remove_file(at(&hash)).unwrap();
    symlink(".pem", at(&hash)).unwrap();
    assert!(retire_nameless(&root.host(), Family::Debian.store()).unwrap());
    assert_eq!((root.found(), root.names()), (vec![0, 1], names - 2));
    // Somebody else made this link.
    symlink("/somewhere/else.crt", at(".pem")).unwrap();
    assert!(!retire_nameless(&root.host(), Family::Debian.store()).unwrap());
    assert!(at(".pem").is_symlink());
}
