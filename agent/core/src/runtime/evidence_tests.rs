//! The four states, by a table of nodes.

use std::collections::BTreeSet;

use super::*;
use crate::{
    certificate::fingerprint::{Fingerprint, SetDigest},
    runtime::{
        kinds::RuntimeKind,
        process::ServiceProcess,
        record::ServiceRecord,
        registry_dir::{OwnRegistryFile, RegistryCerts},
        service_plan::{RestartGate, ServiceGoal},
        services::Service,
        settings::{OnChange, RuntimeSettings},
        staleness::decide,
        witness::{Witness, WitnessAnswer},
    },
    testing::at,
    time::Uptime,
};

const UNIT: &str = "containerd.service";
const HOST: &str = "registry.test:5443";
const BOOT: &str = "one";

fn set(names: &str) -> BTreeSet<Fingerprint> {
    names.bytes().map(|byte| Fingerprint::from_bytes([byte; 32])).collect()
}

fn process(started: u64) -> ServiceProcess {
    ServiceProcess {
        invocation: format!("run-{started}"),
        started: Uptime { boot_id: BOOT.into(), milliseconds: started },
    }
}

/// A node that wants `ab`, both of which are in the bundle.
struct EvidenceNode {
    services: Services,
    ledger: Ledger,
    policy: RuntimeSettings,
}

impl EvidenceNode {
    fn without_runtime() -> Self {
        Self { services: Services::default(), ledger: Ledger::new(), policy: RuntimeSettings::default() }
    }

    /// containerd started with these; nobody knows of `unproven`.
    fn new(has: &str, unproven: &str) -> Self {
        let mut node = Self::without_runtime();
        let process = process(1_000);
        node.services.runtime = Some(Runtime {
            kind: RuntimeKind::Containerd,
            because: "it is active".into(),
            version: "1.7.24".into(),
            socket: "/run/containerd/containerd.sock".into(),
            service: Service { unit: UNIT.into(), state: ServiceState::Active, process: Some(process.clone()) },
            health: Ok(()),
            spares: Ok(()),
            certs: RegistryCerts { setting: Setting::NotConfigured, ..RegistryCerts::default() },
            elsewhere: None,
        });
        let [maybe_has, added_since, revoked] = std::array::from_fn(|_| BTreeSet::new());
        let record = ServiceRecord { process, has: set(has), maybe_has, unproven: set(unproven), added_since, revoked };
        node.ledger.services.insert(UNIT.into(), record);
        node
    }

    fn with(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self
    }

    fn runtime(self, edit: impl FnOnce(&mut Runtime)) -> Self {
        self.with(|node| edit(node.services.runtime.as_mut().unwrap()))
    }

    fn state(self, state: ServiceState) -> Self {
        self.runtime(|runtime| runtime.service.state = state)
    }

    fn witness(self, answer: WitnessAnswer, edit: impl FnOnce(&mut Witness)) -> Self {
        self.with(|node| {
            let mut witness = Witness {
                process: process(1_000),
                set: SetDigest::of(&set("ab")),
                answer,
                words: "tls: failed to verify certificate: x509: certificate signed by unknown authority".into(),
                verifies_tls: true,
                anchor: set("a").first().copied(),
                own_roots: true,
                handshake_error: None,
                at: at(99_000, 49_000, BOOT),
                restarted: None,
            };
            edit(&mut witness);
            node.ledger.witnesses.insert(HOST.into(), witness);
        })
    }

    fn decide(&self) -> ServicePlan {
        let wanted =
            ServiceGoal { anchors: set("ab"), readable: set("ab"), bundle: set("abz"), set: SetDigest::of(&set("ab")) };
        let services = Services { choice: (&self.policy).into(), ..self.services.clone() };
        decide(&services, &self.ledger, &wanted, &self.policy, &RestartGate::Open, &at(100_000, 50_000, BOOT))
    }

    fn trust(&self) -> RuntimeTrust {
        self.decide().trust
    }

    fn restarts(&self) -> Vec<String> {
        let actions = self.decide().actions;
        let restarts = actions.into_iter().filter_map(|action| match action {
            ServiceAction::Restart { why, .. } => Some(why),
            _ => None,
        });
        restarts.collect()
    }
}

fn good() -> EvidenceNode {
    EvidenceNode::new("abz", "")
}

fn serving(node: EvidenceNode) -> EvidenceNode {
    node.runtime(|runtime| {
        let file = "/etc/containerd/certs.d/_default/nodetrust-anchors.crt".to_owned();
        runtime.certs.setting = Setting::Directory("/etc/containerd/certs.d".into());
        runtime.certs.own = [(file, OwnRegistryFile::Holds(set("ab")))].into();
    })
}

