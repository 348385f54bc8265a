//! The nodes, counted: who has which anchor, and who wants and has which set.
//!
//! Nodes are numbers, their places in the sorted list, so that a set of five thousand takes 625 bytes.

use std::collections::{BTreeMap, BTreeSet};

use fixedbitset::FixedBitSet;

use super::{
    fleet::{ANCHORS, FindingKind, FleetAnchor, NAMES, Nodes, TEMPLATES, TemplateCount},
    member::{Member, read},
};
use crate::{certificate::name::visible, ledger::AnchorState, node_status::ConditionReason, time::Time};

/// Most stale copies of a node that are counted.
const STALE_COPIES: usize = 5;

/// One anchor while nodes are counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) names: BTreeMap<String, usize>,
    ends: BTreeMap<i64, usize>,
    pub(super) states: BTreeMap<AnchorState, FixedBitSet>,
    pub(super) trusted: FixedBitSet,
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// The names, by index.
    pub(super) names: Vec<String>,
    pub(super) anchors: BTreeMap<String, Tally>,
    pub(super) left_out: BTreeSet<String>,
    /// By what they want, then by what they have.
    pub(super) groups: BTreeMap<(String, String), FixedBitSet>,
    /// By what their sources want, without anchors in grace; None where the version of the agent does not say.
    pub(super) by_sources: BTreeMap<Option<String>, FixedBitSet>,
    /// How many anchors the first node says to have that wants a set.
    pub(super) sizes: BTreeMap<String, usize>,
    /// Nodes whose annotation can be read.
    pub(super) reporting: FixedBitSet,
    /// Those whose annotation has all their anchors.
    pub(super) complete: FixedBitSet,
    /// What else is to be said of nodes, with details where there are several kinds.
    pub(super) marks: BTreeMap<(FindingKind, String), FixedBitSet>,
    /// By the template from which they were made, as far as their Nodes tell.
    templates: BTreeMap<String, FixedBitSet>,
}

impl Count {
    /// Counts nodes, in the order of their names.
    pub(super) fn of(mut nodes: Vec<Member>) -> Self {
        nodes.sort_by(|one, two| one.name.cmp(&two.name));
        let mut count = Self::default();
        for (index, member) in nodes.into_iter().enumerate() {
            count.take(index, member);
        }
        count
    }

    /// Digest of the set that the sources of most nodes want.
    pub(super) fn wanted_by_most(&self) -> Option<String> {
        let known = self.by_sources.iter().filter_map(|(digest, nodes)| Some((digest.as_ref()?, members(nodes))));
        known.max_by_key(|(_, count)| *count).map(|(digest, _)| digest.clone())
    }

    /// Counts a node, the one at this place of the list.
    fn take(&mut self, index: usize, member: Member) {
        // the API server checks names of objects; a list from elsewhere may hold any text
        self.names.push(visible(&member.name));
        if let Some(template) = member.template {
            self.templates.entry(template).or_default().grow_and_insert(index);
        }
        if member.ready != Some(true) {
            self.mark(FindingKind::NodeNotReady, "", index);
        }
        let status = match member.annotation.as_deref().map(read) {
            None if member.trust_ready.is_none() => return self.mark(FindingKind::NoAgent, "", index),
            None => return self.mark(FindingKind::Unreadable, "there is the condition and no annotation", index),
            Some(Err((kind, why))) => return self.mark(kind, why, index),
            Some(Ok(status)) => status,
        };
        self.reporting.grow_and_insert(index);
        if status.more == 0 {
            self.complete.grow_and_insert(index);
        }
        match member.trust_ready {
            // the cause of all that follows
            Some(condition) if condition.reason == ConditionReason::UnsupportedStore.as_str() => {
                self.mark(FindingKind::TrustNotReady, &condition.reason, index);
            }
            _ if status.desired != status.effective => self.mark(FindingKind::NotConverged, "", index),
            _ if status.runtime_stale => self.mark(FindingKind::RuntimeStale, "", index),
            _ if status.runtime_unknown => self.mark(FindingKind::RuntimeUnknown, "", index),
            Some(condition) if !condition.holds => self.mark(FindingKind::TrustNotReady, &condition.reason, index),
            Some(condition) if condition.reason != ConditionReason::Trusted.as_str() => {
                self.mark(FindingKind::TrustedWithFindings, &condition.reason, index);
            }
            _ => {}
        }
        let stale: BTreeSet<String> = status
            .stale
            .iter()
            .map(|copy| format!("{} ({}, {})", copy.path, copy.fp16, copy.reason.as_str()))
            .collect();
        stale.iter().take(STALE_COPIES).for_each(|copy| self.mark(FindingKind::StaleCopy, copy, index));
        for anchor in &status.anchors {
            if !self.anchors.contains_key(&anchor.fp16) && self.anchors.len() >= ANCHORS {
                if self.left_out.len() < ANCHORS {
                    self.left_out.insert(anchor.fp16.clone());
                }
                continue;
            }
            let tally = self.anchors.entry(anchor.fp16.clone()).or_default();
            if !anchor.cn.is_empty() {
                *tally.names.entry(visible(&anchor.cn)).or_default() += 1;
            }
            *tally.ends.entry(anchor.not_after.0).or_default() += 1;
            tally.states.entry(anchor.state).or_default().grow_and_insert(index);
            if anchor.trusted {
                tally.trusted.grow_and_insert(index);
            }
        }
        let by_sources = status.wanted_by_sources().map(str::to_owned);
        self.by_sources.entry(by_sources).or_default().grow_and_insert(index);
        self.sizes.entry(status.desired.clone()).or_insert(status.anchors.len().saturating_add(status.more));
        self.groups.entry((status.desired, status.effective)).or_default().grow_and_insert(index);
    }

