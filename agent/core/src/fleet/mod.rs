//! What a node asks the fleet before it acts.

pub mod removal;
