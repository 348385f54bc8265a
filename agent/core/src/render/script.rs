//! The POSIX script, and the MIME part around it. The tables in it are the product's own: families, systems, runtimes.

use std::fmt::Write as _;

use super::{FirstBoot, comment};
use crate::{
    runtime::kinds::{RestartMeans, TABLE},
    store::{ExtractMode, Family, Tool, advice::NATIVE_SYSTEMS, os_release::SYSTEMS},
};

/// Where formats put the script.
pub(super) const SCRIPT_PATH: &str = "/etc/nodetrust/first-boot.sh";
/// The argument under which it restarts a runtime that runs already.
pub(super) const RESTART: &str = "--restart-runtime";

/// The script; markers such as `# @stores@` stand for what is filled in.
const TEMPLATE: &str = include_str!("first_boot.sh");

/// The script that makes a node trust the set.
pub(super) fn script(set: &FirstBoot<'_>) -> String {
    let mut out = String::with_capacity(TEMPLATE.len() + 4096);
    for line in TEMPLATE.lines() {
        match line.trim() {
            "# @set@" => out.push_str(&comment::head(set)),
            "# @systems@" => systems(&mut out),
            "# @native@" => native(&mut out),
            "# @stores@" => Family::ALL
                .into_iter()
                .filter(|family| !family.store().is_behind_api())
                .for_each(|family| store(&mut out, family)),
            "# @family@" => match set.family {
                Some(family) if family.store().is_behind_api() => {
                    push(
                        &mut out,
                        &format!(
                            "fail \"the {family} store is changed through its API, not by a script: see render {family}\""
                        ),
                    );
                }
                Some(family) => push(&mut out, &format!("family={family}")),
                None => push(&mut out, "find_family"),
            },
            "# @anchors@" => anchors(&mut out, set),
            _ => push(&mut out, &line.replace("@units@", &units())),
        }
    }
    out
}

/// User data of EKS nodes: cloud-init runs the part in its last stage, and nodeadm starts the runtime after that (its unit
/// nodeadm-run.service has After=cloud-final.service).
pub(super) fn mime(set: &FirstBoot<'_>) -> String {
    const BOUNDARY: &str = "==nodetrust==";
    format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n--{BOUNDARY}\n\
         Content-Type: text/x-shellscript; charset=\"us-ascii\"\n\
         Content-Disposition: attachment; filename=\"nodetrust-first-boot.sh\"\n\n{}\n--{BOUNDARY}--\n",
        script(set)
    )
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// The arms that lead from an `ID` to a family.
fn systems(out: &mut String) {
    for (family, names) in SYSTEMS.iter().filter(|(family, _)| !family.store().is_behind_api()) {
        let _ = writeln!(out, "    {}) echo {family} ;;", names.join(" | ")); // writing to a `String` cannot fail
    }
}

/// The arm for systems that set trust in their own way.
fn native(out: &mut String) {
    let behind_api = SYSTEMS.iter().filter(|(family, _)| family.store().is_behind_api());
    let ids: Vec<&str> =
        NATIVE_SYSTEMS.iter().map(|system| system.id).chain(behind_api.flat_map(|(_, ids)| *ids).copied()).collect();
    let text = "ID=$id sets trust in its own way, which nodetrust stores names; nothing is changed";
    let _ = writeln!(out, "    {}) fail \"{text}\" ;;", ids.join(" | ")); // writing to a `String` cannot fail
}

/// The arm with a family's row of the table.
fn store(out: &mut String, family: Family) {
    let store = family.store();
    let arguments = match &store.tool {
        Tool::Staged { .. } => String::new(), // the distribution's own run, onto the real bundle
        tool => tool.args(ExtractMode::Plain).join(" "),
    };
    let _ = writeln!(
        out,
        "    {family})\n      anchors={} extension={} temporaries={}\n      bundle={}",
        store.anchors_dir, store.extension, store.temp_dir, store.bundle
    );
    if !store.tool.programs().is_empty() {
        let _ = writeln!(out, "      tool=$(first {}) arguments='{arguments}'", store.tool.programs().join(" "));
    }
    if store.drops_not_ca {
        out.push_str("      leaves_out=yes\n");
    }
    out.push_str("      ;;\n");
}

/// A here-document for each anchor.
fn anchors(out: &mut String, set: &FirstBoot<'_>) {
    for anchor in &set.anchors {
        let not_ca = if set.is_left_out(anchor) { " not-ca" } else { "" };
        let _ = write!(
            out,
            "# {}\nput {}{not_ca} <<'EOF'\n{}EOF\n",
            comment::anchor_line(anchor),
            anchor.fingerprint.fp16(),
            anchor.pem()
        );
    }
}

/// The units of all runtimes that are restarted as a service.
fn units() -> String {
    let rows = TABLE.iter().filter(|row| row.restart == RestartMeans::Service);
    rows.flat_map(|row| row.units).copied().collect::<Vec<_>>().join(" ")
}
