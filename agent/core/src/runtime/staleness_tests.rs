//! The rule, by stories of a node: what is in the bundle, which process runs, what is written down.
//!
//! Long because the stories share one node and its words, and are to be compared with each other.

use super::*;
use crate::{
    certificate::fingerprint::SetDigest,
    runtime::{
        attempts::with_attempt,
        kinds::RuntimeKind,
        process::ServiceProcess,
        record::ServiceRecord,
        registry_dir::{RegistryCerts, Setting},
        service_plan::Hold,
        services::HoldReason,
        trust::RuntimeState,
    },
    testing::at,
    time::Uptime,
};

const UNIT: &str = "containerd.service";
const CERTS: &str = "/etc/containerd/certs.d/_default/nodetrust-anchors.crt";

fn set(names: &str) -> BTreeSet<Fingerprint> {
    names.bytes().map(|byte| Fingerprint::from_bytes([byte; 32])).collect()
}

fn up(boot: &str, milliseconds: u64) -> Uptime {
    Uptime { boot_id: boot.into(), milliseconds }
}

fn process(boot: &str, started: u64) -> ServiceProcess {
    ServiceProcess { invocation: format!("{boot}-{started}"), started: up(boot, started) }
}

/// A node whose containerd is looked at.
struct StalenessNode {
    services: Services,
    ledger: Ledger,
    wanted: BTreeSet<Fingerprint>,
    /// the anchors that Go reads; None for all
    readable: Option<BTreeSet<Fingerprint>>,
    bundle: BTreeSet<Fingerprint>,
    policy: RuntimeSettings,
    gate: RestartGate,
    now: Moment,
}

impl StalenessNode {
    /// containerd started with `has` in the bundle; it wants `wanted`, all of which is in the bundle now.
    fn new(has: &str, wanted: &str) -> Self {
        let process = process("one", 1_000);
        let service = Service { unit: UNIT.into(), state: ServiceState::Active, process: Some(process.clone()) };
        let runtime = Runtime {
            kind: RuntimeKind::Containerd,
            because: "it is active".into(),
            version: "1.7.24".into(),
            socket: "/run/containerd/containerd.sock".into(),
            service,
            health: Ok(()),
            spares: Ok(()),
            certs: RegistryCerts { setting: Setting::NotConfigured, ..RegistryCerts::default() },
            elsewhere: None,
        };
        let mut ledger = Ledger::new();
        let record = ServiceRecord {
            process,
            has: set(has),
            maybe_has: set(""),
            unproven: set(""),
            added_since: set(""),
            revoked: set(""),
        };
        ledger.services.insert(UNIT.into(), record);
        let services = Services { runtime: Some(runtime), ..Services::default() };
        let bundle = &set(wanted) | &set("z");
        Self {
            services,
            ledger,
            wanted: set(wanted),
            readable: None,
            bundle,
            policy: RuntimeSettings::default(),
            gate: RestartGate::Open,
            now: at(100_000, 50_000, "one"),
        }
    }

    fn runtime(&mut self) -> &mut Runtime {
        self.services.runtime.as_mut().unwrap()
    }

    fn record(&mut self) -> &mut ServiceRecord {
        self.ledger.services.get_mut(UNIT).unwrap()
    }

    fn certs_d(mut self, own: Option<&str>) -> Self {
        let certs = &mut self.runtime().certs;
        certs.setting = Setting::Directory("/etc/containerd/certs.d".into());
        certs.own = own.map(|own| (CERTS.to_owned(), OwnRegistryFile::Holds(set(own)))).into_iter().collect();
        self
    }

    fn tried(mut self, seconds_ago: u64, outcome: Option<AttemptOutcome>) -> Self {
        let mut at = self.now.clone();
        at.boottime -= seconds_ago;
        at.wall -= i64::try_from(seconds_ago).unwrap();
        self.ledger.attempts.push(RestartAttempt { at, outcome });
        self
    }

