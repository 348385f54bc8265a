//! Making a service's process anew, and seeing that it is, that it works and that its containers were spared.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use nodetrust_core::{
    problem::{Problem, ProblemKind},
    runtime::{
        container_end::ended_by_restart,
        kinds::RestartMeans,
        process::ServiceProcess,
        services::{Runtime, ServiceState},
    },
};

use super::{
    changes::Since,
    containerd,
    health::{ANSWERING, works},
    launch::launch,
    units::{ASKING, Init, init, pid, service, unit_now},
};
use crate::{
    error::chain,
    host::{
        self,
        exec::HostExec,
        openrc, own_paths,
        root::HostRoot,
        systemd::{self, JobResult, Unit},
    },
    runtime::cri,
};

/// How long the service manager may take: systemd's own limits for a stop and a start, 90 s each.
const JOB: Duration = Duration::from_secs(190);
/// How long a runtime may take until it answers.
const BACK: Duration = Duration::from_secs(60);
/// How long k0s may take to see the file, wait for more and restart its containerd.
const DROP_IN: Duration = Duration::from_secs(30);
/// A process must live this long beyond the time after which systemd would start it again.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a restart may take altogether.
const LONGEST_RESTART: Duration = Duration::from_secs(
    JOB.as_secs() + DROP_IN.as_secs() + BACK.as_secs() + MAX_STAY.as_secs() + UNSEEN.as_secs() + TOLD.as_secs(),
);
/// The longest that is waited for that.
const MAX_STAY: Duration = Duration::from_secs(15);
/// How long the service manager may leave questions about the new process unanswered: it is being reloaded or replaced itself.
const UNSEEN: Duration = Duration::from_secs(20);
/// How long the runtime may take to tell of its containers.
const TOLD: Duration = Duration::from_secs(10);
/// How often is looked.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of its log that a failure is told with.
const LOG_LINES: &str = "8";

/// How long a cycle may take: the store's tool, and a restart.
pub fn longest_cycle(extract_timeout: Duration) -> Duration {
    extract_timeout + LONGEST_RESTART + Duration::from_secs(10)
}

/// What became of a restart.
#[derive(Debug)]
pub struct Restarted {
    /// Why the service does not run anew, or does not work.
    pub failed: Option<String>,
    /// The end of its log if it failed, for whoever reads the report now; it is not kept.
    pub log: String,
    /// What else is to be told.
    pub problems: Vec<Problem>,
}

/// Whether a restart was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered {
    /// It was.
    Begun,
    /// There is no need for one.
    Needless,
}

/// Restarts a service; `runtime` if it is the runtime.
pub fn restart(exec: &HostExec<'_>, unit: &str, runtime: Option<&Runtime>) -> Restarted {
    let by_manager = || order(exec, unit, runtime).map(|()| Ordered::Begun);
    restart_by(exec, unit, runtime, &by_manager)
}

/// Restarts a service by what `order` does, and waits for it as after [`restart`].
pub fn restart_by(
    exec: &HostExec<'_>,
    unit: &str,
    runtime: Option<&Runtime>,
    order: &dyn Fn() -> Result<Ordered, String>,
) -> Restarted {
    let mut problems = Vec::new();
    if let Some(why) = runtime.and_then(|runtime| would_not_start(exec, unit, runtime)) {
        return Restarted { failed: Some(why), log: String::new(), problems };
    }
    let failed = match make_anew(exec, unit, runtime, order) {
        Ok(EndedContainers { ended: 0, .. }) => None,
        Ok(EndedContainers { ended, before }) => {
            let text = format!("{ended} of {before} containers did not outlive the restart of {unit}");
            let next = format!("look at the pods of this node, and at journalctl -u {unit}");
            problems.push(Problem::new(ProblemKind::ContainersEnded, text, next));
            None
        }
        Err(why) => Some(why),
    };
    let log = failed.as_ref().map(|_| log_of(exec, unit)).unwrap_or_default();
    Restarted { failed, log, problems }
}

