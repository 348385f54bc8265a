//! How a source is mounted, from `/proc/self/mountinfo` (proc(5)).
//!
//! The kubelet keeps a pod's volumes in folders that are called after their sort. The root of a mount names the folder where the
//! volume lies on the node's disk, as a ConfigMap does. A Secret and a projected volume are a tmpfs each: there, another mount of
//! the same device names it, which is seen where the node's root is mounted.
//!
//! A volume that is mounted with `subPath` never follows its object (facts D): the mount is bound to one
//! generation's file, which shows in the mount's root as the kubelet's timestamped directory or its volume-subpaths folder.

use std::path::{Path, PathBuf};

use nodetrust_core::source::KubeletVolume;

/// The mounts of this process.
#[derive(Debug, Default)]
pub struct Mounts(Vec<MountLine>);

/// A line of the table.
#[derive(Debug)]
struct MountLine {
    /// `major:minor`
    device: String,
    /// the directory of the file system that is mounted
    root: String,
    /// where
    point: PathBuf,
}

impl Mounts {
    /// Reads the table; an unreadable one is an empty one, since notes are all that is lost.
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Reads the table's text.
    pub fn parse(text: &str) -> Self {
        let mounts = text.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
            Some(MountLine { device: device.to_owned(), root: unescape(root), point: PathBuf::from(unescape(point)) })
        });
        Self(mounts.collect())
    }

    /// Which of the kubelet's volumes is mounted at a path that is one.
    pub fn volume(&self, path: &Path) -> KubeletVolume {
        // of several mounts at one place the last one is seen
        let Some(mount) = self.0.iter().rfind(|mount| mount.point == path) else { return KubeletVolume::Unknown };
        let of_device = |other: &&MountLine| mount.root == "/" && other.device == mount.device;
        let named = || self.0.iter().filter(of_device).find_map(|other| volume_in(&other.point.to_string_lossy()));
        volume_in(&mount.root).or_else(named).unwrap_or(KubeletVolume::Unknown)
    }

    /// Where a path leads: the device, and the path in its file system. Two mount namespaces show the same there if these are equal.
    pub fn place(&self, path: &Path) -> Option<(&str, PathBuf)> {
        // of several mounts at one place the last one is seen
        let over = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        let mount = over.max_by_key(|mount| mount.point.components().count())?;
        let rest = path.strip_prefix(&mount.point).ok()?;
        Some((&mount.device, Path::new(&mount.root).join(rest)))
    }

    /// What people should know about the mount that a path, or a file right in it, is.
    pub fn notes(&self, path: &Path) -> Vec<String> {
        self.0
            .iter()
            .filter(|mount| (mount.point == path || mount.point.parent() == Some(path)) && is_sub_path(&mount.root))
            .map(|mount| {
                format!(
                    "{} is mounted with subPath, so it never follows its object: mount the whole volume instead",
                    mount.point.display()
                )
            })
            .collect()
    }
}

/// `…/pods/UID/volumes/kubernetes.io~SORT/NAME`: the sort, see GetPodVolumeDir of Kubernetes' pkg/kubelet.
fn volume_in(path: &str) -> Option<KubeletVolume> {
    let (_, rest) = path.split_once("/volumes/kubernetes.io~")?;
    match rest.split('/').next()? {
        "configmap" => Some(KubeletVolume::ConfigMap),
        "secret" => Some(KubeletVolume::Secret),
        "projected" => Some(KubeletVolume::Projected),
        _ => None,
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
    fn the_same_files_by_another_mount_are_no_other_place() {
        let host = Mounts::parse("1 0 254:1 / / rw - ext4 /dev/vda1 rw\n");
        let bound = Mounts::parse("1 0 254:1 / / rw - ext4 x rw\n2 1 254:1 /etc /etc ro - ext4 x ro\n");
        let other = Mounts::parse("1 0 254:1 / / rw - ext4 x rw\n2 1 254:1 /srv/roots /etc/ssl/certs ro - ext4 x ro\n");
        let certs = Path::new("/etc/ssl/certs");
        assert_eq!(host.place(certs), Some(("254:1", PathBuf::from("/etc/ssl/certs"))));
        assert_eq!(bound.place(certs), host.place(certs));
        assert_ne!(other.place(certs), host.place(certs));
        assert_eq!(other.place(Path::new("/etc/ssl")), host.place(Path::new("/etc/ssl")));
        assert_eq!(Mounts::default().place(certs), None);
    }

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

    #[test]
    fn a_volume_is_known_by_its_folder_on_the_node() {
        let mounts = Mounts::parse(&format!(
            "{TABLE}\
850 822 0:60 / /sources/secret ro - tmpfs tmpfs rw
851 822 0:61 / /sources/projected ro - tmpfs tmpfs rw
852 822 0:62 / /sources/unseen ro - tmpfs tmpfs rw
853 822 254:1 / /sources/disk ro - ext4 /dev/vda1 rw
860 700 0:60 / /host/var/lib/kubelet/pods/0a/volumes/kubernetes.io~secret/ca rw - tmpfs tmpfs rw
861 700 0:61 / /host/data/kubelet/pods/0a/volumes/kubernetes.io~projected/ca rw - tmpfs tmpfs rw
862 700 0:63 / /host/var/lib/kubelet/pods/0a/volumes/kubernetes.io~projected/other rw - tmpfs tmpfs rw
"
        ));
        for (path, volume) in [
            ("/etc/nodetrust/sources/org", KubeletVolume::ConfigMap),
            ("/sources/secret", KubeletVolume::Secret),
            ("/sources/projected", KubeletVolume::Projected),
            ("/sources/unseen", KubeletVolume::Unknown),
            ("/sources/disk", KubeletVolume::Unknown),
            ("/sources/none", KubeletVolume::Unknown),
        ] {
            assert_eq!(mounts.volume(Path::new(path)), volume, "{path}");
        }
    }
}
