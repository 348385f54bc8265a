//! Every change of a file is seen by the next look, and what cannot be read is an error, never absent.

use std::{
    collections::BTreeMap,
    fs::{self, File, FileTimes},
    io::Write,
    path::PathBuf,
    sync::Arc,
    thread,
};

use nodetrust_core::{
    certificate::anchor::Anchor,
    store::{self, anchor_file::file_name},
};

use super::*;
use crate::store::detect::{detect, os_release, system};

/// A root with one file of ours in it.
struct AnchorRoot {
    dir: tempfile::TempDir,
    file: PathBuf,
    name: String,
    cache: StoreCache,
}

impl AnchorRoot {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Family::Debian.store();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let anchor = Anchor::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        let anchors_dir = dir.path().join(store.anchors_dir.trim_start_matches('/'));
        fs::create_dir_all(&anchors_dir).unwrap();
        let name = file_name(store, &anchor.fingerprint);
        let file = anchors_dir.join(&name);
        fs::write(&file, anchor.pem()).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        Self { dir, file, name, cache: StoreCache::default() }
    }

    fn is_intact(&mut self) -> bool {
        let root = HostRoot::open(self.dir.path()).unwrap();
        let observed = observe(&root, Family::Debian.store(), &BTreeSet::new(), &mut self.cache).unwrap();
        observed.ours.get(&self.name).is_some_and(|file| file.intact)
    }

    /// One byte becomes another; size, inode and time of modification stay.
    fn alter(&self) {
        let before = fs::metadata(&self.file).unwrap();
        let mut text = fs::read(&self.file).unwrap();
        let byte = &mut text[40];
        *byte = if *byte == b'A' { b'B' } else { b'A' };
        let mut file = File::options().write(true).open(&self.file).unwrap();
        file.write_all(&text).unwrap();
        file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    }
}

#[test]
fn a_file_that_is_altered_and_keeps_its_size_and_time_is_seen() {
    let mut root = AnchorRoot::new();
    assert!(root.is_intact());
    root.alter();
    assert!(!root.is_intact());
}

#[test]
fn a_file_with_another_mode_or_name_or_that_is_another_file_is_not_intact() {
    let changes: [fn(&AnchorRoot); 4] = [
        |root| fs::set_permissions(&root.file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap(),
        |root| fs::hard_link(&root.file, root.dir.path().join("other")).unwrap(),
        |root| {
            fs::write(root.dir.path().join("other"), "x").unwrap();
            fs::rename(root.dir.path().join("other"), &root.file).unwrap();
        },
        |root| fs::remove_file(&root.file).unwrap(),
    ];
    for change in changes {
        let mut root = AnchorRoot::new();
        assert!(root.is_intact());
        change(&root);
        assert!(!root.is_intact());
    }
}

/// A file that changes during a look counts as altered or gone, and is no fault of the bundle or the links.
#[test]
fn a_file_of_ours_that_changes_during_a_look_is_seen_as_it_is_afterwards() {
    let mut root = AnchorRoot::new();
    let host = HostRoot::open(root.dir.path()).unwrap();
    let store = Family::Debian.store();
    let before = observe_once(&host, store, &BTreeSet::new(), &mut root.cache).unwrap();
    assert!(!is_as_it_should(&before), "its certificate is not in the bundle: our files are read once more");
    assert_eq!(read_own_files(&host, store, &mut root.cache.own_files).unwrap(), before.ours);
    let dir = host.directory(store.anchors_dir).unwrap().unwrap();
    let names = dir.names().unwrap();

    root.alter();
    assert_ne!(read_own_files(&host, store, &mut root.cache.own_files).unwrap(), before.ours);

    // A file that is removed between listing and reading counts as absent.
    fs::remove_file(&root.file).unwrap();
    assert_eq!(own_files(&dir, store, &names, &mut root.cache.own_files).unwrap(), BTreeMap::new());
}

#[test]
fn a_foreign_file_is_decoded_again_only_when_its_content_is_another() {
    let mut root = AnchorRoot::new();
    let foreign = root.file.with_file_name("corp.crt");
    fs::write(&foreign, fs::read(&root.file).unwrap()).unwrap();
    let host = HostRoot::open(root.dir.path()).unwrap();
    let mut look = || {
        let observed = observe(&host, Family::Debian.store(), &BTreeSet::new(), &mut root.cache).unwrap();
        observed.foreign.into_iter().map(|file| (file.anchors, file.hazard.is_some())).collect::<Vec<_>>()
    };
    let first = look();
    assert_eq!((first.len(), first[0].0.len()), (1, 1));
    assert!(Arc::ptr_eq(&look()[0].0[0], &first[0].0[0]), "it is not decoded again");
    // Other content of the same size, with the same time of modification.
    let times = FileTimes::new().set_modified(fs::metadata(&foreign).unwrap().modified().unwrap());
    let mut text = fs::read(&foreign).unwrap();
    text[40] = b'!';
    fs::write(&foreign, text).unwrap();
    File::options().write(true).open(&foreign).unwrap().set_times(times).unwrap();
    let (anchors, is_broken) = look().remove(0);
    assert!(anchors.is_empty() && is_broken, "one byte of it is another one");
    fs::remove_file(&foreign).unwrap();
    assert_eq!(look(), []);
}

/// A root with these files; a path that ends in a slash is a directory.
fn root_with(files: &[(&str, &str)]) -> (tempfile::TempDir, HostRoot) {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        let is_dir = path.to_str().unwrap().ends_with('/');
        fs::create_dir_all(if is_dir { path.as_path() } else { path.parent().unwrap() }).unwrap();
        if !is_dir {
            fs::write(path, content).unwrap();
        }
    }
    let root = HostRoot::open(dir.path()).unwrap();
    (dir, root)
}