    fn mark(&mut self, kind: FindingKind, detail: &str, index: usize) {
        self.marks.entry((kind, short(detail))).or_default().grow_and_insert(index);
    }

    /// The digest that the sources of most nodes want; the smallest of several.
    pub(super) fn leading(&self) -> Option<&str> {
        let wanted = self.wanted();
        let most = wanted.values().map(members).max()?;
        wanted.into_iter().find(|(_, nodes)| members(nodes) == most).map(|(digest, _)| digest)
    }

    /// Nodes by what their sources want, without anchors in grace, which pass by themselves. Where the version of the agent does not say that,
    /// with them.
    pub(super) fn wanted(&self) -> BTreeMap<&str, FixedBitSet> {
        let mut wanted: BTreeMap<&str, FixedBitSet> = BTreeMap::new();
        for (digest, nodes) in &self.by_sources {
            match digest {
                Some(digest) => wanted.entry(digest).or_default().union_with(nodes),
                None => {
                    for ((desired, _), all) in &self.groups {
                        let some = all & nodes;
                        if !some.is_clear() {
                            wanted.entry(desired).or_default().union_with(&some);
                        }
                    }
                }
            }
        }
        wanted
    }

    /// How many nodes want the leading set, have what they want in force, and are not held up.
    pub(super) fn agreeing(&self, leading: Option<&str>) -> usize {
        let wanted = self.wanted();
        let Some(wanting) = leading.and_then(|leading| wanted.get(leading)) else { return 0 };
        let in_force = self.groups.iter().filter(|((desired, effective), _)| desired == effective);
        let mut there = FixedBitSet::default();
        in_force.for_each(|(_, nodes)| there.union_with(&(nodes & wanting)));
        let held_up = |kind: &FindingKind| {
            matches!(kind, FindingKind::RuntimeStale | FindingKind::RuntimeUnknown | FindingKind::TrustNotReady)
        };
        for ((_, _), nodes) in self.marks.iter().filter(|((kind, _), _)| held_up(kind)) {
            there.difference_with(nodes);
        }
        members(&there)
    }

    /// A set of nodes with their names, for the result.
    pub(super) fn nodes(&self, nodes: &FixedBitSet) -> Nodes {
        let names = nodes.ones().take(NAMES).filter_map(|index| self.names.get(index).cloned()).collect();
        Nodes { count: members(nodes), names }
    }

    /// The templates from which these nodes were made, the most frequent first.
    pub(super) fn templates_of(&self, nodes: &FixedBitSet) -> Vec<TemplateCount> {
        let count = |(name, made): (&String, &FixedBitSet)| TemplateCount {
            name: name.clone(),
            nodes: members(&(made & nodes)),
        };
        let mut counts: Vec<_> = self.templates.iter().map(count).filter(|count| count.nodes > 0).collect();
        counts.sort_by_key(|count| std::cmp::Reverse(count.nodes)); // stable: then by name
        counts.truncate(TEMPLATES);
        counts
    }

    /// Nodes that report and do not trust it: those that do not list it, and those that list it and have not proven it.
    pub(super) fn lacking(&self, tally: &Tally) -> FixedBitSet {
        let mut lacking = self.complete.clone();
        lacking.union_with(&tally.listed());
        lacking.difference_with(&tally.trusted);
        lacking
    }

    /// The anchors, those that some node lacks first, then by name; counted in these groups of nodes too.
    pub(super) fn rows(&self, groups: &[&FixedBitSet]) -> Vec<FleetAnchor> {
        let row = |(fp16, tally): (&String, &Tally)| {
            let lacking = self.lacking(tally);
            let trusted = members(&tally.trusted);
            FleetAnchor {
                fp16: fp16.clone(),
                common_name: tally.name().map(str::to_owned),
                states: tally.states.iter().map(|(state, nodes)| (state.as_str(), members(nodes))).collect(),
                not_after: tally.end().map(Time),
                trusted,
                trusted_by_group: groups.iter().map(|nodes| members(&(*nodes & &tally.trusted))).collect(),
                unknown: self.names.len() - trusted - members(&lacking), // both are sets of nodes, and have none in common
                lacking: self.nodes(&lacking),
            }
        };
        let mut rows: Vec<FleetAnchor> = self.anchors.iter().map(row).collect();
        rows.sort_by(|one, two| {
            let key =
                |row: &FleetAnchor| (row.lacking.count == 0, row.common_name.clone(), row.not_after, row.fp16.clone());
            key(one).cmp(&key(two))
        });
        rows
    }
}

impl Tally {
    /// Nodes that have it in any state.
    pub(super) fn listed(&self) -> FixedBitSet {
        let mut listed = FixedBitSet::default();
        for nodes in self.states.values() {
            listed.union_with(nodes);
        }
        listed
    }

    /// The name that most nodes give.
    pub(super) fn name(&self) -> Option<&str> {
        most(&self.names).map(String::as_str)
    }

    /// The end of validity that most nodes give.
    pub(super) fn end(&self) -> Option<i64> {
        most(&self.ends).copied()
    }
}

/// The key with the highest count; the first of several.
fn most<K>(counts: &BTreeMap<K, usize>) -> Option<&K> {
    let highest = counts.values().max()?;
    counts.iter().find(|(_, count)| *count == highest).map(|(key, _)| key)
}

/// The first 200 characters, made visible.
fn short(text: &str) -> String {
    visible(text).chars().take(200).collect()
}

/// How many nodes are in a set.
pub(super) fn members(nodes: &FixedBitSet) -> usize {
    nodes.count_ones(..)
}
