//! How a source is mounted, from `/proc/self/mountinfo` (proc(5)).
//!
//! A volume that is mounted with `subPath` never follows its object (facts D, pitfall P21): the mount is bound to one
//! generation's file, which shows in the mount's root as the kubelet's timestamped directory or its volume-subpaths folder.

use std::path::{Path, PathBuf};

/// The mounts of this process.
#[derive(Debug, Default)]
pub struct Mounts(Vec<(PathBuf, String)>);

impl Mounts {
    /// Reads the table; an unreadable one is an empty one, since notes are all that is lost.
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Reads the table's text: mount point and root of each line.
    pub fn parse(text: &str) -> Self {
        let mounts = text.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            Some((PathBuf::from(unescape(point)), unescape(root)))
        });
        Self(mounts.collect())
    }

    /// What people should know about the mount that a path, or a file right in it, is.
    pub fn notes(&self, path: &Path) -> Vec<String> {
        self.0
            .iter()
            .filter(|(point, root)| (point == path || point.parent() == Some(path)) && is_sub_path(root))
            .map(|(point, _)| {
                format!(
                    "{} is mounted with subPath, so it never follows its object: mount the whole volume instead",
                    point.display()
                )
            })
            .collect()
    }
}

fn is_sub_path(root: &str) -> bool {
    // `..2026_11_22_03_04_05.1234567890`, see Kubernetes' atomic_writer.go
    let generation = |name: &str| name.strip_prefix("..20").is_some_and(|rest| rest.contains('_'));
    root.contains("/volume-subpaths/") || root.split('/').any(generation)
}

/// Octal escapes of proc(5).
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
841 822 254:1 /var/lib/kubelet/pods/0a/volumes/kubernetes.io~configmap/org /etc/nodetrust/sources/org ro,relatime - ext4 /dev/vda1 rw
842 822 254:1 /var/lib/kubelet/pods/0a/volumes/kubernetes.io~configmap/org/..2026_11_22_03_04_05.123/ca.crt /etc/nodetrust/sources/one.crt ro - ext4 /dev/vda1 rw
843 822 0:55 /..2026_11_22_03_04_05.123/ca.crt /etc/nodetrust/sources/a\\040b/ca.crt ro - tmpfs tmpfs rw
844 822 254:1 /var/lib/kubelet/pods/0a/volume-subpaths/org/agent/0 /etc/nodetrust/sources/two.crt ro - ext4 /dev/vda1 rw
";

    #[test]
    fn sub_path_mounts_are_called_out() {
        let mounts = Mounts::parse(TABLE);
        for path in ["one.crt", "two.crt", "a b", "a b/ca.crt"] {
            let notes = mounts.notes(&Path::new("/etc/nodetrust/sources").join(path));
            assert!(notes.iter().any(|note| note.contains("subPath")), "{path}: {notes:?}");
        }
        assert!(mounts.notes(Path::new("/etc/nodetrust/sources/org")).is_empty());
        assert!(mounts.notes(Path::new("/etc/nodetrust")).is_empty());
    }
}