fn down() -> ServiceState {
    ServiceState::Down("inactive".into())
}

fn nothing(_: &mut Witness) {}

/// Every way a node can stand, with its state.
#[test]
fn green_is_only_what_there_is_evidence_for() {
    use RuntimeState::{Current, None as Nothing, Stale, Unknown};
    use WitnessAnswer::{NotReached, Refuses, Trusts};
    let sign = |node: EvidenceNode| node.with(|node| node.services.sign = Some("a CRI socket answers".into()));
    let in_pod = |node: EvidenceNode| node.with(|node| node.services.in_pod = true);
    let was_in_pod = |boot: &str| EvidenceNode::without_runtime().with(|node| node.ledger.pod = Some(boot.into()));
    let ignored = |node: EvidenceNode| node.with(|node| node.policy.ignored = true);
    let unknown_setting = |node: EvidenceNode| node.runtime(|r| r.certs.setting = Setting::Unknown("no rights".into()));
    let changed = |node: EvidenceNode| node.runtime(|r| r.certs.setting = Setting::ChangedSince("/etc/x.toml".into()));
    let lingering =
        |node: EvidenceNode| node.with(|node| node.ledger.services.get_mut(UNIT).unwrap().revoked.extend(set("x")));
    let sick = |node: EvidenceNode| node.runtime(|runtime| runtime.health = Err("it does not answer".into()));
    let elsewhere = |node: EvidenceNode| {
        node.runtime(|runtime| runtime.elsewhere = Some("its unit sets SSL_CERT_FILE=/x.pem".into()))
    };
    let lost = |node: EvidenceNode| node.runtime(|runtime| runtime.service.process = None);
    let table: Vec<(&str, EvidenceNode, RuntimeState)> = vec![
        // whether there is a runtime
        ("nothing speaks of one", EvidenceNode::without_runtime(), Nothing),
        ("a socket does", sign(EvidenceNode::without_runtime()), Unknown),
        ("we run in a pod", in_pod(EvidenceNode::without_runtime()), Unknown),
        ("the agent did, in this boot", was_in_pod(BOOT), Unknown),
        ("the agent did, in another boot", was_in_pod("zero"), Nothing),
        ("it is not to be asked for", ignored(sign(in_pod(EvidenceNode::without_runtime()))), Nothing),
        ("nor is one that is there", ignored(EvidenceNode::new("z", "")), Nothing),
        // whether it runs
        ("containerd does not run yet", EvidenceNode::new("", "").state(down()), Nothing),
        ("it does not, and somebody must have made our pod", in_pod(EvidenceNode::new("", "").state(down())), Unknown),
        ("it does not, and a socket answers", sign(EvidenceNode::new("", "").state(down())), Unknown),
        ("it has failed", good().state(ServiceState::Failed("failed (exit-code)".into())), Unknown),
        ("it starts", good().state(ServiceState::Changing), Unknown),
        ("it starts, and was behind", EvidenceNode::new("z", "").state(ServiceState::Changing), Unknown),
        ("it runs and does not work", sick(good()), Unknown),
        ("its process is not found", lost(good()), Unknown),
        ("its process is not remembered", good().with(|node| node.ledger.services.clear()), Unknown),
        ("another socket answers as well", sign(good()), Unknown),
        // what its process has
        ("it has all", good(), Current),
        ("it has all, and what it reads cannot be told", unknown_setting(good()), Current),
        ("it lacks some", EvidenceNode::new("az", ""), Stale),
        ("it lacks some, and does not work", sick(EvidenceNode::new("az", "")), Stale),
        ("it may still have what left", lingering(good()), Stale),
        ("a directory has what it lacks", serving(EvidenceNode::new("z", "")), Current),
        ("a directory has it, and what left lingers", lingering(serving(EvidenceNode::new("z", ""))), Stale),
        ("a directory may have it", unknown_setting(EvidenceNode::new("z", "")), Unknown),
        (
            "a directory may have it, and what left lingers",
            lingering(unknown_setting(EvidenceNode::new("z", ""))),
            Stale,
        ),
        ("its configuration is younger than itself", changed(EvidenceNode::new("z", "")), Stale),
        // first sight
        ("others had installed some before", EvidenceNode::new("az", "b"), Unknown),
        ("others had, and a directory has them", serving(EvidenceNode::new("z", "ab")), Current),
        ("others had some, and others are surely newer", EvidenceNode::new("z", "b"), Stale),
        // it starts over roots that are not the node's
        ("it reads other roots", elsewhere(good()), Unknown),
        ("it reads other roots, and a directory has all", elsewhere(serving(good())), Current),
        ("it reads other roots, and one of two is proven", elsewhere(good()).witness(Trusts, nothing), Unknown),
        ("it reads other roots, and refuses", elsewhere(good()).witness(Refuses, nothing), Stale),
        // what it says itself
        ("it refuses what it should trust", good().witness(Refuses, nothing), Stale),
        (
            "it refuses although a directory serves",
            serving(EvidenceNode::new("z", "")).witness(Refuses, nothing),
            Stale,
        ),
        ("another process refused", good().witness(Refuses, |witness| witness.process = process(9)), Current),
        ("it refused over another set", good().witness(Refuses, |w| w.set = SetDigest::of(&set("a"))), Current),
        ("it was not reached", good().witness(NotReached, nothing), Current),
        ("it trusts what was there at first sight", EvidenceNode::new("z", "ab").witness(Trusts, nothing), Current),
        (
            "it was not reached, and nothing is proven",
            EvidenceNode::new("z", "ab").witness(NotReached, nothing),
            Unknown,
        ),
        ("pulls work by a mirror", EvidenceNode::new("z", "ab").witness(Trusts, |w| w.verifies_tls = false), Unknown),
        ("it trusts a public CA", EvidenceNode::new("z", "ab").witness(Trusts, |w| w.anchor = None), Unknown),
        ("it trusts one that it was known to have", EvidenceNode::new("az", "b").witness(Trusts, nothing), Unknown),
        ("it trusts all that is newer", EvidenceNode::new("bz", "").witness(Trusts, nothing), Current),
        ("it trusts one of two that are newer", EvidenceNode::new("z", "").witness(Trusts, nothing), Stale),
        ("it refuses what was there at first sight", EvidenceNode::new("z", "ab").witness(Refuses, nothing), Stale),
        (
            "it trusts, by a directory that was hidden since",
            EvidenceNode::new("bz", "").witness(Trusts, |w| w.own_roots = false),
            Stale,
        ),
        (
            "it trusts, and what it reads cannot be told",
            unknown_setting(EvidenceNode::new("bz", "")).witness(Trusts, |w| w.own_roots = false),
            Current,
        ),
        ("it trusts, and does not work", sick(EvidenceNode::new("z", "ab")).witness(Trusts, nothing), Unknown),
        ("it trusts, and what left lingers", lingering(good()).witness(Trusts, nothing), Stale),
    ];
    for (story, node, state) in table {
        let trust = node.trust();
        assert_eq!(trust.state, state, "{story}: {trust:?}");
        assert!(!trust.why.is_empty() && trust.why.len() < 2_000, "{story}: {trust:?}");
        match state {
            Unknown => {
                let why = &trust.why;
                assert!(!why.contains("no restart needed") && !trust.next.is_empty(), "{story}: {trust:?}");
            }
            Current | Nothing => assert!(trust.next.is_empty(), "{story}: {trust:?}"),
            Stale => {}
        }
    }
}

