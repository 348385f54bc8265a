//! How the files of a source lie there: what is said where they hold no certificate, and which folders were passed over.

use crate::certificate::name::shown;

/// Names of one sort that a text lists; the rest is counted.
const NAMED: usize = 5;

/// A volume of a pod that the kubelet writes, by what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeletVolume {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// Several of these, or a ClusterTrustBundle.
    Projected,
    /// One of these: which, could not be told.
    Unknown,
}

/// What lies at the path of a source, beside its certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceLayout {
    /// It is a volume that the kubelet writes.
    pub volume: Option<KubeletVolume>,
    /// Regular files that were read, or are to be.
    pub files: usize,
    /// Files without a single byte.
    pub blank: NameList,
    /// Folders in its directory, which are not read.
    pub folders: NameList,
}

/// A few names, and how many more there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameList {
    named: Vec<String>,
    more: usize,
}

impl NameList {
    /// Adds a name, which may be anything.
    pub fn push(&mut self, name: &str) {
        if self.named.len() < NAMED {
            self.named.push(shown(name));
        } else {
            self.more += 1;
        }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.named.len() + self.more
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// `a, b and 2 more`.
    fn text(&self) -> String {
        let named = self.named.join(", ");
        if self.more == 0 { named } else { format!("{named} and {} more", self.more) }
    }
}

impl SourceLayout {
    /// Why there is no certificate in files none of which was rejected.
    pub fn emptiness(&self) -> String {
        let unsupported =
            "the API server has dropped a source of the volume that it does not support, such as clusterTrustBundle";
        if self.files > 0 && self.files == self.blank.len() {
            let why = match self.volume {
                // projected-volumes of the Kubernetes documentation: an optional bundle that does not exist is an empty file
                Some(KubeletVolume::Projected | KubeletVolume::Unknown) => {
                    "; so it is where an optional ClusterTrustBundle does not exist"
                }
                _ => "",
            };
            return format!("empty: no byte in {}{why}", self.blank.text());
        }
        if self.files > 0 {
            let files = if self.files == 1 { "its file".to_owned() } else { format!("its {} files", self.files) };
            return format!("empty: no certificate in {files}");
        }
        match self.volume {
            None if self.folders.is_empty() => "empty".to_owned(),
            None => "empty: no file beside its folders".to_owned(),
            Some(_) if !self.folders.is_empty() => "empty: a Kubernetes volume that has folders and no file".to_owned(),
            Some(KubeletVolume::ConfigMap) => {
                "empty: the volume's ConfigMap does not exist, or has no key that is taken".to_owned()
            }
            Some(KubeletVolume::Secret) => {
                "empty: the volume's Secret does not exist, or has no key that is taken".to_owned()
            }
            Some(KubeletVolume::Projected) => {
                format!("empty: a projected volume without files: nothing that it names exists, or {unsupported}")
            }
            Some(KubeletVolume::Unknown) => format!(
                "empty: a Kubernetes volume without files: its ConfigMap or Secret does not exist or has no key that is taken; or it is a projected \
                 volume, and {unsupported}"
            ),
        }
    }

    /// Whether it is an empty volume of a ConfigMap or Secret. An empty projected volume may have lost a source instead.
    pub(super) fn is_of_nothing(&self) -> bool {
        let of_one = matches!(self.volume, Some(KubeletVolume::ConfigMap | KubeletVolume::Secret));
        of_one && self.files == 0 && self.folders.is_empty()
    }

    /// Which folders were not read; None if there is none.
    pub fn passed_over(&self) -> Option<String> {
        let folders = self.folders.text();
        (!self.folders.is_empty()).then(|| {
            format!("passed over, since only files right in a source's directory are read: the folders {folders}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> NameList {
        let mut list = NameList::default();
        names.iter().for_each(|name| list.push(name));
        list
    }

    #[test]
    fn an_empty_volume_is_called_what_it_is() {
        let of = |volume, files, blank: &[&str]| {
            SourceLayout { volume, files, blank: list(blank), ..SourceLayout::default() }.emptiness()
        };
        assert_eq!(of(None, 0, &[]), "empty");
        assert!(of(Some(KubeletVolume::ConfigMap), 0, &[]).contains("ConfigMap does not exist"));
        assert!(of(Some(KubeletVolume::Secret), 0, &[]).contains("Secret does not exist"));
        for volume in [KubeletVolume::Projected, KubeletVolume::Unknown] {
            let text = of(Some(volume), 0, &[]);
            assert!(text.starts_with("empty: ") && text.contains("projected volume"), "{text}");
            assert!(text.contains("clusterTrustBundle"), "{text}");
            let text = of(Some(volume), 1, &["ca.crt"]);
            assert!(text.contains("no byte in ca.crt") && text.contains("optional ClusterTrustBundle"), "{text}");
        }
        assert_eq!(of(None, 2, &["a"]), "empty: no certificate in its 2 files");
        assert_eq!(of(Some(KubeletVolume::Secret), 1, &["a"]), "empty: no byte in a");
    }

    #[test]
    fn folders_that_were_passed_over_are_named_up_to_five() {
        let of = |names: &[&str]| SourceLayout { folders: list(names), ..SourceLayout::default() };
        assert_eq!(of(&[]).passed_over(), None);
        assert!(of(&["a"]).passed_over().is_some_and(|text| text.ends_with("the folders a")));
        let many = of(&["a", "b", "c", "d", "e", "f\u{1b}", "g"]);
        assert!(many.passed_over().is_some_and(|text| text.ends_with("a, b, c, d, e and 2 more")));
        assert_eq!((many.folders.len(), many.emptiness().as_str()), (7, "empty: no file beside its folders"));
        assert!(!of(&["\u{1b}[31m"]).passed_over().unwrap_or_default().contains('\u{1b}'));
    }
}
