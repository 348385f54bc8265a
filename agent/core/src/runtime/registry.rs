//! Registries by the names that images have: which ones a node uses, and how a runtime reaches one.

use std::{collections::BTreeMap, fmt};

use crate::{
    certificate::name,
    probe::{BadTarget, Target},
};

/// Registries of a node's images that are considered.
pub const MAX_REGISTRIES: usize = 16;
/// The registry that stands in the names of images for the one at [`HUB_SERVER`].
const HUB: &str = "docker.io";
const HUB_SERVER: &str = "registry-1.docker.io";

/// A registry, as the names of its images begin: `registry.corp`, `registry.corp:5000`, `[fd00::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registry {
    name: String,
    host: String,
    port: u16,
}

impl Registry {
    /// Reads `host` or `host:port`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// A sentence with the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "want the beginning of an image's name, such as registry.corp or registry.corp:5000";
        let bad = |_: BadTarget| format!("`{}` is no registry: {form}", name::shown(text));
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        if text.contains('/') {
            return Err(format!("`{}` is no registry: {form}", name::shown(text)));
        }
        let target = if has_port { Target::parse(text) } else { Target::parse(&format!("{text}:443")) };
        target.map(|target| Self::of(&target)).map_err(bad)
    }

    /// The registry at a server: images are not named with the usual port.
    pub fn of(target: &Target) -> Self {
        let authority = target.authority();
        let name = match authority.strip_suffix(":443") {
            Some(host) => host.to_owned(),
            None => authority,
        };
        Self { name, host: target.host().to_owned(), port: target.port() }
    }

    /// The registry of an image, by its reference or digest as CRI lists them. None where it has none, such as `<none>@<none>`.
    pub fn of_image(image: &str) -> Option<Self> {
        let (first, _) = image.split_once('/')?;
        let is_host = first.contains(['.', ':']) || first == "localhost";
        is_host.then(|| Self::parse(first).ok()).flatten()
    }

    /// As the names of its images begin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `host:port`, by which its answers are remembered.
    pub fn key(&self) -> String {
        crate::runtime::pull_answer::with_port(&self.name)
    }

    /// The server to which a runtime goes that has no other setting.
    pub fn server(&self) -> Target {
        let (host, port) = (if self.name == HUB { HUB_SERVER } else { &self.host }, self.port);
        Target::of(host, port)
    }

    /// Whether containerd takes it for one on the node itself, whose certificate it does not verify unless it is told to.
    pub fn is_local(&self) -> bool {
        let address: Option<std::net::IpAddr> = self.host.parse().ok();
        self.host == "localhost" || address.is_some_and(|address| address.is_loopback())
    }

    /// The folders of a registry directory in which containerd looks for it, the first that is there (facts C.2).
    pub fn folders(&self) -> Vec<String> {
        let mut folders = Vec::new();
        if let Some((host, port)) = self.name.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            folders.push(format!("{host}_{port}_"));
        }
        folders.extend([self.name.clone(), crate::runtime::registry_dir::DEFAULT.to_owned()]);
        folders
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The registries of a node's images, the one with the most images first.
pub fn of_images<'a>(images: impl IntoIterator<Item = &'a str>) -> Vec<Registry> {
    let mut counts: BTreeMap<Registry, usize> = BTreeMap::new();
    for registry in images.into_iter().filter_map(Registry::of_image) {
        *counts.entry(registry).or_default() += 1;
    }
    let mut all: Vec<(Registry, usize)> = counts.into_iter().collect();
    all.sort_by(|(one, few), (other, many)| many.cmp(few).then_with(|| one.cmp(other)));
    all.into_iter().map(|(registry, _)| registry).take(MAX_REGISTRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_as_images_name_them() {
        for (text, name, key, server) in [
            ("registry.corp", "registry.corp", "registry.corp:443", "registry.corp:443"),
            ("registry.corp:443", "registry.corp", "registry.corp:443", "registry.corp:443"),
            ("registry.corp:5000", "registry.corp:5000", "registry.corp:5000", "registry.corp:5000"),
            ("[fd00::1]:5000", "[fd00::1]:5000", "[fd00::1]:5000", "[fd00::1]:5000"),
            ("[fd00::1]", "[fd00::1]", "[fd00::1]:443", "[fd00::1]:443"),
            ("10.0.0.1:5000", "10.0.0.1:5000", "10.0.0.1:5000", "10.0.0.1:5000"),
            ("docker.io", "docker.io", "docker.io:443", "registry-1.docker.io:443"),
        ] {
            let registry = Registry::parse(text).unwrap();
            assert_eq!(
                (registry.name(), registry.key().as_str(), registry.server().authority().as_str()),
                (name, key, server)
            );
        }
        for bad in
            ["", "registry/x", "https://registry.corp", "registry:", "registry:x", "a b", ":5000", "registry.corp/"]
        {
            let error = Registry::parse(bad).unwrap_err();
            assert!(error.contains("is no registry: want"), "{error}");
        }
    }

    #[test]
    fn the_registries_of_images_come_with_the_most_used_first() {
        let images = [
            "registry.corp:5000/app:1",
            "registry.corp:5000/app@sha256:00",
            "docker.io/library/busybox:1",
            "quay.io/a/b:1",
            "quay.io/a/c:1",
            "quay.io/a/d:1",
            "localhost/x:1",
            "sha256:00",
            "busybox:1",
            "library/busybox:1",
            "<none>@<none>",
            "bad host.x/y:1",
        ];
        let names: Vec<String> = of_images(images).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["quay.io", "registry.corp:5000", "docker.io", "localhost"]);
        assert!(Registry::parse("localhost:1").unwrap().is_local() && Registry::parse("127.0.0.9").unwrap().is_local());
    }

    #[test]
    fn a_registry_has_its_folders() {
        let folders = |text: &str| Registry::parse(text).unwrap().folders();
        assert_eq!(folders("h.x:5443"), ["h.x_5443_", "h.x:5443", "_default"]);
        assert_eq!(folders("h.x"), ["h.x", "_default"]);
        assert_eq!(folders("[::1]:5"), ["[::1]_5_", "[::1]:5", "_default"]);
    }
}
