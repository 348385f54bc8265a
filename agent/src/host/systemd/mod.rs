//! The host's systemd, over the host's D-Bus system bus.
//!
//! For uid 0 the bus asks for no capability and for no namespace of the host, and a restart is reported with its real result, where
//! `systemctl` in a changed root refuses or says yes and does nothing (facts C.7). Asking starts nothing and loads nothing: only units
//! that systemd has in memory are known here, which are all that run, failed, are enabled or are named by another unit.

mod environment;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    num::NonZeroUsize,
    path::Path,
    pin::Pin,
    time::Duration,
};

use zbus::{
    Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant, Variant, connection,
    export::futures_core::Stream, fdo, message,
};

use super::{
    file::is_missing,
    root::HostRoot,
    socket::{connect, converse},
};

pub use environment::{UnitEnvironment, environment};

/// Present where systemd is the init system, as sd_booted(3) looks.
const BOOTED: &str = "/run/systemd/system";
/// The bus's socket on the host.
pub const BUS: &str = "/run/dbus/system_bus_socket";

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Ends of other jobs that may wait in our queue while systemd answers a call: enough for a whole boot.
const QUEUE: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A service as systemd sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its own name, also where it was asked for by an alias.
    pub name: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`, `maintenance`.
    pub active_state: String,
    /// The same in detail: `running`, `dead`, `auto-restart`, `start-limit-hit` …
    pub sub_state: String,
    /// How the last run ended: `success`, `exit-code`, `signal`, `start-limit-hit` …
    pub result: String,
    /// The main process in the host's PID namespace, None if there is none.
    pub main_pid: Option<u32>,
    /// When the main process was started last, since boot, in CLOCK_MONOTONIC.
    pub started: Option<Duration>,
    /// The time of day at which it was, since the epoch.
    pub started_at: Option<Duration>,
    /// 32 hex digits that are new with each start; empty if it was not started since boot.
    pub invocation: String,
    /// How often systemd itself restarted it since its last manual start.
    pub restarts: u32,
    /// `process`, `control-group`, `mixed`, `none`: who is killed when it stops.
    pub kill_mode: String,
    /// How long systemd waits before it restarts it by itself.
    pub restart_delay: Duration,
    /// The first command of ExecStart, program first.
    pub command: Vec<String>,
    /// Its control group in the host's hierarchy; empty if nothing runs.
    pub control_group: String,
    /// Whether a start, stop or restart is queued or running.
    pub has_job: bool,
}

/// How a restart ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// As ordered. Also if there was nothing to restart because the unit does not run: compare [`Unit::invocation`].
    Done,
    /// Somebody else's order for the unit took its place: systemd's `canceled`.
    Replaced,
    /// Not so, with systemd's word for it: `failed`, `timeout`, `dependency`, `skipped`.
    Failed(String),
}

/// Why systemd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another init system, or the host's `/run` is not there.
    #[error("the host does not run systemd: it has no {BOOTED}")]
    NoSystemd,
    /// No way to it.
    #[error("the host's D-Bus system bus does not run: nobody listens at {BUS}")]
    NoBus,
    /// The bus, systemd or the kernel does not let us.
    #[error("{what} was refused to uid {uid}: {text}")]
    Refused {
        /// What was asked.
        what: String,
        /// Who asked.
        uid: u32,
        /// What was answered.
        text: String,
    },
    /// No answer.
    #[error("{what} had no answer after {} s", limit.as_secs_f32())]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// An answer that is an error.
    #[error("{what} failed: {text}")]
    Answer {
        /// What was asked.
        what: String,
        /// What was answered.
        text: String,
    },
    /// No conversation, or one that makes no sense.
    #[error("{what} failed")]
    Protocol {
        /// What was asked.
        what: String,
        /// What the bus said.
        #[source]
        source: zbus::Error,
    },
}

impl ServiceError {
    /// What to do about it.
    pub fn next(&self) -> &'static str {
        match self {
            Self::NoSystemd => {
                "where the host does run systemd, mount the host's / with its /run; elsewhere restart the runtime by hand"
            }
            Self::NoBus => {
                "look at dbus.service (or dbus-broker.service) on the host, and that the host's /run is mounted with it"
            }
            Self::Refused { uid: 0, .. } => {
                "AppArmor: run the container unconfined; SELinux: with type spc_t; no user namespace (hostUsers: true); the journal \
                 and the audit log of the host name the rule"
            }
            Self::Refused { .. } => "run as uid 0: the bus lets nobody else restart services",
            Self::TimedOut { .. } => {
                "look at `systemctl list-jobs` and `systemctl status dbus` on the host: what was asked may still be done"
            }
            Self::Answer { .. } => "look at `systemctl status` and the journal of the unit on the host",
            Self::Protocol { .. } => "look at `systemctl status dbus` and the journal on the host; it is tried again",
        }
    }
}

/// The units of these names, by the name that was asked for. Those that systemd does not have in memory, or of which it has only the
/// name, are left out.
///
/// # Errors
/// If systemd cannot be asked.
pub fn units(root: &HostRoot, names: &[&str], limit: Duration) -> Result<BTreeMap<String, Unit>, ServiceError> {
    let bus = |bus: Connection| async move {
        let mut units = BTreeMap::new();
        for name in names {
            if let Some(unit) = unit(&bus, name).await.map_err(failed(&format!("asking systemd about {name}")))? {
                units.insert((*name).to_owned(), unit);
            }
        }
        Ok(units)
    };
    on_the_bus(root, "asking systemd", limit, bus)
}

/// Restarts a unit if it runs, and waits until that is done. Its start counter is cleared before: restarts that are ordered count
/// too, and one too many leaves the unit dead (facts 0.13).
///
/// # Errors
/// If systemd cannot be asked, or the restart had not ended in time.
pub fn try_restart(root: &HostRoot, name: &str, limit: Duration) -> Result<JobResult, ServiceError> {
    let what = format!("restarting {name}");
    let bus = |bus: Connection| async move { restart(&bus, name).await.map_err(failed(&format!("restarting {name}"))) };
    on_the_bus(root, &what, limit, bus)
}

/// Connects, does the work and drops the connection, all before the time is up.
fn on_the_bus<T, F>(
    root: &HostRoot,
    what: &str,
    limit: Duration,
    work: impl FnOnce(Connection) -> F,
) -> Result<T, ServiceError>
where
    F: Future<Output = Result<T, ServiceError>>,
{
    let broken = |error: io::Error| failed(what)(error.into());
    if root.stat(BOOTED).map_err(broken)?.is_none() {
        return Err(ServiceError::NoSystemd);
    }
    let conversation = async {
        let stream = match connect(root, Path::new(BUS)).await {
            Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(ServiceError::NoBus);
            }
            stream => stream.and_then(tokio::net::UnixStream::into_std).map_err(broken)?,
        };
        let bus = connection::Builder::unix_stream(stream)
            .build()
            .await
            .map_err(failed("connecting to the D-Bus system bus"))?;
        work(bus).await
    };
    converse(limit, conversation)
        .map_err(broken)?
        .unwrap_or_else(|| Err(ServiceError::TimedOut { what: what.to_owned(), limit }))
}

async fn unit(bus: &Connection, name: &str) -> zbus::Result<Option<Unit>> {
    let path: OwnedObjectPath = match call(bus, MANAGER_PATH, MANAGER, "GetUnit", &(name,)).await {
        Err(zbus::Error::MethodError(error, ..)) if error.as_str() == NO_SUCH_UNIT => return Ok(None),
        reply => reply?.body().deserialize()?,
    };
    let mut properties = match properties(bus, &path, "org.freedesktop.systemd1.Unit").await {
        // forgotten between the two questions
        Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::UnknownObject(_)) => return Ok(None),
        properties => properties?,
    };
    if text(&properties, "LoadState") != "loaded" {
        return Ok(None);
    }
    match self::properties(bus, &path, "org.freedesktop.systemd1.Service").await {
        // a unit of another kind
        Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::UnknownInterface(_)) => {}
        more => properties.extend(more?),
    }
    Ok(Some(Unit {
        name: text(&properties, "Id"),
        active_state: text(&properties, "ActiveState"),
        sub_state: text(&properties, "SubState"),
        result: text(&properties, "Result"),
        main_pid: u32::try_from(number(&properties, "MainPID")).ok().filter(|pid| *pid != 0),
        started: Some(microseconds(&properties, "ExecMainStartTimestampMonotonic")).filter(|time| !time.is_zero()),
        started_at: Some(microseconds(&properties, "ExecMainStartTimestamp")).filter(|time| !time.is_zero()),
        invocation: invocation(&properties),
        restarts: u32::try_from(number(&properties, "NRestarts")).unwrap_or(u32::MAX),
        kill_mode: text(&properties, "KillMode"),
        restart_delay: microseconds(&properties, "RestartUSec"),
        command: command(&properties).unwrap_or_default(),
        control_group: text(&properties, "ControlGroup"),
        // nothing else of the environment is kept: it may hold passwords
        has_job: has_job(&properties),
    }))
}

async fn restart(bus: &Connection, name: &str) -> zbus::Result<JobResult> {
    let rule = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender(SYSTEMD)
        .path(MANAGER_PATH)
        .interface(MANAGER)
        .member("JobRemoved")
        .build()?;
    let mut ends = MessageStream::for_match_rule(rule, bus, Some(QUEUE)).await?;
    call(bus, MANAGER_PATH, MANAGER, "Subscribe", &()).await?;
    match call(bus, MANAGER_PATH, MANAGER, "ResetFailedUnit", &(name,)).await {
        // not in memory: nothing to reset, and whether it can be restarted is the next question
        Ok(_) | Err(zbus::Error::MethodError(..)) => {}
        Err(error) => return Err(error),
    }
    let reply = call(bus, MANAGER_PATH, MANAGER, "TryRestartUnit", &(name, "replace")).await?;
    let ours: OwnedObjectPath = reply.body().deserialize()?;
    loop {
        let Some(message) = std::future::poll_fn(|cx| Pin::new(&mut ends).poll_next(cx)).await else {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        };
        let message = message?;
        let body = message.body();
        let (_, job, _, result): (u32, OwnedObjectPath, String, String) = body.deserialize()?;
        if job == ours {
            return Ok(match result.as_str() {
                "done" => JobResult::Done,
                "canceled" => JobResult::Replaced,
                _ => JobResult::Failed(result),
            });
        }
    }
}

async fn call<B>(bus: &Connection, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    bus.call_method(Some(SYSTEMD), path, Some(interface), method, body).await
}

type Properties = HashMap<String, OwnedVariant>;

async fn properties(bus: &Connection, path: &OwnedObjectPath, interface: &str) -> zbus::Result<Properties> {
    let reply = call(bus, path.as_str(), "org.freedesktop.DBus.Properties", "GetAll", &(interface,)).await?;
    reply.body().deserialize()
}

fn text(properties: &Properties, name: &str) -> String {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::Str(text)) => text.to_string(),
        _ => String::new(),
    }
}

fn number(properties: &Properties, name: &str) -> u64 {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::U32(number)) => u64::from(*number),
        Some(Variant::U64(number)) => *number,
        _ => 0,
    }
}

fn microseconds(properties: &Properties, name: &str) -> Duration {
    Duration::from_micros(number(properties, name))
}

fn invocation(properties: &Properties) -> String {
    let Some(Variant::Array(bytes)) = properties.get("InvocationID").map(|value| &**value) else {
        return String::new();
    };
    let digits =
        bytes.iter().map(|byte| if let Variant::U8(byte) = byte { format!("{byte:02x}") } else { String::new() });
    digits.collect()
}

/// ExecStart is an array of structures: program, arguments with the program's name first, and what became of it.
fn command(properties: &Properties) -> Option<Vec<String>> {
    let Variant::Array(commands) = &**properties.get("ExecStart")? else { return None };
    let Variant::Structure(command) = commands.first()? else { return None };
    let [Variant::Str(program), Variant::Array(arguments), ..] = command.fields() else { return None };
    let arguments = arguments.iter().skip(1).filter_map(|word| match word {
        Variant::Str(word) => Some(word.to_string()),
        _ => None,
    });
    Some(std::iter::once(program.to_string()).chain(arguments).collect())
}

/// The job is a structure of its number, 0 for none, and its path.
fn has_job(properties: &Properties) -> bool {
    match properties.get("Job").map(|value| &**value) {
        Some(Variant::Structure(job)) => !matches!(job.fields().first(), None | Some(Variant::U32(0))),
        _ => false,
    }
}

/// What an error of the bus means for what was being done.
fn failed(what: &str) -> impl Fn(zbus::Error) -> ServiceError + use<> {
    let what = what.to_owned();
    move |error| {
        let what = what.clone();
        let refused = |what, text| ServiceError::Refused { what, uid: nix::unistd::geteuid().as_raw(), text };
        match &error {
            zbus::Error::FDO(answer) => match &**answer {
                fdo::Error::AccessDenied(text)
                | fdo::Error::AuthFailed(text)
                | fdo::Error::InteractiveAuthorizationRequired(text) => refused(what, text.clone()),
                answer => ServiceError::Answer { what, text: answer.to_string() },
            },
            zbus::Error::MethodError(name, text, _) => {
                ServiceError::Answer { what, text: text.clone().unwrap_or_else(|| name.to_string()) }
            }
            // the bus compares the uid that we have in its eyes with the one that we say
            zbus::Error::Handshake(text) => refused(what, text.clone()),
            zbus::Error::InputOutput(io) if io.kind() == io::ErrorKind::PermissionDenied => {
                refused(what, io.to_string())
            }
            _ => ServiceError::Protocol { what, source: error },
        }
    }
}
