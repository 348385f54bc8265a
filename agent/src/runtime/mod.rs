//! The host's container runtime and further services: what runs there, for the core, and how it is made to follow the bundle.
//!
//! In: the host, the configuration, the ledger. Out: [`Services`], which the core judges. Nothing is restarted for a reason that
//! is known only here.

mod changes;
mod clues;
mod containerd;
pub mod cri;
pub mod docker;
mod launch;
mod processes;
mod registry_dir;
mod restart;
mod roots;
mod ways;
pub mod witness;

use std::{collections::BTreeMap, time::Duration};

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

use crate::{
    host::{
        exec::HostExec,
        openrc,
        root::HostRoot,
        systemd::{self, Unit},
    },
    store::extract::chain,
};

pub use registry_dir::{remove_file, watched, write_file};
pub use restart::{LONGEST_RESTART, Restarted, restart};
pub use ways::{environment, process_now, registry_way};

/// How long the service manager may take to say how its units are.
const ASKING: Duration = Duration::from_secs(5);
/// How long the runtime may take to answer.
const ANSWERING: Duration = Duration::from_secs(5);

/// What does not change while a process runs.
#[derive(Debug, Default)]
pub struct Cache {
    /// what the runtime's process reads as its registry directory
    certs: Option<(ServiceProcess, Setting)>,
    /// the environment that it was started with
    environment: Option<(ServiceProcess, Environment)>,
}

/// Looks at the host's services.
pub fn look(
    exec: &HostExec<'_>,
    policy: &RuntimeSettings,
    ledger: &Ledger,
    now: &Uptime,
    cache: &mut Cache,
) -> (Services, Vec<Problem>) {
    if policy.ignored {
        return (Services::default(), Vec::new());
    }
    let root = exec.root;
    let usual = runtime::units();
    let mut names: Vec<&str> = usual.collect();
    names.extend(policy.unit.iter().chain(&policy.also).map(String::as_str));
    let unknown =
        |sign: String, problem: Problem| (Services { sign: Some(sign), ..Services::default() }, vec![problem]);
    let units = match init(root) {
        Init::Systemd => match systemd::units(root, &names, ASKING) {
            Ok(units) => units,
            Err(error) => return unknown("systemd could not be asked".into(), problem(chain(&error), error.next())),
        },
        Init::OpenRc => match openrc_units(root, &names) {
            Ok(units) => units,
            Err(error) => return unknown("OpenRC could not be asked".into(), problem(chain(&error), error.next())),
        },
        Init::Other if policy.kind.is_some() || !policy.also.is_empty() => {
            let text = "the host runs neither systemd nor OpenRC: no service can be looked at or restarted";
            let sign = clues::sign(root).or_else(|| policy.kind.map(configured));
            let problems = vec![problem(text.into(), "restart the runtime by hand, or set runtime.kind to none")];
            return (Services { sign, ..Services::default() }, problems);
        }
        Init::Other => BTreeMap::new(),
    };
    let mut problems = Vec::new();
    let boot = &now.boot_id;
    let located = clues::find(root, &units, policy);
    let mut sign = None;
    let runtime = match &located.detection {
        RuntimeDetection::Known(found) => units.get(&found.unit).map(|unit| {
            let node = Node { exec, units: &units, ledger, boot_id: boot };
            let (runtime, broken) = node.look_at_runtime(found, unit, &located, cache);
            problems.extend(broken);
            problems.extend(aftermath(&runtime, &ledger.tries));
            if matches!(runtime.service.state, ServiceState::Down(_)) {
                // what runs or answers all the same was started by a unit that is not known
                sign = clues::sign(root);
            }
            runtime
        }),
        RuntimeDetection::Sign(fact) => {
            sign = Some(fact.clone());
            None
        }
        RuntimeDetection::Nothing => {
            sign = clues::sign(root).or_else(|| policy.kind.map(configured));
            None
        }
    };
    if let Some(name) = policy.unit.as_ref().filter(|name| !units.contains_key(*name)) {
        problems.push(problem(
            format!("runtime.unit names {name}, which does not run on this host"),
            "start it, or correct the name; no other unit is taken for it",
        ));
    } else if runtime.is_none() && policy.kind.is_some() {
        let kind = policy.kind.map(RuntimeKind::as_str).unwrap_or_default();
        problems
            .push(problem(format!("no unit of {kind} is on this host"), "correct runtime.kind, or set runtime.unit"));
    }
    let mut also = BTreeMap::new();
    for name in &policy.also {
        match units.get(name) {
            // by another of its names
            Some(unit)
                if runtime.as_ref().is_some_and(|runtime: &Runtime| {
                    units.get(&runtime.service.unit).is_some_and(|own| own.name == unit.name)
                }) => {}
            Some(unit) => {
                also.insert(name.clone(), service(root, name, unit, None, boot));
            }
            None => problems.push(problem(
                format!("runtime.alsoRestart names {name}, which this host does not have"),
                "correct the name, or leave it out",
            )),
        }
    }
    (Services { runtime, sign, also, ..Services::default() }, problems)
}

