//! What a process has, by stories of a node: what is in the bundle, when we changed it, which process is seen.

use super::*;

const UNIT: &str = "containerd.service";

fn set(names: &str) -> BTreeSet<Fingerprint> {
    names.bytes().map(|byte| Fingerprint::from_bytes([byte; 32])).collect()
}

fn up(boot: &str, milliseconds: u64) -> Uptime {
    Uptime { boot_id: boot.into(), milliseconds }
}

fn process(boot: &str, started: u64) -> ServiceProcess {
    ServiceProcess { invocation: format!("{boot}-{started}"), started: up(boot, started) }
}

/// A node's bundle and what the ledger says of it. Small letters are ours, capital ones somebody else's.
#[derive(Debug, Clone)]
struct BundleStory {
    before: Option<&'static str>,
    since: Option<Uptime>,
    begun: Option<Uptime>,
    now: &'static str,
}

impl BundleStory {
    fn first_look(now: &'static str) -> Self {
        Self { before: None, since: None, begun: None, now }
    }

    fn follow(&self, record: Option<&ServiceRecord>, process: &ServiceProcess) -> ServiceRecord {
        let all = [self.before.unwrap_or_default(), self.now].concat();
        let ours = set(&all.chars().filter(char::is_ascii_lowercase).collect::<String>());
        let (before, now) = (self.before.map(set), set(self.now));
        let bundle = BundleHistory {
            before: before.as_ref(),
            since: self.since.as_ref(),
            begun: self.begun.as_ref(),
            ours: &ours,
            now: &now,
        };
        follow(record, process, bundle)
    }

    /// What the process has, may have because of us, and may have because of others.
    #[track_caller]
    fn assert(&self, process: &ServiceProcess, has: &str, maybe_has: &str, unproven: &str) {
        let record = self.follow(None, process);
        assert_eq!(
            (record.has, record.maybe_has, record.unproven),
            (set(has), set(maybe_has), set(unproven)),
            "{self:?}"
        );
    }
}

#[test]
fn the_same_process_is_what_it_was() {
    let known = BundleStory::first_look("AB").follow(None, &process("one", 100));
    let later = BundleStory { begun: Some(up("one", 700)), ..BundleStory::first_look("xyz") };
    assert_eq!(later.follow(Some(&known), &process("one", 100)), known);
}

#[test]
fn at_first_sight_what_others_put_there_is_unproven_whatever_the_file_s_times_say() {
    // Without a ledger no certificate in the bundle is known to be ours.
    BundleStory::first_look("ABC").assert(&process("one", 700), "", "", "ABC");
    BundleStory::first_look("abc").assert(&process("one", 700), "", "", "abc");
}

#[test]
fn what_is_put_there_after_first_sight_is_missing_for_sure() {
    let record = BundleStory::first_look("AB").follow(None, &process("one", 700));
    let lag = record.lag(&set("Ac"), &set("ABc"));
    assert_eq!((lag.missing, lag.unproven), (set("c"), set("A")));
}

#[test]
fn a_new_process_over_an_unchanged_bundle_has_all_of_it() {
    let story = BundleStory { before: Some("aB"), since: Some(up("one", 400)), ..BundleStory::first_look("aB") };
    story.assert(&process("one", 500), "aB", "", "");
    story.assert(&process("two", 10), "aB", "", ""); // after a reboot
    // The process ran before the bundle was first seen.
    story.assert(&process("one", 300), "", "", "aB");
}

#[test]
fn a_process_that_started_within_a_change_of_ours_may_have_read_either() {
    let story = BundleStory { before: Some("aBx"), since: Some(up("one", 400)), ..BundleStory::first_look("aBn") };
    let ours = BundleStory { begun: Some(up("one", 700)), ..story };
    ours.assert(&process("one", 800), "aB", "xn", "");
    // The process is first seen after the change is complete and recorded.
    let complete = BundleStory { before: Some("aBn"), since: Some(up("one", 900)), ..ours };
    complete.assert(&process("one", 800), "", "an", "B");
}

#[test]
fn a_process_that_ran_before_a_change_of_ours_and_was_not_seen_lacks_what_we_put_there() {
    // Its unit was configured after the change.
    let story = BundleStory { before: Some("aB"), since: Some(up("one", 900)), begun: Some(up("one", 800)), now: "aB" };
    story.assert(&process("one", 100), "", "a", "B");
    let lag = story.follow(None, &process("one", 100)).lag(&set("aB"), &set("aB"));
    assert_eq!((lag.missing, lag.unproven), (set("a"), set("B")));
}

