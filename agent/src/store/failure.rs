//! A run of the store's tool that came to nothing.

use std::io;

use nodetrust_core::problem::Problem;

use crate::{host::obstacle::write_problem, store::read::ObserveError};

/// Why a run came to nothing, and whether a second one may do better.
pub(crate) enum ExtractFailure {
    /// A second run may do better.
    Again(Problem),
    /// Retrying immediately cannot succeed.
    Final(Problem),
}

impl ExtractFailure {
    /// What the tool reads could not be read: whether it may lose something is not known.
    pub(crate) fn unread(error: &ObserveError) -> Self {
        Self::Final(error.problem())
    }

    /// A file of the host could not be written.
    pub(crate) fn unwritten(path: &str, error: &io::Error) -> Self {
        Self::Final(write_problem(path, error))
    }

    /// The same with another problem.
    pub(crate) fn map(self, change: impl FnOnce(Problem) -> Problem) -> Self {
        match self {
            Self::Again(problem) => Self::Again(change(problem)),
            Self::Final(problem) => Self::Final(change(problem)),
        }
    }
}
