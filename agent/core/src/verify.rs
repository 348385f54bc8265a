//! The proof: a fresh observation of a host, compared with what the plan wanted.
//!
//! In: the plan's targets and the observation. Out: problems, each with what to do next. `converged` means that there is no problem, and
//! no action in a new plan. Exit codes of tools are not looked at here: they prove nothing (facts 0.4).

use std::collections::BTreeSet;

use crate::{
    action::StoreAction,
    certificate::{fingerprint::Fingerprint, name::shown, pem::Fault},
    observed::{BundleReader, Effective, Hazard, Observed, OldStore},
    plan::{Plan, TargetAnchor},
    planner::lost_links,
    problem::{Problem, ProblemKind},
    store::{Family, Tool},
};

/// Compares a host with what a plan wants.
pub fn verify(plan: &Plan, observed: &Observed) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        plan.held.iter().map(|held| Problem::new(ProblemKind::Held, held.why.clone(), held.next.clone())).collect();
    problems.extend(observed.old.iter().map(old_store_problem));
    problems.extend(plan.problems.iter().cloned());
    problems.extend(plan.distrusted.iter().filter_map(|print| distrusted_problem(print, plan, observed)));
    let refused = plan.refused.iter().cloned();
    problems.extend(refused.map(|file| Problem::new(ProblemKind::NotAdopted, file.why, file.next)));
    if plan.targets.is_empty() && plan.retired.is_empty() {
        return problems;
    }
    problems.extend(missing_bundle_problem(observed));
    problems
        .extend(plan.targets.iter().filter_map(|(fingerprint, target)| target_problem(fingerprint, target, observed)));
    problems.extend(plan.retired.iter().filter_map(|fingerprint| retired_problem(fingerprint, plan, observed)));
    problems.extend(lost_links_problem(plan, observed));
    problems.extend(BundleReader::ALL.into_iter().filter_map(|reader| broken_problem(reader, observed)));
    problems.extend(
        passed_over_problem(observed).or_else(|| hollow_problem(observed)).or_else(|| gone_problem(plan, observed)),
    );
    problems.extend(lost_problem(observed));
    problems.extend(private_key_problems(observed));
    problems
}

fn missing_bundle_problem(observed: &Observed) -> Option<Problem> {
    let store = observed.store;
    let is_missing = !observed.effective.present && !matches!(store.tool, Tool::None);
    is_missing.then(|| {
        let text = format!("{} is missing or unreadable", store.bundle);
        Problem::new(ProblemKind::BundleBroken, text, format!("look at {} on the host", store.bundle))
    })
}

/// An anchor that should be trusted and is not, or not by clients that use OpenSSL's directory.
fn target_problem(fingerprint: &Fingerprint, target: &TargetAnchor, observed: &Observed) -> Option<Problem> {
    let store = observed.store;
    let name = &target.anchor.subject.common;
    let about = |kind, text, next| Some(Problem { kind, sha256: Some(*fingerprint), text, next });
    if !observed.effective.set.contains(fingerprint) {
        let text = format!("{name} ({}) is not in {}", fingerprint.fp16(), store.bundle);
        let next = match store.leaves_out(&target.anchor) {
            Some(why) => format!("{why}, and this store leaves such certificates out: give the CA that issued it"),
            None => String::new(),
        };
        return about(ProblemKind::NotTrusted, text, next);
    }
    if observed.unlinked.contains(fingerprint) {
        let dir = store.hash_dir.unwrap_or_default();
        let (why, next) = linker(observed);
        let text = format!(
            "{name} ({}) has no link in {dir}: clients that use the directory do not trust it{why}",
            fingerprint.fp16()
        );
        return about(ProblemKind::NotLinked, text, next);
    }
    None
}

/// An anchor that should be gone and is trusted, though nobody else has it.
fn retired_problem(fingerprint: &Fingerprint, plan: &Plan, observed: &Observed) -> Option<Problem> {
    let shared = plan.ledger.anchors.get(fingerprint).is_some_and(|entry| entry.shared);
    let lingers = observed.effective.set.contains(fingerprint) && !shared && !observed.foreign_copy(fingerprint);
    lingers.then(|| {
        let text = format!("{} is removed and still in {}", fingerprint.fp16(), observed.store.bundle);
        Problem { kind: ProblemKind::StillTrusted, sha256: Some(*fingerprint), text, next: String::new() }
    })
}

