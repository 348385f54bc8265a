//! OpenSSL's directory of hash links: other people's stay, whatever becomes of a run and of whoever started it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::{
    obstacles::{replace_tool, restore_tool},
    *,
};
use crate::{
    agent::fast,
    support::{
        process::{descendants, is_alive, kill_9},
        wait_for,
    },
};

const DIR: &str = "/etc/ssl/certs";

/// The names of all links in the directory, but for ours and the hash links to them.
fn foreign_links(node: &Node) -> BTreeSet<String> {
    links_in(&node.path(DIR))
}

fn links_in(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if !target.as_os_str().is_empty() && !target.to_string_lossy().contains("nodetrust-") {
            found.insert(name);
        }
    }
    found
}

/// Looks at the directory again and again: the fewest links of other people's that were there at one time.
fn fewest(node: &Node, meanwhile: impl FnOnce()) -> usize {
    let (dir, stop, fewest) = (node.path(DIR), AtomicBool::new(false), AtomicUsize::new(usize::MAX));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fewest.fetch_min(links_in(&dir).len(), Ordering::Relaxed);
            }
        });
        meanwhile();
        stop.store(true, Ordering::Relaxed);
    });
    fewest.into_inner()
}

/// A removal takes the links of what is removed away and no others, not even for a moment.
#[test]
fn a_removal_takes_no_other_link_away() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "rotation: {removalGrace: 0s}");
        let all = foreign_links(&node);
        assert!(all.len() > 250, "{}", all.len());
        // Three certificates of one name, whose links have one hash.
        let [one, two, theirs] = [(); 3].map(|()| Ca::new("Corp Root"));
        put(&node, "theirs.crt", theirs.pem());
        tool(&node, &[]).expect(0);
        let with_theirs = foreign_links(&node).len();
        node.set_source(&[&one, &two]);
        apply(&node, 0);
        assert_right(&node, &[&one, &two, &theirs]);

        let alone = fewest(&node, || {
            tool(&node, &["--fresh"]).expect(0);
        });
        assert!(alone < 20, "the tool alone, made to tidy up, leaves {alone} links meanwhile");

        node.set_source(&[&one]);
        let left = fewest(&node, || {
            apply(&node, 0);
        });
        assert_eq!(left, with_theirs);
        assert!(by_directory(&node, &one) && by_directory(&node, &theirs) && !by_directory(&node, &two));
        assert_right(&node, &[&one, &theirs]);

        let left = fewest(&node, || {
            node.nodetrust(&["uninstall"]).expect(0);
        });
        assert_eq!(left, with_theirs);
        assert!(by_directory(&node, &theirs) && !by_directory(&node, &one));
        let ours = node.tree(&[DIR]).into_iter().find(|(name, what)| (name.clone() + what).contains("nodetrust"));
        assert_eq!(ours, None);
    }
}

/// An agent that is killed with SIGKILL while the tool works: the tool comes to its end, and no link is missing.
#[test]
fn a_killed_agent_leaves_every_link() {
    const LIMIT: Duration = Duration::from_secs(120);
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let all = foreign_links(&node);
        let (kept, gone) = (Ca::new("Kept"), Ca::new("Gone"));
        node.set_source(&[&kept, &gone]);
        let agent = node.agent(&fast("0s"));
        agent.wait_converged(&[&kept, &gone], LIMIT);
        let left = fewest(&node, || {
            node.set_source(&[&kept]);
            let below =
                wait_for("the tool at work", LIMIT, || Some(descendants(agent.pid())).filter(|below| below.len() >= 2));
            kill_9(agent.pid());
            wait_for("the end of the tool", LIMIT, || (!below.iter().any(|pid| is_alive(*pid))).then_some(()));
        });
        assert_eq!(left, all.len());
        assert_eq!(foreign_links(&node), all);
        drop(agent);
        apply(&node, 0);
        assert_right(&node, &[&kept]);
    }
}

