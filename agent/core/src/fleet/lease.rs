//! The Leases of the fleet (`coordination.k8s.io/v1`): slots for restarts, halts, the pause and the canary's mark, as they lie in the API server.
//!
//! Objects come in as JSON and may be anything. What cannot be read is never free, and never a panic. Changes go out as merge patches that
//! name the resourceVersion they were decided on: the API server refuses them (409) if the object has changed since, and what a patch does
//! not name stays as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    certificate::name::sentence,
    time::{MicroTime, Time},
};

/// Begin of the names of slot Leases; their index in decimal digits follows.
pub const SLOT_PREFIX: &str = "nodetrust-restart-";
/// Name of the Lease that bears the canary's mark.
pub const CANARY_LEASE: &str = "nodetrust-canary";
/// Annotation of a slot Lease: all restarts are halted, with [`Halt`] as its value. It ends by its deletion only.
pub const HALTED: &str = "nodetrust.io/halted";
/// Annotation of the Lease `nodetrust-restart-0`: nobody takes a slot while it is there. Its value is a text for people.
pub const PAUSE: &str = "nodetrust.io/pause";
/// Annotation of the Lease [`CANARY_LEASE`], with [`CanaryMark`] as its value.
pub const CANARY: &str = "nodetrust.io/canary";
/// Label that is put on Leases that we create.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/name", "nodetrust");
/// The highest index that the name of a slot may have.
pub const MAX_INDEX: usize = 9_999;
/// Bytes that are read of an annotation; a longer one counts as malformed.
const MAX_ANNOTATION: usize = 4_096;

/// The `resourceVersion` of an object: it is another one after every change, and nothing else is to be read from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(pub String);

/// Why restarts are halted: the value of the annotation [`HALTED`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Halt {
    /// The node that is not healthy; empty if the annotation does not say it.
    #[serde(default)]
    pub node: String,
    /// What is wrong there, in a sentence.
    #[serde(default)]
    pub reason: String,
    /// Since when, by that node's wall clock, as RFC 3339; for people only.
    #[serde(default)]
    pub since: String,
}

impl Halt {
    /// A halt of `node` since a time by its wall clock.
    pub fn new(node: &str, reason: &str, since: Time) -> Self {
        Self { node: node.to_owned(), reason: sentence(reason), since: since.to_string() }
    }

    /// What an annotation says. One that cannot be read is a halt all the same.
    fn read(text: &str) -> Self {
        let halt = (text.len() <= MAX_ANNOTATION).then(|| serde_json::from_str::<Self>(text).ok()).flatten();
        let halt = halt.unwrap_or_else(|| Self { node: String::new(), reason: text.to_owned(), since: String::new() });
        Self { node: sentence(&halt.node), reason: sentence(&halt.reason), since: sentence(&halt.since) }
    }
}

/// What the canary says: the value of the annotation [`CANARY`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryMark {
    /// Digest of the desired set with which a canary is healthy.
    pub digest: String,
    /// Since when, by the canary's wall clock, as RFC 3339; for people only.
    #[serde(default)]
    pub healthy_since: String,
    /// A person let the others go on without a canary: nobody waits for the soak time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passed: bool,
}

/// Who holds a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SlotHolder {
    /// Nobody.
    Nobody,
    /// The node of this name.
    Node(String),
    /// It cannot be told, and why: the slot counts as taken.
    Unreadable(String),
}

/// A slot, as its Lease says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotLease {
    /// Its number, from 0.
    pub index: usize,
    /// The version that was read.
    pub version: ResourceVersion,
    /// Who holds it.
    pub holder: SlotHolder,
    /// How often it went to another holder.
    pub transitions: u32,
    /// The halt that it bears.
    pub halt: Option<Halt>,
    /// The pause that it bears; it counts on slot 0 only.
    pub pause: Option<String>,
    /// When it was taken, by the holder's wall clock, as the Lease says it; for people only.
    pub acquired: Option<String>,
}

/// The Lease that bears the canary's mark.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanaryLease {
    /// The version that was read.
    pub version: ResourceVersion,
    /// The mark; None if there is none or it cannot be read.
    pub mark: Option<CanaryMark>,
}

/// A Lease of our namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetLease {
    /// A slot.
    Slot(SlotLease),
    /// The canary's.
    Canary(CanaryLease),
    /// Somebody else's, or no Lease at all.
    Foreign,
}

/// All Leases of the fleet, as one list showed them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FleetLeases {
    /// The slots, sorted by index; each index at most once.
    pub slots: Vec<SlotLease>,
    /// The canary's Lease.
    pub canary: Option<CanaryLease>,
}

impl FleetLeases {
    /// Reads the items of a list. What is not ours is left out.
    pub fn read<'a>(items: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut leases = Self::default();
        for item in items {
            match FleetLease::read(item) {
                FleetLease::Slot(slot) => leases.slots.push(slot),
                FleetLease::Canary(canary) => leases.canary = Some(canary),
                FleetLease::Foreign => {}
            }
        }
        leases.slots.sort_by_key(|slot| slot.index);
        leases.slots.dedup_by_key(|slot| slot.index);
        leases
    }

    /// The slot of an index.
    pub fn slot(&self, index: usize) -> Option<&SlotLease> {
        let at = self.slots.binary_search_by_key(&index, |slot| slot.index).ok()?;
        self.slots.get(at)
    }

    /// Every halt, with the slot that bears it.
    pub fn halts(&self) -> impl Iterator<Item = (&SlotLease, &Halt)> {
        self.slots.iter().filter_map(|slot| Some((slot, slot.halt.as_ref()?)))
    }

    /// The pause, with its text.
    pub fn pause(&self) -> Option<&str> {
        self.slot(0)?.pause.as_deref()
    }
}

