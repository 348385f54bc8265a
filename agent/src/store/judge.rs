//! Whether a bundle that the store's tool has made may stand, and whose fault it is if not.

use std::collections::BTreeSet;

use nodetrust_core::{
    certificate::{bundle, fingerprint::Fingerprint, pem},
    observed::{Effective, Hazard, Observed, SourceHazard},
    problem::{Problem, ProblemKind},
    store::{
        Family, TrustStore,
        anchor_file::file_name,
        harm::{Departed, Harm, harm},
    },
    verify::{lost_foreign, roots_advice},
};

use crate::{
    host::exec::HostExec,
    store::{
        distribution::{deselected, overruled, with_a_source},
        failure::ExtractFailure,
        hazards,
        observe::{StoreCache, observe},
        read::{ObserveError, at, usable},
    },
};

/// What a new bundle is judged by.
#[derive(Debug)]
pub struct BundleJudge<'a> {
    /// Runs programs on the host.
    pub exec: &'a HostExec<'a>,
    /// The store.
    pub store: &'static TrustStore,
    /// The bundle before.
    pub before: &'a Effective,
    /// Every anchor that is or was ours: their leaving the bundle is no loss.
    pub ours: &'a BTreeSet<Fingerprint>,
    /// Anchors whose files are in place.
    pub expected: &'a BTreeSet<Fingerprint>,
    /// Certificates that are not ours and are wanted to leave: their files were taken over.
    pub leaving: &'a BTreeSet<Fingerprint>,
    /// How many repetitions other people's files explain.
    pub repeats: usize,
}

