//! Each change of a file by the program itself, at every obstacle, with both ways to resolve a path.

use super::*;

/// A root for each of the two path resolvers.
fn both() -> [(TempDir, HostRoot); 2] {
    [false, true].map(|by_hand| {
        let base = TempDir::with_prefix("nodetrust-test-").unwrap();
        victim(&base.path().join("srv/victim"));
        for dir in ["var/lib", "run", "etc/certs.d"] {
            fs::create_dir_all(base.path().join(dir)).unwrap();
        }
        let root = HostRoot::open(base.path()).unwrap();
        let root = if by_hand { root.without_openat2() } else { root };
        (base, root)
    })
}

/// Every change that the program makes, at every obstacle, with both ways to resolve a path.
#[test]
fn no_change_of_a_file_of_ours_follows_what_is_planted() {
    for (base, root) in both() {
        let before = state(&base.path().join("srv/victim"));
        let certs = format!("/etc/certs.d/{}/{}", registry_dir::DEFAULT, registry_dir::FILE);
        let files = [
            own_paths::LEDGER,
            own_paths::LEDGER_TEMP,
            "/var/lib/nodetrust/tmp/hook-input",
            "/run/nodetrust.lock",
            &certs,
        ];
        let drop_ins = own_paths::drop_in_names("/etc/k0s").map(|name| name.path);
        for file in files.into_iter().chain(drop_ins.iter().map(String::as_str)) {
            let dir = Path::new(file).parent().unwrap();
            for what in Planted::ALL {
                for at in [Path::new(file), dir] {
                    if [Path::new("/run"), Path::new("/etc/k0s")].contains(&at) {
                        continue;
                    }
                    let clean = || {
                        for dir in ["var/lib/nodetrust", "run/nodetrust.lock", "etc/certs.d/_default", "etc/k0s"] {
                            let _ = fs::remove_file(base.path().join(dir));
                            let _ = fs::remove_dir_all(base.path().join(dir));
                        }
                    };
                    let changes: [(&str, &dyn Fn()); 8] = [
                        ("remove_tree", &|| drop(root.remove_tree(at))),
                        ("remove_file", &|| drop(root.remove_file(file))),
                        ("remove_dir", &|| drop(root.remove_dir(dir))),
                        ("create_dir_all", &|| drop(root.create_dir_all(dir))),
                        ("write_atomic", &|| drop(root.write_atomic(file, dir, ".nodetrust-x.tmp", 0o644, b"ours"))),
                        ("open_lock", &|| drop(root.open_lock(file).map(|file| file.set_len(0)))),
                        ("rename", &|| drop(root.rename(file, "ledger.json.damaged"))),
                        ("set_aside", &|| drop(ledger_file::set_aside(&root))),
                    ];
                    for (name, change) in changes {
                        clean();
                        what.put(&base.path().join(&at.to_str().unwrap()[1..]), base.path(), "/srv/victim");
                        assert!(!matches!(root.own_read(file, 100), Ok(bytes) if bytes == b"also of the host"));
                        change();
                        let told = format!("{name} of {file} with {what:?} at {}", at.display());
                        assert_eq!(state(&base.path().join("srv/victim")), before, "{told}");
                    }
                    clean();
                }
            }
        }
    }
}

/// While a directory and a link change places all the time, what the link leads to stays as it is.
#[test]
fn a_directory_that_becomes_a_link_meanwhile_is_not_entered() {
    for (base, root) in both() {
        let at = |path: &str| base.path().join(path);
        let before = state(&at("srv/victim"));
        fs::create_dir_all(at("var/lib/nodetrust")).unwrap();
        symlink("../../../srv/victim", at("var/lib/swap")).unwrap(); // in the place of our directory
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (a, b) = (at("var/lib/nodetrust/tmp"), at("var/lib/swap"));
                    let _ = renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE);
                }
            });
            let mut removed = 0;
            for _ in 0..300 {
                let _ = root.create_dir_all("/var/lib/nodetrust/tmp/sub");
                let _ = root.write_atomic("/var/lib/nodetrust/tmp/sub/x", own_paths::TEMP_DIR, ".x", 0o600, b"ours");
                removed += usize::from(root.remove_tree(own_paths::TEMP_DIR).is_ok());
                if at("var/lib/swap").symlink_metadata().is_err() {
                    let _ = symlink("../../../srv/victim", at("var/lib/swap"));
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(removed > 50, "{removed}: nothing was tried");
        });
        assert_eq!(state(&at("srv/victim")), before);
    }
}

/// The registry directory: what is in the place of our directory there, or of our file, with both ways to resolve a path.
#[test]
fn the_registry_directory_is_made_anew_or_told() {
    let ca = Ca::new("Corp Root");
    let anchor = Arc::new(Anchor::from_der(&pem::scan(ca.pem().as_bytes()).blocks[0].der).unwrap());
    let store = Family::Debian.store();
    let names = own_paths::names(store, &anchor.fingerprint, Some("/etc/certs.d"), &[]);
    let path = format!("/etc/certs.d/{}/{}", registry_dir::DEFAULT, registry_dir::FILE);
    let names: Vec<&OwnName> = names.iter().filter(|name| name.path.starts_with("/etc/certs.d/")).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        for what in Planted::ALL {
            for (base, root) in both() {
                let before = state(&base.path().join("srv/victim"));
                what.put(&base.path().join(&name.path[1..]), base.path(), "/srv/victim");
                let told = format!("{what:?} at {}", name.path);
                let written = runtime::write_file(&root, &path, [&anchor].into_iter());
                assert_eq!(state(&base.path().join("srv/victim")), before, "{told}");
                let is_kept = match what {
                    Planted::Directory => !name.is_dir,
                    // The files that the runtime reads there stay readable.
                    Planted::LinkToDirectory | Planted::HardLink => name.is_dir,
                    _ => false,
                };
                match written {
                    Ok(()) => {
                        assert!(!is_kept, "{told}");
                        let file = base.path().join(&path[1..]);
                        assert_eq!(fs::read_to_string(file).unwrap(), ca.pem(), "{told}");
                        runtime::remove_file(&root, &path).unwrap();
                        assert!(base.path().join(&path[1..]).symlink_metadata().is_err(), "{told}");
                    }
                    Err(error) => {
                        assert!(is_kept, "{told}: {error}");
                        assert!(error.to_string().contains(&name.path), "{told}: {error}");
                        assert!(way_out(&error).is_some(), "{told}: {error}");
                        let _ = runtime::remove_file(&root, &path);
                    }
                }
                assert_eq!(state(&base.path().join("srv/victim")), before, "{told}");
            }
        }
    }
}
