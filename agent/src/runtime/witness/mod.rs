//! Asking the container runtime itself whether it trusts a registry: it is told to pull an image that nobody can have (facts C.9).
//!
//! A question takes as long as the network does, so it is asked beside the cycles, without the lock. Only its answer is written into
//! the ledger, under the lock and in a moment; the next cycle draws the consequences. Nothing is asked by `status` and `plan`.

mod rounds;

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use nodetrust_core::{
    certificate::fingerprint::{Fingerprint, SetDigest, content_digest, hex},
    ledger::Ledger,
    probe::{Failure, Probe, ProbeVerdict, Target, Testimonial},
    runtime::{
        kinds::RuntimeKind,
        process::ServiceProcess,
        pull_answer::{self, DIGEST_BYTES, PullEnd, RefusedServer, classify},
        registry::{Registry, of_images},
        registry_dir::Setting,
        services::{ServiceState, Services},
        witness::Witness,
    },
    time::Moment,
};

use tokio::sync::{Notify, watch};

use crate::{
    config::Settings,
    error::chain,
    host::{self, ledger_file, lock::HostLock, root::HostRoot, socket::converse},
    probe::{answer, ask_by},
    reconcile::ledger_writer::LedgerWriter,
    resolve::Names,
    runtime::{
        self,
        cri::{self, CriError, GrpcError},
        docker,
    },
};

pub use rounds::serve;

/// How long one pull may take. A registry that answers at all is faster.
const PULL: Duration = Duration::from_secs(20);
/// How long our own handshake may take, with the look-up of the name.
const HANDSHAKE: Duration = Duration::from_secs(25);
/// How long the runtime may take to list its images.
const LISTING: Duration = Duration::from_secs(10);

/// The runtime that is asked, as the last cycle saw it, and what was in force then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its kind.
    pub kind: RuntimeKind,
    /// Its unit.
    pub unit: String,
    /// Its CRI socket.
    pub socket: String,
    /// Its process.
    pub process: ServiceProcess,
    /// The registry directory that the process reads.
    pub setting: Setting,
    /// The set of our anchors that is in force.
    pub set: SetDigest,
    /// Whether that set has any anchor.
    pub has_anchors: bool,
    /// Registries about which the ledger has an answer of this process with this set in force.
    pub known: BTreeSet<String>,
}

/// What those who ask the runtime share with the agent's loop.
#[derive(Debug, Clone)]
pub struct RuntimeLine {
    /// The runtime, as the last cycle saw it.
    pub subjects: watch::Receiver<Option<Subject>>,
    /// Notified when the ledger has a new answer.
    pub answered: Arc<Notify>,
}

/// A question with its answer.
#[derive(Debug)]
pub struct Asked {
    /// The registry.
    pub registry: Registry,
    /// The answer, as the ledger keeps it.
    pub witness: Witness,
    /// The answer, as it is shown.
    pub probe: Probe,
}

impl Subject {
    /// The runtime that can be asked; None if there is none, or it does not work.
    pub fn of(services: &Services, set: SetDigest, has_anchors: bool, ledger: &Ledger) -> Option<Self> {
        let runtime = services.runtime.as_ref()?;
        let works = runtime.service.state == ServiceState::Active && runtime.health.is_ok();
        let process = runtime.service.process.clone().filter(|_| works)?;
        let counts = |witness: &Witness| witness.process == process && witness.set == set && !witness.is_open();
        let known =
            ledger.witnesses.iter().filter(|(_, witness)| counts(witness)).map(|(key, _)| key.clone()).collect();
        Some(Self {
            kind: runtime.kind,
            unit: runtime.service.unit.clone(),
            socket: runtime.socket.clone(),
            process,
            setting: runtime.certs.setting.clone(),
            set,
            has_anchors,
            known,
        })
    }

    /// Whether an answer about one is valid for the other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.process == other.process && self.set == other.set
    }
}

/// Asks the runtime about a registry, and has a handshake with the same server in the same way. Blocks for as long as both take.
pub fn ask(root: &HostRoot, settings: Option<&Settings>, subject: &Subject, registry: &Registry) -> Asked {
    let digits = digits();
    let ended = pull(root, subject, &pull_answer::image(registry.name(), &digits));
    let mut said = classify(ended.as_pull_end(), &digits);
    if runtime::process_now(root, subject.kind, &subject.unit).as_ref() != Some(&subject.process) {
        // The answer may be of either process.
        said = classify(PullEnd::NoAnswer("the runtime was restarted while it was asked"), &digits);
    }
    let way = runtime::registry_way(root, subject.kind, &subject.unit, &subject.setting, registry);
    let server = match &said.refused {
        Some(RefusedServer::Server(server)) => Target::parse(server).unwrap_or_else(|_| registry.server()),
        Some(RefusedServer::Proxy | RefusedServer::Unnamed) | None => registry.server(),
    };
    let own = handshake(root, settings, subject, &server);
    let handshake_error = match &said.refused {
        Some(RefusedServer::Proxy) => Some("the certificate that it refuses is that of its proxy".to_owned()),
        _ => Some(own.text.clone()).filter(|_| !own.is_trusted()),
    };
    let witness = Witness {
        process: subject.process.clone(),
        set: subject.set,
        answer: said.answer,
        words: said.words,
        verifies_tls: way.verifies_tls,
        anchor: anchor_of(&own).filter(|_| server == registry.server()),
        own_roots: way.own_roots,
        handshake_error,
        at: moment(root),
        restarted: None,
    };
    let unverified = way.because.as_deref().filter(|_| !way.verifies_tls);
    let testimonial =
        Testimonial { unit: &subject.unit, witness: &witness, refused: said.refused.as_ref(), unverified };
    let probe = own.through_runtime(&registry.key(), testimonial);
    Asked { registry: registry.clone(), witness, probe }
}

