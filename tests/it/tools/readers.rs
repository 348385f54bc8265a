//! No reader of the bundle is worse off for a run of ours: what somebody else's file would do to it is tried with the real OpenSSL,
//! Python and GnuTLS first, and then nodetrust must do right by it.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use super::{
    obstacles::{replace_tool, restore_tool},
    *,
};

/// Which programs load a bundle: the node's own OpenSSL and Python, and this machine's GnuTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LoadedBy {
    openssl: bool,
    python: bool,
    gnutls: bool,
}

const ALL: LoadedBy = LoadedBy { openssl: true, python: true, gnutls: true };

/// Tries them on the node's bundle, with one of the distribution's roots.
fn readers(node: &Node, bundle: &str) -> LoadedBy {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/pem/mozilla/ISRG_Root_X1.crt");
    node.write("/tmp/shipped.pem", fs::read(data).unwrap());
    let verify = ["openssl", "verify", "-no-CAstore", "-no-CApath", "-CAfile", bundle, "/tmp/shipped.pem"];
    let script = "import ssl,sys; ssl.create_default_context(cafile=sys.argv[1])";
    let mut certtool = Command::new("certtool");
    certtool.arg("--verify").arg("--infile").arg(data).arg("--load-ca-certificate").arg(node.path(bundle));
    let done = certtool.output().expect("certtool, of the package gnutls-bin");
    LoadedBy {
        openssl: node.run(&verify).code == 0,
        python: node.run(&["python3", "-c", script, bundle]).code == 0,
        gnutls: done.status.success(),
    }
}

/// Files that people left in an anchor directory, by name.
fn files() -> Vec<(String, Vec<u8>)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/foreign");
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect();
    let pem = Ca::new("Somebody's").pem();
    let lines: Vec<&str> = pem.lines().collect();
    let (first, last) = (lines[0], lines[lines.len() - 1]);
    let body = lines[1..lines.len() - 1].join("\n");
    for (name, text) in [
        ("blank-crlf", format!("{first}\r\n{}\r\n\r\n{last}\r\n", body.replace('\n', "\r\n"))),
        ("two-blanks", format!("{first}\n{body}\n\n\n{last}\n")),
        ("vertical-tab", pem.replacen("\nMII", "\nMI\u{b}I", 1)),
        ("no-end", format!("{first}\n{body}\n")),
        ("no-end-at-once", format!("{first}\n")),
        ("other-label-no-end", format!("{pem}-----BEGIN X509 CRL-----\nAAAA\n")),
        ("empty-certificate", format!("{first}\n{last}\n{pem}")),
        ("headers", format!("{first}\nProc-Type: 4,ENCRYPTED\n\n{body}\n{last}\n")),
        ("not-der", format!("{first}\nAAAA\n{last}\n")),
        ("second-of-two", format!("{pem}{first}\n{}\n\n{last}\n", body.replacen('A', "!", 1))),
        ("cr-only-without-end", pem.trim_end().replace('\n', "\r")),
        ("nul-line", format!("{first}\n{body}\n\0\n{last}\n")),
        ("comment", format!("# Corp: Root, until 2030\n{pem}")),
    ] {
        files.push((format!("{name}.crt"), text.into_bytes()));
    }
    files.sort();
    files
}

/// What the readers make of the bundle where the tool alone meets such a file.
fn by_the_tool(kind: Kind, name: &str, content: &[u8]) -> LoadedBy {
    let alone = Node::new(kind, "");
    put(&alone, name, content);
    tool(&alone, &[]).expect(0);
    readers(&alone, kind.bundle())
}