#[test]
fn not_knowing_restarts_nothing() {
    for on_change in [OnChange::Auto, OnChange::Restart] {
        let nodes = [
            EvidenceNode::new("z", "ab"),
            EvidenceNode::new("az", "b").witness(WitnessAnswer::NotReached, nothing),
            EvidenceNode::new("abz", "").runtime(|runtime| runtime.health = Err("it does not answer".into())),
            good().runtime(|runtime| runtime.service.process = None),
            good().state(ServiceState::Failed("failed".into())),
            good().state(ServiceState::Changing),
            EvidenceNode::new("z", "").runtime(|runtime| runtime.elsewhere = Some("it reads others".into())),
        ];
        for node in nodes {
            let node = node.with(|node| node.policy.on_change = on_change);
            let outlook = node.decide();
            assert_eq!(outlook.trust.state, RuntimeState::Unknown);
            assert!(node.restarts().is_empty() && outlook.hold.is_none(), "{outlook:?}");
        }
    }
}

#[test]
fn a_refusal_restarts_once_and_only_what_a_restart_can_cure() {
    let refuses = |edit: fn(&mut Witness)| good().witness(WitnessAnswer::Refuses, edit);
    let node = refuses(nothing);
    assert_eq!(node.restarts(), ["it refuses registry.test:5443, which the bundle trusts"]);
    let trust = node.trust();
    assert!(trust.why.starts_with("it refuses registry.test:5443: tls: failed to verify"), "{trust:?}");
    let misled = trust.misled.unwrap();
    assert!(misled.contains("nothing of ours changed") && misled.contains("not configured"), "{misled}");

    let node = refuses(|witness| witness.handshake_error = Some("the certificate of registry.test has expired".into()));
    assert_eq!(node.restarts(), [""; 0]);
    let trust = node.trust();
    assert!(trust.why.contains("no restart would help") && trust.why.contains("has expired"), "{trust:?}");
    assert!(trust.next.contains("nodetrust probe registry.test:5443"), "{trust:?}");

    // The process starts over other roots again.
    let node =
        refuses(nothing).runtime(|runtime| runtime.elsewhere = Some("its unit sets SSL_CERT_FILE=/x.pem".into()));
    assert_eq!(node.restarts(), [""; 0]);
    assert!(
        node.trust().why.ends_with("no restart would help: its unit sets SSL_CERT_FILE=/x.pem"),
        "{:?}",
        node.trust()
    );

    // The process is the one whose restart was due.
    assert_eq!(refuses(|witness| witness.restarted = Some(process(1_000))).restarts().len(), 1);
    let node = refuses(|witness| witness.restarted = Some(process(500)));
    assert_eq!(node.restarts(), [""; 0]);
    let trust = node.trust();
    assert!(trust.why.ends_with("a restart did not help"), "{trust:?}");
    for cause in ["expired", "another name", "intermediate", "`ca`", "token server"] {
        assert!(trust.next.contains(cause), "{trust:?}");
    }
}

