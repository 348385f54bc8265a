//! The environment that systemd gives to a unit's processes.

use std::time::Duration;

use zbus::{OwnedObjectPath, Variant};

use super::{MANAGER, MANAGER_PATH, Properties, ServiceError, call, failed, on_the_bus, properties};
use crate::host::root::HostRoot;

/// What a unit's environment is made of, in the order in which systemd takes it in (systemd.exec(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitEnvironment {
    /// Assignments that every unit gets.
    pub manager: Vec<String>,
    /// The unit's own assignments.
    pub unit: Vec<String>,
    /// Files of assignments on the host; true for those that may be missing.
    pub files: Vec<(String, bool)>,
    /// What is taken away at last.
    pub unset: Vec<String>,
}

/// Asks for a unit's environment, as a process that starts now gets it.
///
/// # Errors
/// If systemd cannot be asked.
pub fn environment(root: &HostRoot, name: &str, limit: Duration) -> Result<UnitEnvironment, ServiceError> {
    let what = format!("asking systemd about the environment of {name}");
    on_the_bus(root, &what, limit, |bus| async move {
        let of_unit = async {
            let reply = call(&bus, MANAGER_PATH, MANAGER, "GetUnit", &(name,)).await?;
            let path: OwnedObjectPath = reply.body().deserialize()?;
            let unit = properties(&bus, &path, "org.freedesktop.systemd1.Service").await?;
            let manager = OwnedObjectPath::try_from(MANAGER_PATH)?;
            let manager = properties(&bus, &manager, MANAGER).await?;
            zbus::Result::Ok(UnitEnvironment {
                manager: texts(&manager, "Environment"),
                unit: texts(&unit, "Environment"),
                files: files(&unit),
                unset: texts(&unit, "UnsetEnvironment"),
            })
        };
        of_unit.await.map_err(failed(&format!("asking systemd about the environment of {name}")))
    })
}

fn items<'a>(properties: &'a Properties, name: &str) -> &'a [Variant<'a>] {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::Array(items)) => items,
        _ => &[],
    }
}

fn texts(properties: &Properties, name: &str) -> Vec<String> {
    let text = |item: &Variant<'_>| match item {
        Variant::Str(text) => Some(text.to_string()),
        _ => None,
    };
    items(properties, name).iter().filter_map(text).collect()
}

/// Structures of a path and whether it may be missing.
fn files(properties: &Properties) -> Vec<(String, bool)> {
    let file = |item: &Variant<'_>| {
        let Variant::Structure(file) = item else { return None };
        match file.fields() {
            [Variant::Str(path), Variant::Bool(optional)] => Some((path.to_string(), *optional)),
            _ => None,
        }
    };
    items(properties, "EnvironmentFiles").iter().filter_map(file).collect()
}
