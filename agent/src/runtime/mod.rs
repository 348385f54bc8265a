//! The host's container runtime and further services: what runs there, for the core, and how it is made to follow the bundle.
//!
//! In: the host, the configuration, the ledger. Out: [`Services`], which the core judges. Nothing is restarted for a reason that
//! is known only here.

mod changes;
mod clues;
mod containerd;
pub mod cri;
pub mod docker;
mod health;
mod launch;
mod processes;
mod registry_dir;
mod restart;
mod roots;
mod units;
mod ways;
pub mod witness;

use std::collections::BTreeMap;

use nodetrust_core::{
    ledger::Ledger,
    problem::{Problem, ProblemKind},
    runtime::{
        self, CRI_DOCKERD, DetectedRuntime, RuntimeDetection,
        environment::Environment,
        kinds::RuntimeKind,
        process::ServiceProcess,
        registry_dir::Setting,
        services::{HoldReason, Runtime, Service, ServiceState, Services},
        settings::RuntimeSettings,
        staleness::aftermath,
    },
    time::Uptime,
};

use clues::Located;
use health::{ANSWERING, look_at_cri};
use units::{ASKING, Init, init, openrc_units, pid, service};

use crate::{
    error::chain,
    host::{
        exec::HostExec,
        openrc,
        root::HostRoot,
        systemd::{self, Unit},
    },
};

pub use registry_dir::{remove_file, watched, write_file};
pub use restart::{Ordered, Restarted, longest_cycle, restart, restart_by};
pub use ways::{environment, process_now, registry_way};

/// What was found out once for a process and does not change while it runs.
#[derive(Debug, Default)]
pub struct RuntimeCache {
    /// The runtime's process, and what it reads as its registry directory.
    certs: Option<(ServiceProcess, Setting)>,
    /// The environment that it was started with.
    environment: Option<(ServiceProcess, Environment)>,
}

/// Looks at the host's services.
pub fn look(
    exec: &HostExec<'_>,
    policy: &RuntimeSettings,
    ledger: &Ledger,
    now: &Uptime,
    cache: &mut RuntimeCache,
) -> (Services, Vec<Problem>) {
    if policy.ignored {
        return (Services::default(), Vec::new());
    }
    let units = match units_of(exec.root, policy) {
        Ok(units) => units,
        Err((sign, problem)) => return (Services { sign, ..Services::default() }, vec![problem]),
    };
    let mut problems = Vec::new();
    let located = clues::find(exec.root, &units, policy);
    let mut sign = None;
    let runtime = match &located.detection {
        RuntimeDetection::Known(found) => units.get(&found.unit).map(|unit| {
            let look = RuntimeLook { exec, units: &units, ledger, boot_id: &now.boot_id };
            let (runtime, broken) = look.look_at_runtime(found, unit, &located, cache);
            problems.extend(broken);
            problems.extend(aftermath(&runtime, &ledger.attempts, &now.boot_id));
            if runtime.service.state.is_down() {
                // what runs or answers all the same was started by a unit that is not known
                sign = clues::sign(exec.root);
            }
            runtime
        }),
        RuntimeDetection::Sign(fact) => {
            sign = Some(fact.clone());
            None
        }
        RuntimeDetection::Nothing => {
            sign = sign_of(exec.root, policy);
            None
        }
    };
    problems.extend(not_found(policy, &units, runtime.as_ref()));
    let (also, missing) = further_units(exec.root, policy, &units, runtime.as_ref(), &now.boot_id);
    problems.extend(missing);
    (Services { runtime, sign, also, ..Services::default() }, problems)
}

