//! How a runtime reaches one registry, by its configuration: whether its answer says anything of the CA (facts C.2, C.3).
//!
//! A mirror, a certificate that is not verified, or plain HTTP make pulls work without any trust in the registry's CA. What cannot be
//! told for sure counts as such a way.

use toml::{Table, Value};

use super::{containerd::ContainerdFile, registry::Registry};

/// How a runtime reaches a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryWay {
    /// By TLS that it verifies, and at no other server than the one that the name says.
    pub verifies_tls: bool,
    /// It takes no further certificates for it: what it trusts are the roots that its process has read.
    pub own_roots: bool,
    /// What speaks against the first, in a sentence.
    pub because: Option<String>,
}

/// What a registry directory has for one registry: the first of [`Registry::folders`] that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryFolder {
    /// Its path on the host.
    pub path: String,
    /// Its `hosts.toml`, or why that could not be read.
    pub hosts: Option<Result<String, String>>,
    /// Whether a `*.crt` lies in it.
    pub has_certs: bool,
}

impl RegistryWay {
    /// Straight to the registry, as without any configuration for it. containerd verifies no certificate of the node itself.
    pub fn straight(registry: &Registry) -> Self {
        let because = registry.is_local().then(|| format!("{registry} is on the node itself, which is not verified"));
        Self { verifies_tls: because.is_none(), own_roots: true, because }
    }

    /// A way of which too little is known.
    pub fn unknown(why: &str) -> Self {
        Self { verifies_tls: false, own_roots: false, because: Some(why.to_owned()) }
    }

    fn unverified(self, why: String) -> Self {
        Self { verifies_tls: false, because: self.because.or(Some(why)), ..self }
    }

    fn with_certs(self) -> Self {
        Self { own_roots: false, ..self }
    }

    /// As containerd's registry directory changes it.
    #[must_use]
    pub fn by_folder(self, folder: &RegistryFolder, registry: &Registry) -> Self {
        let path = &folder.path;
        // a file that does not parse is passed over for the certificates beside it
        let table = match &folder.hosts {
            Some(Ok(text)) => text.parse::<Table>().ok(),
            Some(Err(why)) => return self.with_certs().unverified(format!("{path}/hosts.toml cannot be read: {why}")),
            None => None,
        };
        let Some(table) = table else {
            return if folder.has_certs { self.with_certs() } else { self };
        };
        let mut way = self;
        let hosts = table.get("host").and_then(Value::as_table);
        let entries = hosts.into_iter().flatten().map(|(url, entry)| (Some(url.as_str()), entry.as_table()));
        for (url, entry) in [(table.get("server").and_then(Value::as_str), Some(&table))].into_iter().chain(entries) {
            if let Some(url) = url.filter(|url| !is_of(url, registry)) {
                way = way.unverified(format!("{path}/hosts.toml leads to {url} as well"));
            }
            let Some(entry) = entry else { continue };
            if entry.get("skip_verify").and_then(Value::as_bool) == Some(true) {
                way = way.unverified(format!("{path}/hosts.toml says skip_verify"));
            }
            if entry.contains_key("ca") {
                way = way.with_certs();
            }
        }
        way
    }

    /// As the tables `mirrors` and `configs` in a file of containerd's change it. They count only in containerd 1 without a registry
    /// directory; in doubt they count here.
    #[must_use]
    pub fn by_tables(self, file: &ContainerdFile, registry: &Registry) -> Self {
        file.registry_sections().fold(self, |way, section| way.by_section(section, registry))
    }

