//! Which runtime a node has: the one that the kubelet uses, and, where that is not known, the one whose unit runs.

use std::collections::BTreeMap;

use crate::runtime::kinds::{RuntimeKind, RuntimeRow, TABLE};

/// The units that stand between the kubelet and Docker. Without one, Docker on a node is there for something else.
pub const CRI_DOCKERD: [&str; 2] = ["cri-docker.service", "cri-dockerd.service"];

/// A socket that the kubelet was told to use for pulls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEndpoint {
    /// The socket on the host.
    pub socket: String,
    /// Who says so, to be read before "names": `the kubelet's command line`.
    pub said_by: String,
    /// A process that runs was started so. What only stands in a file may be left from before.
    pub in_use: bool,
    /// A runtime answers there now, so a unit that does not run does not serve it.
    pub answers: bool,
}

/// What is known of a node before its runtime is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Clues<'a> {
    /// The units that are loaded, `true` for those that are active or on the way.
    pub units: &'a BTreeMap<String, bool>,
    /// The sockets that each of these units serves, in the same form as the endpoint's.
    pub served: &'a BTreeMap<String, Vec<String>>,
    /// The socket that the kubelet uses.
    pub endpoint: Option<&'a RuntimeEndpoint>,
}

/// Which runtime a node has, and the fact that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedRuntime {
    /// The kind.
    pub kind: RuntimeKind,
    /// The unit that runs it.
    pub unit: String,
    /// The fact that decided it, in a sentence.
    pub because: String,
}

/// What came of looking for a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeDetection {
    /// This one.
    Known(DetectedRuntime),
    /// There is one, and which unit runs it cannot be told: what says so, in a sentence.
    Sign(String),
    /// No unit and no setting speaks of one.
    Nothing,
}

/// Finds the runtime. What the configuration says comes first; then the socket that the kubelet uses; then the first row of the table
/// with an active unit, and if none is active, with a loaded one. Docker counts only with its shim, or alone.
pub fn detect(clues: &Clues<'_>, wanted: Option<RuntimeKind>, unit: Option<&str>) -> RuntimeDetection {
    if wanted.is_some() || unit.is_some() {
        return configured(clues.units, wanted, unit).map_or(RuntimeDetection::Nothing, RuntimeDetection::Known);
    }
    if let Some(endpoint) = clues.endpoint {
        if let Some(found) = by_endpoint(clues, endpoint) {
            return RuntimeDetection::Known(found);
        }
        if endpoint.in_use || endpoint.answers {
            return RuntimeDetection::Sign(no_server(endpoint));
        }
    }
    match (by_unit(clues.units), clues.endpoint) {
        (Some(found), _) => RuntimeDetection::Known(found),
        (None, Some(endpoint)) => RuntimeDetection::Sign(no_server(endpoint)),
        (None, None) => RuntimeDetection::Nothing,
    }
}

fn no_server(endpoint: &RuntimeEndpoint) -> String {
    let RuntimeEndpoint { socket, said_by, .. } = endpoint;
    format!(
        "{said_by} names the socket {socket}, and no unit that is known serves it: set runtime.unit and runtime.kind"
    )
}

fn found(row: &RuntimeRow, unit: &str, because: String) -> DetectedRuntime {
    DetectedRuntime { kind: row.kind, unit: unit.to_owned(), because }
}

fn configured(
    units: &BTreeMap<String, bool>,
    wanted: Option<RuntimeKind>,
    unit: Option<&str>,
) -> Option<DetectedRuntime> {
    if let Some(kind) = wanted {
        let row = kind.row();
        let of_kind = row.units.iter().copied();
        let active = of_kind.clone().find(|unit| units.get(*unit) == Some(&true));
        let unit = unit.or(active).or_else(|| of_kind.clone().find(|unit| units.contains_key(*unit)));
        return unit
            .filter(|unit| units.contains_key(*unit))
            .map(|unit| found(row, unit, "the configuration says so".into()));
    }
    let unit = unit.filter(|unit| units.contains_key(*unit))?; // no other one may be taken for it
    // a unit of another name: what it runs follows from the unit that it resembles, else it is containerd
    let row = TABLE.iter().find(|row| row.units.contains(&unit) || unit.contains(row.kind.as_str()));
    let row = row.unwrap_or_else(|| RuntimeKind::Containerd.row());
    Some(found(row, unit, format!("the configuration names {unit}")))
}

/// The unit that serves the kubelet's socket; one that does not run, if it would and nothing answers there.
fn by_endpoint(clues: &Clues<'_>, endpoint: &RuntimeEndpoint) -> Option<DetectedRuntime> {
    let serves = |unit: &str| clues.served.get(unit).is_some_and(|sockets| sockets.contains(&endpoint.socket));
    [true, false].into_iter().filter(|active| *active || !endpoint.answers).find_map(|active| {
        TABLE.iter().find_map(|row| {
            let is_it = |unit: &&&str| clues.units.get(**unit).is_some_and(|is| *is || !active) && serves(unit);
            let unit = row.units.iter().find(is_it)?;
            let RuntimeEndpoint { socket, said_by, .. } = endpoint;
            let runs = if active { "serves it" } else { "serves it when it runs" };
            Some(found(row, unit, format!("{said_by} names {socket}, and {unit} {runs}")))
        })
    })
}

fn by_unit(units: &BTreeMap<String, bool>) -> Option<DetectedRuntime> {
    let has_shim = CRI_DOCKERD.iter().any(|shim| units.contains_key(*shim));
    let serves =
        |row: &RuntimeRow| row.kind != RuntimeKind::Docker || has_shim || !units.contains_key("containerd.service");
    for active in [true, false] {
        for row in TABLE.iter().filter(|row| serves(row)) {
            let unit = row.units.iter().find(|unit| units.get(**unit).is_some_and(|is| *is || !active));
            if let Some(unit) = unit {
                let state = if active { "is active" } else { "is installed and does not run" };
                return Some(found(row, unit, format!("{unit} {state}")));
            }
        }
    }
    None
}

/// Every unit that detection asks for.
pub fn units() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|row| row.units).copied().chain(CRI_DOCKERD)
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