/// The units of the host's init system that may be a runtime's, and those that the configuration names.
///
/// # Errors
/// What says that there is a runtime all the same, if anything does, and the problem.
fn units_of(root: &HostRoot, policy: &RuntimeSettings) -> Result<BTreeMap<String, Unit>, (Option<String>, Problem)> {
    let mut names: Vec<&str> = runtime::units().collect();
    names.extend(policy.unit.iter().chain(&policy.also).map(String::as_str));
    match init(root) {
        Init::Systemd => systemd::units(root, &names, ASKING)
            .map_err(|error| (Some("systemd could not be asked".into()), problem(chain(&error), error.next()))),
        Init::OpenRc => openrc_units(root, &names)
            .map_err(|error| (Some("OpenRC could not be asked".into()), problem(chain(&error), error.next()))),
        Init::Other if policy.kind.is_some() || !policy.also.is_empty() => {
            let text = "the host runs neither systemd nor OpenRC: no service can be looked at or restarted";
            let next = "restart the runtime by hand, or set runtime.kind to none";
            Err((sign_of(root, policy), problem(text.into(), next)))
        }
        Init::Other => Ok(BTreeMap::new()),
    }
}

/// What says that there is a runtime though none was found.
fn sign_of(root: &HostRoot, policy: &RuntimeSettings) -> Option<String> {
    clues::sign(root).or_else(|| policy.kind.map(|kind| format!("runtime.kind is {kind}, and no unit of it was found")))
}

/// The runtime that the configuration names and that is not there.
fn not_found(policy: &RuntimeSettings, units: &BTreeMap<String, Unit>, runtime: Option<&Runtime>) -> Option<Problem> {
    if let Some(name) = policy.unit.as_ref().filter(|name| !units.contains_key(*name)) {
        return Some(problem(
            format!("runtime.unit names {name}, which does not run on this host"),
            "start it, or correct the name; no other unit is taken for it",
        ));
    }
    let kind = policy.kind.filter(|_| runtime.is_none())?;
    Some(problem(format!("no unit of {} is on this host", kind.as_str()), "correct runtime.kind, or set runtime.unit"))
}

/// The further units of the configuration, and those of them that the host does not have.
fn further_units(
    root: &HostRoot,
    policy: &RuntimeSettings,
    units: &BTreeMap<String, Unit>,
    runtime: Option<&Runtime>,
    boot_id: &str,
) -> (BTreeMap<String, Service>, Vec<Problem>) {
    let of_runtime = runtime.and_then(|runtime| units.get(&runtime.service.unit));
    let (mut also, mut problems) = (BTreeMap::new(), Vec::new());
    for name in &policy.also {
        match units.get(name) {
            // the runtime by another of its names
            Some(unit) if of_runtime.is_some_and(|own| own.name == unit.name) => {}
            Some(unit) => {
                also.insert(name.clone(), service(root, name, unit, None, boot_id));
            }
            None => problems.push(problem(
                format!("runtime.alsoRestart names {name}, which this host does not have"),
                "correct the name, or leave it out",
            )),
        }
    }
    (also, problems)
}

/// Reads what `/proc/PID/stat` says of a process, for tests/fuzz: its name and when it started.
pub(crate) fn read_stat(text: &str) -> Option<(String, u64)> {
    processes::read_stat(text)
}

/// Reads `/proc/PID/cmdline`, for tests/fuzz: the configuration that a runtime was started with.
pub(crate) fn read_command_line(bytes: &[u8]) -> Option<String> {
    let words = processes::words(bytes);
    runtime::containerd::option(&words, &["config", "c"]).map(str::to_owned)
}

/// What a look at the runtime takes.
struct RuntimeLook<'a> {
    exec: &'a HostExec<'a>,
    units: &'a BTreeMap<String, Unit>,
    ledger: &'a Ledger,
    boot_id: &'a str,
}

