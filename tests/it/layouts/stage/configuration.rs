//! The configuration files of containerd in a composition.

use super::*;

fn value(layout: &NodeLayout, path: ConfigPath) -> Option<String> {
    let dir = layout.directory();
    Some(match path {
        ConfigPath::Unset => return None,
        ConfigPath::Empty => String::new(),
        ConfigPath::Directory => dir,
        ConfigPath::Slash => format!("{dir}/"),
        ConfigPath::Other => OTHER.to_owned(),
        ConfigPath::List => format!("{dir}:{DOCKERS}"),
        ConfigPath::Reversed => format!("{DOCKERS}:{dir}"),
        ConfigPath::Relative => dir.trim_start_matches('/').to_owned(), // the working directory of a service is /
    })
}

fn version(format: Format) -> &'static str {
    match format {
        Format::One => "",
        Format::Two => "version = 2\n",
        Format::Three => "version = 3\n",
    }
}

const GRPC_CRI: &str = "plugins.\"io.containerd.grpc.v1.cri\"";
const IMAGES: &str = "plugins.\"io.containerd.cri.v1.images\"";
const BARE: &str = "plugins.cri";

/// The tables for `config_path`.
fn registry(layout: &NodeLayout, path: ConfigPath) -> String {
    let (right, wrong) = match layout.format {
        Format::One => (BARE, GRPC_CRI),
        Format::Two => (GRPC_CRI, IMAGES),
        Format::Three => (IMAGES, GRPC_CRI),
    };
    let table = |plugin: &str, value: Option<String>| {
        value.map(|value| format!("[{plugin}.registry]\n  config_path = \"{value}\"\n")).unwrap_or_default()
    };
    let value = value(layout, path);
    match layout.section {
        Section::Right => table(right, value),
        Section::Wrong => table(wrong, value),
        Section::Bare => table(BARE, value),
        Section::Both => table(right, value) + &table(wrong, Some(layout.directory())),
    }
}

pub(super) fn import_path(layout: &NodeLayout) -> String {
    let folder = layout.folder();
    match layout.import {
        Import::Nested => format!("{folder}/conf.d/deep/registry.toml"),
        _ => format!("{folder}/conf.d/registry.toml"),
    }
}

pub(super) fn import_text(layout: &NodeLayout, path: ConfigPath) -> String {
    version(layout.format).to_owned() + &registry(layout, path)
}

pub(super) fn add_configuration(layout: &NodeLayout, script: &mut Script) {
    let folder = layout.folder();
    let imports = match layout.import {
        Import::None => String::new(),
        Import::Absolute => format!("\"{folder}/conf.d/registry.toml\""),
        Import::Relative => "\"conf.d/registry.toml\"".to_owned(),
        Import::Glob => format!("\"{folder}/conf.d/*.toml\""),
        Import::RelativeGlob => "\"conf.d/*.toml\"".to_owned(),
        Import::Nested => format!("\"{folder}/conf.d/nested.toml\""),
    };
    let mut text = version(layout.format).to_owned();
    if !imports.is_empty() {
        text += &format!("imports = [{imports}]\n");
        script.add(&format!("mkdir -p {folder}/conf.d"));
    }
    if layout.socket == Socket::Configured {
        text += &format!("[grpc]\n  address = \"{}\"\n", layout.socket_path());
    }
    text += &registry(layout, layout.path);
    if layout.place != ConfigPlace::Absent {
        script.file(&layout.config(), &text);
    }
    if layout.place == ConfigPlace::Decoy {
        let decoy = format!("version = 2\n[{GRPC_CRI}.registry]\n  config_path = \"{}\"\n", layout.directory());
        script.file("/etc/containerd/config.toml", &decoy);
    }
    if layout.import == Import::Nested {
        let nested = format!("{}imports = [\"{}\"]\n", version(layout.format), import_path(layout));
        script.file(&format!("{folder}/conf.d/nested.toml"), &nested);
    }
    let at_start = match layout.life {
        _ if layout.import == Import::None => None,
        Life::Before | Life::Goes | Life::GoesLate => Some(layout.imported),
        Life::Appears | Life::AppearsLate => None,
        Life::Changes if matches!(layout.imported, ConfigPath::Unset | ConfigPath::Empty) => {
            Some(ConfigPath::Directory)
        }
        Life::Changes => Some(ConfigPath::Unset),
    };
    if let Some(path) = at_start {
        script.file(&import_path(layout), &import_text(layout, path));
    }
}
