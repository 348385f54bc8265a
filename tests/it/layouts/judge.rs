//! Runs nodetrust over a composition, and has a real pull judge what it says.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    choices::{Before, ChangePolicy, DefaultFolder, HostFolder, Life, OtherRestarts, RunBy, Starter, WitnessLayout},
    layout::NodeLayout,
    stage::{HOST, LIMIT, Stage},
};
use crate::support::{following::wait_two_cycles, node::Done, served::AgentHttp};

/// How often a pull is tried again while containerd is restarting.
const TRIES: usize = 100;
/// How long an agent may take to come to "trusted" once it has settled.
const AGENT: Duration = Duration::from_secs(6);
const CONFIG: &str = "/etc/nodetrust/config.yaml";

/// How a pull ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullOutcome {
    /// The pull worked.
    Good,
    /// The registry's certificate was refused.
    Untrusted(String),
    /// It failed for another reason.
    Failed(String),
}

impl fmt::Display for PullOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("pull good"),
            Self::Untrusted(_) => f.write_str("pull x509"),
            Self::Failed(text) => write!(f, "pull failed ({})", text.lines().next().unwrap_or_default()),
        }
    }
}

/// What `nodetrust status` said.
#[derive(Debug, Clone)]
pub struct Said {
    /// its exit code
    pub code: i32,
    /// its report, or Null
    pub report: Value,
}

impl Said {
    /// Healthy and proven.
    pub fn is_green(&self) -> bool {
        self.code == 0
    }

    fn text(&self, path: &str) -> &str {
        self.report.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// Why it is not green, in a few words that are the same for the same reason.
    pub fn reason(&self) -> String {
        let words = [
            self.text("/verdict"),
            self.text("/runtime/held/reason"),
            self.text("/runtimeTrust/state"),
            self.text("/problems/0/kind"),
        ];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        match self.code {
            64 => "the configuration was refused".to_owned(),
            code if words.is_empty() => format!("exit code {code} without a report"),
            _ => words.join(", "),
        }
    }

    /// The facts that it gives for what it says of the runtime.
    pub fn facts(&self) -> String {
        let runtime = &self.report["runtime"];
        let fields = ["unit", "because", "socket", "state", "certsDir", "notCovered", "stale", "sick", "why", "held"];
        let facts = fields.iter().filter(|field| !runtime[**field].is_null());
        let facts: Vec<String> = facts.map(|field| format!("{field}: {}", runtime[*field])).collect();
        let (verdict, headline, trust) = (self.text("/verdict"), self.text("/headline"), &self.report["runtimeTrust"]);
        format!("exit {}, {verdict}: {headline} | {} | runtimeTrust: {trust}", self.code, facts.join(", "))
    }
}

/// What nodetrust said at one moment, and what a pull said then.
#[derive(Debug)]
pub struct Checkpoint {
    /// the moment
    pub when: &'static str,
    pub said: Said,
    pub pulled: PullOutcome,
}

impl Checkpoint {
    /// nodetrust says trusted, and the pull refuses the registry's certificate.
    pub fn is_violation(&self) -> bool {
        self.said.is_green() && matches!(self.pulled, PullOutcome::Untrusted(_))
    }

    /// nodetrust says trusted, and pulls fail for another reason.
    pub fn is_broken(&self) -> bool {
        self.said.is_green() && matches!(self.pulled, PullOutcome::Failed(_))
    }
}

/// A restart by nodetrust that was not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needless {
    /// The pull worked just before the restart.
    Pulled,
    /// The pull worked by somebody else's file, which covers this registry only.
    PulledByTheirs,
    /// Every pull read the files in `_default`.
    Directory,
}

/// The result of one composition.
#[derive(Debug)]
pub struct JudgedLayout {
    pub layout: NodeLayout,
    /// the pull just before apply, if there was one
    pub before: Option<PullOutcome>,
    pub checkpoints: Vec<Checkpoint>,
    /// nodetrust restarted the runtime in apply
    pub restarted: bool,
    pub needless: Option<Needless>,
    pub seconds: f64,
}

impl JudgedLayout {
    /// Whether nodetrust called a node trusted on which pulls fail.
    pub fn is_wrong(&self) -> bool {
        self.checkpoints.iter().any(|checkpoint| checkpoint.is_violation() || checkpoint.is_broken())
    }
}

