//! When the runtime is asked: once for each of its processes and each set in force, about three registries at a time.
//!
//! The questions run beside the cycles, each on a thread of its own. An answer that says something new asks for a cycle.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use nodetrust_core::runtime::{registry::Registry, witness::WitnessAnswer};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{Asked, RuntimeLine, Subject, ask, registries_of_ours, remember};
use crate::{
    config::{Settings, WitnessRegistries},
    host::{root::HostRoot, threads},
    jitter::part_of,
    runtime,
};

/// Registries that are asked about within [`SPREAD`].
const AT_ONCE: usize = 3;
/// The first registry is asked about at once, the others within this time: a fleet does not ask all of them in the same second.
const SPREAD: Duration = Duration::from_secs(60);
/// Pause before a registry that was not reached is asked about again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// How often a refusal is asked about again, after the same pauses, if our own handshake has succeeded: the registry's certificate may have
/// been replaced in between.
const REFUSALS: u32 = 2;
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Pause before the node's images are looked through again, when none is from a registry of ours; it doubles.
const FIRST_SEARCH: Duration = Duration::from_secs(300);
/// The longest of these pauses.
const LONGEST_SEARCH: Duration = Duration::from_secs(2 * 3600);
/// How long a loop sleeps that has nothing to do.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Asks the runtime that the last cycle saw, for ever.
pub async fn serve(root: HostRoot, node: String, mut settings: watch::Receiver<Arc<Settings>>, line: RuntimeLine) {
    let RuntimeLine { mut subjects, answered } = line;
    let root = Arc::new(root);
    let mut agenda = Agenda::new(node);
    let mut running: Option<(Subject, oneshot::Receiver<QuestionOutcome>)> = None;
    loop {
        let subject = subjects.borrow_and_update().clone();
        let following = settings.borrow_and_update().clone();
        agenda.follow(subject.as_ref(), &following.witness, Instant::now());
        if running.is_none()
            && let Some(subject) = subject
            && let Some(task) = agenda.due(Instant::now())
        {
            let (root, of) = (root.clone(), subject.clone());
            running = Some((subject, threads::beside(move || task.run(&root, &following, &of))));
        }
        let is_free = running.is_none();
        tokio::select! {
            changed = subjects.changed() => if changed.is_err() { return },
            changed = settings.changed() => if changed.is_err() { return },
            () = sleep_until(agenda.wake()), if is_free => {}
            (subject, outcome) = finished(&mut running) => {
                let Some(outcome) = outcome else {
                    tracing::error!("a question to the runtime has ended without an answer; see the log above");
                    agenda.pause(Instant::now());
                    continue;
                };
                if outcome.is_new() {
                    answered.notify_one();
                }
                agenda.note(&subject, outcome, Instant::now());
            }
        }
    }
}

/// Waits for the end of what runs, for ever if nothing does.
async fn finished(
    running: &mut Option<(Subject, oneshot::Receiver<QuestionOutcome>)>,
) -> (Subject, Option<QuestionOutcome>) {
    let Some((subject, result)) = running else { return std::future::pending().await };
    let outcome = result.await.ok();
    let subject = subject.clone();
    *running = None;
    (subject, outcome)
}

/// Work on a thread of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    /// Find registries of the node's images whose chain ends in an anchor of ours; these were looked at already.
    Search(BTreeSet<String>),
    /// Ask about a registry; it was not reached this many times.
    Ask(Registry, u32),
}

/// What came of a task.
#[derive(Debug)]
enum QuestionOutcome {
    /// Registries to ask about, and all that were looked at.
    Found(Vec<Registry>, BTreeSet<String>),
    /// An answer.
    Answered(QuestionAnswer),
}

/// The runtime's answer about a registry.
#[derive(Debug)]
struct QuestionAnswer {
    registry: Registry,
    answer: WitnessAnswer,
    /// How often it was asked before without an end.
    tries: u32,
    /// The ledger did not have this answer.
    is_new: bool,
    /// It is worth asking again.
    is_open: bool,
}

impl QuestionOutcome {
    fn is_new(&self) -> bool {
        matches!(self, Self::Answered(QuestionAnswer { is_new: true, .. }))
    }
}

