//! Metrics of the agent's own process, under the names that every Prometheus client uses. They are read from `/proc/self` (proc(5)) at each
//! scrape; what cannot be read is left out, and fails no scrape.

use std::{fs, path::Path};

use nix::unistd::{SysconfVar, sysconf};
use prometheus_client::{
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// Numbers of a process; None for what cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct ProcessNumbers {
    /// Processor time of user and system, in seconds.
    cpu: Option<f64>,
    /// When it started, seconds since the epoch.
    started: Option<f64>,
    virtual_bytes: Option<f64>,
    resident_bytes: Option<f64>,
    threads: Option<f64>,
    open_files: Option<f64>,
    max_files: Option<f64>,
}

/// The units of the numbers in `/proc`.
#[derive(Debug, Clone, Copy)]
struct ProcUnits {
    ticks_per_second: f64,
    bytes_per_page: f64,
}

/// The metrics, as they are now.
pub(super) fn registry() -> Registry {
    let numbers = ProcessNumbers::read();
    let mut registry = Registry::default();
    if let Some(cpu) = numbers.cpu {
        registry.register("process_cpu_seconds", "User and system processor time", ConstCounter::new(cpu));
    }
    for (name, help, value) in [
        ("process_start_time_seconds", "When the process started, in seconds since the epoch", numbers.started),
        ("process_virtual_memory_bytes", "Size of virtual memory", numbers.virtual_bytes),
        ("process_resident_memory_bytes", "Size of resident memory", numbers.resident_bytes),
        ("process_threads", "Threads", numbers.threads),
        ("process_open_fds", "Open file descriptors", numbers.open_files),
        ("process_max_fds", "File descriptors that may be open", numbers.max_files),
    ] {
        if let Some(value) = value {
            registry.register(name, help, ConstGauge::new(value));
        }
    }
    registry
}

impl ProcessNumbers {
    fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        let number = |name| sysconf(name).ok().flatten().map(|number| float(u64::try_from(number).unwrap_or(0)));
        let mut numbers = Self::default();
        if let (Some(stat), Some(ticks), Some(page)) =
            (text("/proc/self/stat"), number(SysconfVar::CLK_TCK), number(SysconfVar::PAGE_SIZE))
        {
            let units = ProcUnits { ticks_per_second: ticks, bytes_per_page: page };
            numbers = Self::of_stat(&stat, text("/proc/stat").and_then(|text| boot_time(&text)), units);
        }
        // the directory that is being read is open too
        numbers.open_files = entries(Path::new("/proc/self/fd")).map(|count| float(count.saturating_sub(1)));
        numbers.max_files = text("/proc/self/limits").and_then(|text| max_files(&text));
        numbers
    }

    /// What `/proc/self/stat` says. `booted`: when the machine did, in seconds since the epoch.
    fn of_stat(stat: &str, booted: Option<f64>, units: ProcUnits) -> Self {
        // the name of the program may hold anything, but no `)` comes after it; the first field behind it is number 3
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok().map(float);
        let seconds = |number: usize| field(number).map(|ticks| ticks / units.ticks_per_second);
        Self {
            cpu: seconds(14).zip(seconds(15)).map(|(user, system)| user + system),
            started: seconds(22).zip(booted).map(|(since, booted)| booted + since),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * units.bytes_per_page),
            threads: field(20),
            open_files: None,
            max_files: None,
        }
    }
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok().map(float)
}

fn max_files(limits: &str) -> Option<f64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?;
    if soft == "unlimited" { Some(f64::INFINITY) } else { soft.parse().ok().map(float) }
}

fn entries(directory: &Path) -> Option<u64> {
    u64::try_from(fs::read_dir(directory).ok()?.count()).ok()
}

#[expect(clippy::cast_precision_loss, reason = "seconds, bytes and counts are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: ProcUnits = ProcUnits { ticks_per_second: 100.0, bytes_per_page: 4096.0 };

    #[test]
    fn a_program_with_an_odd_name_has_its_own_numbers() {
        let stat = "7 (a) R (b) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 3 0 1000 8192 2 18446744073709551615";
        let numbers = ProcessNumbers::of_stat(stat, Some(1_700_000_000.0), UNITS);
        assert_eq!((numbers.cpu, numbers.started), (Some(3.0), Some(1_700_000_010.0)));
        assert_eq!((numbers.virtual_bytes, numbers.resident_bytes), (Some(8192.0), Some(8192.0)));
        assert_eq!(numbers.threads, Some(3.0));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for stat in ["", "7 (a", "7 (a) S", "7 (a) S x x x x x x x x x x y z 0 0 20 0 q 0 w v u"] {
            assert_eq!(ProcessNumbers::of_stat(stat, None, UNITS), ProcessNumbers::default(), "{stat}");
        }
        assert_eq!((max_files(""), boot_time("cpu 1 2 3")), (None, None));
        assert_eq!(
            max_files("Max open files            1024                 4096                 files"),
            Some(1024.0)
        );
        assert_eq!(
            max_files("Max open files            unlimited            unlimited            files"),
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn this_process_has_every_number() {
        let numbers = ProcessNumbers::read();
        let values = [numbers.cpu, numbers.started, numbers.virtual_bytes, numbers.resident_bytes, numbers.threads];
        let files = [numbers.open_files, numbers.max_files];
        assert!(values.iter().chain(&files).all(|value| value.is_some_and(|value| value >= 0.0)), "{numbers:?}");
    }
}