/// Why it is better left running as it is.
fn would_not_start(exec: &HostExec<'_>, name: &str, runtime: &Runtime) -> Option<String> {
    let unit = unit_now(exec.root, name).ok()??; // what else is wrong shows next
    let launch = launch(exec.root, runtime.kind, pid(exec.root, runtime.kind, &unit), &unit)?;
    let process = runtime.service.process.as_ref();
    let since = process.map(|process| Since::new(exec.root, process, &unit));
    let why = containerd::would_load(exec, &launch, since.as_ref()).err()?;
    Some(format!("{name} runs on and was not restarted, since it would not start again: {why}"))
}

/// Containers that a restart of the runtime has ended, and how many ran before.
#[derive(Debug, Default)]
struct EndedContainers {
    ended: usize,
    before: usize,
}

/// Another process, which stays, and answers if it is the runtime. Who restarts the service by hand meanwhile makes no failure of it: then
/// that process is the one that is to stay.
fn make_anew(
    exec: &HostExec<'_>,
    unit: &str,
    runtime: Option<&Runtime>,
    order: &dyn Fn() -> Result<Ordered, String>,
) -> Result<EndedContainers, String> {
    let root = exec.root;
    let boot_id = host::uptime(root).map_err(|error| format!("failed to read the host's boot id: {error}"))?.boot_id;
    let child = runtime.and_then(|runtime| runtime.kind.row().child);
    let look = || -> Result<ServiceSeen, String> {
        let found = unit_now(root, unit)?.ok_or_else(|| format!("{unit} is gone"))?;
        let service = service(root, unit, &found, child, &boot_id);
        Ok(ServiceSeen { unit: found, state: service.state, process: service.process })
    };
    let mut before = look()?.process;
    let running = runtime.and_then(|runtime| cri::look(root, &runtime.socket, ANSWERING).ok());
    let running = running.map(|status| status.running).unwrap_or_default();
    if order()? == Ordered::Needless {
        return Ok(EndedContainers::default());
    }
    let end = Instant::now() + if child.is_some() { DROP_IN + BACK } else { BACK };
    let mut ended = None;
    loop {
        let back = wait_until_back(root, unit, runtime, before.as_ref(), end, &look)?;
        // at once: the kubelet will take the sandboxes of ended pods down, which tell who ended by itself
        let ended = *ended.get_or_insert_with(|| runtime.map_or(0, |runtime| ended_since(root, runtime, &running)));
        if stays(unit, &back, &look)? {
            return Ok(EndedContainers { ended, before: running.len() });
        }
        if Instant::now() > end {
            return Err(did_not_stay(unit));
        }
        before = back.process;
    }
}

/// A service at one look.
struct ServiceSeen {
    unit: Unit,
    state: ServiceState,
    process: Option<ServiceProcess>,
}

/// Waits until another process than `before` runs, and answers if it is the runtime.
fn wait_until_back(
    root: &HostRoot,
    unit: &str,
    runtime: Option<&Runtime>,
    before: Option<&ServiceProcess>,
    end: Instant,
    look: &dyn Fn() -> Result<ServiceSeen, String>,
) -> Result<ServiceSeen, String> {
    loop {
        let seen = ask_until(end, look)?;
        let is_another =
            seen.state == ServiceState::Active && seen.process.is_some() && seen.process.as_ref() != before;
        if is_another && runtime.is_none_or(|runtime| works(root, runtime).is_ok()) {
            return Ok(seen);
        }
        if Instant::now() > end {
            return Err(match (seen.state, seen.process) {
                (ServiceState::Active, process) if process.as_ref() == before => {
                    format!("{unit} still is the process that it was")
                }
                (ServiceState::Active, _) => match runtime.map(|runtime| works(root, runtime)) {
                    Some(Err(why)) => format!("{unit} runs again and does not work: {why}"),
                    _ => format!("{unit} has no process that could be found"),
                },
                (ServiceState::Changing, _) => format!("{unit} has not come back in {} s", BACK.as_secs()),
                (ServiceState::Down(state) | ServiceState::Failed(state), _) => {
                    format!("{unit} has not come back: it is {state}")
                }
            });
        }
        thread::sleep(PAUSE);
    }
}

