//! The fleet's approvals of removals, as they are mounted into the agent's pod.

use std::path::Path;

use nodetrust_core::{
    fleet::removal::{APPROVALS_FILE, APPROVALS_LIMIT, Approvals, ApprovalsRead},
    problem::{Problem, ProblemKind},
    source::policy::RemovalGate,
};

use crate::{
    config::Settings,
    host::file::{is_missing, read_file},
};

/// Reads the approvals, if the configuration asks for them, and says what is wrong with them.
pub(crate) fn read(settings: &Settings) -> (ApprovalsRead, Option<Problem>) {
    match (&settings.approvals, settings.policy.removal_gate) {
        (_, RemovalGate::None) => (ApprovalsRead::Absent, None),
        (None, RemovalGate::Fleet) => (ApprovalsRead::Hidden, None),
        (Some(directory), RemovalGate::Fleet) => read_file_of(directory),
    }
}

fn read_file_of(directory: &Path) -> (ApprovalsRead, Option<Problem>) {
    let path = directory.join(APPROVALS_FILE);
    let approvals = match read_file(&path, APPROVALS_LIMIT as u64) {
        Ok(bytes) => Approvals::parse(&bytes),
        Err(error) if is_missing(&error) => return (ApprovalsRead::Absent, None),
        Err(error) => Err(error.to_string()),
    };
    match approvals {
        Ok(approvals) => (ApprovalsRead::Good(approvals), None),
        Err(why) => {
            let text = format!("the fleet's approvals in {} cannot be used: {why}", path.display());
            let next = "no anchor in grace leaves until `nodetrust topology --approve-removal` has written them anew";
            (ApprovalsRead::Unusable, Some(Problem::new(ProblemKind::Approvals, text, next)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings(directory: Option<&Path>, gate: RemovalGate) -> Settings {
        let mut settings = Settings { approvals: directory.map(Path::to_path_buf), ..Settings::default() };
        settings.policy.removal_gate = gate;
        settings
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_and_no_approval() {
        let dir = tempfile::tempdir().unwrap();
        let read = || super::read(&settings(Some(dir.path()), RemovalGate::Fleet));
        assert_eq!(read(), (ApprovalsRead::Absent, None));
        let file = dir.path().join(APPROVALS_FILE);
        fs::write(&file, Approvals::default().text()).unwrap();
        assert_eq!(read(), (ApprovalsRead::Good(Approvals::default()), None));
        for bad in [b"{".to_vec(), b"\xff".to_vec(), vec![b' '; APPROVALS_LIMIT + 1]] {
            fs::write(&file, bad).unwrap();
            let (approvals, problem) = read();
            let problem = problem.unwrap();
            assert_eq!((approvals, problem.kind), (ApprovalsRead::Unusable, ProblemKind::Approvals));
            assert!(problem.text.contains(APPROVALS_FILE) && !problem.next.is_empty(), "{problem:?}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(read().0, ApprovalsRead::Unusable);
        // without the gate nothing is looked at
        assert_eq!(super::read(&settings(Some(dir.path()), RemovalGate::None)), (ApprovalsRead::Absent, None));
        assert_eq!(super::read(&settings(None, RemovalGate::Fleet)), (ApprovalsRead::Hidden, None));
    }
}
