//! The units of a host: which init system keeps them, how they are, and the processes that count.

use std::{collections::BTreeMap, time::Duration};

use nodetrust_core::{
    runtime::{
        kinds::RuntimeKind,
        process::ServiceProcess,
        services::{Service, ServiceState},
    },
    time::Uptime,
};

use super::processes;
use crate::{
    error::chain,
    host::{
        openrc::{self, OpenRcError, OpenRcState},
        root::HostRoot,
        systemd::{self, Unit},
    },
};

/// How long the service manager may take to say how its units are.
pub(crate) const ASKING: Duration = Duration::from_secs(5);

/// The init system that keeps a host's services.
pub(crate) enum Init {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
    /// Another one, which cannot be asked.
    Other,
}

/// The host's init system.
pub(crate) fn init(root: &HostRoot) -> Init {
    // sd_booted(3)
    if matches!(root.stat("/run/systemd/system"), Ok(Some(_))) {
        return Init::Systemd;
    }
    if openrc::is_booted(root).unwrap_or(false) { Init::OpenRc } else { Init::Other }
}

/// OpenRC's services under the names of systemd's units, as far as that tells.
pub(crate) fn openrc_units(root: &HostRoot, names: &[&str]) -> Result<BTreeMap<String, Unit>, OpenRcError> {
    let mut units = BTreeMap::new();
    for name in names {
        let service = name.trim_end_matches(".service");
        let active = match openrc::status(root, service)? {
            OpenRcState::Started => "active",
            OpenRcState::Changing => "activating",
            OpenRcState::Stopped => "inactive",
            OpenRcState::Absent => continue,
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

/// The state of a unit.
pub(crate) fn state(unit: &Unit) -> ServiceState {
    match unit.active_state.as_str() {
        "active" if !unit.has_job => ServiceState::Active,
        // between two attempts of systemd to start what keeps dying: `auto-restart`, since systemd 254 also `auto-restart-queued`
        "activating" if unit.sub_state.starts_with("auto-restart") => {
            ServiceState::Failed(format!("failing ({}), and systemd starts it again", unit.result))
        }
        "active" | "activating" | "deactivating" | "reloading" => ServiceState::Changing,
        "failed" => ServiceState::Failed(down(unit)),
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
pub(crate) fn service(root: &HostRoot, name: &str, unit: &Unit, child: Option<&str>, boot_id: &str) -> Service {
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
pub(crate) fn pid(root: &HostRoot, kind: RuntimeKind, unit: &Unit) -> Option<u32> {
    let main = unit.main_pid?;
    kind.row().child.map_or(Some(main), |child| processes::child(root, main, child))
}

/// A unit as it is now; None if there is none of this name.
///
/// # Errors
/// A sentence, if the init system cannot be asked.
pub(crate) fn unit_now(root: &HostRoot, name: &str) -> Result<Option<Unit>, String> {
    let units = match init(root) {
        Init::Systemd => systemd::units(root, &[name], ASKING).map_err(|error| chain(&error)),
        Init::OpenRc => openrc_units(root, &[name]).map_err(|error| chain(&error)),
        Init::Other => return Err("the host runs neither systemd nor OpenRC".to_owned()),
    };
    units.map(|mut units| units.remove(name))
}