/// A root of the distribution that is distrusted and trusted all the same.
fn distrusted_problem(print: &Fingerprint, plan: &Plan, observed: &Observed) -> Option<Problem> {
    let lingers = observed.effective.set.contains(print) && !plan.changes_store();
    lingers.then(|| {
        let text = format!("{} is distrusted, and still in {}", print.fp16(), observed.store.bundle);
        let next = "look for another file on the host that asks for it; `trust list` shows p11-kit's view";
        Problem { kind: ProblemKind::NotDistrusted, sha256: Some(*print), text, next: next.to_owned() }
    })
}

/// Certificates that are not ours and whose links are gone.
fn lost_links_problem(plan: &Plan, observed: &Observed) -> Option<Problem> {
    let lost_links = lost_links(observed, &plan.ledger).len();
    // After a thorough run, what has no link gets none from the tool.
    if lost_links == 0 || plan.actions.iter().any(StoreAction::is_fresh_extract) {
        return None;
    }
    let store = observed.store;
    let dir = store.hash_dir.unwrap_or_default();
    let (why, next) = linker(observed);
    let text = format!(
        "{dir} has no link to {lost_links} certificates of {} that are not ours: clients that use the directory do not trust them{why}",
        store.bundle
    );
    Some(Problem::new(ProblemKind::NotLinked, text, next))
}

/// Certificates that are not ours and that the bundle has lost.
fn lost_problem(observed: &Observed) -> Option<Problem> {
    let lost = observed.lost.len();
    (lost > 0).then(|| {
        let bundle = observed.store.bundle;
        let text = format!("{bundle} lacks {lost} certificates that are not ours and whose sources are still there");
        Problem::new(ProblemKind::ForeignLost, text, "")
    })
}

/// Private keys in the bundle, or in files that the distribution's own script would copy into it.
fn private_key_problems(observed: &Observed) -> Vec<Problem> {
    let store = observed.store;
    if observed.effective.private_key {
        let next = match keys(observed).next() {
            Some((path, _)) => {
                format!("take the key out of {path}, run the tool, and replace the key: everyone could read it")
            }
            None => "replace the key: everyone could read it".into(),
        };
        let text = format!("{} holds a private key and is readable for everyone", store.bundle);
        return vec![Problem::new(ProblemKind::BundlePrivateKey, text, next)];
    }
    if !matches!(store.tool, Tool::Concatenate { .. }) {
        return Vec::new();
    }
    // We leave such a key out of the bundle; the distribution's own script does not.
    let problem = |(path, line): (&str, usize)| {
        let text =
            format!("{path}:{line} holds a private key: the distribution's own script copies it into {}", store.bundle);
        Problem::new(ProblemKind::ForeignPrivateKey, text, format!("move {path} out of {}", store.anchors_dir))
    };
    keys(observed).map(problem).collect()
}

/// Why no link can be made, and what to do; both empty where the agent makes it by itself.
fn linker(observed: &Observed) -> (String, String) {
    match observed.no_linker {
        None => Default::default(),
        Some(program) => (
            format!("; {program}, which makes the links, is not on the host"),
            format!("install the package {program} on the host"),
        ),
    }
}

/// A bundle that a reader cannot load. What comes from a file that is not ours was so before us, or the run would have been refused.
fn broken_problem(reader: BundleReader, observed: &Observed) -> Option<Problem> {
    let bundle = observed.store.bundle;
    let fault = reader.faults(&observed.effective).first()?;
    let else_ = match reader {
        BundleReader::OpenSsl => "; Go still reads it",
        BundleReader::GnuTls => " and trusts nothing",
    };
    let text = format!("{reader} cannot load {bundle}: line {}: {}{else_}", fault.line, fault.detail);
    let culprits: Vec<(&str, &Fault)> = observed.broken_for(reader).collect();
    let Some((first, fault)) = culprits.first() else {
        return Some(Problem::new(ProblemKind::BundleBroken, text, ""));
    };
    let more = match culprits.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let text = format!("{text}; it comes from {first}:{}{more}, which is not ours", fault.line);
    let files: BTreeSet<&str> = culprits.iter().map(|(path, _)| *path).take(SHOWN_FILES).collect();
    let files: Vec<&str> = files.into_iter().collect();
    Some(Problem::new(ProblemKind::ForeignBroken, text, format!("mend {}, or move it away", files.join(" and "))))
}

