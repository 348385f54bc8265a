//! A run that fails, stops half-way or would take most roots away leaves the node as it was, and the report says what was done.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{
    obstacles::{replace_tool, restore_tool, tool_path},
    *,
};

/// A wrapper of the site around Debian's tool that drops its arguments writes the live bundle. One that loses roots on its way is
/// undone; an honest one works.
#[test]
fn simulated_wrapper_that_drops_arguments() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let (one, two) = (Ca::new("One"), Ca::new("Two"));
        let before = (bundle_bytes(&node), sorted(&node));
        let lose = "cd /etc/ssl/certs && sed -i '1,/END/d;' ca-certificates.crt";
        replace_tool(&node, &format!("\"$0.real\"\n{}", [lose; 4].join("\n")));
        node.set_source(&[&one]);
        for _ in 0..2 {
            let report = apply(&node, 1);
            assert_problem(&report, "foreign-lost", &["left out 4 of", "put back"]);
            assert!(bundle_bytes(&node) == before.0, "four roots are lost");
        }
        restore_tool(&node);
        replace_tool(&node, "exec \"$0.real\"");
        apply(&node, 0);
        assert_right(&node, &[&one]);
        node.set_source(&[&two]);
        apply(&node, 0);
        assert_right(&node, &[&two]);
        assert!(!node.clients_trust(&one));
        node.nodetrust(&["uninstall"]).expect(0);
        assert_eq!(sorted(&node), before.1);
    }
}

/// A tool that damages the live files and then fails, is killed, or hangs: all is put back, and the report says so.
#[test]
fn simulated_tool_that_damages_the_bundle_and_fails() {
    let damages =
        ["head -c 20000 @ >/tmp/half; cat /tmp/half >@", ": >@", "rm @", "echo '-----BEGIN CERTIFICATE-----' >>@"];
    let ends = [("exit 3", "exit code 3"), ("kill -9 $$", "137"), ("sleep 1000", "time-out")];
    for kind in [Kind::Bookworm, Kind::Trixie, Kind::Rhelish] {
        for (n, damage) in damages.iter().enumerate() {
            let (end, says) = ends[n % ends.len()];
            let node = Node::new(kind, "store: {extractTimeout: 5s}");
            let ours = Ca::new("Ours");
            let before = bundle_bytes(&node);
            node.set_source(&[&ours]);
            replace_tool(&node, &format!("{}\n{end}", damage.replace('@', kind.bundle())));
            let report = apply(&node, 1);
            assert_problem(&report, "extract", &[tool_path(&node), says, "put back as it was"]);
            assert!(bundle_bytes(&node) == before, "{kind:?}: {damage}; {end}");
            assert_no_leftovers(&node);
            restore_tool(&node);
            node.configure("");
            apply(&node, 0);
            assert_right(&node, &[&ours]);
        }
    }
}

/// The report does not claim what could not be put back.
#[test]
fn simulated_what_cannot_be_put_back_is_told() {
    let node = Node::new(DEBIAN, "");
    node.set_source(&[&Ca::new("Ours")]);
    // A directory in its place cannot be replaced by a file.
    replace_tool(&node, "rm /etc/ssl/certs/ca-certificates.crt; mkdir -p /etc/ssl/certs/ca-certificates.crt/x; exit 3");
    let report = apply(&node, 1);
    let problems = report["problems"].to_string();
    assert!(problems.contains("putting /etc/ssl/certs/ca-certificates.crt back failed"), "{problems}");
    assert!(!problems.contains("was put back as it was"), "{problems}");
}

