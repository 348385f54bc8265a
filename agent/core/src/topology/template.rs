//! The template from which a node was made, by what is written on its Node.
//!
//! A template that hands out an old CA makes nodes with a stale copy again and again; the finding names it.

use crate::{certificate::name::visible, node_status::ObjectMetadata};

/// The label that whoever makes the nodes may set to the name and version of their template.
const TEMPLATE_LABEL: &str = "nodetrust.io/template";
/// Labels of those that make nodes in groups, each group of one template: EKS, Karpenter, GKE, AKS.
const GROUP_LABELS: [&str; 5] = [
    "eks.amazonaws.com/sourceLaunchTemplateVersion",
    "eks.amazonaws.com/nodegroup",
    "karpenter.sh/nodepool",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
];
/// The annotation by which Cluster API names the MachineSet or control plane that a Node belongs to.
const OWNER_ANNOTATION: &str = "cluster.x-k8s.io/owner-name";
/// Longest name that is shown, in characters: that of a label's value.
const LIMIT: usize = 63;

/// The template of a Node: our label, else the group's, as `KEY=VALUE`. None if nothing is written there.
pub(super) fn template_of(metadata: &ObjectMetadata) -> Option<String> {
    let label = |key: &str| {
        let value = metadata.labels.as_ref()?.get(key).filter(|value| !value.is_empty())?;
        Some((key.to_owned(), value))
    };
    let owner = || {
        let value = metadata.annotations.as_ref()?.get(OWNER_ANNOTATION).filter(|value| !value.is_empty())?;
        Some((OWNER_ANNOTATION.to_owned(), value))
    };
    let found = label(TEMPLATE_LABEL).or_else(|| GROUP_LABELS.into_iter().find_map(label)).or_else(owner);
    found.map(|(key, value)| format!("{key}={}", visible(value).chars().take(LIMIT).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn metadata(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> ObjectMetadata {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        ObjectMetadata { labels: Some(map(labels)), annotations: Some(map(annotations)), ..ObjectMetadata::default() }
    }

    #[test]
    fn our_label_comes_before_a_groups_and_that_before_the_owner() {
        let owner = [(OWNER_ANNOTATION, "workers-7d9f")];
        let group = ("karpenter.sh/nodepool", "default");
        let of = |labels: &[(&str, &str)]| template_of(&metadata(labels, &owner));
        assert_eq!(of(&[group, (TEMPLATE_LABEL, "workers-2026-01")]).unwrap(), "nodetrust.io/template=workers-2026-01");
        assert_eq!(of(&[group, (TEMPLATE_LABEL, "")]).unwrap(), "karpenter.sh/nodepool=default");
        assert_eq!(of(&[]).unwrap(), "cluster.x-k8s.io/owner-name=workers-7d9f");
        assert_eq!(template_of(&metadata(&[("team", "a")], &[])), None);
    }

    #[test]
    fn a_hostile_value_is_cut_and_made_visible() {
        let text = template_of(&metadata(&[(TEMPLATE_LABEL, &"\u{1b}[2J".repeat(1000))], &[])).unwrap();
        assert!(text.chars().count() <= TEMPLATE_LABEL.len() + 1 + LIMIT && !text.contains('\u{1b}'), "{text}");
    }
}