    fn by_section(self, section: &Table, registry: &Registry) -> Self {
        let of = |table: &str, name: &str| section.get(table)?.get(name)?.as_table();
        let mut way = self;
        let mirror = of("mirrors", registry.name()).or_else(|| of("mirrors", "*"));
        let endpoints = mirror.and_then(|mirror| mirror.get("endpoint")?.as_array());
        for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_str) {
            if !is_of(endpoint, registry) {
                way = way
                    .unverified(format!("registry.mirrors in containerd's configuration leads to {endpoint} as well"));
            }
        }
        let server = registry.server().authority();
        let tls = of("configs", registry.name())
            .or_else(|| of("configs", &server))
            .and_then(|config| config.get("tls")?.as_table());
        if let Some(tls) = tls {
            if tls.get("insecure_skip_verify").and_then(Value::as_bool) == Some(true) {
                way = way
                    .unverified("registry.configs in containerd's configuration says insecure_skip_verify".to_owned());
            }
            if tls.get("ca_file").and_then(Value::as_str).is_some_and(|file| !file.is_empty()) {
                way = way.with_certs();
            }
        }
        way
    }

    /// As Docker's own settings change it, in the words of its engine: registries that need not be secure, and those with mirrors.
    #[must_use]
    pub fn by_engine(self, is_secure: bool, has_mirrors: bool, has_certs: bool) -> Self {
        let mut way = self;
        if !is_secure {
            way = way.unverified("it is one of Docker's insecure registries".to_owned());
        }
        if has_mirrors {
            way = way.unverified("Docker has mirrors for it".to_owned());
        }
        if has_certs { way.with_certs() } else { way }
    }

    /// As a file of CRI-O's registries.conf changes it; what is not for this registry counts as well.
    #[must_use]
    pub fn by_registries(self, path: &str, text: Result<&str, String>) -> Self {
        let parsed = text.and_then(|text| text.parse::<Table>().map_err(|error| error.message().to_owned()));
        let table = match parsed {
            Ok(table) => table,
            Err(why) => return self.unverified(format!("{path} cannot be read: {why}")),
        };
        let entries = table.get("registry").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table);
        let leads_away = |entry: &Table| {
            entry.contains_key("mirror")
                || entry.get("insecure").and_then(Value::as_bool) == Some(true)
                || entry.get("location").is_some_and(|at| entry.get("prefix").is_some_and(|prefix| prefix != at))
        };
        if table.contains_key("registries") || entries.into_iter().any(leads_away) {
            return self.unverified(format!("{path} has mirrors or registries without TLS"));
        }
        self
    }
}

