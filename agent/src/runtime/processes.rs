//! The host's processes, through its own /proc: no host PID namespace is needed for that, only the mount.

use std::io;

use crate::host::root::HostRoot;

/// Bytes of a file in /proc that are read.
const LIMIT: u64 = 64 << 10;
/// Processes that are looked through.
const MAX_PROCESSES: usize = 1 << 16;

/// What `/proc/PID/stat` says.
struct Stat {
    name: String,
    parent: u32,
    started: u64,
}

/// When a process started, in milliseconds after boot, rounded down to the clock tick.
pub(crate) fn started(root: &HostRoot, pid: u32) -> Option<u64> {
    Some(stat(root, pid)?.started)
}

/// The youngest child of this name.
pub(crate) fn child(root: &HostRoot, parent: u32, name: &str) -> Option<u32> {
    youngest(root, |stat| stat.parent == parent && stat.name == name)
}

/// The oldest process of this name that the host itself runs: as root, in the host's own PID namespace, and started by its
/// init system. What runs in a container can have any name, and none of these.
pub(crate) fn by_name(root: &HostRoot, name: &str) -> Option<u32> {
    let is_starter =
        |pid: u32| pid == 1 || stat(root, pid).is_some_and(|parent| parent.name.starts_with("supervise-daem"));
    all(root)
        .filter(|(pid, stat)| stat.name == name && is_starter(stat.parent) && is_of_the_host(root, *pid))
        .min_by_key(|(_, stat)| stat.started)
        .map(|(pid, _)| pid)
}

/// Whether the host itself runs a process, as root. proc_pid_status(5): `Uid` has the real user first, `NSpid` a number for each PID
/// namespace from this /proc's down.
pub(crate) fn is_of_the_host(root: &HostRoot, pid: u32) -> bool {
    let bytes = root.read(format!("/proc/{pid}/status"), LIMIT).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let field = |name: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    field("Uid:").first().is_some_and(|uid| uid == "0") && field("NSpid:").len() == 1
}

/// The unit of systemd that a process belongs to, by its control group (systemd.slice(5)); None if it is in none.
pub(crate) fn unit(root: &HostRoot, pid: u32) -> Option<String> {
    let bytes = root.read(format!("/proc/{pid}/cgroup"), LIMIT).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let names = text.lines().flat_map(|line| line.rsplit('/').next());
    names.filter(|name| name.ends_with(".service")).map(str::to_owned).next()
}

/// The command line of a process.
pub(crate) fn command(root: &HostRoot, pid: u32) -> io::Result<Vec<String>> {
    let bytes = root.read(format!("/proc/{pid}/cmdline"), LIMIT)?;
    Ok(words(&bytes))
}

/// The words of a command line as `/proc` has it, each ended by a zero.
pub(crate) fn words(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    words.filter(|word| !word.is_empty()).collect()
}

/// Name and start of a process, from its `stat`.
pub(crate) fn read_stat(text: &str) -> Option<(String, u64)> {
    parse(text, 100).map(|stat| (stat.name, stat.started))
}

fn youngest(root: &HostRoot, wanted: impl Fn(&Stat) -> bool) -> Option<u32> {
    all(root).filter(|(_, stat)| wanted(stat)).max_by_key(|(_, stat)| stat.started).map(|(pid, _)| pid)
}

fn all(root: &HostRoot) -> impl Iterator<Item = (u32, Stat)> {
    let names = root.names("/proc").unwrap_or_default();
    let pids = names.into_iter().filter_map(|(name, _)| name.parse::<u32>().ok()).take(MAX_PROCESSES);
    pids.filter_map(|pid| Some((pid, stat(root, pid)?)))
}

fn stat(root: &HostRoot, pid: u32) -> Option<Stat> {
    let bytes = root.read(format!("/proc/{pid}/stat"), LIMIT).ok()?;
    parse(&String::from_utf8_lossy(&bytes), ticks_per_second())
}

/// proc_pid_stat(5): the name stands in parentheses and may hold some itself; field 4 is the parent, 22 the start.
fn parse(text: &str, ticks_per_second: u64) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: u64 = fields.get(19)?.parse().ok()?;
    Some(Stat {
        name: name.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        started: ticks.checked_mul(1000)?.checked_div(ticks_per_second)?,
    })
}

fn ticks_per_second() -> u64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let rest = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 322858 1000 2 3";
        let stat = parse(&format!("4242 (a) (b c) {rest}"), 100).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent, stat.started), ("a) (b c", 7, 3_228_580));
        assert!(parse("", 100).is_none() && parse("1 (x) S 1", 100).is_none() && parse("1 (x", 100).is_none());
    }

    #[test]
    fn our_own_process_has_started() {
        let root = crate::host::root::HostRoot::open(std::path::Path::new("/")).unwrap();
        let started = super::started(&root, std::process::id()).unwrap();
        let now = crate::host::uptime(&root).unwrap().milliseconds;
        assert!(started <= now && now - started < 3_600_000, "{started} {now}");
    }
}