/// A root that is not trusted since its line in the distribution's list has no end.
fn passed_over_problem(observed: &Observed) -> Option<Problem> {
    let name = observed.passed_over.as_ref()?;
    let text = format!(
        "the last line of /etc/ca-certificates.conf ({}) has no line end: update-ca-certificates passes over it, and its root is not trusted after the next run",
        shown(name)
    );
    let next = "on the host: echo >> /etc/ca-certificates.conf && update-ca-certificates";
    Some(Problem::new(ProblemKind::ForeignGone, text, next))
}

/// Roots that the distribution's list selects are not trusted: there is nothing in their files.
fn hollow_problem(observed: &Observed) -> Option<Problem> {
    let first = observed.hollow.first()?;
    let text = match observed.hollow.len() {
        1 => format!("{first} is selected by the distribution's list and holds no certificate"),
        n => {
            format!("{first} and {} more files are selected by the distribution's list and hold no certificate", n - 1)
        }
    };
    let text = format!("{text}: the roots that were in it are not trusted; nodetrust did not take them");
    Some(Problem::new(ProblemKind::ForeignGone, text, roots_advice(observed.store.family)))
}

/// Many of the distribution's roots are gone from the bundle, and nobody has said that they should be.
fn gone_problem(plan: &Plan, observed: &Observed) -> Option<Problem> {
    let gone = plan.ledger.gone.len();
    if gone == 0 {
        return None;
    }
    let text = format!(
        "{gone} certificates that are not ours have left {} at once, and so have their sources; nodetrust did not take them",
        observed.store.bundle
    );
    Some(Problem::new(ProblemKind::ForeignGone, text, roots_advice(observed.store.family)))
}

/// What to do where the distribution's roots are gone.
pub fn roots_advice(family: Family) -> &'static str {
    match family {
        Family::Debian => {
            "on the host: is /etc/ca-certificates.conf complete, and are the files in /usr/share/ca-certificates whole? reinstall ca-certificates; to go without a root, deselect it by `dpkg-reconfigure ca-certificates`"
        }
        Family::Alpine => {
            "on the host: is /etc/ca-certificates.conf complete? `apk fix ca-certificates`; to go without a root, put `!` before its line there"
        }
        Family::Redhat | Family::Suse | Family::Arch => {
            "on the host: reinstall ca-certificates; `trust list` should print the distribution's CAs; to go without a root, put it into the blocklist"
        }
        Family::Flatcar | Family::Photon | Family::Directory => {
            "on the host: are the distribution's certificates still in /etc/ssl/certs?"
        }
        Family::Bottlerocket => {
            "does a setting below settings.pki without `trusted = true` name them? apiclient get settings.pki"
        }
    }
}

/// Private keys in source files that are not ours: path and line.
fn keys(observed: &Observed) -> impl Iterator<Item = (&str, usize)> {
    observed.all_hazards().filter_map(|(path, hazard)| match hazard {
        Hazard::PrivateKey(line) => Some((path, *line)),
        _ => None,
    })
}

/// Names of files in one problem; the rest is counted.
const SHOWN_FILES: usize = 10;

fn old_store_problem(old: &OldStore) -> Problem {
    let store = old.family.store();
    let mut places: Vec<String> = old.files.iter().take(SHOWN_FILES).map(|name| store.anchor_place(name)).collect();
    if old.files.len() > SHOWN_FILES {
        places.push(format!("{} more files there", old.files.len() - SHOWN_FILES));
    }
    if !old.in_bundle.is_empty() {
        let prints: Vec<String> = old.in_bundle.iter().take(SHOWN_FILES).map(Fingerprint::fp16).collect();
        places.push(format!("{} in {} ({})", old.in_bundle.len(), store.bundle, prints.join(", ")));
    }
    let why = if old.can_be_left { "" } else { ", and its tool is gone" };
    let text = format!(
        "the {} store, which was the node's before, still has what is ours{why}: {}",
        old.family,
        places.join(", ")
    );
    let next = match (old.can_be_left, store.tool.programs()) {
        (false, programs) => format!(
            "install {} again on the host, then the agent takes them out; or remove them from {} and {} by hand",
            programs.join(" or "),
            store.anchors_dir,
            store.bundle
        ),
        (true, _) => String::new(),
    };
    Problem::new(ProblemKind::OldStore, text, next)
}

/// Foreign certificates that a run of the tool lost: in the bundle before, not ours, and not in it any more.
pub fn lost_foreign(before: &Effective, after: &Effective, ours: &BTreeSet<Fingerprint>) -> BTreeSet<Fingerprint> {
    before.set.difference(&after.set).filter(|fingerprint| !ours.contains(fingerprint)).copied().collect()
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