/// Puts the composition on the node, runs nodetrust and whatever else belongs to it, and asks at its moments.
pub fn judge(stage: &Stage, layout: &NodeLayout) -> JudgedLayout {
    let begun = Instant::now();
    stage.set(layout);
    let mut run = LayoutRun { stage, layout, agent: None };
    run.configure();
    run.before_the_start();
    stage.start(layout);
    stage.set_images(layout, layout.asked == WitnessLayout::AutoImage);
    run.before_apply();

    let before = layout.warm.then(|| run.pull());
    let directory =
        run.asks_directory(before.as_ref()).then(|| stage.directory_works(layout, || run.pull() == PullOutcome::Good));
    let process = stage.processes(layout);
    run.act();
    let restarted = stage.processes(layout) != process && layout.others != OtherRestarts::During;
    let mut checkpoints = vec![run.checkpoint("after apply")];
    if run.later() {
        checkpoints.push(run.checkpoint("after what came later"));
    }
    if run.agent.is_none() {
        checkpoints.push(run.checkpoint_without_configuration());
    }
    let theirs =
        matches!(layout.host, HostFolder::OurCa | HostFolder::SkipVerify) || layout.default == DefaultFolder::OurCrt;
    let needless = match &before {
        _ if !restarted => None,
        Some(PullOutcome::Good) => Some(if theirs { Needless::PulledByTheirs } else { Needless::Pulled }),
        _ => (directory == Some(true)).then_some(Needless::Directory),
    };
    JudgedLayout {
        layout: layout.clone(),
        before,
        checkpoints,
        restarted,
        needless,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// A composition on its stage.
struct LayoutRun<'a> {
    stage: &'a Stage,
    layout: &'a NodeLayout,
    agent: Option<AgentHttp>,
}

impl LayoutRun<'_> {
    fn configure(&self) {
        let layout = self.layout;
        let policy = match layout.on_change {
            ChangePolicy::Auto => "auto",
            ChangePolicy::Restart => "restart",
            ChangePolicy::Never => "never",
            ChangePolicy::Registry if self.stage.takes_registry => "registry",
            ChangePolicy::Report | ChangePolicy::Registry => "report",
        };
        let mut runtime = format!("onChange: {policy}");
        if let Some(unit) = layout.said_unit() {
            runtime += &format!(", unit: {unit}");
            if layout.unit == Starter::ParentSaid && layout.seed.is_multiple_of(2) {
                runtime += ", kind: k3s"; // containerd is a child process here
            }
        }
        if self.stage.takes_witness {
            let hosts = match layout.asked {
                WitnessLayout::Never => "never".to_owned(),
                WitnessLayout::Auto | WitnessLayout::AutoImage => "auto".to_owned(),
                WitnessLayout::Named => format!("[\"{HOST}\"]"),
            };
            runtime += &format!(", witness: {hosts}");
        }
        let text = format!(
            "sources: [{{name: org, path: /etc/nodetrust/org, optional: true}}]\nrotation: {{removalGrace: 0s}}\nsettle: 100ms\n\
             resync: 1s\nhttp: {{address: \"0.0.0.0:9643\"}}\nruntime: {{{runtime}}}\n"
        );
        self.stage.machine.write(CONFIG, text);
    }

    /// The CA is there before containerd starts, by whatever way.
    fn before_the_start(&mut self) {
        match self.layout.before {
            Before::Golden => self.stage.trust_by_hand(),
            Before::Applied | Before::AppliedAndLost => {
                self.stage.set_source(self.layout, !self.starts_with_another());
                if self.layout.before == Before::Applied && self.layout.run_by == RunBy::Agent {
                    self.start_agent();
                    self.settle();
                    return;
                }
                self.nodetrust(&["apply"]);
                self.forget(Before::AppliedAndLost);
            }
            Before::Nothing | Before::ByHand | Before::AppliedWarm => {}
        }
    }

    /// The set changes with the apply that counts.
    fn starts_with_another(&self) -> bool {
        self.layout.before == Before::Applied && self.layout.seen_first
    }

    fn forget(&self, if_it_is: Before) {
        if self.layout.before == if_it_is {
            self.stage.sh("rm -rf /var/lib/nodetrust");
        }
    }

    /// What happens between the start of containerd and apply.
    fn before_apply(&mut self) {
        let (stage, layout) = (self.stage, self.layout);
        match layout.before {
            Before::ByHand => {
                if layout.warm {
                    self.pull();
                }
                stage.trust_by_hand();
            }
            Before::AppliedWarm => {
                stage.set_source(layout, true);
                self.nodetrust(&["apply"]);
                self.forget(Before::AppliedWarm);
            }
            Before::Nothing | Before::Golden | Before::Applied | Before::AppliedAndLost => {}
        }
        if layout.seen_first && layout.before == Before::Nothing {
            stage.set_source(layout, false);
            if layout.run_by == RunBy::Agent {
                self.start_agent();
            } else {
                self.nodetrust(&["apply"]);
            }
        }
        let early = layout.seed.is_multiple_of(2);
        if early {
            stage.age_import(layout, false);
        }
        if matches!(layout.others, OtherRestarts::BeforeApply | OtherRestarts::Both) {
            if layout.warm {
                self.pull();
            }
            stage.restart(layout);
        }
        if !early {
            stage.age_import(layout, false);
        }
    }

    /// Whether it is tried if the registry directory works, which shows if a restart is needed.
    fn asks_directory(&self, before: Option<&PullOutcome>) -> bool {
        let layout = self.layout;
        let is_plain = matches!(layout.host, HostFolder::None | HostFolder::LateEmpty)
            && matches!(layout.default, DefaultFolder::None | DefaultFolder::LateToml);
        is_plain
            && layout.on_change == ChangePolicy::Auto
            && layout.seed.is_multiple_of(2)
            && !layout.directories().is_empty()
            && matches!(before, Some(PullOutcome::Untrusted(_)))
    }

    /// The change, and nodetrust.
    fn act(&mut self) {
        let (stage, layout) = (self.stage, self.layout);
        stage.set_source(layout, true);
        let during = (layout.others == OtherRestarts::During).then(|| {
            let wait = Duration::from_millis(layout.moment * 10);
            let unit = layout.unit_name();
            (wait, format!("systemctl reset-failed {unit} 2>/dev/null; systemctl restart {unit}"))
        });
        thread::scope(|scope| {
            if let Some((wait, script)) = during {
                // The seed decides the moment.
                scope.spawn(move || {
                    thread::sleep(wait);
                    stage.sh(&script);
                });
            }
            if layout.run_by == RunBy::Agent {
                if self.agent.is_none() {
                    self.start_agent();
                }
                self.settle();
            } else {
                self.nodetrust(&["apply"]);
            }
        });
        if layout.others == OtherRestarts::During {
            stage.serves(layout);
            if layout.run_by == RunBy::Agent {
                self.settle();
            }
        }
    }

    /// Makes the change that comes after apply; false if there is none.
    fn later(&self) -> bool {
        let (stage, layout) = (self.stage, self.layout);
        let restarts = matches!(layout.others, OtherRestarts::AfterApply | OtherRestarts::Both);
        let ages = matches!(layout.life, Life::AppearsLate | Life::GoesLate);
        let folders = layout.host == HostFolder::LateEmpty || layout.default == DefaultFolder::LateToml;
        if !restarts && !ages && !folders {
            return false;
        }
        stage.age_import(layout, true);
        stage.add_late_folders(layout);
        if restarts {
            stage.restart(layout);
        }
        self.settle();
        true
    }

    fn nodetrust(&self, words: &[&str]) -> Done {
        let mut command = vec!["nodetrust"]; // the configuration lies in the usual place
        if self.layout.run_by != RunBy::Root {
            command.splice(0..0, ["in-pod"]);
            command.extend(["--host-root", "/host"]);
        }
        command.extend(words);
        self.stage.machine.run(&command)
    }

    fn start_agent(&mut self) {
        let log = "/run/agent.log";
        let start = format!("setsid in-pod nodetrust --host-root /host -v run </dev/null >{log} 2>&1 &");
        self.stage.sh(&start).expect(0);
        let served = self.stage.machine.served(log);
        served.wait_status("a first look", LIMIT, |status| status["version"].is_number());
        self.agent = Some(served);
    }

    /// Waits until the agent has seen the change; returns at once where no agent runs.
    fn settle(&self) {
        let Some(agent) = &self.agent else { return };
        wait_two_cycles(agent);
        let end = Instant::now() + AGENT;
        let is_trusted = |status: Value| status["verdict"] == "trusted";
        while Instant::now() < end && !agent.status().is_some_and(is_trusted) {
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What nodetrust says now, and then what a pull says.
    fn checkpoint(&self, when: &'static str) -> Checkpoint {
        let done = self.nodetrust(&["status", "-o", "json"]);
        let said = Said { code: done.code, report: serde_json::from_str(&done.out).unwrap_or_default() };
        Checkpoint { when, said, pulled: self.pull() }
    }

    /// The same as a person sees it in a debug pod, where there is no configuration.
    fn checkpoint_without_configuration(&self) -> Checkpoint {
        self.stage.sh("mv /etc/nodetrust /etc/nodetrust.away").expect(0);
        let done = self.nodetrust(&["status", "-o", "json"]);
        self.stage.sh("mv /etc/nodetrust.away /etc/nodetrust").expect(0);
        let said = Said { code: done.code, report: serde_json::from_str(&done.out).unwrap_or_default() };
        Checkpoint { when: "without a configuration", said, pulled: self.pull() }
    }

    /// Pulls as the kubelet does, and again while containerd is on its way up or down.
    fn pull(&self) -> PullOutcome {
        let mut error = String::new();
        for _ in 0..TRIES {
            match self.stage.machine.pull_at(self.layout.socket_path(), &self.stage.image) {
                Ok(()) => return PullOutcome::Good,
                Err(text) if text.contains("x509: ") => return PullOutcome::Untrusted(text),
                Err(text) => error = text,
            }
            let passes = ["curl: ", "not initialized", "transport is closing", "context canceled"];
            if !passes.iter().any(|words| error.contains(words)) {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        PullOutcome::Failed(error)
    }
}
