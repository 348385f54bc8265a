//! What a report is made of.

use crate::{
    ledger::Ledger,
    observed::{Observed, ToollessStore},
    plan::Plan,
    pod_bundle::PodBundlePlan,
    problem::Problem,
    runtime::service_plan::ServicePlan,
    source::{Resolved, policy::Policy},
    store::{Detection, os_release::OsRelease},
    time::Moment,
};

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct ReportInputs<'a> {
    /// The node's name.
    pub node: &'a str,
    /// When the host was looked at.
    pub now: &'a Moment,
    /// os-release of the host.
    pub os: &'a OsRelease,
    /// How the store was found.
    pub detection: &'a Detection,
    /// What the sources want.
    pub resolved: &'a Resolved,
    /// What is there; None if the store is unsupported or could not be looked at.
    pub observed: Option<&'a Observed>,
    /// What can be read all the same of a store whose tool is missing.
    pub without_tool: Option<&'a ToollessStore>,
    /// The plan made from that very observation: what is still to be done.
    pub plan: Option<&'a Plan>,
    /// What is to be done so that services follow the bundle.
    pub outlook: Option<&'a ServicePlan>,
    /// What is to be done about the bundle for pods.
    pub export: Option<&'a PodBundlePlan>,
    /// The ledger in force.
    pub ledger: &'a Ledger,
    /// The policy.
    pub policy: &'a Policy,
    /// What is wrong.
    pub problems: &'a [Problem],
}