/// How services are kept on a host.
enum Init {
    Systemd,
    OpenRc,
    Other,
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

fn init(root: &HostRoot) -> Init {
    // sd_booted(3)
    if matches!(root.stat("/run/systemd/system"), Ok(Some(_))) {
        return Init::Systemd;
    }
    if openrc::is_booted(root).unwrap_or(false) { Init::OpenRc } else { Init::Other }
}

/// OpenRC's services under the names of systemd's units, as far as that tells.
fn openrc_units(root: &HostRoot, names: &[&str]) -> Result<BTreeMap<String, Unit>, openrc::OpenRcError> {
    let mut units = BTreeMap::new();
    for name in names {
        let service = name.trim_end_matches(".service");
        let active = match openrc::status(root, service)? {
            openrc::OpenRcState::Started => "active",
            openrc::OpenRcState::Changing => "activating",
            openrc::OpenRcState::Stopped => "inactive",
            openrc::OpenRcState::Absent => continue,
        };
        let main_pid = processes::by_name(root, service);
        let unit = Unit {
            name: (*name).to_owned(),
            active_state: active.to_owned(),
            main_pid,
            // OpenRC lets a service's children live
            kill_mode: "process".to_owned(),
            ..Unit::default()
        };
        units.insert((*name).to_owned(), unit);
    }
    Ok(units)
}

fn state(unit: &Unit) -> ServiceState {
    match unit.active_state.as_str() {
        "active" if !unit.has_job => ServiceState::Active,
        "active" | "activating" | "deactivating" | "reloading" => ServiceState::Changing,
        _ => ServiceState::Down(down(unit)),
    }
}

fn down(unit: &Unit) -> String {
    match unit.result.as_str() {
        "" | "success" => unit.active_state.clone(),
        result => format!("{} ({result})", unit.active_state),
    }
}

/// A service with the process that counts: the main one, or its child of this name.
fn service(root: &HostRoot, name: &str, unit: &Unit, child: Option<&str>, boot_id: &str) -> Service {
    let pid = unit.main_pid.and_then(|main| match child {
        Some(child) => processes::child(root, main, child),
        None => Some(main),
    });
    let started = pid.and_then(|pid| processes::started(root, pid));
    let process = started.map(|milliseconds| ServiceProcess {
        invocation: unit.invocation.clone(),
        started: Uptime { boot_id: boot_id.to_owned(), milliseconds },
    });
    Service { unit: name.to_owned(), state: state(unit), process }
}

/// The process of a runtime that counts.
fn pid(root: &HostRoot, kind: RuntimeKind, unit: &Unit) -> Option<u32> {
    let main = unit.main_pid?;
    kind.row().child.map_or(Some(main), |child| processes::child(root, main, child))
}

/// A host whose services are looked at.
struct Node<'a> {
    exec: &'a HostExec<'a>,
    units: &'a BTreeMap<String, Unit>,
    ledger: &'a Ledger,
    boot_id: &'a str,
}

impl Node<'_> {
    fn look_at_runtime(
        &self,
        found: &DetectedRuntime,
        unit: &Unit,
        located: &Located,
        cache: &mut Cache,
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
            ServiceState::Down(_) => Err("it does not run".into()),
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
        cache: &mut Cache,
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
        cache: &mut Cache,
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

/// The configuration speaks of a runtime.
fn configured(kind: RuntimeKind) -> String {
    format!("runtime.kind is {kind}, and no unit of it was found")
}

/// Whether the runtime does its work for the kubelet.
fn look_at_cri(root: &HostRoot, kind: RuntimeKind, socket: &str, version: &mut String) -> Result<(), String> {
    let status =
        cri::look(root, socket, ANSWERING).map_err(|error| format!("{kind} does not answer: {}", chain(&error)))?;
    *version = status.version;
    status.runtime_ready?;
    // with a configuration that its plug-in refuses, containerd 2.1 serves everything but the images (facts C.6)
    status.image_service
}

fn problem(text: String, next: &str) -> Problem {
    Problem::new(ProblemKind::Services, text, next)
}