/// A tool that prints after its agent was killed is read to its end: the kernel would end it in the middle otherwise.
#[test]
fn simulated_a_tool_outlives_its_agent_whatever_it_prints() {
    const LIMIT: Duration = Duration::from_secs(120);
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "");
        node.set_source(&[&Ca::new("Corp")]);
        let script = "echo first; touch /run/started; while [ ! -e /run/go ]; do sleep 0.1; done\n\
             echo second; echo third >&2; head -c 300000 /dev/zero | tr '\\0' x; touch /run/ended; exec \"$0.real\" \"$@\"";
        replace_tool(&node, script);
        let agent = node.agent(&fast("0s"));
        wait_for("the tool", LIMIT, || node.path("/run/started").exists().then_some(()));
        let below = descendants(agent.pid());
        kill_9(agent.pid());
        drop(agent);
        node.write("/run/go", "");
        wait_for("the end of all", LIMIT, || (!below.iter().any(|pid| is_alive(*pid))).then_some(()));
        assert!(node.path("/run/ended").exists(), "it was ended by what it printed");
    }
}

/// Links that a run loses are put back at once, in the directory and under the names of the files.
#[test]
fn simulated_links_that_a_run_loses_are_put_back() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let (one, two) = (Ca::new("One"), Ca::new("Two"));
        node.set_source(&[&one]);
        apply(&node, 0);
        let all = foreign_links(&node);
        // The kernel killed a child before it made these links.
        let lose = "ls | grep -E '^[0-9a-f]{8}\\.0$' | head -n 40 | xargs rm; rm ISRG_Root_X1.pem";
        replace_tool(&node, &format!("\"$0.real\" \"$@\"\ncd {DIR} && {{ {lose}; }}"));
        node.set_source(&[&one, &two]);
        node.nodetrust(&["apply"]);
        assert_eq!(foreign_links(&node), all);
        restore_tool(&node);
        apply(&node, 0);
        assert_right(&node, &[&one, &two]);
    }
}

/// Links that somebody else's run has lost are missed by the next cycle and made anew; afterwards there is nothing to do.
#[test]
fn links_that_others_lost_are_healed() {
    for kind in [Kind::Bookworm, Kind::Trixie] {
        let node = Node::new(kind, "");
        let ours = Ca::new("Ours");
        node.set_source(&[&ours]);
        apply(&node, 0);
        let all = foreign_links(&node);
        for lose in [
            "ls | grep -E '^[0-9a-f]{8}\\.0$' | head -n 40 | xargs rm",
            "find . -type l -delete",
            "rm ISRG_Root_X1.pem",
        ] {
            node.run(&["sh", "-c", &format!("cd {DIR} && {lose}")]).expect(0);
            assert_ne!(foreign_links(&node), all, "{lose}");
            node.nodetrust(&["plan"]).expect(2);
            let status = node.nodetrust(&["status"]).expect(2);
            assert!(status.out.contains("link"), "{}", status.out);
            apply(&node, 0);
            assert_eq!(foreign_links(&node), all, "{lose}");
            assert_right(&node, &[&ours]);
        }
    }
}

/// The same in the directories of RHEL's newer script.
#[test]
fn rhelish_links_that_others_lost_are_healed() {
    let node = super::alone::ScriptGeneration::New.node("");
    let ours = Ca::new("Ours");
    node.set_source(&[&ours]);
    apply(&node, 0);
    let dirs = ["/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted/pem/directory-hash"];
    let names = |node: &Node| -> BTreeSet<String> { node.tree(&dirs).into_keys().collect() };
    let all = names(&node);
    assert!(all.len() > 400, "{}", all.len());
    for dir in dirs {
        let lose = format!("cd {dir} && ls | grep -E '^[0-9a-f]{{8}}\\.0$' | head -n 40 | xargs rm");
        node.run(&["sh", "-c", &lose]).expect(0);
        assert_ne!(names(&node), all);
        apply(&node, 0);
        assert_eq!(names(&node), all, "{dir}");
        node.nodetrust(&["plan"]).expect(0);
    }
}

/// Certificates that get no link from the tool are not missed for ever.
#[test]
fn what_gets_no_link_is_tried_once() {
    let node = Node::new(DEBIAN, "");
    let [one, two, ours, more] = ["One", "Two", "Ours", "More"].map(Ca::new);
    node.write("/usr/share/ca-certificates/corp/both.crt", one.pem() + &two.pem());
    let conf = node.path("/etc/ca-certificates.conf");
    let list = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{list}corp/both.crt\n")).unwrap();
    tool(&node, &[]).expect(0);
    assert!(by_file(&node, &one) && !by_directory(&node, &one));
    node.set_source(&[&ours]);
    apply(&node, 0);
    assert_right(&node, &[&ours]);
    node.set_source(&[&ours, &more]);
    apply(&node, 0);
    assert_right(&node, &[&ours, &more]);
    node.nodetrust(&["status"]).expect(0);
}