/// Every file, beside a good source: a run that any reader would be worse off for does not take effect and names the file, by `apply`
/// and by `uninstall`; any other run goes through.
fn nobody_is_worse_off(kind: Kind, files: Vec<(String, Vec<u8>)>) {
    let (mut refused, mut wrong) = (0, Vec::new());
    let ours = Ca::new("Ours");
    for (name, content) in files {
        let by_the_tool = by_the_tool(kind, &name, &content);

        let node = Node::new(kind, "");
        let before = sorted(&node);
        let path = put(&node, &name, &content);
        node.set_source(&[&ours]);
        let done = node.nodetrust(&["-o", "json", "apply"]);
        let now = readers(&node, kind.bundle());
        let mut blame = |what: &str| wrong.push(format!("{name}: {by_the_tool:?}: {what}"));
        if now != ALL {
            blame(&format!("after apply, code {}: {now:?}", done.code));
            continue;
        }
        if by_the_tool == ALL {
            if done.code == 1 || !node.trusts(&ours) {
                blame(&format!("harmless, and apply says {}: {}", done.code, done.json()["problems"]));
            }
            continue;
        }
        refused += 1;
        let problems = done.json()["problems"].to_string();
        if done.code != 1 || sorted(&node) != before {
            blame(&format!("apply took effect with code {}", done.code));
        }
        if !problems.contains(&format!("{path}:")) {
            blame(&format!("apply does not name it: {problems}"));
        }
        let status = node.nodetrust(&["status"]);
        if status.code != 2 || !status.out.contains(&name) {
            blame(&format!("status says {}: {}", status.code, status.out));
        }
        if refused % 4 != 1 {
            continue;
        }
        // The file comes after ours and holds back our removal.
        fs::remove_file(node.path(&path)).unwrap();
        apply(&node, 0);
        put(&node, &name, &content);
        // A second call has only that left to do, and names the file again.
        for call in 1..=2 {
            let done = node.nodetrust(&["-o", "json", "uninstall"]);
            let now = readers(&node, kind.bundle());
            if now != ALL || done.code != 1 || !done.json()["problems"].to_string().contains(&name) {
                blame(&format!("uninstall {call}, code {}: {now:?} {}", done.code, done.json()["problems"]));
            }
        }
        fs::remove_file(node.path(&path)).unwrap();
        node.nodetrust(&["uninstall"]).expect(0);
        if sorted(&node) != before {
            blame("uninstall leaves something");
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused >= 6, "only {refused} files do harm: have the readers changed?");
}

#[test]
fn bookworm_nobody_is_worse_off_for_somebodys_file() {
    nobody_is_worse_off(Kind::Bookworm, files().into_iter().step_by(2).collect());
}

#[test]
fn trixie_nobody_is_worse_off_for_somebodys_file() {
    nobody_is_worse_off(Kind::Trixie, files());
}

/// What the tool pastes from the distribution's own directory is found as well, before the run.
#[test]
fn a_selected_file_in_the_distributions_directory_is_named() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let ours = Ca::new("Ours");
        node.set_source(&[&ours]);
        let broken = format!("{}-----BEGIN CERTIFICATE-----\nMIIB\n", Ca::new("Theirs").pem());
        node.write("/usr/share/ca-certificates/corp/root.crt", &broken);
        let conf = node.path("/etc/ca-certificates.conf");
        let list = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, format!("{list}corp/root.crt\n")).unwrap();
        let line = broken.lines().count() - 1;
        let report = apply(&node, 1);
        assert_problem(&report, "held", &[&format!("/usr/share/ca-certificates/corp/root.crt:{line}"), "mend"]);
        assert_eq!(readers(&node, kind.bundle()), ALL);
        let status = node.nodetrust(&["status"]).expect(2);
        assert!(status.out.contains("corp/root.crt"), "{}", status.out);
        // A deselected file does not matter.
        fs::write(&conf, format!("{list}!corp/root.crt\n")).unwrap();
        apply(&node, 0);
        assert_right(&node, &[&ours]);
    }
}

/// The tool follows links to directories: so does the search.
#[test]
fn a_file_behind_a_link_to_a_directory_is_named() {
    let node = Node::new(DEBIAN, "");
    let ours = Ca::new("Ours");
    node.set_source(&[&ours]);
    node.write("/srv/team/broken.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let link = node.path("/usr/local/share/ca-certificates/team");
    std::os::unix::fs::symlink("/srv/team", &link).unwrap();
    let report = apply(&node, 1);
    assert_problem(&report, "held", &["/usr/local/share/ca-certificates/team/broken.crt:1"]);
    assert_eq!(readers(&node, node.kind.bundle()), ALL);
    fs::remove_file(link).unwrap();
    apply(&node, 0);
    assert_right(&node, &[&ours]);
}

/// A file that comes after the plan was made is found in what the tool has written: never published, and named all the same.
#[test]
fn simulated_a_file_that_comes_in_between_is_named() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let ours = Ca::new("Ours");
        let before = bundle_bytes(&node);
        node.set_source(&[&ours]);
        node.write("/tmp/late.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        replace_tool(&node, "cp /tmp/late.crt /usr/local/share/ca-certificates/\nexec \"$0.real\" \"$@\"");
        let report = apply(&node, 1);
        let path = "/usr/local/share/ca-certificates/late.crt";
        assert_problem(&report, "bundle-broken", &[&format!("{path}:1"), "mend", "not published"]);
        assert!(bundle_bytes(&node) == before);
        assert_no_leftovers(&node);
        fs::remove_file(node.path(path)).unwrap();
        restore_tool(&node);
        apply(&node, 0);
        assert_right(&node, &[&ours]);
    }
}