/// Whether an address is that of the registry itself, by HTTPS.
fn is_of(url: &str, registry: &Registry) -> bool {
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some(_) => return false,
        None => url,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    [registry.key(), registry.server().authority()].contains(&super::pull_answer::with_port(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        Registry::parse("registry.corp:5000").unwrap()
    }

    fn by_hosts(text: &str) -> (bool, bool) {
        let folder = RegistryFolder { path: "/d/x".into(), hosts: Some(Ok(text.into())), has_certs: true };
        let way = RegistryWay::straight(&registry()).by_folder(&folder, &registry());
        assert_eq!(way.verifies_tls, way.because.is_none());
        (way.verifies_tls, way.own_roots)
    }

    #[test]
    fn a_hosts_toml_may_make_the_answer_worthless() {
        for straight in [
            "",
            "server = \"https://registry.corp:5000\"",
            "server = \"registry.corp:5000\"\n[host]",
            "[host.\"https://registry.corp:5000\"]\n capabilities = [\"pull\"]\n skip_verify = false",
            "[host.\"https://registry.corp:5000/v2\"]\n override_path = true",
        ] {
            assert_eq!(by_hosts(straight), (true, true), "{straight}");
        }
        for with_certs in ["ca = \"/x.crt\"", "[host.\"https://registry.corp:5000\"]\n ca = [\"/x.crt\"]"] {
            assert_eq!(by_hosts(with_certs), (true, false), "{with_certs}");
        }
        for elsewhere in [
            "server = \"https://mirror.corp\"",
            "server = \"http://registry.corp:5000\"",
            "server = \"https://registry.corp\"",
            "skip_verify = true",
            "[host.\"https://mirror.corp\"]",
            "[host.\"http://registry.corp:5000\"]",
            "[host.\"https://registry.corp:5000\"]\n skip_verify = true",
            "[host.\"https://registry.corp:5000\"]\n[host.\"https://b\"]",
        ] {
            assert_eq!(by_hosts(elsewhere), (false, true), "{elsewhere}");
        }
        assert_eq!(by_hosts("no toml ["), (true, false), "then containerd takes the certificates beside it");
        let of = |folder: RegistryFolder| RegistryWay::straight(&registry()).by_folder(&folder, &registry());
        assert!(of(RegistryFolder::default()).own_roots);
        assert!(!of(RegistryFolder { has_certs: true, ..RegistryFolder::default() }).own_roots);
        let unreadable = of(RegistryFolder { path: "/d/x".into(), hosts: Some(Err("EIO".into())), has_certs: false });
        assert_eq!(unreadable.because.as_deref(), Some("/d/x/hosts.toml cannot be read: EIO"));
        assert!(!unreadable.verifies_tls && !unreadable.own_roots);
    }

    #[test]
    fn the_tables_of_containerd_1_may_make_the_answer_worthless() {
        let by = |table: &str| {
            let text = format!("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.{table}");
            let file = ContainerdFile::parse(&text).unwrap();
            let way = RegistryWay::straight(&registry()).by_tables(&file, &registry());
            (way.verifies_tls, way.own_roots)
        };
        assert_eq!(by("mirrors.\"registry.corp:5000\"]\nendpoint = [\"https://registry.corp:5000\"]"), (true, true));
        assert_eq!(by("mirrors.\"other\"]\nendpoint = [\"http://x\"]"), (true, true));
        assert_eq!(
            by("mirrors.\"registry.corp:5000\"]\nendpoint = [\"https://m\", \"https://registry.corp:5000\"]"),
            (false, true)
        );
        assert_eq!(by("mirrors.\"*\"]\nendpoint = [\"http://m\"]"), (false, true));
        assert_eq!(by("configs.\"registry.corp:5000\".tls]\ninsecure_skip_verify = true"), (false, true));
        assert_eq!(by("configs.\"registry.corp:5000\".tls]\nca_file = \"/x\""), (true, false));
        assert_eq!(by("configs.\"registry.corp:5000\".tls]\nca_file = \"\""), (true, true));
        let way = RegistryWay::straight(&registry());
        assert_eq!(way.clone().by_tables(&ContainerdFile::default(), &registry()), way);
        let named = ContainerdFile::parse("plugins.cri.registry.config_path = \"/a:/b:c\"").unwrap();
        assert_eq!(named.registry_dirs().collect::<Vec<_>>(), ["/a", "/b"]);
    }

    #[test]
    fn a_registry_on_the_node_itself_and_other_runtimes_settings_count() {
        assert!(!RegistryWay::straight(&Registry::parse("localhost:5000").unwrap()).verifies_tls);
        let way = RegistryWay::straight(&registry());
        assert_eq!(way.clone().by_engine(true, false, false), way);
        assert!(!way.clone().by_engine(false, false, false).verifies_tls);
        assert!(!way.clone().by_engine(true, true, false).verifies_tls);
        assert!(!way.clone().by_engine(true, false, true).own_roots);
        let crio = |text| way.clone().by_registries("/r.conf", text).verifies_tls;
        assert!(crio(Ok("unqualified-search-registries = [\"a\"]\n[[registry]]\nprefix = \"a\"\nlocation = \"a\"")));
        assert!(!crio(Ok("[[registry]]\nprefix = \"a\"\nlocation = \"b\"")));
        assert!(!crio(Ok("[[registry]]\nlocation = \"a\"\ninsecure = true")));
        assert!(!crio(Ok("[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"")));
        assert!(!crio(Ok("[registries.insecure]\nregistries = [\"a\"]")));
        assert!(!crio(Ok("[")) && !crio(Err("EIO".into())));
    }
}
