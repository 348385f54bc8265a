//! Which containers a restart of the runtime has ended. Those that ended by themselves meanwhile say nothing against it: jobs that are done,
//! programs that crash, pods that are deleted.

/// A container that ran before a restart and does not run after it, as CRI tells of it. One that was removed has the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerEnd {
    /// The pod's sandbox runs.
    pub has_sandbox: bool,
    /// The runtime does not know the container's state.
    pub is_unknown: bool,
    /// Its exit code.
    pub exit_code: i32,
    /// Why it ended.
    pub reason: String,
}

impl ContainerEnd {
    /// Nobody watched over the container any more when the runtime came back, so its exit code is not known: containerd gives it 255 and the
    /// reason `Unknown` (internal/cri/server/restart.go). containerd 2.1 says the same of one that ended by itself while containerd was
    /// down; then the pod's sandbox, which has the same shim, runs on.
    fn is_lost(&self) -> bool {
        !self.has_sandbox && (self.is_unknown || (self.exit_code == 255 && self.reason == "Unknown"))
    }
}

/// How many of the containers that ran before a restart were ended by it; `ends`: those that do not run after it. Those that the runtime has
/// lost are, and all, if more than half of those that ran have ended: that many do not end by chance within seconds.
pub fn ended_by_restart(before: usize, ends: &[ContainerEnd]) -> usize {
    if ends.len() * 2 > before {
        return ends.len();
    }
    ends.iter().filter(|end| end.is_lost()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(exit_code: i32, reason: &str) -> ContainerEnd {
        ContainerEnd { exit_code, reason: reason.into(), ..ContainerEnd::default() }
    }

    #[test]
    fn what_ended_by_itself_does_not_count() {
        assert_eq!(ended_by_restart(0, &[]), 0);
        let removed = ContainerEnd::default();
        assert_eq!(ended_by_restart(6, &[end(0, "Completed"), end(255, "Error"), removed]), 0);
        let while_it_was_down = ContainerEnd { has_sandbox: true, ..end(255, "Unknown") };
        assert_eq!(ended_by_restart(2, &[while_it_was_down]), 0);
    }

    #[test]
    fn what_the_runtime_has_lost_counts() {
        assert_eq!(ended_by_restart(40, &[end(255, "Unknown"), end(137, "Error")]), 1);
        assert_eq!(ended_by_restart(40, &[ContainerEnd { is_unknown: true, ..ContainerEnd::default() }]), 1);
    }

    #[test]
    fn the_end_of_most_is_no_chance() {
        let killed = [end(143, "Error"), end(143, "Error"), end(0, "Completed")];
        assert_eq!(ended_by_restart(5, &killed), 3);
        assert_eq!(ended_by_restart(6, &killed), 0);
    }
}
