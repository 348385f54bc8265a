//! Asking the host's p11-kit which certificates are anchors for servers: it knows every form in which a distribution may say so.

use std::{collections::BTreeSet, time::Duration};

use nodetrust_core::certificate::{bundle, fingerprint::Fingerprint};

use crate::{
    host::{exec::HostExec, own_paths, root::HostRoot},
    store::read::MAX_BUNDLE_BYTES,
};

/// Both have the command `extract`; the second one is the name of p11-kit before 0.20.
const PROGRAMS: [&str; 2] = ["/usr/bin/trust", "/usr/bin/p11-kit"];

/// What p11-kit says.
#[derive(Debug)]
pub(crate) struct P11KitAnswer {
    /// anchors for servers
    anchors: BTreeSet<Fingerprint>,
    /// every certificate that it has read, trusted or not
    known: BTreeSet<Fingerprint>,
}

impl P11KitAnswer {
    /// Whether p11-kit would put a certificate into a bundle, if it read all its files. `by_files`: what the files say. One that is not
    /// among those that it has read at all is not distrusted: its module is missing, or it could not read the file, and says nothing.
    pub(crate) fn wants(&self, fingerprint: &Fingerprint, by_files: bool) -> bool {
        self.anchors.contains(fingerprint) || by_files && !self.known.contains(fingerprint)
    }
}

/// Asks p11-kit; None if it gives no answer. Needs the lock: it writes to a directory of ours.
pub(crate) fn p11_kit(root: &HostRoot, limit: Duration) -> Option<P11KitAnswer> {
    let program = PROGRAMS.into_iter().find(|program| matches!(root.stat(program), Ok(Some(_))))?;
    let exec = HostExec { root, lock: None, limit };
    let was_there = root.stat(own_paths::TEMP_DIR).ok()?.is_some();
    root.create_dir_all(own_paths::TEMP_DIR).ok()?;
    let extract = |filter: &[&str]| {
        let path = format!("{}/p11-kit.pem", own_paths::TEMP_DIR);
        // the environment is that of the distributions' own scripts
        let command = ["P11_KIT_NO_USER_CONFIG=1", program, "extract", "--format=pem-bundle", "--overwrite"];
        let args: Vec<&str> = command.iter().chain(filter).copied().chain([path.as_str()]).collect();
        let finished = exec.run("/usr/bin/env", &args, None).ok()?;
        let bytes = root.read(&path, MAX_BUNDLE_BYTES).ok();
        let _ = root.remove_file(&path); // what stays is removed in the next cycle
        let bytes = bytes.filter(|_| finished.code == Some(0))?;
        Some(bundle::read(&bytes).set)
    };
    let anchors = extract(&["--filter=ca-anchors", "--purpose=server-auth"]);
    let known = anchors.is_some().then(|| extract(&["--filter=certificates"])).flatten();
    if !was_there {
        let _ = root.remove_dir(own_paths::TEMP_DIR);
    }
    Some(P11KitAnswer { anchors: anchors?, known: known? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_p11_kit_has_not_read_is_not_distrusted() {
        let [anchor, distrusted, unread] = [b"a", b"d", b"u"].map(|bytes| Fingerprint::of_der(bytes));
        let answer = P11KitAnswer { anchors: [anchor].into(), known: [anchor, distrusted].into() };
        assert!(answer.wants(&anchor, true) && answer.wants(&anchor, false));
        assert!(!answer.wants(&distrusted, true), "in its files, and not an anchor");
        assert!(answer.wants(&unread, true) && !answer.wants(&unread, false));
    }
}