impl Task {
    fn run(self, root: &HostRoot, settings: &Settings, subject: &Subject) -> QuestionOutcome {
        match self {
            Self::Search(mut known) => match registries_of_ours(root, settings, subject, &mut known, AT_ONCE) {
                Ok(found) => QuestionOutcome::Found(found, known),
                Err(why) => {
                    tracing::warn!(why, "the runtime does not list its images: it is not known whom to ask it about");
                    QuestionOutcome::Found(Vec::new(), known)
                }
            },
            Self::Ask(registry, tries) => {
                let asked = ask(root, Some(settings), subject, &registry);
                let Asked { witness, .. } = &asked;
                tracing::info!(
                    %registry,
                    answer = witness.answer.as_str(),
                    words = witness.words,
                    verifies_tls = witness.verifies_tls,
                    handshake_error = witness.handshake_error,
                    "the container runtime was asked about a registry"
                );
                let answer = witness.answer;
                let is_open = witness.is_open();
                let written = remember(root, &[asked], runtime::longest_cycle(settings.extract_timeout));
                let (answer, is_new, is_open) = match written {
                    Ok(is_new) => (answer, is_new, is_open),
                    Err(error) => {
                        tracing::warn!(%error, "the runtime's answer could not be written down; it is asked again");
                        (WitnessAnswer::NotReached, false, true)
                    }
                };
                QuestionOutcome::Answered(QuestionAnswer { registry, answer, tries, is_new, is_open })
            }
        }
    }
}

/// What is to be asked, and when.
#[derive(Debug)]
struct Agenda {
    node: String,
    /// of which process and set, and about which registries
    about: Option<(Subject, WitnessRegistries)>,
    questions: Vec<(Instant, Registry, u32)>,
    /// how often the runtime has refused each registry
    refusals: BTreeMap<String, u32>,
    /// when the node's images are looked through, and the pause after that
    search: Option<(Instant, Duration)>,
    /// registries that were looked at
    known: BTreeSet<String>,
}

impl Agenda {
    fn new(node: String) -> Self {
        Self {
            node,
            about: None,
            questions: Vec::new(),
            refusals: BTreeMap::new(),
            search: None,
            known: BTreeSet::new(),
        }
    }

