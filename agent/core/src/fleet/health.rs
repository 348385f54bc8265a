//! Is a node healthy after the restart of its runtime?
//!
//! What cannot be asked proves nothing in either direction: an API server or registry that cannot be reached makes no node unhealthy.

use std::time::Duration;

/// What is known of a node after the restart. An error is what is wrong, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthFacts {
    /// The unit is active, and its process is another one than before the restart.
    pub unit: Result<(), String>,
    /// The runtime's socket answers.
    pub socket: Result<(), String>,
    /// Containers that ran before the restart, and that the restart ended. Those that ended by themselves do not count.
    pub ended_containers: Vec<String>,
    /// The Node's condition Ready.
    pub node: NodeReadiness,
    /// What the runtime said of a registry when it was asked after the restart.
    pub witness: WitnessAfterRestart,
    /// Time since the restart.
    pub age: Duration,
}

/// The Node's condition `Ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeReadiness {
    /// There is no cluster to ask.
    NotAsked,
    /// The API server cannot be reached, or has not answered yet.
    Unknown,
    /// It is Ready.
    Ready,
    /// It is not, in the condition's words.
    NotReady(String),
}

/// What the runtime said of a registry after the restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessAfterRestart {
    /// Nobody asks it: there is no registry to ask about, or `runtime.witness` is never.
    NotAsked,
    /// It is asked, and has not answered yet.
    Pending,
    /// It reaches no registry, so it says nothing of trust.
    Unreachable,
    /// It trusts the registries.
    Trusts,
    /// It refuses one by an x509 error: its text.
    Refuses(String),
}

/// Whether a node is healthy after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartHealth {
    /// It is.
    Healthy,
    /// Not yet, or it is not known yet: what is missing.
    NotYet(String),
    /// It is not, and had its time: what is wrong.
    Unhealthy(String),
}

impl HealthFacts {
    /// Judges the node; `healthy_within` is the time that it has.
    pub fn judge(&self, healthy_within: Duration) -> RestartHealth {
        let wrong = self.wrong();
        if !wrong.is_empty() {
            let text = wrong.join("; ");
            return match self.age < healthy_within {
                true => RestartHealth::NotYet(text),
                false => RestartHealth::Unhealthy(text),
            };
        }
        let mut open = Vec::new();
        if self.node == NodeReadiness::Unknown {
            open.push("the API server has not said whether the Node is Ready");
        }
        if self.witness == WitnessAfterRestart::Pending && self.age < healthy_within {
            open.push("the runtime has not said yet whether it trusts the registries");
        }
        if open.is_empty() { RestartHealth::Healthy } else { RestartHealth::NotYet(open.join("; ")) }
    }

    /// What is known to be wrong.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Err(why) = &self.unit {
            wrong.push(format!("the unit does not run anew: {why}"));
        }
        if let Err(why) = &self.socket {
            wrong.push(format!("its socket does not answer: {why}"));
        }
        if let Some(first) = self.ended_containers.first() {
            let count = self.ended_containers.len();
            wrong.push(match count {
                1 => format!("the restart ended the container {first}"),
                _ => format!("the restart ended {count} containers, such as {first}"),
            });
        }
        if let NodeReadiness::NotReady(why) = &self.node {
            wrong.push(format!("the Node is not Ready: {why}"));
        }
        if let WitnessAfterRestart::Refuses(why) = &self.witness {
            wrong.push(format!("the runtime still refuses a registry: {why}"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(300);

    fn healthy(age: u64) -> HealthFacts {
        HealthFacts {
            unit: Ok(()),
            socket: Ok(()),
            ended_containers: Vec::new(),
            node: NodeReadiness::Ready,
            witness: WitnessAfterRestart::Trusts,
            age: Duration::from_secs(age),
        }
    }

    #[test]
    fn a_node_on_which_everything_works_is_healthy_at_once() {
        assert_eq!(healthy(0).judge(WITHIN), RestartHealth::Healthy);
        let alone = HealthFacts { node: NodeReadiness::NotAsked, witness: WitnessAfterRestart::NotAsked, ..healthy(0) };
        assert_eq!(alone.judge(WITHIN), RestartHealth::Healthy);
    }

    #[test]
    fn each_fault_is_waited_for_until_its_time_is_over_and_then_is_unhealthiness() {
        let faults: [fn(u64) -> HealthFacts; 5] = [
            |age| HealthFacts { unit: Err("failed".into()), ..healthy(age) },
            |age| HealthFacts { socket: Err("connection refused".into()), ..healthy(age) },
            |age| HealthFacts { ended_containers: vec!["a".into(), "b".into()], ..healthy(age) },
            |age| HealthFacts { node: NodeReadiness::NotReady("PLEG is not healthy".into()), ..healthy(age) },
            |age| HealthFacts { witness: WitnessAfterRestart::Refuses("unknown authority".into()), ..healthy(age) },
        ];
        for fault in faults {
            let RestartHealth::NotYet(missing) = fault(299).judge(WITHIN) else { panic!("{:?}", fault(299)) };
            assert_eq!(fault(300).judge(WITHIN), RestartHealth::Unhealthy(missing));
        }
    }

    #[test]
    fn an_api_server_that_cannot_be_reached_makes_no_node_unhealthy() {
        let unknown = HealthFacts { node: NodeReadiness::Unknown, ..healthy(9_999) };
        assert!(matches!(unknown.judge(WITHIN), RestartHealth::NotYet(_)));
    }

    #[test]
    fn a_registry_that_cannot_be_reached_makes_no_node_unhealthy() {
        let unreachable = HealthFacts { witness: WitnessAfterRestart::Unreachable, ..healthy(1) };
        assert_eq!(unreachable.judge(WITHIN), RestartHealth::Healthy);
        let pending = |age| HealthFacts { witness: WitnessAfterRestart::Pending, ..healthy(age) };
        assert!(matches!(pending(1).judge(WITHIN), RestartHealth::NotYet(_)));
        assert_eq!(pending(300).judge(WITHIN), RestartHealth::Healthy, "a witness that never answers refuses nothing");
    }

    #[test]
    fn what_is_wrong_is_said_in_full() {
        let facts =
            HealthFacts { unit: Err("failed".into()), node: NodeReadiness::NotReady("no CNI".into()), ..healthy(400) };
        let text = "the unit does not run anew: failed; the Node is not Ready: no CNI";
        assert_eq!(facts.judge(WITHIN), RestartHealth::Unhealthy(text.into()));
    }
}
