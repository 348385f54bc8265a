//! What cannot be read before a run could not be put back after it: then nothing is run.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
};

use nodetrust_core::observed::Effective;

use super::*;
use crate::store::snapshot::Extent;

/// A root with Debian's tool, a bundle, and a link to a certificate.
struct ToolRoot {
    dir: tempfile::TempDir,
    root: HostRoot,
}

impl ToolRoot {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("usr/sbin/update-ca-certificates", "#!/bin/sh\n");
        write("usr/share/ca-certificates/root.crt", "of the distribution");
        write("etc/ca-certificates.conf", "root.crt\n");
        write("etc/ssl/certs/ca-certificates.crt", "the bundle");
        write("etc/ssl/certs/site.pem", "of the site");
        std::os::unix::fs::symlink("/usr/share/ca-certificates/root.crt", dir.path().join("etc/ssl/certs/0123abcd.0"))
            .unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        Self { dir, root }
    }

    /// What an extract says when it is tried without rights over other people's files.
    fn extract(&self) -> Extracted {
        let extract = || {
            let (before, none) = (Effective::default(), BTreeSet::new());
            let exec = HostExec { root: &self.root, lock: None, limit: Duration::from_secs(1) };
            let store = Family::Debian.store();
            let judge = BundleJudge {
                exec: &exec,
                store,
                before: &before,
                ours: &none,
                expected: &none,
                leaving: &none,
                repeats: 0,
            };
            super::extract(&judge, ExtractMode::Fresh)
        };
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // The system call changes this thread only; the C library's function would change all threads.
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
                extract()
            });
            thread.join().unwrap()
        })
    }
}

#[test]
fn with_a_simulated_fault_nothing_is_run_that_could_not_be_put_back() {
    for (path, named) in [
        ("usr/sbin", "/usr/sbin/update-ca-certificates"),
        ("etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt"),
        ("etc/ssl/certs/site.pem", "/etc/ssl/certs/site.pem"),
        ("usr/share/ca-certificates/root.crt", "/etc/ssl/certs/0123abcd.0"),
        ("usr/share/ca-certificates", "/etc/ssl/certs/0123abcd.0"),
        ("etc/ssl/certs", "/etc/ssl/certs"),
    ] {
        let root = ToolRoot::new();
        fs::set_permissions(root.dir.path().join(path), Permissions::from_mode(0o000)).unwrap();
        let extracted = root.extract();
        fs::set_permissions(root.dir.path().join(path), Permissions::from_mode(0o755)).unwrap();
        let problem = extracted.problem.unwrap();
        assert_eq!(problem.kind, ProblemKind::Observe, "{path}: {problem:?}");
        assert!(problem.text.contains(named), "{path}: {problem:?}");
        assert!(extracted.retry_is_pointless && extracted.duration.is_zero(), "{path}: another try would end the same");
        assert!(!root.dir.path().join("var").exists(), "{path}: nothing was begun");
    }
}

/// A file that no tool can use is no loss, so the run goes on.
#[test]
fn what_nobody_could_read_keeps_no_run_back() {
    let root = ToolRoot::new();
    let links = root.dir.path().join("etc/ssl/certs");
    std::os::unix::fs::symlink("nowhere", links.join("gone.pem")).unwrap();
    std::os::unix::fs::symlink("loop.pem", links.join("loop.pem")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(links.join("socket.pem")).unwrap();
    fs::create_dir(links.join("directory.pem")).unwrap();
    std::os::unix::fs::symlink("directory.pem", links.join("to-directory.pem")).unwrap();
    let first = StoreSnapshot::take(&root.root, Family::Debian.store(), &Effective::default()).unwrap();
    assert_eq!(first.bundle(), Some(&b"the bundle"[..]));
    fs::remove_file(links.join("site.pem")).unwrap();
    fs::remove_file(links.join("0123abcd.0")).unwrap();
    first.outputs.put_back(&root.root, Extent::Missing, &BTreeSet::new()).unwrap();
    assert_eq!(fs::read_to_string(links.join("site.pem")).unwrap(), "of the site");
    assert_eq!(fs::read_link(links.join("0123abcd.0")).unwrap(), Path::new("/usr/share/ca-certificates/root.crt"));
}
