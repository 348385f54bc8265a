//! Paths are resolved inside the host root, by the kernel or, where it is too old, by ourselves: the two must agree.

use std::{
    ffi::OsStr,
    fmt::Debug,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::sys::stat::Mode;
use nodetrust::host::root::HostRoot;
use tempfile::TempDir;

/// Links in a chain; the kernel follows 40.
const CHAIN: usize = 45;

/// A tree with links of every kind. Beside it lies what must never be reached.
fn tree() -> TempDir {
    let base = TempDir::with_prefix("nodetrust-test-").unwrap();
    let root = base.path().join("root");
    fs::write(base.path().join("secret"), "of the machine").unwrap();
    fs::create_dir_all(root.join("etc/pki/tls/certs")).unwrap();
    fs::create_dir_all(root.join("etc/ssl")).unwrap();
    fs::write(root.join("etc/pki/tls/certs/bundle"), "bundle").unwrap();
    fs::write(root.join("secret"), "of the node").unwrap();
    fs::write(root.join("etc/hostname"), "node").unwrap();
    let link = |target: &str, name: &str| symlink(target, root.join("etc/ssl").join(name)).unwrap();
    link("/etc/pki/tls/certs", "certs"); // as on RHEL
    link("../pki/tls", "relative");
    link("../../../../../../secret", "beyond");
    link("/../secret", "beyond-absolute");
    link("/etc/ssl/../../../etc/ssl/relative/certs/", "roundabout");
    link("nowhere", "dangling");
    link("/nowhere/at/all", "dangling-absolute");
    link("loop-b", "loop-a");
    link("loop-a", "loop-b");
    link("itself", "itself");
    link("/", "root");
    link("certs/bundle", "through");
    link(base.path().to_str().unwrap(), "as-seen-from-outside");
    for n in 0..CHAIN {
        let target = if n == 0 { "/etc/hostname".to_owned() } else { format!("chain-{}", n - 1) };
        link(&target, &format!("chain-{n}"));
    }
    nix::unistd::mkfifo(&root.join("etc/pipe"), Mode::S_IRWXU).unwrap();
    base
}

fn paths() -> Vec<String> {
    let ssl = [
        "certs",
        "certs/bundle",
        "certs/",
        "certs/nothing",
        "certs/bundle/below-a-file",
        "certs/../outside-of-certs",
        "certs/../../../hostname",
        "relative",
        "relative/certs/bundle",
        "beyond",
        "beyond-absolute",
        "roundabout",
        "roundabout/bundle",
        "dangling",
        "dangling/below",
        "dangling-absolute",
        "loop-a",
        "loop-a/below",
        "itself",
        "root",
        "root/etc/ssl/root/etc/hostname",
        "root/../../..",
        "through",
        "through/below",
        "as-seen-from-outside",
        "as-seen-from-outside/secret",
        "nothing",
        "nothing/at/all",
    ];
    let other =
        ["/", ".", "..", "/../secret", "/../../root/secret", "etc//ssl/./certs/bundle", "/etc/hostname/", "/etc/pipe"];
    let chains = (0..CHAIN).map(|n| format!("/etc/ssl/chain-{n}"));
    ssl.iter().map(|name| format!("/etc/ssl/{name}")).chain(other.map(str::to_owned)).chain(chains).collect()
}

/// What is seen at a path, errors included.
fn seen(root: &HostRoot, path: &str) -> String {
    fn told<T: Debug>(result: io::Result<T>) -> String {
        match result {
            Ok(value) => format!("{value:?}"),
            Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
        }
    }
    let stat = root.stat(path).map(|meta| meta.map(|meta| (meta.kind, meta.mode, meta.size)));
    let list =
        root.list(path).map(|list| list.map(|names| names.into_iter().map(|(name, _)| name).collect::<Vec<_>>()));
    let read = root.read(path, 1000).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let parts =
        [told(stat), told(list), told(read), told(root.location(path)), format!("{:?}", root.link_target(path))];
    parts.join(" | ")
}

/// Both ways, on trees of their own that are the same.
fn both() -> [(TempDir, HostRoot); 2] {
    [false, true].map(|by_hand| {
        let base = tree();
        let root = HostRoot::open(&base.path().join("root")).unwrap();
        let root = if by_hand { root.without_openat2() } else { root };
        (base, root)
    })
}

#[test]
fn the_kernel_and_the_walk_see_the_same() {
    let base = tree();
    let kernel = HostRoot::open(&base.path().join("root")).unwrap();
    let walk = HostRoot::open(&base.path().join("root")).unwrap().without_openat2();
    for path in paths() {
        let (by_kernel, by_walk) = (seen(&kernel, &path), seen(&walk, &path));
        assert_eq!(by_kernel, by_walk, "{path}");
        assert!(!by_kernel.contains("of the machine"), "{path} leads out of the root: {by_kernel}");
    }
    assert_eq!(kernel.read("/etc/ssl/beyond", 100).unwrap(), b"of the node");
    assert_eq!(kernel.read("/etc/ssl/certs/bundle", 100).unwrap(), b"bundle");
    assert!(kernel.read("/etc/ssl/chain-39", 100).is_ok() && kernel.read("/etc/ssl/chain-40", 100).is_err());
}

#[test]
fn the_kernel_and_the_walk_write_the_same() {
    fn dump(dir: &Path, base: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let what = if kind.is_dir() {
                dump(&path, base, found);
                "directory".to_owned()
            } else if kind.is_symlink() {
                fs::read_link(&path).unwrap().to_string_lossy().replace(base.to_str().unwrap(), "BASE")
            } else if kind.is_file() {
                fs::read_to_string(&path).unwrap()
            } else {
                "other".to_owned()
            };
            found.push((path.strip_prefix(base).unwrap().to_owned(), what));
        }
    }
    let results = both().map(|(base, root)| {
        let told = |result: io::Result<()>| result.map_err(|error| error.raw_os_error());
        let write = |path: &str| told(root.write_atomic(path, "/etc/ssl/certs", ".new", 0o644, b"written"));
        let said = [
            write("/etc/ssl/certs/new"),
            write("/etc/ssl/through"), // a link is replaced and not followed
            write("/etc/ssl/beyond"),
            write("/etc/ssl/dangling/new"),
            write("/etc/ssl/loop-a/new"),
            write("/etc/pki/tls"), // a directory cannot be written as a file
            told(root.create_dir_all("/etc/ssl/certs/a/b/c")),
            told(root.create_dir_all("/etc/ssl/certs/bundle/below")),
            told(root.create_dir_all("/../../outside")),
            told(root.rename("/etc/ssl/relative/certs/bundle", "renamed")),
            told(root.publish("/etc/ssl/certs", "new", "published")),
            told(root.link_atomic("/etc/ssl/certs/link", "/etc/pki", ".new", OsStr::new("/target"))),
            told(root.remove_file("/etc/ssl/certs/nothing")),
            told(root.remove_file("/etc/ssl/nothing/at/all")),
            told(root.remove_file("/etc/ssl/itself")),
            told(root.remove_dir("/etc/pki/tls")),
            told(root.remove_dir("/etc/ssl/certs/a/b/c")),
        ];
        let mut found = Vec::new();
        dump(base.path(), base.path(), &mut found);
        found.sort();
        assert_eq!(fs::read_to_string(base.path().join("secret")).unwrap(), "of the machine");
        assert!(!base.path().join("outside").exists());
        (said, found)
    });
    assert_eq!(results[0], results[1]);
    assert!(results[0].0[..3].iter().all(Result::is_ok) && results[0].0[3].is_err());
}