/// What was broken before us is named, and ours goes in all the same, for the readers that still read.
#[test]
fn what_was_broken_before_us_is_named() {
    let whole = Ca::new("Theirs").pem();
    let cut = whole[..whole.len() / 2].to_owned();
    let unended = format!("{whole}-----BEGIN X509 CRL-----\nAAAA\n");
    for (kind, broken) in [(Kind::Bookworm, &cut), (Kind::Trixie, &cut), (Kind::Trixie, &unended)] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let (old, new) = (Ca::new("Old"), Ca::new("New"));
        let path = put(&node, "broken.crt", broken);
        tool(&node, &[]).expect(0);
        assert!(!readers(&node, kind.bundle()).openssl);
        node.set_source(&[&old]);
        let report = apply(&node, 2);
        assert_problem(&report, "foreign-broken", &[&format!("{path}:"), "mend", "OpenSSL"]);
        assert_eq!((report["converged"].as_bool(), report["verdict"].as_str()), (Some(true), Some("not-trusted")));
        assert!(node.trusts(&old));
        node.nodetrust(&["plan"]).expect(0);
        let status = node.nodetrust(&["status"]).expect(2);
        assert!(status.out.contains("broken.crt"), "{}", status.out);
        // A rotation still works.
        node.set_source(&[&new]);
        apply(&node, 2);
        assert!(node.trusts(&new) && !node.trusts(&old));
        fs::write(node.path(&path), &whole).unwrap();
        apply(&node, 0);
        assert_eq!(readers(&node, kind.bundle()), ALL);
        assert_right(&node, &[&new]);
        put(&node, "broken.crt", broken);
        tool(&node, &[]).expect(0);
        node.nodetrust(&["uninstall"]).expect(0);
        assert!(!node.trusts(&new), "what was broken before is no reason to stay");
    }
}

/// A tool in the way of Alpine's: it pastes every visible file and writes the bundle itself. What it broke is put back.
#[test]
fn simulated_alpine_puts_back_what_somebodys_file_broke() {
    let node = Node::new(Kind::Trixie, "store: {family: alpine}");
    fs::remove_file(node.path("/etc/os-release")).unwrap();
    node.write("/etc/os-release", "ID=alpine\nVERSION_ID=3.19.8\n");
    let script = "#!/bin/sh\ncd /etc/ssl/certs || exit 1\n[ ! -e /tmp/late.crt ] || cp /tmp/late.crt /usr/local/share/ca-certificates/\n\
         t=$(mktemp bundle.XXXXXX)\n{\n\
         for f in $(sed '/^[!#]/d' /etc/ca-certificates.conf); do cat /usr/share/ca-certificates/$f; echo; done\n\
         for f in /usr/local/share/ca-certificates/*; do [ ! -f \"$f\" ] || { cat \"$f\"; echo; ln -sf \"$f\" ca-cert-$(basename \"$f\" .crt).pem; }; done\n\
         } >$t\nchmod 644 $t; mv $t ca-certificates.crt\nopenssl rehash . >/dev/null 2>&1\n";
    let path = "/usr/sbin/update-ca-certificates";
    node.write(path, script);
    fs::set_permissions(node.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    node.run(&[path]).expect(0);
    let bundle = node.kind.bundle();
    assert_eq!(readers(&node, bundle), ALL);
    let (ours, before) = (Ca::new("Ours"), bundle_bytes(&node));
    node.set_source(&[&ours]);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    put(&node, "theirs.notes", broken);
    let report = apply(&node, 1);
    assert_problem(&report, "held", &["theirs.notes:1", "mend"]);
    assert!(bundle_bytes(&node) == before);
    fs::remove_file(node.path("/usr/local/share/ca-certificates/theirs.notes")).unwrap();

    node.write("/tmp/late.crt", broken);
    let report = apply(&node, 1);
    assert_problem(&report, "bundle-broken", &["late.crt:1", "put back"]);
    assert!(bundle_bytes(&node) == before);
    fs::remove_file(node.path("/tmp/late.crt")).unwrap();
    fs::remove_file(node.path("/usr/local/share/ca-certificates/late.crt")).unwrap();
    apply(&node, 0);
    assert_eq!(readers(&node, bundle), ALL);
    assert!(node.trusts(&ours));
}

/// p11-kit reads its sources and writes certificates anew; what it still gives to readers that choke on it does not stay.
#[test]
fn rhelish_nobody_is_worse_off_for_somebodys_certificate() {
    let (mut refused, mut wrong) = (0, Vec::new());
    let kind = Kind::Rhelish;
    for (name, content) in files() {
        let by_the_tool = by_the_tool(kind, &name, &content);
        let node = Node::new(kind, "");
        let (ours, before) = (Ca::new("Ours"), sorted(&node));
        let path = put(&node, &name, &content);
        node.set_source(&[&ours]);
        let done = node.nodetrust(&["-o", "json", "apply"]);
        let now = readers(&node, kind.bundle());
        let problems = done.json()["problems"].to_string();
        if by_the_tool == ALL {
            if done.code == 1 || !node.trusts(&ours) || now != ALL {
                wrong.push(format!("{name}: harmless, and apply says {}: {problems}", done.code));
            }
            continue;
        }
        refused += 1;
        if now != ALL || done.code != 1 || sorted(&node) != before || !problems.contains(&format!("{path}:")) {
            wrong.push(format!("{name}: {by_the_tool:?}, then {now:?} with code {}: {problems}", done.code));
        }
    }
    println!("{refused} files would have done harm");
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}