impl SlotLease {
    /// Whether this node holds it.
    pub fn is_held_by(&self, node: &str) -> bool {
        matches!(&self.holder, SlotHolder::Node(holder) if holder == node)
    }
}

/// The name of the Lease of a slot.
pub fn slot_name(index: usize) -> String {
    format!("{SLOT_PREFIX}{index}")
}

/// The index in the name of a slot's Lease: decimal digits without leading zeros, up to [`MAX_INDEX`].
fn slot_index(name: &str) -> Option<usize> {
    let digits = name.strip_prefix(SLOT_PREFIX)?;
    let index: usize = digits.parse().ok()?;
    (index <= MAX_INDEX && index.to_string() == digits).then_some(index)
}

impl FleetLease {
    /// Reads one object.
    pub fn read(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let (Some(name), Some(version)) = (metadata["name"].as_str(), metadata["resourceVersion"].as_str()) else {
            return Self::Foreign;
        };
        let version = ResourceVersion(version.to_owned());
        let annotation = |name: &str| match &metadata["annotations"][name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        if name == CANARY_LEASE {
            let text = annotation(CANARY).filter(|text| text.len() <= MAX_ANNOTATION);
            let mark = text.and_then(|text| serde_json::from_str(&text).ok());
            return Self::Canary(CanaryLease { version, mark });
        }
        let Some(index) = slot_index(name) else { return Self::Foreign };
        let spec = &object["spec"];
        let holder = match &spec["holderIdentity"] {
            _ if !(spec.is_object() || spec.is_null()) => SlotHolder::Unreadable("its spec is not an object".into()),
            Value::Null => SlotHolder::Nobody,
            Value::String(node) if node.is_empty() => SlotHolder::Nobody,
            Value::String(node) => SlotHolder::Node(node.clone()),
            other => SlotHolder::Unreadable(sentence(&format!("its holderIdentity is {other}, and no text"))),
        };
        Self::Slot(SlotLease {
            index,
            version,
            holder,
            transitions: spec["leaseTransitions"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            halt: annotation(HALTED).map(|text| Halt::read(&text)),
            pause: annotation(PAUSE).map(|text| sentence(&text)),
            acquired: spec["acquireTime"].as_str().map(sentence),
        })
    }
}

/// What a write to a slot's Lease changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SlotChange {
    /// The slot goes to the node.
    Take {
        /// The new holder.
        node: String,
        /// `leaseTransitions` after it.
        transitions: u32,
    },
    /// The holder shows that it is alive.
    Renew {
        /// The holder.
        node: String,
    },
    /// The slot is nobody's.
    Release,
    /// The slot stays the node's and halts the fleet.
    Halt(Halt),
    /// The halt is taken away, which only a person decides; the holder stays until it releases the slot or the Lease expires.
    Resume,
}

impl SlotChange {
    /// The Lease, with what this change makes of it and nothing else, to be created. `lease_seconds` and `now` are for people: no observer
    /// goes by them.
    pub fn object(&self, index: usize, lease_seconds: u32, now: MicroTime) -> Value {
        let mut body = self.body(lease_seconds, now);
        body["apiVersion"] = json!("coordination.k8s.io/v1");
        body["kind"] = json!("Lease");
        body["metadata"]["name"] = json!(slot_name(index));
        body["metadata"]["labels"] = json!({ LABEL.0: LABEL.1 });
        body
    }

    /// The merge patch (`application/merge-patch+json`, RFC 7386) that makes this change if the Lease still has that version.
    pub fn patch(&self, expect: &ResourceVersion, lease_seconds: u32, now: MicroTime) -> Value {
        let mut body = self.body(lease_seconds, now);
        body["metadata"]["resourceVersion"] = json!(expect.0);
        body
    }

    fn body(&self, lease_seconds: u32, now: MicroTime) -> Value {
        match self {
            Self::Take { node, transitions } => json!({"metadata": {}, "spec": {
                "holderIdentity": node, "leaseDurationSeconds": lease_seconds.max(1), "leaseTransitions": transitions,
                "acquireTime": now, "renewTime": now,
            }}),
            Self::Renew { node } => json!({"metadata": {}, "spec": {"holderIdentity": node, "renewTime": now}}),
            Self::Release => json!({"metadata": {}, "spec": {"holderIdentity": null, "renewTime": now}}),
            Self::Halt(halt) => json!({
                "metadata": {"annotations": {HALTED: text(halt)}},
                "spec": {"holderIdentity": halt.node, "leaseDurationSeconds": lease_seconds.max(1), "renewTime": now},
            }),
            Self::Resume => json!({"metadata": {"annotations": {HALTED: null}}}),
        }
    }
}

impl CanaryMark {
    /// The canary's Lease with this mark, to be created.
    pub fn object(&self) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": CANARY_LEASE, "labels": {LABEL.0: LABEL.1}, "annotations": {CANARY: text(self)}},
            "spec": {},
        })
    }

    /// The merge patch that puts this mark on the canary's Lease if it still has that version.
    pub fn patch(&self, expect: &ResourceVersion) -> Value {
        json!({"metadata": {"resourceVersion": expect.0, "annotations": {CANARY: text(self)}}})
    }
}

/// Compact JSON of what has strings only.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