impl BundleJudge<'_> {
    /// The bundle, decoded, if it may stand.
    pub(crate) fn judge(&self, bytes: &[u8], program: &str) -> Result<Effective, ExtractFailure> {
        self.judge_read(bundle::read_after(bytes, self.before), bytes, program)
    }

    /// The same for one that has been decoded already.
    fn judge_read(&self, after: Effective, bytes: &[u8], program: &str) -> Result<Effective, ExtractFailure> {
        let after = if bytes.is_empty() { Effective::default() } else { after };
        let departed = self.departed(&after)?;
        if let Some(harm) = harm(self.before, &after, departed) {
            return Err(ExtractFailure::Final(self.harm_problem(&harm, departed, bytes, &after, program)));
        }
        if departed.dropped > 0 {
            // somebody had put them into the bundle itself, or has removed their files: the tool knows nothing of them
            tracing::warn!(count = departed.dropped, "certificates without a source have left the bundle");
        }
        if after.repeated() > self.repeats.max(self.before.repeated()) {
            let text = format!("{program} wrote {} certificates twice: did two runs of it overlap?", after.repeated());
            return Err(ExtractFailure::Again(Problem::new(ProblemKind::Extract, text, "")));
        }
        let missing: BTreeSet<Fingerprint> = self.expected.difference(&after.set).copied().collect();
        if !missing.is_empty() {
            let text = format!("{program} left out {} of our anchors", missing.len());
            // only for the words: an error there is no reason to say nothing
            let overruled = overruled(self.exec.root, self.store, &missing).unwrap_or_default();
            let Some(first) = overruled.first() else {
                return Err(ExtractFailure::Again(Problem::new(ProblemKind::NotTrusted, text, "")));
            };
            let text = format!(
                "{text}; {} of them, such as {}, are distrusted by the distribution or in its blocklist",
                overruled.len(),
                first.fp16()
            );
            let next =
                "take it out of the source, or lift the distrust: `trust list --filter=blocklist` on the host shows it";
            return Err(ExtractFailure::Again(Problem::new(ProblemKind::NotTrusted, text, next)));
        }
        Ok(after)
    }

    /// The same for a tool that pastes files. Somebody else's block without an end, which was in the bundle before us, swallows what
    /// follows; then our anchors go to the front, and the bundle with them comes back.
    pub(crate) fn judge_pasted(
        &self,
        bytes: Vec<u8>,
        program: &str,
    ) -> Result<(Effective, Option<Vec<u8>>), ExtractFailure> {
        let after = bundle::read_after(&bytes, self.before);
        let mut front = Vec::new();
        if self.store.pastes_files && !after.faults.is_empty() {
            for missing in self.expected.difference(&after.set) {
                let file = format!("{}/{}", self.store.anchors_dir, file_name(self.store, missing));
                let own = usable(self.exec.root.own_read(&file, pem::MAX_FILE_BYTES as u64)).map_err(at(&file));
                let own = own.map_err(|error| ExtractFailure::unread(&error))?.unwrap_or_default();
                if bundle::read(&own).set.contains(missing) {
                    front.extend_from_slice(&own);
                }
            }
        }
        if front.is_empty() {
            return Ok((self.judge_read(after, &bytes, program)?, None));
        }
        front.extend_from_slice(&bytes);
        Ok((self.judge(&front, program)?, Some(front)))
    }

    /// Counts the foreign certificates that have left the bundle.
    pub(crate) fn departed(&self, after: &Effective) -> Result<Departed, ExtractFailure> {
        let failed = |error: ObserveError| ExtractFailure::unread(&error);
        let lost = lost_foreign(self.before, after, self.ours);
        let of = self.before.set.difference(self.ours).count();
        let dropped = lost.len();
        let with_source =
            with_a_source(self.exec.root, self.store, lost.clone(), Some(self.exec.limit)).map_err(failed)?;
        let gone = if dropped > with_source.len() {
            let deselected = deselected(self.exec.root, self.store).map_err(failed)?;
            let is_unwanted = |print: &&Fingerprint| deselected.contains(print) || self.leaving.contains(print);
            lost.difference(&with_source).filter(|print| !is_unwanted(print)).count()
        } else {
            0
        };
        Ok(Departed { lost: with_source.len(), gone, of, dropped })
    }

    fn harm_problem(&self, harm: &Harm, departed: Departed, bytes: &[u8], after: &Effective, program: &str) -> Problem {
        let Departed { lost, gone, of, .. } = departed;
        match harm {
            Harm::NoBundle => Problem::new(
                ProblemKind::BundleBroken,
                format!("{program} left no {}", self.store.bundle),
                format!("run {program} on the host and look at its output"),
            ),
            Harm::Lost => {
                let text = format!(
                    "{program} left out {lost} of {of} certificates that are not ours, though their sources are still there"
                );
                Problem::new(ProblemKind::ForeignLost, text, self.lost_advice())
            }
            Harm::MostGone => {
                let text = format!(
                    "{program} left out {gone} of {of} certificates that are not ours: their sources are gone, and nobody has deselected them"
                );
                Problem::new(ProblemKind::ForeignLost, text, roots_advice(self.store.family))
            }
            Harm::Broken(reader, fault) => {
                let found = self.culprits(bytes, after);
                let named = found.iter().filter_map(|found| {
                    let fault = found.hazard.fault_for(*reader)?;
                    Some((found.path.as_str(), fault.line, fault.detail.as_str()))
                });
                let named = hazards::name_them(named);
                let (why, next) = if named.is_empty() {
                    (
                        format!("line {}: {}", fault.line, fault.detail),
                        "look for a broken file in the anchor directories".into(),
                    )
                } else {
                    (format!("because of {named}"), format!("mend what is named, or move it away: {named}"))
                };
                let text = format!("{program} made a bundle that {reader} cannot load at all, {why}");
                Problem::new(ProblemKind::BundleBroken, text, next)
            }
            Harm::PrivateKey => {
                let found = self.culprits(bytes, after);
                let named = hazards::name_them(found.iter().filter_map(|found| match found.hazard {
                    Hazard::PrivateKey(line) => Some((found.path.as_str(), line, "")),
                    _ => None,
                }));
                let next = if named.is_empty() {
                    "look for a private key in the anchor directories".to_owned()
                } else {
                    format!("take the private key out of {named}, or move the file away")
                };
                let text = format!("{program} copied a private key into its bundle");
                Problem::new(ProblemKind::BundlePrivateKey, text, next)
            }
        }
    }

    /// What lies in the sources now and may have come in since the plan was made.
    fn culprits(&self, bytes: &[u8], after: &Effective) -> Vec<SourceHazard> {
        if !self.store.pastes_files {
            // only for the words: an error there is no reason to say nothing
            return hazards::holders(self.exec.root, self.store, bytes, after).unwrap_or_default();
        }
        let observed = observe(self.exec.root, self.store, &BTreeSet::new(), &mut StoreCache::default());
        let all = |observed: Observed| {
            let all = observed.all_hazards();
            all.map(|(path, hazard)| SourceHazard { path: path.to_owned(), hazard: hazard.clone() }).collect()
        };
        observed.map(all).unwrap_or_default() // as above
    }

    fn lost_advice(&self) -> &'static str {
        match self.store.family {
            Family::Debian => {
                "on the host: is /etc/ca-certificates.conf there and complete? dpkg-reconfigure ca-certificates writes it anew"
            }
            Family::Redhat | Family::Suse | Family::Arch => {
                "on the host: is p11-kit's trust module installed (package p11-kit-trust)? `trust list` should print the distribution's CAs"
            }
            _ => "on the host: run the tool by hand and look at its output",
        }
    }
}
