//! A rotation as it goes: how many nodes are done, restart or wait, what stops them, and how long it may take.

use std::collections::VecDeque;

use serde::Serialize;

use super::fleet::Fleet;

/// Looks that an estimate is based on.
const LOOKS: usize = 60;
/// Seconds between two looks at least, so that the estimate looks back far enough.
const LOOKS_APART: i64 = 5;

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationProgress {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Nodes that want the leading set, have it in force, and whose runtime follows it.
    pub done: usize,
    /// Nodes that hold a restart slot.
    pub restarting: usize,
    /// The others.
    pub waiting: usize,
    /// What stops the others, in a sentence; None if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Seconds until all are done, by the pace so far; None if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// How fast nodes have come to their end so far.
#[derive(Debug, Clone, Default)]
pub struct RotationPace {
    /// Seconds since the epoch, and nodes that were done.
    looks: VecDeque<(i64, usize)>,
}

impl RotationProgress {
    /// What a look at a fleet says, with the pace of the looks before.
    pub fn of(fleet: &Fleet, pace: &mut RotationPace, now: i64) -> Self {
        let restarting = fleet.restarts.as_ref().map_or(0, |restarts| restarts.held.len());
        let halt = fleet.restarts.iter().flat_map(|restarts| &restarts.halts).next();
        let paused = fleet.restarts.as_ref().and_then(|restarts| restarts.paused.as_ref());
        let stopped = match (halt, paused) {
            (Some(halt), _) => Some(format!("halted by {}: {}", halt.node, halt.reason)),
            (None, Some(text)) => Some(format!("paused: {text}")),
            (None, None) => None,
        };
        pace.note(now, fleet.agreeing);
        let left = fleet.nodes.saturating_sub(fleet.agreeing);
        Self {
            nodes: fleet.nodes,
            done: fleet.agreeing,
            restarting,
            waiting: left.saturating_sub(restarting),
            seconds_left: if stopped.is_some() { None } else { pace.seconds_for(left) },
            stopped,
        }
    }

    /// Whether every node is done.
    pub fn is_complete(&self) -> bool {
        self.nodes > 0 && self.done == self.nodes
    }
}

impl RotationPace {
    fn note(&mut self, now: i64, done: usize) {
        // a set that has changed meanwhile makes all that came before worthless
        if self.looks.back().is_some_and(|(_, before)| done < *before) {
            self.looks.clear();
        }
        if self.looks.back().is_some_and(|(at, _)| now - at < LOOKS_APART) {
            return;
        }
        self.looks.push_back((now, done));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
    }

    /// Seconds for so many nodes, at the pace from the first look to the last.
    fn seconds_for(&self, left: usize) -> Option<u64> {
        let ((began, before), (now, done)) = (self.looks.front()?, self.looks.back()?);
        let (seconds, came) = (u64::try_from(now - began).ok()?, u64::try_from(done - before).ok()?);
        (came > 0).then(|| (seconds * u64::try_from(left).unwrap_or(u64::MAX)).div_ceil(came))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::restarts::{FleetRestarts, HaltRow},
        *,
    };

    fn look(done: usize, halted: bool) -> Fleet {
        let halt = HaltRow {
            lease: "nodetrust-restart-0".into(),
            node: "b".into(),
            reason: "not Ready".into(),
            since: String::new(),
        };
        let restarts =
            FleetRestarts { halts: halted.then_some(halt).into_iter().collect(), ..FleetRestarts::default() };
        Fleet { nodes: 100, agreeing: done, restarts: Some(restarts), ..super::super::fleet(Vec::new(), 0) }
    }

    #[test]
    fn the_end_is_estimated_by_the_pace_so_far_and_not_while_something_stops_it() {
        let mut pace = RotationPace::default();
        assert_eq!(RotationProgress::of(&look(10, false), &mut pace, 1_000).seconds_left, None);
        let progress = RotationProgress::of(&look(30, false), &mut pace, 1_100);
        assert_eq!((progress.done, progress.waiting, progress.seconds_left), (30, 70, Some(350)));
        let halted = RotationProgress::of(&look(30, true), &mut pace, 1_200);
        assert_eq!(halted.stopped.as_deref(), Some("halted by b: not Ready"));
        assert_eq!(halted.seconds_left, None);
        let anew = RotationProgress::of(&look(0, false), &mut pace, 1_300);
        assert_eq!((anew.seconds_left, anew.is_complete()), (None, false), "another set came: the pace is not known");
        assert!(RotationProgress::of(&look(100, false), &mut pace, 1_400).is_complete());
    }
}
