//! The processes below another one, from its `/proc` (proc(5)): a child that has left its process group and session is among them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    os::fd::OwnedFd,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::Pid,
};

/// A process, told from a later one with the same number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Descendant {
    pid: i32,
    started: u64,
}

/// A view of the running processes.
#[derive(Debug)]
pub(super) struct ProcessTable(OwnedFd);

impl ProcessTable {
    /// Ours; it stays ours after a change of the root.
    ///
    /// # Errors
    /// If `/proc` is not there.
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open("/proc", flags, Mode::empty())?))
    }

    /// All that descend from a process and still run.
    pub(super) fn below(&self, ancestor: Pid) -> BTreeSet<Descendant> {
        let mut children: BTreeMap<i32, Vec<Descendant>> = BTreeMap::new();
        for pid in self.numbers().unwrap_or_default() {
            if let Some((parent, started)) = self.stat(pid) {
                children.entry(parent).or_default().push(Descendant { pid, started });
            }
        }
        let (mut found, mut todo) = (BTreeSet::new(), vec![ancestor.as_raw()]);
        while let Some(pid) = todo.pop() {
            for child in children.get(&pid).into_iter().flatten() {
                if found.insert(*child) {
                    todo.push(child.pid);
                }
            }
        }
        found
    }

    /// Sends a signal to those that still run; returns whether one does.
    pub(super) fn signal(&self, processes: &BTreeSet<Descendant>, signal: Signal) -> bool {
        let runs =
            |process: &&Descendant| self.stat(process.pid).is_some_and(|(_, started)| started == process.started);
        let running = processes.iter().filter(runs);
        // gone between the two is fine
        running
            .map(|process| kill(Pid::from_raw(process.pid), signal))
            .filter(|sent| *sent != Err(Errno::ESRCH))
            .count()
            > 0
    }

    fn numbers(&self) -> io::Result<Vec<i32>> {
        let again = openat(&self.0, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut dir = Dir::from_fd(again)?;
        let names = dir.iter().filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok());
        Ok(names.collect())
    }

    /// Its parent, and when it started; None if it has ended.
    fn stat(&self, pid: i32) -> Option<(i32, u64)> {
        let file = openat(&self.0, format!("{pid}/stat").as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let mut text = Vec::new();
        std::fs::File::from(file.ok()?).read_to_end(&mut text).ok()?;
        read_stat(&String::from_utf8_lossy(&text))
    }
}

/// proc_pid_stat(5): a process's parent and start; None if it has ended.
pub(crate) fn read_stat(text: &str) -> Option<(i32, u64)> {
    // the name in parentheses may hold anything
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some((parent, started))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_below_us_until_it_ends() {
        let processes = ProcessTable::open().unwrap();
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let below = |child: u32| {
            let below = processes.below(Pid::this());
            below.into_iter().filter(|process| process.pid as u32 == child).collect::<BTreeSet<_>>()
        };
        let found = below(child.id());
        assert_eq!(found.len(), 1);
        assert!(processes.signal(&found, Signal::SIGKILL));
        child.wait().unwrap();
        assert!(below(child.id()).is_empty() && !processes.signal(&found, Signal::SIGKILL));
    }
}