/// A root with the directories of a distribution and a stand-in for its tool.
fn like(id: &str, more: &str, layout: &str, tool: &str) -> Node {
    let node = Node::new(Kind::Trixie, more);
    fs::remove_file(node.path("/etc/os-release")).unwrap();
    node.write("/etc/os-release", id);
    node.run(&["sh", "-ec", layout]).expect(0);
    let path = "/usr/sbin/update-ca-certificates";
    if !tool.is_empty() {
        node.write(path, tool);
        fs::set_permissions(node.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        node.run(&[path]).expect(0);
    }
    node
}

/// As Flatcar's: all hash links go first, and the bundle is joined from those that were made.
const FLATCAR_TOOL: &str = "#!/bin/sh\ncd /etc/ssl/certs || exit 1\n[ $# = 0 ] || { echo usage; exit 0; }\nfind . -xtype l -delete\n\
     ls | grep -E '^[0-9a-f]{8}\\.[0-9]+$' | xargs -r rm\n[ ! -e /run/hang ] || sleep 1000\n\
     openssl rehash . >/dev/null 2>&1\nt=$(mktemp ../bundle.XXXXXX)\nfor f in *.[0-9]; do cat \"$f\"; echo; done >$t\n\
     chmod 644 $t; mv $t ca-certificates.crt\n";

fn flatcar(more: &str) -> Node {
    like(
        "ID=flatcar\nID_LIKE=coreos\n",
        more,
        "rm -r /usr/local/share/ca-certificates /etc/ca-certificates.conf",
        FLATCAR_TOOL,
    )
}

/// A run of Flatcar's tool that is stopped has taken all links away: they come back, and it is called a time-out.
#[test]
fn flatcar_with_a_simulated_tool_keeps_its_links_when_a_run_is_stopped() {
    let node = flatcar("store: {extractTimeout: 2s}");
    let before = node.tree(&["/etc/ssl"]);
    let ca = Ca::new("Corp");
    node.set_source(&[&ca]);
    node.write("/run/hang", "");
    let report = apply(&node, 1);
    assert_problem(&report, "extract", &["time-out", "store.extractTimeout", "update-ca-certificates"]);
    let mut after = node.tree(&["/etc/ssl"]);
    after.remove(&format!("/etc/ssl/certs/nodetrust-{}.pem", ca.fp16()));
    assert!(after == before, "{} entries, then {}", before.len(), after.len());
    fs::remove_file(node.path("/run/hang")).unwrap();
    apply(&node, 0);
    assert!(node.trusts(&ca) && by_directory(&node, &ca));
    node.nodetrust(&["plan"]).expect(0);
    node.nodetrust(&["uninstall"]).expect(0);
    assert!(node.tree(&["/etc/ssl"]).keys().eq(before.keys()));
}

/// Somebody's certificate with its key in Flatcar's directory is found before the run, and named.
#[test]
fn flatcar_with_a_simulated_tool_does_not_paste_a_key() {
    let (node, theirs, ours) = (flatcar(""), Ca::new("Theirs"), Ca::new("Ours"));
    let secret = theirs.key_pem();
    node.write("/etc/ssl/certs/server.pem", theirs.pem() + &secret);
    let before = bundle_bytes(&node);
    node.set_source(&[&ours]);
    let report = apply(&node, 1);
    assert_problem(&report, "held", &["/etc/ssl/certs/server.pem:", "private key", "take the key out"]);
    assert!(bundle_bytes(&node) == before);
    assert!(node.nodetrust(&["status"]).expect(2).out.contains("server.pem"));
    node.write("/etc/ssl/certs/server.pem", theirs.pem());
    apply(&node, 0);
    assert!(node.trusts(&ours) && node.trusts(&theirs));
    // A block that is no certificate gets no link, so it is never pasted.
    node.write("/etc/ssl/certs/notes.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    node.set_source(&[&ours, &Ca::new("Another")]);
    apply(&node, 0);
    assert!(python_loads(&node));
}

/// On Photon we join the files ourselves and leave a key out; it is named, since the distribution's own script does not.
#[test]
fn photon_with_real_openssl_names_a_key_and_leaves_it_out() {
    let layout = "rm -r /usr/sbin/update-ca-certificates /usr/local/share/ca-certificates; mkdir -p /etc/pki/tls/certs
        cat /etc/ssl/certs/*.pem >/etc/pki/tls/certs/ca-bundle.crt";
    let bundle = "/etc/pki/tls/certs/ca-bundle.crt";
    for with_certificate in [true, false] {
        let node = like("ID=photon\n", "", layout, "");
        let (theirs, ours) = (Ca::new("Theirs"), Ca::new("Ours"));
        let links = node.tree(&["/etc/ssl"]).len();
        let certificate = if with_certificate { theirs.pem() } else { String::new() };
        node.write("/etc/ssl/certs/server.pem", certificate + &theirs.key_pem());
        node.set_source(&[&ours]);
        let report = apply(&node, 2);
        assert_problem(&report, "foreign-private-key", &["/etc/ssl/certs/server.pem:", "move"]);
        let text = fs::read_to_string(node.path(bundle)).unwrap();
        assert!(!text.contains("PRIVATE") && text.contains(ours.pem().lines().nth(2).unwrap()));
        assert!(by_directory(&node, &ours) && node.tree(&["/etc/ssl"]).len() >= links);
        assert!(node.nodetrust(&["status"]).expect(2).out.contains("server.pem"));
        fs::remove_file(node.path("/etc/ssl/certs/server.pem")).unwrap();
        apply(&node, 0);
        node.nodetrust(&["status"]).expect(0);
    }
}

/// Debian's list without its last line's end: the script passes over that line, so its root goes with the next run. Ours goes in, and the
/// cause is named until it is mended.
#[test]
fn a_list_without_its_last_line_end_loses_a_root_and_is_told() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let conf = node.path("/etc/ca-certificates.conf");
        let list = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, list.trim_end()).unwrap();
        let last = list.trim_end().lines().last().unwrap();
        let before = node.bundle().len();
        let ca = Ca::new("Corp Root");
        node.set_source(&[&ca]);
        let report = apply(&node, 2);
        assert!(node.clients_trust(&ca));
        assert_eq!(node.bundle().len(), before, "ours came, {last} went");
        assert_problem(&report, "foreign-gone", &[last, "no line end", "echo >> /etc/ca-certificates.conf"]);
        let again = apply(&node, 2);
        assert!(again["cycle"]["actions"].as_array().is_none_or(Vec::is_empty), "{again:#}");

        node.run(&["sh", "-c", "echo >> /etc/ca-certificates.conf && update-ca-certificates"]).expect(0);
        apply(&node, 0);
        assert_eq!(node.bundle().len(), before + 1);
    }
}

/// Debian's list, cut to two roots: our run does not carry that out; somebody else's is told until the list is whole again.
#[test]
fn a_cut_list_is_not_carried_out_and_is_told() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let (one, two) = (Ca::new("One"), Ca::new("Two"));
        node.set_source(&[&one]);
        apply(&node, 0);
        let conf = node.path("/etc/ca-certificates.conf");
        let list = fs::read_to_string(&conf).unwrap();
        let kept: Vec<&str> = list.lines().filter(|line| line.starts_with("mozilla/ISRG")).collect();
        assert!(kept.len() == 2 && list.lines().count() > 140);
        fs::write(&conf, kept.join("\n") + "\n").unwrap();
        let before = (bundle_bytes(&node), node.tree(&["/etc/ssl"]));
        node.set_source(&[&one, &two]);
        let report = apply(&node, 1);
        assert_problem(
            &report,
            "foreign-lost",
            &["sources are gone", "ca-certificates.conf", "reinstall", "not published"],
        );
        assert!(bundle_bytes(&node) == before.0);
        node.nodetrust(&["uninstall"]).expect(1);
        assert!(bundle_bytes(&node) == before.0);

        // Somebody runs the tool: nothing can get worse now, so ours goes in, and the loss is reported.
        node.set_source(&[&one]);
        tool(&node, &[]).expect(0);
        let report = apply(&node, 2);
        assert_problem(&report, "foreign-gone", &["at once", "ca-certificates.conf", "dpkg-reconfigure"]);
        node.set_source(&[&one, &two]);
        let report = apply(&node, 2);
        assert_problem(&report, "foreign-gone", &["at once"]);
        assert_eq!(sorted(&node).len(), 4);
        node.nodetrust(&["plan"]).expect(0);
        assert!(node.nodetrust(&["status"]).expect(2).out.contains("have left"));

        fs::write(&conf, &list).unwrap();
        apply(&node, 0);
        assert_right(&node, &[&one, &two]);
        assert!(sorted(&node).len() > 140);
        node.nodetrust(&["status"]).expect(0);

        // A root that is deselected in the distribution's own way leaves on purpose.
        let deselected = |line: &str| format!("{}{line}\n", if kept.contains(&line) { "" } else { "!" });
        fs::write(&conf, list.lines().filter(|line| line.starts_with("mozilla/")).map(deselected).collect::<String>())
            .unwrap();
        node.set_source(&[&one]);
        apply(&node, 0);
        assert_eq!(sorted(&node).len(), 3);
        node.nodetrust(&["status"]).expect(0);
    }
}

/// The file of the distribution's roots, emptied, where p11-kit reads it.
#[test]
fn rhelish_emptied_roots_are_not_carried_out_and_are_told() {
    let node = Node::new(Kind::Rhelish, "");
    let (one, two) = (Ca::new("One"), Ca::new("Two"));
    node.set_source(&[&one]);
    apply(&node, 0);
    let find = "grep -rl 'BEGIN CERTIFICATE' /usr/share/pki/ca-trust-source";
    let shipped = node.run(&["sh", "-c", find]).expect(0).out;
    let whole: Vec<(&str, Vec<u8>)> = shipped.lines().map(|path| (path, fs::read(node.path(path)).unwrap())).collect();
    assert!(!whole.is_empty());
    for (path, _) in &whole {
        fs::write(node.path(path), "").unwrap();
    }
    let before = (sorted(&node), node.tree(&["/etc/pki"]));
    node.set_source(&[&one, &two]);
    let report = apply(&node, 1);
    assert_problem(&report, "foreign-lost", &["sources are gone", "put back", "reinstall ca-certificates"]);
    let mut after = node.tree(&["/etc/pki"]);
    after.remove(&format!("{}/nodetrust-{}.pem", node.kind.anchors_dir(), two.fp16()));
    assert!(sorted(&node) == before.0 && after == before.1);

    tool(&node, &[]).expect(0);
    let report = apply(&node, 2);
    assert_problem(&report, "foreign-gone", &["at once", "reinstall ca-certificates"]);
    assert_eq!(sorted(&node).len(), 2);
    for (path, whole) in &whole {
        fs::write(node.path(path), whole).unwrap();
    }
    apply(&node, 0);
    assert_right(&node, &[&one, &two]);
    assert!(sorted(&node).len() > 140);
    node.nodetrust(&["status"]).expect(0);
}

/// A part of that file is gone, less than half: the run goes through, and what left is told.
#[test]
fn rhelish_a_part_of_the_roots_that_is_gone_is_told() {
    for by_us in [true, false] {
        let node = Node::new(Kind::Rhelish, "");
        let (one, two) = (Ca::new("One"), Ca::new("Two"));
        node.set_source(&[&one]);
        apply(&node, 0);
        let find = "grep -rl 'BEGIN CERTIFICATE' /usr/share/pki/ca-trust-source";
        let shipped = node.run(&["sh", "-c", find]).expect(0).out;
        let path = node.path(shipped.lines().next().unwrap());
        let whole = fs::read_to_string(&path).unwrap();
        let (all, begin) = (sorted(&node).len(), "[p11-kit-object-v1]");
        let objects: Vec<&str> = whole.split_inclusive(begin).collect();
        fs::write(&path, objects[..objects.len() * 7 / 10].concat().strip_suffix(begin).unwrap()).unwrap();
        if by_us {
            node.set_source(&[&one, &two]);
        } else {
            tool(&node, &[]).expect(0);
        }
        let report = apply(&node, 2);
        assert_problem(&report, "foreign-gone", &["at once", "reinstall ca-certificates"]);
        let left = sorted(&node).len();
        assert!(left * 2 > all && left + 10 < all, "{left} of {all}");
        node.nodetrust(&["status"]).expect(2);
        fs::write(&path, &whole).unwrap();
        apply(&node, 0);
        assert!(sorted(&node).len() >= all && node.clients_trust(&one));
        node.nodetrust(&["status"]).expect(0);
    }
}

/// Some of the distribution's files are emptied, by somebody or a failing disk: too few to be called most, and told all the same.
#[test]
fn emptied_files_of_the_distribution_are_told() {
    let node = Node::new(Kind::Bookworm, "");
    let (one, two) = (Ca::new("One"), Ca::new("Two"));
    node.set_source(&[&one]);
    apply(&node, 0);
    let shipped = node.path("/usr/share/ca-certificates/mozilla");
    let mut files: Vec<_> = fs::read_dir(&shipped).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let kept: Vec<_> = files.iter().take(12).map(|file| (file, fs::read(file).unwrap())).collect();
    for (file, _) in &kept {
        fs::write(file, "").unwrap();
    }
    node.set_source(&[&one, &two]);
    let report = apply(&node, 2);
    let first = kept[0].0.file_name().unwrap().to_str().unwrap();
    assert_problem(&report, "foreign-gone", &[first, "11 more files", "hold no certificate", "reinstall"]);
    node.nodetrust(&["status"]).expect(2);

    for (file, bytes) in &kept {
        fs::write(file, bytes).unwrap();
    }
    tool(&node, &[]).expect(0);
    apply(&node, 0);
    assert_right(&node, &[&one, &two]);
    node.nodetrust(&["status"]).expect(0);
}

/// Whatever the umask of the shell that starts us, and whatever a wrapper of the site makes of the file's permissions: everybody can
/// read the bundle afterwards, and only root write it.
#[test]
fn everybody_can_read_the_bundle_whatever_the_umask() {
    for kind in [Kind::Bookworm, Kind::Rhelish, Kind::Suselike] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let (one, two) = (Ca::new("One"), Ca::new("Two"));
        if !node.path(kind.bundle()).exists() {
            node.run(&[kind.tool()]).expect(0);
        }
        let mode = || fs::metadata(node.path(kind.bundle())).unwrap().permissions().mode() & 0o7777;
        node.set_source(&[&one]);
        let ours = node.command(&["apply"]);
        let mut under_umask = std::process::Command::new("sh");
        under_umask.args(["-c", "umask 0777; exec \"$0\" \"$@\""]).arg(ours.get_program()).args(ours.get_args());
        under_umask.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Done::new(under_umask.output().unwrap()).expect(0);
        assert_eq!(mode() & 0o7466, 0o444, "{kind:?}: {:o}", mode());
        assert_right(&node, &[&one]);
        for left in ["600", "4777"] {
            let file = if kind == Kind::Bookworm { "/etc/ssl/certs/.nodetrust-bundle" } else { kind.bundle() };
            replace_tool(&node, &format!("\"$0.real\" \"$@\" && chmod {left} {file}"));
            node.set_source(&[if left == "600" { &two } else { &one }]);
            apply(&node, 0);
            assert_eq!(mode() & 0o7466, 0o444, "{kind:?}: {left} {:o}", mode());
            restore_tool(&node);
        }
        replace_tool(&node, &format!("chmod 600 {}; exit 7", kind.bundle()));
        node.set_source(&[&two]);
        apply(&node, 1);
        assert_eq!(mode() & 0o7466, 0o444, "{kind:?}: a run that failed {:o}", mode());
        restore_tool(&node);
        node.set_source(&[&one]);
        apply(&node, 0);
        assert_right(&node, &[&one]);
    }
}
