//! Records what `nodetrust version` prints: git revision, target and compiler; and how the program is linked.

use std::{env, process::Command};

fn main() {
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
        // The loader reads the whole table of relocations at the start: packed, it has 2 kB instead of 220. Linkers of 2024 cannot
        // pack it for ARM.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