#[test]
fn a_restart_on_a_refusal_is_held_like_any_other() {
    let refuses = || good().witness(WitnessAnswer::Refuses, nothing);
    let held = |node: EvidenceNode| node.decide().hold.map(|hold| hold.reason);
    assert_eq!(held(refuses().with(|node| node.policy.on_change = OnChange::Report)), Some(HoldReason::Policy));
    assert_eq!(held(refuses().runtime(|r| r.health = Err("no CRI".into()))), Some(HoldReason::Unhealthy));
    let kill_mode = |r: &mut Runtime| r.spares = Err((HoldReason::KillMode, "it would end them".into()));
    assert_eq!(held(refuses().runtime(kill_mode)), Some(HoldReason::KillMode));
    let tried = crate::runtime::attempts::RestartAttempt { at: at(99_990, 49_990, BOOT), outcome: None };
    assert_eq!(held(refuses().with(|node| node.ledger.attempts.push(tried))), Some(HoldReason::RateLimit));
}

#[test]
fn what_is_behind_anyway_says_so_and_restarts_for_that() {
    let node = EvidenceNode::new("z", "").witness(WitnessAnswer::Refuses, nothing);
    assert_eq!(node.restarts(), ["2 anchors newer than the process"]);
    let trust = node.trust();
    assert!(trust.why.contains("2 anchors newer") && trust.why.contains("it refuses registry.test"), "{trust:?}");
    assert_eq!(trust.misled, None, "nothing was inferred wrongly");
}

#[test]
fn what_would_make_it_known_is_said() {
    let next = |node: EvidenceNode| node.trust().next;
    let first_sight = EvidenceNode::new("z", "ab");
    let text = next(first_sight);
    assert!(text.contains("nodetrust probe --through runtime HOST"), "{text}");
    assert!(text.contains("systemctl restart containerd.service"), "{text}");
    let text = next(EvidenceNode::without_runtime().with(|node| node.services.in_pod = true));
    assert!(text.contains("runtime.kind") && text.contains("runtime.unit"), "{text}");
    let text = next(good().state(ServiceState::Failed("failed (exit-code)".into())));
    assert!(text.contains("journalctl -u containerd.service"), "{text}");
    let trust =
        EvidenceNode::new("z", "ab").witness(WitnessAnswer::Trusts, |witness| witness.verifies_tls = false).trust();
    assert!(trust.why.contains("pulls from registry.test:5443 work"), "{trust:?}");
}

#[test]
fn what_changes_by_itself_is_looked_at_again() {
    assert_eq!(good().state(ServiceState::Changing).trust().again, Some(LOOK_AGAIN));
    assert_eq!(good().runtime(|runtime| runtime.health = Err("no".into())).trust().again, Some(BETWEEN_ATTEMPTS));
    assert_eq!((good().trust().again, EvidenceNode::new("z", "ab").trust().again), (None, None));
}

#[test]
fn a_proof_names_its_witness() {
    let trust = EvidenceNode::new("z", "ab").witness(WitnessAnswer::Trusts, nothing).trust();
    assert_eq!(trust.why, "no restart needed: the runtime trusts registry.test:5443, as it says itself");
}

#[test]
fn every_state_has_its_own_name() {
    let names: BTreeSet<&str> = RuntimeState::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(names, ["current", "none", "stale", "unknown"].into());
    for state in RuntimeState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}
