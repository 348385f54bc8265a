//! The one value that everybody sees: metrics, `/status`, the commands and the Node are views of a [`Report`].
//!
//! In: everything that a cycle decided and saw. Out: plain data, ordered, with absolute times.

mod anchors;
mod build;
mod denied;
mod foreign;
mod inputs;
mod model;
mod news;
mod runtime;
mod verdict;

pub use anchors::anchor_row;
pub use build::build;
pub use inputs::ReportInputs;
pub use model::{
    AnchorRow, Behind, ByRuntime, Cycle, DistrustedRow, ForeignRow, HoldView, LastRestart, NodeVerdict, Report,
    RuntimeView, SourceRow, StaleCopy, StaleReason, StoreView,
};
pub use news::{LogLine, LogMemory};

#[cfg(test)]
mod tests;