#[test]
fn what_others_have_changed_since_the_last_look_is_unproven() {
    // Somebody put C there and restarted containerd, in either order, while no agent ran.
    let story =
        BundleStory { before: Some("aB"), since: Some(up("one", 400)), begun: Some(up("one", 300)), now: "aBC" };
    story.assert(&process("one", 800), "aB", "", "C");
}

#[test]
fn a_reboot_ends_a_change_that_was_not_finished() {
    // n came and x went, and the agent was killed before it recorded that.
    let story =
        BundleStory { before: Some("aBx"), since: Some(up("one", 400)), begun: Some(up("one", 700)), now: "aBn" };
    story.assert(&process("two", 10), "aBn", "", "");
    // Nobody knows whether the certificates of others were there when the process started.
    let story = BundleStory { before: None, since: None, ..story };
    story.assert(&process("two", 10), "an", "", "B");
}

#[test]
fn what_an_earlier_process_may_still_have_is_no_matter_after_a_reboot() {
    let mut earlier = BundleStory::first_look("AB").follow(None, &process("one", 100));
    earlier.revoked = set("x");
    let story = BundleStory { before: Some("a"), since: Some(up("one", 400)), begun: Some(up("one", 700)), now: "an" };
    assert_eq!(story.follow(Some(&earlier), &process("two", 10)).maybe_has, set(""));
    // Within one boot it may have started while x was still there.
    assert_eq!(story.follow(Some(&earlier), &process("one", 800)).maybe_has, set("nx"));
}

#[test]
fn what_cannot_be_seen_just_now_stays_known() {
    let now = set("ab");
    let ours = set("");
    let bundle = BundleHistory { before: None, since: None, begun: None, ours: &ours, now: &now };
    let known: BTreeMap<String, ServiceRecord> = [(UNIT.to_owned(), follow(None, &process("one", 100), bundle))].into();
    let nothing = Services::default();
    assert_eq!(follow_all(&nothing, &known, bundle, &up("one", 900)), known);
    assert!(follow_all(&nothing, &known, bundle, &up("two", 900)).is_empty(), "it ended with its boot");
}

#[test]
fn an_anchor_that_may_have_been_there_at_the_start_lingers_when_it_leaves() {
    let mut record = BundleStory::first_look("AB").follow(None, &process("one", 100));
    record.note_revoked(&set("A"), |_| false, |_| false);
    assert_eq!(record.lag(&set(""), &set("B")).lingering, set("A"));
}

#[test]
fn a_ledger_of_an_older_version_keeps_its_doubts() {
    let text = r#"{"process":{"invocation":"i","started":{"bootId":"one","milliseconds":1}},"has":[],"doubt":[]}"#;
    let record: ServiceRecord = serde_json::from_str(text).unwrap();
    assert!(record.unproven.is_empty() && record.maybe_has.is_empty());
    let print = || set("a");
    let full = ServiceRecord { maybe_has: print(), added_since: print(), revoked: print(), ..record };
    let written = serde_json::to_value(&full).unwrap();
    assert!(["doubt", "later", "left"].iter().all(|name| written.get(name).is_some()), "{written}");
}

#[test]
fn one_anchor_that_is_seen_to_be_trusted_speaks_for_all_that_were_there_at_first_sight() {
    let lag = |missing: &str, unproven: &str, seen: &str| {
        let mut lag = Lag { missing: set(missing), unproven: set(unproven), lingering: set("") };
        let proven = lag.proven(&set(seen), true);
        (proven, lag.missing, lag.unproven)
    };
    assert_eq!(lag("", "AB", "A"), (true, set(""), set("")));
    assert_eq!(lag("", "AB", "C"), (false, set(""), set("AB")), "it had that one anyway");
    assert_eq!(lag("cd", "AB", "c"), (true, set("d"), set("AB")), "what is surely newer is proven one by one");
    assert_eq!(lag("cd", "", ""), (false, set("cd"), set("")));
    let mut apart = Lag { unproven: set("AB"), ..Lag::default() };
    assert!(apart.proven(&set("A"), false));
    assert_eq!(apart.unproven, set("B"), "nobody says that it reads them from one place");
}

#[test]
fn what_a_registry_directory_serves_is_neither_missing_nor_unproven() {
    let mut lag = Lag { missing: set("cd"), unproven: set("AB"), lingering: set("x") };
    assert_eq!(lag.covered_by(&set("Acz")), set("Ac"));
    assert_eq!((lag.missing, lag.unproven, lag.lingering), (set("d"), set("B"), set("x")));
}