    fn decide(&self) -> ServicePlan {
        let wanted = ServiceGoal {
            anchors: self.wanted.clone(),
            readable: self.readable.clone().unwrap_or_else(|| self.wanted.clone()),
            bundle: self.bundle.clone(),
            set: SetDigest::of(&self.wanted),
        };
        decide(&self.services, &self.ledger, &wanted, &self.policy, &self.gate, &self.now)
    }

    /// What is done, in words.
    fn actions(&self) -> Vec<String> {
        self.decide()
            .actions
            .iter()
            .map(|action| action.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn held(&self) -> Option<HoldReason> {
        let outlook = self.decide();
        let restarts = outlook.actions.iter().filter(|action| matches!(action, ServiceAction::Restart { .. })).count();
        assert!(outlook.hold.is_none() || restarts == 0, "what is held is not done: {:?}", outlook.actions);
        outlook.hold.map(|hold| hold.reason)
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn what_the_process_has_needs_no_restart() {
    let node = StalenessNode::new("abz", "ab");
    assert_eq!(node.actions(), NOTHING);
    assert!(node.decide().trust.why.starts_with("no restart needed"), "{}", node.decide().trust.why);
}

#[test]
fn an_anchor_newer_than_the_process_needs_one() {
    assert_eq!(
        StalenessNode::new("z", "a").actions(),
        ["restart containerd.service (1 anchor newer than the process)"]
    );
}

#[test]
fn an_anchor_that_has_not_arrived_in_the_bundle_needs_none() {
    let mut node = StalenessNode::new("z", "a");
    node.bundle = set("z");
    assert_eq!(node.actions(), NOTHING, "a restart would not bring it");
}

#[test]
fn a_removed_anchor_needs_one_only_if_the_process_may_have_it() {
    let mut node = StalenessNode::new("abz", "a");
    node.record().note_revoked(&set("bq"), |_| false, |_| false);
    assert_eq!(node.actions(), ["restart containerd.service (1 removed anchor that it started with)"]);
    node.record().note_revoked(&set(""), |_| false, |fingerprint| set("b").contains(fingerprint));
    assert_eq!(node.actions(), NOTHING, "it is wanted again");
    // Certificates of others come and go with upgrades of the distribution's packages.
    let mut node = StalenessNode::new("abz", "ab");
    node.bundle = set("aby");
    assert_eq!(node.actions(), NOTHING);
}

#[test]
fn a_removed_anchor_stays_known_when_the_ledger_has_forgotten_it() {
    let mut node = StalenessNode::new("abz", "a");
    node.record().note_revoked(&set("b"), |_| false, |_| false);
    node.record().note_revoked(&set(""), |_| false, |_| false);
    assert_eq!(node.decide().lag.lingering, set("b"));
}

#[test]
fn the_registry_directory_makes_up_for_additions() {
    let node = StalenessNode::new("z", "a").certs_d(None);
    assert_eq!(node.actions(), [format!("write {CERTS} (1 anchor)")]);
    let node = StalenessNode::new("z", "a").certs_d(Some("a"));
    assert_eq!(node.actions(), NOTHING);
    assert_eq!(node.decide().covered, set("a"));
    assert!(node.decide().trust.why.contains("registry directory"), "{}", node.decide().trust.why);
}

#[test]
fn the_registry_directory_does_not_make_up_for_a_removal_that_the_process_started_with() {
    let mut node = StalenessNode::new("abz", "a").certs_d(Some("ab"));
    node.record().note_revoked(&set("b"), |_| false, |_| false);
    assert_eq!(
        node.actions(),
        [
            format!("write {CERTS} (1 anchor)"),
            "restart containerd.service (1 removed anchor that it started with)".into()
        ]
    );
}

#[test]
fn a_directory_that_does_not_cover_every_host_leaves_the_restart() {
    for edit in [
        (|certs: &mut RegistryCerts| certs.hidden = true) as fn(&mut RegistryCerts),
        |certs| certs.elsewhere = vec!["registry.test:5000".into()],
        |certs| certs.setting = Setting::Several("/a:/b".into()),
        |certs| certs.setting = Setting::ChangedSince("/etc/containerd/config.toml".into()),
    ] {
        let mut node = StalenessNode::new("z", "a").certs_d(Some("a"));
        edit(&mut node.runtime().certs);
        assert!(node.actions().iter().any(|action| action.starts_with("restart")), "{:?}", node.runtime().certs);
    }
}

#[test]
fn only_what_the_file_holds_is_covered() {
    let mut node = StalenessNode::new("z", "a").certs_d(None);
    assert_eq!((node.decide().covered, node.decide().lag.missing), (set(""), set("a")), "it is not written yet");
    // The file cannot be written.
    node.runtime().certs.unwritten = true;
    assert!(node.actions().contains(&"restart containerd.service (1 anchor newer than the process)".into()));
}

#[test]
fn what_pulls_rest_on_stays() {
    // Somebody has emptied the bundle, and the repair fails.
    let mut node = StalenessNode::new("z", "a").certs_d(Some("a"));
    node.bundle = set("");
    assert_eq!(node.actions(), NOTHING);
    // The policy changes while the process is older than the anchor.
    for on_change in [OnChange::Report, OnChange::Never, OnChange::Restart] {
        let mut node = StalenessNode::new("z", "a").certs_d(Some("a"));
        node.policy.on_change = on_change;
        assert_eq!(node.actions(), NOTHING, "{on_change:?}");
        assert_eq!(node.decide().covered, set("a"));
        let mut young = StalenessNode::new("az", "a").certs_d(Some("a"));
        young.policy.on_change = on_change;
        assert_eq!(young.actions(), [format!("remove {CERTS} (nothing is to be served there)")], "{on_change:?}");
    }
}

#[test]
fn an_anchor_that_go_cannot_read_is_not_served() {
    // Alone in the file, it would make every pull fail.
    let mut node = StalenessNode::new("z", "a").certs_d(None);
    node.readable = Some(set(""));
    assert_eq!(node.actions(), NOTHING);
    let mut node = StalenessNode::new("z", "ab").certs_d(None);
    node.readable = Some(set("a"));
    assert_eq!(node.actions(), [format!("write {CERTS} (1 anchor)")]);
    // An earlier version left it so.
    let mut node = StalenessNode::new("z", "ab").certs_d(Some("ab"));
    node.readable = Some(set("a"));
    assert_eq!(node.actions(), [format!("write {CERTS} (1 anchor)")]);
    let mut node = StalenessNode::new("z", "b").certs_d(Some("b"));
    node.readable = Some(set(""));
    assert_eq!(node.actions(), [format!("remove {CERTS} (nothing is to be served there)")]);
}

/// No restart brings an anchor that the process cannot read, whatever the policy, the process and the directory.
#[test]
fn no_restart_is_made_held_or_awaited_for_an_anchor_that_go_cannot_read() {
    for on_change in [OnChange::Auto, OnChange::Restart, OnChange::Report, OnChange::Never] {
        for certs_d in [false, true] {
            let mut node = StalenessNode::new("z", "a");
            node = if certs_d { node.certs_d(None) } else { node };
            node.readable = Some(set(""));
            node.policy.on_change = on_change;
            node.runtime().health = Err("it does not answer".into());
            let outlook = node.decide();
            assert_eq!((node.actions(), outlook.hold), (Vec::new(), None), "{on_change:?}");
            assert!(outlook.lag.is_none() && outlook.covered.is_empty() && outlook.serves.is_empty());
            assert_eq!(outlook.cannot, set("a"));
            // A runtime that does not work is no reason either.
            assert_eq!(outlook.trust.state, RuntimeState::Unknown);
            node.runtime().health = Ok(());
            let trust = node.decide().trust;
            assert!(trust.why.starts_with("no restart needed"), "{}", trust.why);
        }
    }
    // The other anchors count as before.
    let mut node = StalenessNode::new("z", "ab");
    node.readable = Some(set("b"));
    let outlook = node.decide();
    assert_eq!((outlook.lag.missing, outlook.cannot), (set("b"), set("a")));
}

#[test]
fn a_further_unit_may_read_what_the_runtime_cannot() {
    let mut node = StalenessNode::new("az", "a");
    node.readable = Some(set(""));
    let process = process("one", 2_000);
    let service = Service { unit: "web.service".into(), state: ServiceState::Active, process: Some(process.clone()) };
    let record = ServiceRecord {
        process,
        has: set("z"),
        maybe_has: set(""),
        unproven: set(""),
        added_since: set(""),
        revoked: set(""),
    };
    node.ledger.services.insert("web.service".into(), record);
    node.services.also.insert("web.service".into(), service);
    assert_eq!(node.actions(), ["restart web.service (1 anchor newer than the process)"]);
}

#[test]
fn a_denied_anchor_that_came_while_the_process_ran_may_have_been_read() {
    let lag = |denied: bool| {
        let mut node = StalenessNode::new("z", "");
        node.record().note_served(set("a").into_iter());
        node.record().note_revoked(&set("a"), |_| denied, |_| false);
        node.decide().lag.lingering
    };
    assert_eq!(lag(true), set("a"), "nobody can tell, and it must not be trusted");
    assert_eq!(lag(false), set(""));
}

#[test]
fn our_file_goes_when_nothing_is_left_to_serve() {
    let node = StalenessNode::new("z", "").certs_d(Some("a"));
    assert_eq!(node.actions(), [format!("remove {CERTS} (nothing is to be served there)")]);
    // The configuration no longer names the directory that we once wrote to.
    let mut node = StalenessNode::new("az", "a").certs_d(Some("a"));
    node.runtime().certs.setting = Setting::NotConfigured;
    assert_eq!(node.actions(), NOTHING, "a file that we did not write");
    node.ledger.certs_files.insert(CERTS.into());
    assert_eq!(node.actions(), [format!("remove {CERTS} (nothing is to be served there)")]);
    // What the process reads now is unknown, so files that pulls may need stay.
    node.runtime().certs.setting = Setting::Unknown("no TOML".into());
    assert_eq!(node.actions(), NOTHING);
}

#[test]
fn an_altered_file_is_written_anew() {
    let mut node = StalenessNode::new("z", "a").certs_d(None);
    node.runtime().certs.own.insert(CERTS.into(), OwnRegistryFile::Altered);
    assert_eq!(node.actions(), [format!("write {CERTS} (1 anchor)")]);
}

#[test]
fn the_configuration_may_forbid() {
    for (on_change, held) in [(OnChange::Report, true), (OnChange::Never, true), (OnChange::Restart, false)] {
        let mut node = StalenessNode::new("z", "a").certs_d(None);
        node.policy.on_change = on_change;
        assert_eq!(node.held(), held.then_some(HoldReason::Policy), "{on_change:?}");
        assert!(!node.actions().iter().any(|action| action.starts_with("write")), "only `auto` writes there");
        assert!(!node.decide().lag.is_none(), "the lag is told all the same");
    }
}

#[test]
fn the_fleet_is_asked_only_for_a_restart_that_nothing_else_holds() {
    let closed = |edit: fn(&mut StalenessNode)| {
        let mut node = StalenessNode::new("z", "a");
        let why = "2 of 2 slots are in use".to_owned();
        node.gate = RestartGate::Closed(Hold { reason: HoldReason::Slot, why, next: String::new(), wait: None });
        edit(&mut node);
        node
    };
    assert_eq!(closed(|_| {}).held(), Some(HoldReason::Slot));
    assert!(!closed(|_| {}).decide().lag.is_none(), "the lag is told all the same");
    assert_eq!(closed(|node| node.gate = RestartGate::Open).held(), None);
    // what holds the restart on the node itself comes first: such a node takes no slot from another
    assert_eq!(closed(|node| node.policy.on_change = OnChange::Report).held(), Some(HoldReason::Policy));
    assert_eq!(closed(|node| node.runtime().health = Err("sick".into())).held(), Some(HoldReason::Unhealthy));
    let tried = closed(|_| {}).tried(10, Some(AttemptOutcome::Done));
    assert_eq!(tried.held(), Some(HoldReason::RateLimit));
    // nothing is due, so nothing is held
    assert_eq!(closed(|node| node.wanted = set("z")).held(), None);
    // a file that makes the restart needless waits for nobody
    let mut covered = closed(|_| {}).certs_d(None);
    covered.wanted = set("a");
    assert_eq!(covered.actions(), [format!("write {CERTS} (1 anchor)")]);
    // further units wait for the slot too
    let also = closed(|node| {
        let service = node.services.runtime.take().unwrap().service;
        node.services.also.insert(UNIT.into(), service);
    });
    assert_eq!((also.held(), also.actions().len()), (Some(HoldReason::Slot), 0));
}

#[test]
fn the_registry_directory_is_kept_where_a_restart_is_forbidden() {
    let node = |served| {
        let mut node = StalenessNode::new("z", "a").certs_d(served);
        node.policy.on_change = OnChange::Registry;
        node
    };
    assert_eq!(node(None).actions(), [format!("write {CERTS} (1 anchor)")]);
    assert_eq!(node(Some("a")).actions(), NOTHING);
    assert_eq!(node(Some("a")).decide().hold, None);
    // The anchors that it does not cover are reported, and nothing is restarted.
    let held = |edit: fn(&mut StalenessNode)| {
        let mut node = node(Some("a"));
        edit(&mut node);
        assert!(!node.actions().iter().any(|action| action.starts_with("restart")), "{:?}", node.actions());
        let hold = node.decide().hold.unwrap();
        assert_eq!(hold.reason, HoldReason::Policy);
        hold.why
    };
    assert_eq!(
        held(|node| node.runtime().certs.elsewhere = vec!["registry.test".into()]),
        "runtime.onChange is registry, and /etc/containerd/certs.d/registry.test hides _default/ for pulls from that host"
    );
    assert_eq!(
        held(|node| node.runtime().certs = RegistryCerts::default()),
        "runtime.onChange is registry, and containerd has no registry directory for all registries"
    );
    assert!(held(|node| node.runtime().certs.setting = Setting::NotConfigured).ends_with("configured"));
    let started_with = held(|node| {
        node.ledger.services.get_mut(UNIT).unwrap().has.insert(Fingerprint::from_bytes([b'b'; 32]));
        node.record().note_revoked(&set("b"), |_| false, |_| false);
    });
    assert!(started_with.contains("what the process started with stays in it"), "{started_with}");
}

#[test]
fn what_is_sick_or_would_end_containers_is_not_restarted() {
    let held = |edit: fn(&mut Runtime)| {
        let mut node = StalenessNode::new("z", "a");
        edit(node.runtime());
        node.held()
    };
    assert_eq!(held(|runtime| runtime.health = Err("no CRI".into())), Some(HoldReason::Unhealthy));
    assert_eq!(held(|runtime| runtime.service.state = ServiceState::Changing), Some(HoldReason::Busy));
    let spares = |reason| Err((reason, "it would end them".to_owned()));
    assert_eq!(
        held(|runtime| runtime.spares = Err((HoldReason::KillMode, "it would end them".to_owned()))),
        Some(HoldReason::KillMode)
    );
    let mut node = StalenessNode::new("z", "a");
    node.runtime().spares = spares(HoldReason::LiveRestore);
    assert_eq!(node.held(), Some(HoldReason::LiveRestore));
    assert_eq!(node.decide().hold.unwrap().next, "drain the node, then: systemctl restart containerd.service");
    node.runtime().spares = spares(HoldReason::NoAccess);
    let hold = node.decide().hold.unwrap();
    assert_eq!(hold.reason, HoldReason::NoAccess);
    assert!(hold.next.contains("rc-service containerd restart"), "{}", hold.next);
}

#[test]
fn what_does_not_run_needs_nothing() {
    let mut node = StalenessNode::new("z", "a");
    node.runtime().service.state = ServiceState::Down("inactive".into());
    node.runtime().service.process = None;
    assert_eq!(node.actions(), NOTHING);
    assert!(node.decide().trust.why.contains("when it starts"), "{}", node.decide().trust.why);
}

#[test]
fn tries_have_their_distance() {
    let done = Some(AttemptOutcome::Done);
    let failed = Some(AttemptOutcome::Failed("timeout".into()));
    let node = || StalenessNode::new("z", "a");
    assert_eq!(node().tried(59, done.clone()).held(), Some(HoldReason::RateLimit));
    assert_eq!(node().tried(60, done.clone()).held(), None);
    assert_eq!(node().tried(59, None).held(), Some(HoldReason::RateLimit), "the agent was killed in it");
    assert_eq!(node().tried(599, failed.clone()).held(), Some(HoldReason::Failed));
    assert_eq!(node().tried(600, failed).held(), None);
    let three = node().tried(3_000, done.clone()).tried(2_000, done.clone()).tried(1_000, done.clone());
    assert_eq!(three.held(), Some(HoldReason::RateLimit));
    assert_eq!(three.decide().hold.unwrap().wait, Some(600));
    assert_eq!(node().tried(3_600, done.clone()).tried(2_000, done.clone()).tried(1_000, done).held(), None);
}

#[test]
fn a_failed_restart_is_told_until_the_runtime_works_again() {
    let mut node = StalenessNode::new("z", "a").tried(5_000, Some(AttemptOutcome::Failed("it did not start".into())));
    let told_in = |node: &StalenessNode, boot: &str| {
        aftermath(node.services.runtime.as_ref().unwrap(), &node.ledger.attempts, boot)
    };
    let boot = node.ledger.attempts[0].at.boot_id.clone();
    let told = |node: &StalenessNode| told_in(node, &boot);
    assert_eq!(told(&node), None);
    node.runtime().service.state = ServiceState::Changing;
    assert_eq!(told(&node).unwrap().text, "it did not start");
    node.runtime().service.state = ServiceState::Active;
    node.runtime().health = Err("no answer".into());
    assert_eq!(told(&node).unwrap().kind, ProblemKind::Restart);
    assert_eq!(told_in(&node, "the next boot"), None, "a runtime that has not started yet is no failure");
    assert_eq!(told(&node.tried(10, Some(AttemptOutcome::Done))), None);
}

#[test]
fn tries_that_no_longer_count_are_forgotten() {
    let mut tries = Vec::new();
    for boottime in 0..10 {
        tries = with_attempt(&tries, &at(1, boottime, "one"));
    }
    assert_eq!(tries.iter().map(|tried| tried.at.boottime).collect::<Vec<_>>(), [7, 8, 9]);
}

#[test]
fn further_units_follow_by_their_own_processes() {
    let mut node = StalenessNode::new("az", "a").certs_d(Some("a"));
    let kubelet =
        Service { unit: "kubelet.service".into(), state: ServiceState::Active, process: Some(process("one", 5)) };
    let record = ServiceRecord {
        process: process("one", 5),
        has: set("z"),
        maybe_has: set(""),
        unproven: set(""),
        added_since: set(""),
        revoked: set(""),
    };
    node.ledger.services.insert(kubelet.unit.clone(), record);
    node.services.also.insert(kubelet.unit.clone(), kubelet);
    assert_eq!(node.actions(), ["restart kubelet.service (1 anchor newer than the process)"]);
    node.policy.on_change = OnChange::Report;
    assert!(!node.actions().iter().any(|action| action.starts_with("restart")), "{:?}", node.actions());
}

#[test]
fn a_process_that_was_not_seen_yet_is_not_judged() {
    let mut node = StalenessNode::new("z", "a");
    node.runtime().service.process = Some(process("one", 9_999));
    assert_eq!(node.actions(), NOTHING);
}