/// The registries of the node's images whose certificate chain ends in an anchor of ours, as our own handshake shows it; the most used
/// first, at most `most`. Registries in `known` are skipped, and those that were reached are added to it.
///
/// # Errors
/// A sentence, if the runtime does not list its images.
pub fn registries_of_ours(
    root: &HostRoot,
    settings: &Settings,
    subject: &Subject,
    known: &mut BTreeSet<String>,
    most: usize,
) -> Result<Vec<Registry>, String> {
    let images = match subject.kind {
        RuntimeKind::Docker => docker::images(root, LISTING).map_err(|error| chain(&error)),
        _ => cri::images(root, &subject.socket, LISTING).map_err(|error| chain(&error)),
    };
    let mut ours = Vec::new();
    for registry in of_images(images?.iter().map(String::as_str)) {
        if ours.len() == most || !known.insert(registry.key()) {
            continue;
        }
        let probe = handshake(root, Some(settings), subject, &registry.server());
        if probe.verdict == ProbeVerdict::NotReached {
            known.remove(&registry.key());
        }
        ours.extend(anchor_of(&probe).map(|_| registry));
    }
    Ok(ours)
}

/// Writes answers into the ledger, for `status` and for the next cycle. Returns whether one of them is new; an answer that the ledger has
/// is not written again. Where there is no ledger, nothing of ours is on the node, and nothing is written.
///
/// # Errors
/// If the lock is kept by somebody else for longer than `patience`, or the ledger cannot be read or written.
pub fn remember(root: &HostRoot, answers: &[Asked], patience: Duration) -> io::Result<bool> {
    let read = || -> io::Result<Option<Arc<Ledger>>> {
        match ledger_file::read(root)? {
            ledger_file::LedgerRead::Good(ledger) => Ok(Some(ledger).filter(|ledger| !ledger.is_blank())),
            ledger_file::LedgerRead::Damaged(_) => Ok(None), // the next cycle reports it and makes it anew
        }
    };
    if read()?.is_none() {
        return Ok(false);
    }
    let _lock = HostLock::take(root, patience)?;
    let Some(known) = read()? else { return Ok(false) };
    let mut writer = LedgerWriter::new(root, Ledger::clone(&known), host::wall());
    writer.record_answers(answers.iter().map(|asked| (asked.registry.key(), asked.witness.clone())))?;
    Ok(writer.into_ledger().witnesses != known.witnesses)
}

/// Our own handshake with a server, by way of the runtime's proxy and judged by the host's bundle.
fn handshake(root: &HostRoot, settings: Option<&Settings>, subject: &Subject, server: &Target) -> Probe {
    let proxy = runtime::environment(root, subject.kind, &subject.unit)
        .map_err(|why| format!("the runtime's environment is not known: {why}"))
        .and_then(|environment| environment.proxy_for(server));
    let asked = proxy.and_then(|proxy| {
        let names = Names::of_host(root);
        let answer = converse(HANDSHAKE, ask_by(&names, server, proxy.as_ref())).map_err(|error| error.to_string())?;
        answer.ok_or_else(|| format!("no answer within {} s", HANDSHAKE.as_secs()))
    });
    match asked {
        Ok(presented) => answer(server, &presented, root, settings, None),
        Err(why) => Probe::not_reached(server, &Failure::Network(why)),
    }
}

/// The anchor of ours in which a chain ends that programs on the host trust.
fn anchor_of(probe: &Probe) -> Option<Fingerprint> {
    let end = probe.anchor.as_ref().filter(|_| probe.is_trusted())?;
    end.state.map(|_| end.sha256)
}

/// How a pull ended.
#[derive(Debug)]
enum Ended {
    Pulled,
    Grpc(u32, String),
    Docker(String),
    NoAnswer(String),
}

impl Ended {
    fn as_pull_end(&self) -> PullEnd<'_> {
        match self {
            Self::Pulled => PullEnd::Pulled,
            Self::Grpc(code, text) => PullEnd::Grpc(*code, text),
            Self::Docker(text) => PullEnd::Docker(text),
            Self::NoAnswer(why) => PullEnd::NoAnswer(why),
        }
    }
}

fn pull(root: &HostRoot, subject: &Subject, image: &str) -> Ended {
    if subject.kind == RuntimeKind::Docker {
        // Docker has no CRI; its own API pulls.
        return match docker::pull(root, image, PULL) {
            Ok(docker::Pull::Done) => Ended::Pulled,
            Ok(docker::Pull::Failed(message)) => Ended::Docker(message),
            Err(error) => Ended::NoAnswer(chain(&error)),
        };
    }
    match cri::pull(root, &subject.socket, image, PULL) {
        Ok(_) => Ended::Pulled,
        Err(CriError::Call { call: "PullImage", source: GrpcError::Status { code, message }, .. }) => {
            Ended::Grpc(code as u32, message)
        }
        Err(error) => Ended::NoAnswer(chain(&error)),
    }
}

/// A digest that nobody has.
fn digits() -> String {
    let mut bytes = [0; DIGEST_BYTES];
    if crate::tls::provider().secure_random.fill(&mut bytes).is_err() {
        // Any digest will do that is no image's. This is the digest of a text that is no image.
        bytes = content_digest(format!("nodetrust {:?}", std::time::Instant::now()).as_bytes());
    }
    hex(&bytes)
}

fn moment(root: &HostRoot) -> Moment {
    // Without a boot id times cannot be compared; each cycle reports that.
    host::moment(root).unwrap_or_else(|_| Moment { wall: host::wall(), boottime: 0, boot_id: String::new() })
}

#[cfg(test)]
mod tests;