    /// Begins anew when there is another process, set or choice of registries.
    fn follow(&mut self, subject: Option<&Subject>, registries: &WitnessRegistries, now: Instant) {
        let is_same = match (&self.about, subject) {
            (Some((known, chosen)), Some(subject)) => known.is_same(subject) && chosen == registries,
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        *self = Self::new(std::mem::take(&mut self.node));
        let Some(subject) = subject else { return };
        self.about = Some((subject.clone(), registries.clone()));
        match registries {
            WitnessRegistries::None => {}
            WitnessRegistries::These(these) => {
                let unknown = these.iter().filter(|registry| !subject.known.contains(&registry.key()));
                self.plan(unknown.cloned().collect(), now);
            }
            // an agent that was started again knows what the one before it was told
            WitnessRegistries::OfImages if subject.known.is_empty() && subject.has_anchors => {
                self.search = Some((now, FIRST_SEARCH));
            }
            WitnessRegistries::OfImages => {}
        }
    }

    fn plan(&mut self, registries: Vec<Registry>, now: Instant) {
        for (nth, registry) in registries.into_iter().enumerate() {
            let round = SPREAD.saturating_mul(u32::try_from(nth / AT_ONCE).unwrap_or(u32::MAX));
            let wait = if nth == 0 { Duration::ZERO } else { round + self.share(SPREAD, &registry.key()) };
            self.questions.push((now + wait, registry, 0));
        }
    }

    /// A part of a time, another one on each node.
    fn share(&self, of: Duration, what: &str) -> Duration {
        part_of(of, &format!("{}\n{what}", self.node))
    }

    /// Takes what is due, whatever has waited longest first.
    fn due(&mut self, now: Instant) -> Option<Task> {
        if let Some((at, pause)) = &mut self.search
            && *at <= now
        {
            let known = self.known.clone();
            (*at, *pause) = (now + *pause, (*pause * 2).min(LONGEST_SEARCH));
            return Some(Task::Search(known));
        }
        self.questions.sort_by_key(|(at, ..)| *at);
        let first = self.questions.first().filter(|(at, ..)| *at <= now)?;
        let task = Task::Ask(first.1.clone(), first.2);
        self.questions.remove(0);
        Some(task)
    }

    fn wake(&self) -> Instant {
        let questions = self.questions.iter().map(|(at, ..)| *at);
        questions.chain(self.search.map(|(at, _)| at)).min().unwrap_or_else(|| Instant::now() + IDLE)
    }

    fn note(&mut self, subject: &Subject, outcome: QuestionOutcome, now: Instant) {
        if !self.about.as_ref().is_some_and(|(about, _)| about.is_same(subject)) {
            return; // it was about something that is past
        }
        match outcome {
            QuestionOutcome::Found(found, known) => {
                self.known = known;
                if !found.is_empty() {
                    self.search = None;
                    self.plan(found, now);
                }
            }
            QuestionOutcome::Answered(QuestionAnswer { registry, answer, tries, is_open, .. }) => {
                let refusals = self.refusals.entry(registry.key()).or_default();
                *refusals += u32::from(answer == WitnessAnswer::Refuses);
                if !is_open || *refusals > REFUSALS {
                    return;
                }
                let pause = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
                let at = now + pause + self.share(pause / 10, &registry.key());
                self.questions.push((at, registry, tries.saturating_add(1)));
            }
        }
    }

    /// Lets what is due wait.
    fn pause(&mut self, now: Instant) {
        for (at, ..) in &mut self.questions {
            *at = (*at).max(now + FIRST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use nodetrust_core::{
        certificate::fingerprint::{Fingerprint, SetDigest},
        runtime::{kinds::RuntimeKind, process::ServiceProcess, registry_dir::Setting},
        time::Uptime,
    };

    use super::*;

    fn subject(process: &str, anchors: &[&[u8]], known: &[&str]) -> Subject {
        let started = Uptime { boot_id: "boot".into(), milliseconds: 1 };
        Subject {
            kind: RuntimeKind::Containerd,
            unit: "containerd.service".into(),
            socket: "/run/x".into(),
            process: ServiceProcess { invocation: process.into(), started },
            setting: Setting::NotConfigured,
            set: SetDigest::of(&anchors.iter().map(|der| Fingerprint::of_der(der)).collect()),
            has_anchors: !anchors.is_empty(),
            known: known.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    fn answered(registry: Registry, answer: WitnessAnswer, tries: u32, is_open: bool) -> QuestionOutcome {
        QuestionOutcome::Answered(QuestionAnswer { registry, answer, tries, is_new: true, is_open })
    }

    fn these(names: &[&str]) -> WitnessRegistries {
        WitnessRegistries::These(registries(names))
    }

    fn registries(names: &[&str]) -> Vec<Registry> {
        names.iter().map(|name| Registry::parse(name).unwrap()).collect()
    }

    /// What becomes due until then, with the seconds at which it does.
    fn until(agenda: &mut Agenda, start: Instant, end: u64) -> Vec<(u64, String)> {
        let mut done = Vec::new();
        for second in 0..=end {
            while let Some(task) = agenda.due(start + Duration::from_secs(second)) {
                done.push((
                    second,
                    match task {
                        Task::Search(_) => "search".to_owned(),
                        Task::Ask(registry, _) => registry.to_string(),
                    },
                ));
            }
        }
        done
    }

    #[test]
    fn each_process_and_set_is_asked_about_once() {
        let start = Instant::now();
        let mut agenda = Agenda::new("node".into());
        let wanted = these(&["a.corp", "b.corp"]);
        let names = |agenda: &mut Agenda| {
            let mut names: Vec<String> = until(agenda, start, 120).into_iter().map(|(_, name)| name).collect();
            names.sort();
            names
        };
        let one = subject("one", &[b"ca"], &[]);
        agenda.follow(Some(&one), &wanted, start);
        assert_eq!(names(&mut agenda), ["a.corp", "b.corp"]);
        agenda.follow(Some(&one), &wanted, start);
        assert!(names(&mut agenda).is_empty(), "it was asked");
        for (another, expected) in [
            (subject("one", &[b"ca", b"other"], &[]), 2),
            (subject("two", &[b"ca", b"other"], &[]), 2),
            (subject("two", &[b"ca", b"other"], &["a.corp:443"]), 0),
            (subject("three", &[b"ca"], &["a.corp:443"]), 1),
        ] {
            agenda.follow(Some(&another), &wanted, start);
            assert_eq!(names(&mut agenda).len(), expected, "{another:?}");
        }
        agenda.follow(None, &wanted, start);
        assert_eq!((agenda.due(start), agenda.questions.len()), (None, 0), "nobody to ask");
        agenda.follow(Some(&one), &WitnessRegistries::None, start);
        assert!(names(&mut agenda).is_empty(), "never");
    }

    #[test]
    fn three_registries_a_minute_the_first_at_once() {
        let start = Instant::now();
        let mut agenda = Agenda::new("node".into());
        let names: Vec<String> = (0..7).map(|nth| format!("r{nth}.corp")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        agenda.follow(Some(&subject("one", &[b"ca"], &[])), &these(&names), start);
        let done = until(&mut agenda, start, 600);
        assert_eq!((done.len(), &done[0]), (7, &(0, "r0.corp".to_owned())));
        for minute in 0..3 {
            let within = done.iter().filter(|(second, _)| second / 60 == minute).count();
            assert!(within <= AT_ONCE + 1, "{done:?}"); // the end of a minute is the beginning of the next
        }
        let other = Agenda::new("other".into());
        assert_ne!(other.share(SPREAD, "r1.corp:443"), agenda.share(SPREAD, "r1.corp:443"));
    }

    #[test]
    fn a_registry_that_was_not_reached_is_asked_about_again_ever_more_seldom() {
        let start = Instant::now();
        let mut agenda = Agenda::new("node".into());
        let one = subject("one", &[b"ca"], &[]);
        agenda.follow(Some(&one), &these(&["a.corp"]), start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let Some(Task::Ask(registry, tries)) = agenda.due(now) else { panic!("nothing is due") };
            agenda.note(&one, answered(registry, WitnessAnswer::NotReached, tries, true), now);
            pauses.push((agenda.wake() - now).as_secs());
            now = agenda.wake();
        }
        assert!(
            pauses.is_sorted() && (60..=66).contains(&pauses[0]) && (3600..=3960).contains(&pauses[9]),
            "{pauses:?}"
        );
        let Some(Task::Ask(registry, tries)) = agenda.due(now) else { panic!("nothing is due") };
        agenda.note(&one, answered(registry, WitnessAnswer::Trusts, tries, false), now);
        assert!(agenda.questions.is_empty());
    }

    #[test]
    fn a_refusal_that_our_own_handshake_contradicts_is_asked_about_twice_more() {
        let start = Instant::now();
        let one = subject("one", &[b"ca"], &[]);
        for (is_contradicted, expected) in [(false, 1), (true, 3)] {
            let mut agenda = Agenda::new("node".into());
            agenda.follow(Some(&one), &these(&["a.corp"]), start);
            let (mut now, mut asked, mut refused) = (start, 0, 0);
            while let Some(Task::Ask(registry, tries)) = agenda.due(now) {
                asked += 1;
                let is_outage = is_contradicted && (2..=5).contains(&asked); // of the registry: it does not count
                let answer = if is_outage { WitnessAnswer::NotReached } else { WitnessAnswer::Refuses };
                refused += u32::from(!is_outage);
                agenda.note(&one, answered(registry, answer, tries, is_contradicted), now);
                now = agenda.wake();
            }
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn the_nodes_images_are_looked_through_until_one_is_of_a_registry_of_ours() {
        let start = Instant::now();
        let mut agenda = Agenda::new("node".into());
        agenda.follow(Some(&subject("one", &[], &[])), &WitnessRegistries::OfImages, start);
        assert_eq!(agenda.due(start), None, "no anchor, no registry");
        agenda.follow(Some(&subject("one", &[b"ca"], &["a.corp:443"])), &WitnessRegistries::OfImages, start);
        assert_eq!(agenda.due(start), None, "an answer is known");
        let one = subject("two", &[b"ca"], &[]);
        agenda.follow(Some(&one), &WitnessRegistries::OfImages, start);
        assert_eq!(agenda.due(start), Some(Task::Search(BTreeSet::new())));
        let known = BTreeSet::from(["quay.io:443".to_owned()]);
        agenda.note(&one, QuestionOutcome::Found(Vec::new(), known.clone()), start);
        assert_eq!(agenda.due(start), None);
        let later = agenda.wake();
        assert_eq!(later - start, FIRST_SEARCH);
        assert_eq!(agenda.due(later), Some(Task::Search(known.clone())));
        assert_eq!(agenda.wake() - later, FIRST_SEARCH * 2);
        let old = subject("one", &[b"ca"], &[]);
        agenda.note(&old, QuestionOutcome::Found(registries(&["b.corp"]), known.clone()), later);
        assert!(agenda.questions.is_empty(), "that was another process");
        agenda.note(&one, QuestionOutcome::Found(registries(&["b.corp"]), known), later);
        assert_eq!(agenda.due(later), Some(Task::Ask(Registry::parse("b.corp").unwrap(), 0)));
        assert!(agenda.search.is_none());
    }
}
