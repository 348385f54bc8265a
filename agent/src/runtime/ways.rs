//! How the runtime reaches a registry: the environment of its process, and its configuration for that registry.

use nodetrust_core::{
    runtime::{
        containerd::ContainerdFile,
        environment::Environment,
        kinds::RuntimeKind,
        process::ServiceProcess,
        registry::Registry,
        registry_dir::Setting,
        registry_way::{RegistryFolder, RegistryWay},
    },
    time::Uptime,
};

use super::{
    containerd,
    health::ANSWERING,
    launch::launch,
    units::{ASKING, Init, init, pid, service, unit_now},
};
use crate::{
    error::chain,
    host::{self, file::is_missing, root::HostRoot, systemd},
    runtime::docker,
};

/// Largest file of settings that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Where CRI-O and Docker look for certificates by registry.
const CERTS_DIRS: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
/// Files of CRI-O's registries.
const REGISTRIES: &str = "/etc/containers/registries.conf";

/// The process of a runtime that pulls, as it is now. None if it does not run, or cannot be found.
pub fn process_now(root: &HostRoot, kind: RuntimeKind, unit: &str) -> Option<ServiceProcess> {
    let found = unit_now(root, unit).ok()??;
    let Uptime { boot_id, .. } = host::uptime(root).ok()?;
    service(root, unit, &found, kind.row().child, &boot_id).process
}

/// The environment that the runtime's process would get if it started now.
///
/// # Errors
/// A sentence, if it cannot be told.
pub fn environment(root: &HostRoot, kind: RuntimeKind, unit: &str) -> Result<Environment, String> {
    let mut environment = Environment::default();
    match init(root) {
        Init::Systemd => {
            let told = systemd::environment(root, unit, ASKING).map_err(|error| chain(&error))?;
            environment.assign(told.manager.iter().chain(&told.unit).map(String::as_str));
            for (path, optional) in &told.files {
                match read(root, path) {
                    Ok(Some(text)) => environment.assign_file(&text),
                    Ok(None) if *optional => {}
                    Ok(None) => return Err(format!("its EnvironmentFile {path} is not there")),
                    Err(why) => return Err(format!("its EnvironmentFile {path} cannot be read: {why}")),
                }
            }
            environment.unset(told.unset.iter().map(String::as_str));
        }
        Init::OpenRc => {
            // shell, of which only plain assignments are understood
            let service = unit.trim_end_matches(".service");
            for path in ["/etc/rc.conf".to_owned(), format!("/etc/conf.d/{service}")] {
                let text = read(root, &path)?.unwrap_or_default();
                let exported: Vec<&str> =
                    text.lines().filter_map(|line| line.trim_start().strip_prefix("export ")).collect();
                environment.assign_file(&exported.join("\n"));
            }
        }
        Init::Other => return Err("the host runs neither systemd nor OpenRC".to_owned()),
    }
    if matches!(kind, RuntimeKind::K3s | RuntimeKind::Rke2) {
        // what they give to their containerd alone
        environment.without_prefix("CONTAINERD_");
    }
    Ok(environment)
}

/// How the runtime reaches a registry, as its configuration says it now. `setting` is what its process reads as its registry directory.
pub fn registry_way(
    root: &HostRoot,
    kind: RuntimeKind,
    unit: &str,
    setting: &Setting,
    registry: &Registry,
) -> RegistryWay {
    let way = RegistryWay::straight(registry);
    match kind {
        RuntimeKind::Docker => match docker::info(root, ANSWERING) {
            Ok(info) => {
                let config = info.registry_config;
                let has_certs = CERTS_DIRS[1..].iter().any(|dir| has_certs(root, &format!("{dir}/{registry}")));
                way.by_engine(config.is_secure(registry.name()), config.has_mirrors(registry.name()), has_certs)
            }
            Err(error) => RegistryWay::unknown(&chain(&error)),
        },
        RuntimeKind::Crio => by_registries(root, way, registry),
        _ => by_containerd(root, way, kind, unit, setting, registry),
    }
}

fn by_containerd(
    root: &HostRoot,
    way: RegistryWay,
    kind: RuntimeKind,
    unit: &str,
    setting: &Setting,
    registry: &Registry,
) -> RegistryWay {
    let found = unit_now(root, unit).ok().flatten().unwrap_or_default();
    let files = launch(root, kind, pid(root, kind, &found), &found).map(|launch| containerd::files(root, &launch));
    let files = match files {
        Some(Ok(files)) => files,
        Some(Err(why)) => return RegistryWay::unknown(&why),
        None => return RegistryWay::unknown("its configuration is not known"),
    };
    let way = files.iter().fold(way, |way, file| way.by_tables(file, registry));
    let mut dirs: Vec<&str> = match setting {
        Setting::Directory(dir) => vec![dir],
        Setting::NotConfigured | Setting::Unsupported => Vec::new(),
        Setting::Several(list) => list.split(':').collect(),
        // one that it may be reading
        Setting::ChangedSince(_) | Setting::Unknown(_) => {
            files.iter().flat_map(ContainerdFile::registry_dirs).collect()
        }
    };
    dirs.dedup();
    dirs.into_iter()
        .filter_map(|dir| folder(root, dir, registry))
        .fold(way, |way, folder| way.by_folder(&folder, registry))
}

/// What a registry directory has for a registry.
fn folder(root: &HostRoot, dir: &str, registry: &Registry) -> Option<RegistryFolder> {
    let paths = registry.folders().into_iter().map(|name| format!("{dir}/{name}"));
    let path = paths.into_iter().find(|path| !matches!(root.stat(path), Ok(None)))?;
    let hosts = match read(root, &format!("{path}/hosts.toml")) {
        Ok(text) => text.map(Ok),
        Err(why) => Some(Err(why)),
    };
    Some(RegistryFolder { hosts, has_certs: has_certs(root, &path), path })
}

/// Whether certificates lie in a folder. One that cannot be looked into may have some.
fn has_certs(root: &HostRoot, path: &str) -> bool {
    match root.list(path) {
        Ok(names) => names.into_iter().flatten().any(|(name, _)| name.ends_with(".crt")),
        Err(_) => true,
    }
}

/// CRI-O's registries, which nobody has tried here.
fn by_registries(root: &HostRoot, way: RegistryWay, registry: &Registry) -> RegistryWay {
    let drop_ins = match root.list(format!("{REGISTRIES}.d")) {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => return RegistryWay::unknown(&format!("failed to list {REGISTRIES}.d: {error}")),
    };
    let drop_ins = drop_ins.into_iter().filter(|(name, _)| name.ends_with(".conf"));
    let paths = [REGISTRIES.to_owned()].into_iter().chain(drop_ins.map(|(name, _)| format!("{REGISTRIES}.d/{name}")));
    let way = paths.fold(way, |way, path| match read(root, &path) {
        Ok(None) => way,
        Ok(Some(text)) => way.by_registries(&path, Ok(&text)),
        Err(why) => way.by_registries(&path, Err(why)),
    });
    let has_certs = CERTS_DIRS.iter().any(|dir| has_certs(root, &format!("{dir}/{registry}")));
    way.by_engine(true, false, has_certs)
}

/// A text of the host; None if it is not there.
fn read(root: &HostRoot, path: &str) -> Result<Option<String>, String> {
    match root.read(path, MAX_FILE) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| "it is no UTF-8 text".to_owned()),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
