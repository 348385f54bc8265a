//! Is a node healthy after the restart of its runtime?
//!
//! What cannot be asked proves nothing in either direction: an API server or registry that cannot be reached makes no node unhealthy.

use std::time::Duration;

/// What is known of a node after the restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthFacts {
    /// Why the runtime does not work: its unit is not active, or its socket does not answer. None if it works.
    pub sick: Option<String>,
    /// Containers that ran before the restart and that the restart ended, in a sentence. Those that ended by themselves do not count.
    pub lost: Option<String>,
    /// The Node's condition Ready.
    pub node: NodeReadiness,
    /// What the runtime says of a registry that it refuses by an x509 error after the restart, although the node's bundle trusts it.
    pub refuses: Option<String>,
    /// Time since the restart.
    pub age: Duration,
    /// How long something has been wrong at every look.
    pub wrong_for: Duration,
}

/// How long something must have been wrong before it counts, or half the time that the node has, if that is shorter: the kubelet says
/// every 10 s that it lives, also after an outage of the API server, and a runtime may once leave a question unanswered.
const LASTING: Duration = Duration::from_secs(60);

/// The Node's condition `Ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeReadiness {
    /// The API server cannot be reached, or has not answered yet.
    Unknown,
    /// It is Ready.
    Ready,
    /// It is not, in the condition's words.
    NotReady(String),
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
            let lasts = self.wrong_for >= LASTING.min(healthy_within / 2);
            return match self.age >= healthy_within && lasts {
                true => RestartHealth::Unhealthy(text),
                false => RestartHealth::NotYet(text),
            };
        }
        match self.node {
            NodeReadiness::Unknown => {
                RestartHealth::NotYet("the API server has not said whether the Node is Ready".to_owned())
            }
            NodeReadiness::Ready | NodeReadiness::NotReady(_) => RestartHealth::Healthy,
        }
    }

    /// Whether something is known to be wrong.
    pub fn is_wrong(&self) -> bool {
        !self.wrong().is_empty()
    }

    /// What is known to be wrong.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(why) = &self.sick {
            wrong.push(format!("the runtime does not work: {why}"));
        }
        if let Some(lost) = &self.lost {
            wrong.push(lost.clone());
        }
        if let NodeReadiness::NotReady(why) = &self.node {
            wrong.push(format!("the Node is not Ready: {why}"));
        }
        if let Some(host) = &self.refuses {
            wrong.push(format!("the runtime still refuses a registry: {host}"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(300);

    fn healthy(age: u64) -> HealthFacts {
        let age = Duration::from_secs(age);
        HealthFacts { sick: None, lost: None, node: NodeReadiness::Ready, refuses: None, age, wrong_for: age }
    }

    #[test]
    fn a_node_on_which_everything_works_is_healthy_at_once() {
        assert_eq!(healthy(0).judge(WITHIN), RestartHealth::Healthy);
    }

    #[test]
    fn each_fault_is_waited_for_until_its_time_is_over_and_then_is_unhealthiness() {
        let faults: [fn(u64) -> HealthFacts; 4] = [
            |age| HealthFacts { sick: Some("failed".into()), ..healthy(age) },
            |age| HealthFacts { lost: Some("the restart ended 2 containers".into()), ..healthy(age) },
            |age| HealthFacts { node: NodeReadiness::NotReady("PLEG is not healthy".into()), ..healthy(age) },
            |age| HealthFacts { refuses: Some("registry.corp".into()), ..healthy(age) },
        ];
        for fault in faults {
            let RestartHealth::NotYet(missing) = fault(299).judge(WITHIN) else { panic!("{:?}", fault(299)) };
            assert_eq!(fault(300).judge(WITHIN), RestartHealth::Unhealthy(missing));
        }
    }

    #[test]
    fn one_look_makes_no_node_unhealthy() {
        let late = HealthFacts { node: NodeReadiness::NotReady("Kubelet stopped posting".into()), ..healthy(900) };
        let wrong_for = |seconds| HealthFacts { wrong_for: Duration::from_secs(seconds), ..late.clone() };
        assert!(matches!(wrong_for(59).judge(WITHIN), RestartHealth::NotYet(_)));
        assert!(matches!(wrong_for(60).judge(WITHIN), RestartHealth::Unhealthy(_)));
        assert!(matches!(wrong_for(10).judge(Duration::from_secs(20)), RestartHealth::Unhealthy(_)));
    }

    #[test]
    fn an_api_server_that_cannot_be_reached_makes_no_node_unhealthy() {
        let unknown = HealthFacts { node: NodeReadiness::Unknown, ..healthy(9_999) };
        assert!(matches!(unknown.judge(WITHIN), RestartHealth::NotYet(_)));
    }

    #[test]
    fn what_is_wrong_is_said_in_full() {
        let facts =
            HealthFacts { sick: Some("failed".into()), node: NodeReadiness::NotReady("no CNI".into()), ..healthy(400) };
        let text = "the runtime does not work: failed; the Node is not Ready: no CNI";
        assert_eq!(facts.judge(WITHIN), RestartHealth::Unhealthy(text.into()));
    }
}