/// Makes every read of this path fail, by a link to itself.
fn break_path(dir: &tempfile::TempDir, path: &str) {
    let path = dir.path().join(path);
    let _ = fs::remove_dir_all(&path);
    let _ = fs::remove_file(&path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(path.file_name().unwrap(), &path).unwrap();
}

const SUSE: &[(&str, &str)] = &[
    ("etc/os-release", "ID=something-new\n"),
    ("usr/sbin/update-ca-certificates", "#!/bin/sh\n"),
    ("etc/pki/trust/anchors/", ""),
];

#[test]
fn with_a_simulated_fault_a_path_that_decides_is_not_taken_for_absent() {
    let found = |root: &HostRoot| detect(root, &os_release(root)?, None);
    let (_dir, root) = root_with(SUSE);
    assert_eq!(found(&root).unwrap().family, Ok(Family::Suse));
    for broken in store::PROBES.iter().copied().chain(["/etc/os-release"]) {
        let (dir, root) = root_with(SUSE);
        break_path(&dir, broken.trim_start_matches('/'));
        let error = found(&root).map(|detection| detection.family).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to read `{broken}` on the host"));
        let (_, detection) = system(&root, None);
        assert!(detection.family.unwrap_err().is_unknown, "{broken}");
    }
}

#[test]
fn with_a_simulated_fault_a_tool_that_cannot_be_read_is_no_program() {
    let (dir, root) = root_with(&[("etc/os-release", "ID=new\n"), ("usr/sbin/update-ca-certificates", "#!/bin/sh\n")]);
    assert_eq!(system(&root, None).1.family, Ok(Family::Debian));
    // A file that can be listed and not opened, except by a privileged process.
    fs::set_permissions(
        dir.path().join("usr/sbin/update-ca-certificates"),
        std::os::unix::fs::PermissionsExt::from_mode(0o000),
    )
    .unwrap();
    let family = unprivileged(|| system(&root, None).1.family);
    assert!(family.unwrap_err().is_unknown);
}

/// Runs on a thread without rights over other people's files.
fn unprivileged<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The system call changes this thread only; the C library's function would change all threads.
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            run()
        });
        thread.join().unwrap()
    })
}

#[test]
fn with_a_simulated_fault_nothing_that_counts_is_overlooked() {
    let look = |root: &HostRoot, family: Family, known: &BTreeSet<Fingerprint>| {
        observe(root, family.store(), known, &mut StoreCache::default()).map(|observed| observed.lost)
    };
    let gone: BTreeSet<Fingerprint> = [Fingerprint::of_der(b"was there")].into();
    for (family, broken) in [
        (Family::Debian, "/etc/ca-certificates.conf"),
        (Family::Debian, "/usr/share/ca-certificates"),
        (Family::Debian, "/etc/ssl/certs"),
        (Family::Debian, "/etc/ssl/certs/ca-certificates.crt"),
        (Family::Debian, "/etc/ssl/certs/ca-certificates.crt.new"),
        (Family::Redhat, "/usr/share/pki/ca-trust-source"),
        (Family::Redhat, "/etc/pki/ca-trust/source/anchors"),
        (Family::Redhat, "/etc/pki/ca-trust/source/blocklist"),
        (Family::Suse, "/usr/share/pki/trust/anchors"),
        (Family::Suse, "/var/lib/ca-certificates/openssl"),
        (Family::Arch, "/etc/ca-certificates/trust-source/blacklist"),
        (Family::Flatcar, "/usr/share/ca-certificates"),
    ] {
        let (dir, root) = root_with(&[]);
        assert_eq!(look(&root, family, &gone).unwrap(), BTreeSet::new(), "{family}: its source is gone");
        break_path(&dir, broken.trim_start_matches('/'));
        let error = look(&root, family, &gone).expect_err(broken);
        assert!(error.to_string().contains(broken), "{broken}: {error}");
    }
}

#[test]
fn with_a_simulated_fault_a_file_of_ours_or_of_others_is_not_taken_for_damaged_or_gone() {
    let root = AnchorRoot::new();
    let host = HostRoot::open(root.dir.path()).unwrap();
    let look = || {
        observe(&host, Family::Debian.store(), &BTreeSet::new(), &mut StoreCache::default()).map(|seen| seen.ours.len())
    };
    let foreign = root.file.with_file_name("corp.crt");
    fs::write(&foreign, "x").unwrap();
    assert_eq!(unprivileged(look).unwrap(), 1);
    for path in [&root.file, &foreign] {
        let mode = |mode| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(0o000);
        let error = unprivileged(look).unwrap_err().to_string();
        assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
        mode(0o644);
    }
    // A file that no tool can use is no obstacle.
    fs::remove_file(&foreign).unwrap();
    std::os::unix::fs::symlink("corp.crt", &foreign).unwrap();
    std::os::unix::fs::symlink("nowhere", root.file.with_file_name("gone.crt")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.file.with_file_name("socket.crt")).unwrap();
    assert_eq!(look().unwrap(), 1);
}
