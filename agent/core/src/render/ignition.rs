//! Ignition, for Fedora CoreOS and Flatcar (its specification 3.0.0, which every later version of 3 reads).

use data_encoding::BASE64;
use serde_json::json;

use super::{FirstBoot, script::script, systemd::BEFORE};

/// A configuration that writes the script, and a unit that runs it once. JSON has no comments: the script's name has the digest of the
/// set, and so has the mark that it has run. Where `/etc` does not outlive a boot, the mark goes with the anchors. The unit is ordered
/// before the runtimes, so the script must not restart one: it would wait for itself.
pub(super) fn config(set: &FirstBoot<'_>) -> String {
    let path = format!("/etc/nodetrust/first-boot-{}.sh", set.digest);
    let done = format!("/etc/nodetrust/first-boot-{}.done", set.digest);
    let unit = format!(
        "[Unit]\n\
         Description=Private CAs in the trust store of the node, at the first boot\n\
         ConditionPathExists=!{done}\n\
         Before={BEFORE}\n\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/bin/sh {path}\n\
         ExecStartPost=/bin/touch {done}\n\n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    let config = json!({
        "ignition": {"version": "3.0.0"},
        "storage": {"files": [{
            "path": path,
            "mode": 0o755,
            "contents": {"source": format!("data:;base64,{}", BASE64.encode(script(set).as_bytes()))},
        }]},
        "systemd": {"units": [{"name": "nodetrust-first-boot.service", "enabled": true, "contents": unit}]},
    });
    format!("{config:#}\n")
}
