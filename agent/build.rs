//! Records what `nodetrust version` prints: git revision, target and compiler; and how the program is linked.

use std::{env, fs, io, path::Path, process::Command};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/refs/heads");
    println!("cargo::rerun-if-env-changed=NODETRUST_REVISION");
    let revision = env::var("NODETRUST_REVISION")
        .ok()
        .or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    let rustc = output(&env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()), &["--version"]);
    println!("cargo::rustc-env=NODETRUST_REVISION={revision}");
    println!("cargo::rustc-env=NODETRUST_TARGET={}", env::var("TARGET").unwrap_or_default());
    println!("cargo::rustc-env=NODETRUST_RUSTC={}", rustc.unwrap_or_else(|| "unknown".to_owned()));
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("ARCH") == "x86_64" && target("OS") == "linux" {
        // the table of addresses that are adjusted at the start is read whole: 2 kB of it instead of 220. For ARM, linkers of
        // 2024 do not know it yet
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
            lay_out()?;
        }
    }
    Ok(())
}

/// Puts together in the file what an agent runs, and apart what it does not: what is touched of a file counts as its memory, and Linux
/// maps far more than the page that was touched. `layout.txt` has the functions of dependencies that an agent was seen to run, without
/// the parts of their names that change with each build; `scripts/bench layout` renews it. A name that fits nothing does no harm, and
/// one that is missing costs memory only. LLD and GNU ld know such a script.
fn lay_out() -> io::Result<()> {
    println!("cargo::rerun-if-changed=layout.txt");
    let seen = fs::read_to_string(Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("layout.txt"))?;
    let seen: String = seen.lines().map(|name| format!("    *(.text.*{name})\n")).collect();
    let script = Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("layout.ld");
    fs::write(
        &script,
        format!(
            "SECTIONS {{
  .text.agent : {{
    *(.text.*_ZN9nodetrust* .text.*_ZN14nodetrust_core* .text.*$LT$nodetrust..* .text.*$LT$nodetrust_core..*)
    *(.text.*_R*_9nodetrust* .text.*_R*_14nodetrust_core*)
{seen}    *aws_lc_sys*:*p256*(.text)
    *aws_lc_sys*:*sha256*(.text)
    *aws_lc_sys*:*-mont*(.text)
    *libc.a:*(.text .text.*)
  }}
}} INSERT BEFORE .text;
SECTIONS {{
  .rodata.aside : {{
    *(.rodata.ecp_nistz256*)
    *aws_lc_sys*:*(.rodata .rodata.*)
  }}
}} INSERT AFTER .rodata;
"
        ),
    )?;
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    Ok(())
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