fn did_not_stay(unit: &str) -> String {
    format!("{unit} came back and did not stay")
}

/// Whether the process that came back is still there after the time in which a service that keeps dying shows it. `false` if somebody has
/// restarted the service meanwhile; an error if it ended by itself.
fn stays(unit: &str, back: &ServiceSeen, look: &dyn Fn() -> Result<ServiceSeen, String>) -> Result<bool, String> {
    let end = Instant::now() + (back.unit.restart_delay + MARGIN).min(MAX_STAY);
    loop {
        thread::sleep(PAUSE);
        let now = ask_until(end + UNSEEN, look)?;
        // systemd counts the restarts that it makes by itself
        if now.state.is_down() || now.unit.restarts > back.unit.restarts {
            return Err(did_not_stay(unit));
        }
        let is_another = now.process.is_some() && now.process != back.process;
        let is_back = now.state == ServiceState::Active && now.process == back.process;
        if is_back && Instant::now() > end {
            return Ok(true);
        }
        // a reload, or a process that could not be looked at, is over soon
        if is_another || (!is_back && Instant::now() > end + UNSEEN) {
            return Ok(false);
        }
    }
}

/// Says that it should be done, and waits until whoever does it says that it is.
fn order(exec: &HostExec<'_>, unit: &str, runtime: Option<&Runtime>) -> Result<(), String> {
    if let Some(RestartMeans::DropIn(dir)) = runtime.map(|runtime| runtime.kind.row().restart) {
        let touched = exec.root.create_dir_all(dir).and_then(|()| {
            let path = format!("{dir}/{}", own_paths::DROP_IN);
            exec.root.write_atomic(&path, dir, own_paths::DROP_IN_TEMP, 0o644, b"version = 2\n")?;
            exec.root.remove_file(&path)
        });
        return touched.map_err(|error| format!("failed to touch {dir}: {error}"));
    }
    let result = match init(exec.root) {
        Init::Systemd => systemd::try_restart(exec.root, unit, JOB).map_err(|error| chain(&error))?,
        Init::OpenRc => openrc::try_restart(exec, unit.trim_end_matches(".service")).map_err(|error| chain(&error))?,
        Init::Other => return Err("the host has no service manager that could restart it".into()),
    };
    match result {
        // What somebody else has ordered in place of ours is a restart too, or shows when the service is looked at.
        JobResult::Done | JobResult::Replaced => Ok(()),
        JobResult::Failed(word) => Err(format!("the restart of {unit} ended as `{word}`")),
    }
}

/// How many of these containers the restart has ended. The runtime works again, so that it does not tell is no failure of the restart.
fn ended_since(root: &HostRoot, runtime: &Runtime, before: &BTreeSet<String>) -> usize {
    if before.is_empty() {
        return 0;
    }
    let ask = || cri::ends(root, &runtime.socket, before, ANSWERING);
    match ask_until(Instant::now() + TOLD, ask) {
        Ok(ends) => ended_by_restart(before.len(), &ends),
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(error, "it is not known whether all containers have outlived the restart");
            0
        }
    }
}

/// Asks until there is an answer; the last error after this time.
fn ask_until<T, E>(end: Instant, ask: impl Fn() -> Result<T, E>) -> Result<T, E> {
    loop {
        match ask() {
            Err(_) if Instant::now() <= end => thread::sleep(PAUSE),
            answer => return answer,
        }
    }
}

/// The last lines of a unit's log, if they can be read.
fn log_of(exec: &HostExec<'_>, unit: &str) -> String {
    let args = ["--no-pager", "--quiet", "--output=cat", "--lines", LOG_LINES, "--unit", unit];
    let exec = HostExec { limit: ASKING, ..*exec };
    match exec.run("/usr/bin/journalctl", &args, None) {
        Ok(finished) if finished.code == Some(0) && !finished.output.trim().is_empty() => {
            let lines: Vec<&str> = finished.output.trim().lines().collect();
            format!("; its log ends with: {}", lines.join(" | "))
        }
        _ => String::new(),
    }
}
