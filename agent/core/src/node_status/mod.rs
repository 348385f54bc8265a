//! What a node tells its cluster: a condition, an annotation, events, and whether its startup taint may go.
//!
//! In: the [`Report`](crate::report::Report), and what the Node object says already. Out: values, and the patches that make the object say
//! them. At rest there is nothing to write: no signal holds the time of a cycle or an age.

mod annotation;
mod condition;
mod events;
mod object;
mod patches;
mod taint;

pub use annotation::{ANNOTATION, ANNOTATION_LIMIT, AnchorMark, NAME_LIMIT, NodeStatus};
pub use condition::{CONDITION, Condition, ConditionReason, ConditionStatus, MESSAGE_LIMIT, condition};
pub use events::{EventKind, NodeEvent, REPORTER, events, taint_without_proof};
pub use object::{NodeCondition, NodeObject, ObjectMetadata};
pub use patches::{Signals, TAINT, Write, pause, writes};
pub use taint::{BadTaint, TAINT_PATIENCE, Taint};

#[cfg(test)]
mod tests;
