//! What scripts/faults has found, each as a test of its own.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::{
    node::{Kind, Node},
    pki::Ca,
};

/// Debian's tool names its links by `basename`, and goes on when that was killed: a link called `.pem`, and hash links to it.
#[test]
fn trixie_a_link_that_lost_its_name_is_made_again_after_a_simulated_failure_of_basename() {
    for fails in 1..=3 {
        let node = Node::new(Kind::Trixie, "");
        let ca = Ca::new("Corp Root");
        node.set_source(&[&ca]);
        let before: Vec<String> = node.tree(&["/etc/ssl/certs"]).into_keys().collect();
        // The tool links the distribution's certificates first and ours last.
        let wrapper = format!(
            "#!/bin/sh\ncase $1 in */nodetrust-*) n=$(cat /run/count 2>/dev/null || echo 0); echo $((n + 1)) >/run/count\n\
             [ \"$n\" -ge {fails} ] || exit 1;; esac\nexec /usr/bin/basename \"$@\"\n"
        );
        node.write("/usr/local/sbin/basename", wrapper);
        fs::set_permissions(node.path("/usr/local/sbin/basename"), fs::Permissions::from_mode(0o755)).unwrap();
        // Two tries do not repair it: that is reported, and the next run repairs it.
        let done = node.nodetrust(&["apply"]);
        let is_right = || {
            let after = node.tree(&["/etc/ssl/certs"]);
            let nameless = |(path, what): (&String, &String)| path.ends_with("/.pem") || what.contains("link to .pem");
            let kept = before.iter().all(|path| after.contains_key(path));
            // One link by name and one hash link.
            kept && !after.iter().any(nameless) && after.len() == before.len() + 2
        };
        assert!(node.path("/run/count").exists());
        assert!(done.code == 1 || is_right(), "exit code {}: {}\n{}", done.code, done.out, done.err);
        node.nodetrust(&["apply"]).expect(0);
        assert!(is_right(), "after {fails} failures");
        assert!(node.clients_trust(&ca));
    }
}