impl RuntimeLook<'_> {
    fn look_at_runtime(
        &self,
        found: &DetectedRuntime,
        unit: &Unit,
        located: &Located,
        cache: &mut RuntimeCache,
    ) -> (Runtime, Option<Problem>) {
        let root = self.exec.root;
        let row = found.kind.row();
        let service = service(root, &found.unit, unit, row.child, self.boot_id);
        let socket = clues::socket(root, found.kind, &located.sockets);
        let has_shim = located.is_kubelets || CRI_DOCKERD.iter().any(|shim| self.units.contains_key(*shim));
        let mut version = String::new();
        let mut health = match service.state {
            // an engine that no kubelet uses has no socket for one, and is asked below
            ServiceState::Active if found.kind == RuntimeKind::Docker && !has_shim => Ok(()),
            ServiceState::Active => look_at_cri(root, found.kind, &socket, &mut version),
            ServiceState::Changing => Err("it is starting or stopping".into()),
            ServiceState::Down(_) | ServiceState::Failed(_) => Err("it does not run".into()),
        };
        let runs = version.clone();
        let mut spares = Ok(());
        if row.shares_group && unit.kill_mode != "process" {
            let why =
                format!("a restart of {} would end every container: its KillMode is {}", found.unit, unit.kill_mode);
            spares = Err((HoldReason::KillMode, why));
        }
        if matches!(init(root), Init::OpenRc) && !openrc::shares_processes(root) {
            let why = "OpenRC restarts services only from the host's PID namespace".to_owned();
            spares = Err((HoldReason::NoAccess, why));
        }
        if found.kind == RuntimeKind::Docker && service.state == ServiceState::Active {
            match docker::info(root, ANSWERING) {
                Ok(info) => {
                    version = info.server_version;
                    if !info.live_restore_enabled {
                        let why = "a restart of Docker would stop every container: live-restore is off".to_owned();
                        spares = Err((HoldReason::LiveRestore, why));
                    }
                }
                Err(error) => health = Err(chain(&error)),
            }
        }
        let setting = self.setting(found.kind, unit, service.process.as_ref(), &runs, cache);
        let certs = registry_dir::look(root, setting, self.ledger);
        let broken = certs.broken.as_ref().map(|path| {
            let text = format!(
                "{path} holds no certificate that the runtime reads, and fails every pull through its directory"
            );
            Problem::new(ProblemKind::RegistryCerts, text, format!("mend {path}, or move it away"))
        });
        let because = found.because.clone();
        let elsewhere = service.process.as_ref().and_then(|process| self.elsewhere(found, unit, process, cache));
        (Runtime { kind: found.kind, because, version, socket, service, health, spares, certs, elsewhere }, broken)
    }

    /// What says that the process reads other roots than the node's, or that this cannot be told.
    fn elsewhere(
        &self,
        found: &DetectedRuntime,
        unit: &Unit,
        process: &ServiceProcess,
        cache: &mut RuntimeCache,
    ) -> Option<String> {
        let root = self.exec.root;
        if cache.environment.as_ref().is_none_or(|(known, _)| known != process) {
            match ways::environment(root, found.kind, &found.unit) {
                Ok(environment) => cache.environment = Some((process.clone(), environment)),
                Err(why) => return Some(format!("which roots {} has it read cannot be told: {why}", found.unit)),
            }
        }
        let (_, environment) = cache.environment.as_ref()?;
        roots::elsewhere(root, pid(root, found.kind, unit), &found.unit, environment)
    }

    /// What the process reads as its registry directory. `runs` is the version that it says.
    fn setting(
        &self,
        kind: RuntimeKind,
        unit: &Unit,
        process: Option<&ServiceProcess>,
        runs: &str,
        cache: &mut RuntimeCache,
    ) -> Setting {
        let root = self.exec.root;
        let Some(launch) = launch::launch(root, kind, pid(root, kind, unit), unit) else { return Setting::Unsupported };
        let written = self.ledger.registry.as_ref().map(|known| (&known.process, &known.setting));
        let known = cache.certs.as_ref().map(|(process, setting)| (process, setting)).into_iter().chain(written);
        if let Some((_, setting)) = known.into_iter().find(|(known, _)| Some(*known) == process) {
            return setting.clone();
        }
        let since = process.map(|process| changes::Since::new(root, process, unit));
        let setting = containerd::setting(self.exec, &launch, runs, since.as_ref());
        // what could not be told may be told the next time
        let is_known = !matches!(setting, Setting::Unknown(_));
        cache.certs = process.cloned().filter(|_| is_known).map(|process| (process, setting.clone()));
        setting
    }
}

fn problem(text: String, next: &str) -> Problem {
    Problem::new(ProblemKind::Services, text, next)
}
