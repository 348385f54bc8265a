//! A node that runs nothing yet: its runtime may be restarted without asking anybody.

use std::collections::BTreeMap;

/// A container that runs, as the runtime lists it with its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningContainer {
    /// Its name in the pod; empty if the runtime does not say.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// Where the kubelet has the pod from (annotation `kubernetes.io/config.source`): `file` and `http` for static pods, else `api`.
    pub source: String,
}

impl RunningContainer {
    fn is_of_static_pod(&self) -> bool {
        matches!(self.source.as_str(), "file" | "http")
    }

    /// Kubeadm's static pod has the container `etcd` and the label `component: etcd`.
    fn is_etcd(&self) -> bool {
        self.name == "etcd" || self.labels.get("component").is_some_and(|component| component == "etcd")
    }

    fn is_agents_own(&self, namespace: &str) -> bool {
        self.namespace == namespace && self.labels.get("app.kubernetes.io/name").is_some_and(|name| name == "nodetrust")
    }
}

/// Whether a restart of the runtime would disturb nobody: there runs no container but the agent's own, in this namespace, and those of static
/// pods, and none of them is etcd. What cannot be told of a container counts against it.
pub fn runs_nothing(containers: &[RunningContainer], own_namespace: &str) -> bool {
    containers.iter().all(|container| {
        !container.is_etcd() && (container.is_of_static_pod() || container.is_agents_own(own_namespace))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, namespace: &str, label: (&str, &str), source: &str) -> RunningContainer {
        let labels = [(label.0.to_owned(), label.1.to_owned())].into();
        RunningContainer { name: name.into(), namespace: namespace.into(), labels, source: source.into() }
    }

    #[test]
    fn only_our_own_and_static_pods_without_etcd_are_nothing() {
        let own = container("nodetrust", "trust", ("app.kubernetes.io/name", "nodetrust"), "api");
        let server = container("kube-apiserver", "kube-system", ("component", "kube-apiserver"), "file");
        let etcd = container("etcd", "kube-system", ("component", "etcd"), "file");
        let app = container("app", "default", ("app", "app"), "api");
        let nothing = |containers: &[&RunningContainer]| {
            runs_nothing(&containers.iter().map(|container| (*container).clone()).collect::<Vec<_>>(), "trust")
        };
        assert!(nothing(&[]));
        assert!(nothing(&[&own, &server]));
        assert!(
            !nothing(&[&own, &server, &etcd]),
            "an etcd that restarts at the same time on all masters is an outage"
        );
        assert!(!nothing(&[&own, &app]));
        assert!(!nothing(&[&RunningContainer { namespace: "default".into(), ..own }]), "anybody can use our label");
        assert!(!nothing(&[&RunningContainer::default()]), "a container whose pod is not known");
    }
}
