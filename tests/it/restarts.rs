//! When the runtime is restarted, and above all when it is not: policy, rate, health, kills of the agent, reboots.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::support::{
    following::{
        FAST, LIMIT, LONG, assert_untrusted, has_anchors, ledger, sha256, starts, wait_held, wait_trusted,
        wait_two_cycles,
    },
    machine::{Machine, MachineKind},
    must,
    pki::Ca,
    wait_for,
};

const CONFIG: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/systemd/system/containerd.service.d/test.conf";

/// Somebody else restarts containerd.
#[track_caller]
fn restart_by_hand(machine: &Machine) {
    machine.run(&["systemctl", "reset-failed", "containerd"]);
    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
}

#[track_caller]
fn tries(machine: &Machine) -> Vec<Value> {
    ledger(machine)["tries"].as_array().cloned().unwrap_or_default()
}

/// A text field of a report.
fn text<'a>(status: &'a Value, path: &str) -> &'a str {
    status.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn a_rotation_is_reported_or_followed_as_the_configuration_says() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let image = machine.push("app:1");
    let (old, new) = (machine.registry_ca(), Ca::new("The next CA").pem());
    assert_untrusted(&machine, &image);
    let before = starts(&machine);
    let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{onChange: report}}"));
    machine.set_source_pem(&old);
    let status = wait_held(&agent, "policy");
    assert_eq!(text(&status, "/verdict"), "not-trusted-by-runtime");
    assert_eq!(text(&status, "/runtime/held/next"), "when it suits: systemctl restart containerd.service");
    assert_eq!(status["anchors"][0]["runtime"], false);
    let screen = agent.nodetrust(&["status"]).expect(2).out;
    assert!(screen.lines().next().unwrap().contains("NOT TRUSTED BY THE RUNTIME"), "{screen}");
    machine.configure_agent(&format!("{FAST}\nruntime: {{onChange: never}}"));
    agent.wait_status("the other word", LIMIT, |status| {
        text(status, "/runtime/held/why") == "runtime.onChange is never"
    });
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before);
    assert_untrusted(&machine, &image);

    restart_by_hand(&machine);
    machine.wait_runtime();
    let status = wait_trusted(&agent, &old);
    assert_eq!(text(&status, "/verdict"), "trusted");
    assert_eq!(agent.metric("nodetrust_restart_held{reason=\"policy\"}"), Some(0.0));
    assert_eq!(agent.metric("nodetrust_runtime_trust_stale"), Some(0.0));
    agent.nodetrust(&["status"]).expect(0);
    assert_eq!(machine.pull(&image), Ok(()));

    // The rotation goes from old over old and new to new.
    machine.configure_agent(FAST);
    machine.set_source_pem(&(old.clone() + &new));
    wait_trusted(&agent, &(old.clone() + &new));
    assert_eq!((starts(&machine), tries(&machine).len()), (before + 2, 1));
    assert_eq!(machine.pull(&image), Ok(()));
    machine.set_source_pem(&new);
    let status = wait_held(&agent, "rate-limit");
    assert_eq!(status["runtime"]["lingering"], serde_json::json!(sha256(&old)));
    assert_eq!(machine.pull(&image), Ok(()), "the process has it, whatever the bundle says");
    wait_trusted(&agent, &new);
    assert_eq!((starts(&machine), tries(&machine).len()), (before + 3, 2));
    assert_untrusted(&machine, &image);
}

#[test]
fn many_changes_cost_one_restart_a_minute() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let before = starts(&machine);
    let agent = machine.agent(&[], FAST);
    let mut pem = machine.registry_ca();
    for n in 1..=20 {
        machine.set_source_pem(&pem);
        pem += &Ca::new(&format!("CA {n}")).pem();
    }
    machine.set_source_pem(&pem);
    wait_trusted(&agent, &pem);
    let tries = tries(&machine);
    let times: Vec<u64> = tries.iter().map(|tried| tried["at"]["boottime"].as_u64().unwrap()).collect();
    assert_eq!(starts(&machine), before + times.len(), "{tries:?}");
    assert!((2..=3).contains(&times.len()) && times.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{times:?}");
    let journal = machine.run(&["journalctl", "--no-pager", "_PID=1", "-u", "containerd"]).expect(0).out;
    assert!(!journal.contains("start-limit-hit") && !journal.contains("repeated too quickly"), "{journal}");
    assert_eq!(machine.pull(&image), Ok(()));
}

/// containerd runs, and does not serve the kubelet: `mirrors` and `config_path` exclude each other.
fn what_is_sick_is_not_restarted(kind: MachineKind) {
    let machine = Machine::boot(kind);
    let agent = machine.agent(&[], FAST);
    wait_two_cycles(&agent);
    let config = machine.read(CONFIG).unwrap();
    let registry = "config_path = \"/etc/containerd/certs.d\"\n\
                    [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"mirror.test\"]\nendpoint = [\"https://mirror.test\"]";
    assert!(config.contains("config_path = \"\""), "{config}");
    machine.write(CONFIG, config.replace("config_path = \"\"", registry));
    // This folder hides `_default`, so the registry directory does not cover the change.
    machine.run(&["mkdir", "-p", "/etc/containerd/certs.d/registry.test:5443"]).expect(0);
    restart_by_hand(&machine);
    let before = starts(&machine);
    let ours = machine.registry_ca();
    machine.set_source_pem(&ours);
    let status = wait_held(&agent, "unhealthy");
    assert!(has_anchors(&status, &ours), "the store does not wait for the runtime: {status:#}");
    assert!(text(&status, "/runtime/sick").contains("does not"), "{status:#}");
    assert!(text(&status, "/runtime/held/next").starts_with("mend it first: journalctl -u containerd"), "{status:#}");
    wait_two_cycles(&agent);
    assert_eq!((starts(&machine), tries(&machine).len()), (before, 0));

    machine.write(CONFIG, config);
    restart_by_hand(&machine);
    wait_trusted(&agent, &ours);
    wait_two_cycles(&agent);
    assert_eq!((starts(&machine), tries(&machine).len()), (before + 1, 0), "it is young");
}

#[test]
fn containerd_1_7_without_its_cri_plugin_is_not_restarted() {
    what_is_sick_is_not_restarted(MachineKind::Trixie);
}

#[test]
fn containerd_2_1_without_its_image_service_is_not_restarted() {
    what_is_sick_is_not_restarted(MachineKind::Containerd21);
}

/// Who restarts the runtime while the agent does so, or while it watches whether the new process stays, makes no failure of that.
#[test]
fn a_restart_by_hand_during_the_agents_own_is_no_failure() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let image = machine.push("app:1");
    let agent = machine.agent(&[], FAST);
    wait_two_cycles(&agent);
    machine.write("/run/hold", "");
    let hold = "ExecStartPre=/bin/sh -c 'while test -e /run/hold; do sleep 0.1; done'";
    machine.write(DROP_IN, format!("[Service]\n{hold}\n"));
    machine.run(&["systemctl", "daemon-reload"]).expect(0);
    let ours = machine.registry_ca();
    machine.set_source_pem(&ours);
    wait_for("the agent's restart", LONG, || {
        (machine.run(&["systemctl", "is-active", "containerd"]).out.trim() == "activating").then_some(())
    });
    let before = starts(&machine);
    machine.run(&["systemctl", "restart", "--no-block", "containerd"]).expect(0); // in place of the agent's
    machine.run(&["rm", "/run/hold"]).expect(0);
    machine.wait_runtime();
    restart_by_hand(&machine); // and the process that the agent watches by now
    let status = wait_trusted(&agent, &ours);
    assert_eq!(text(&status, "/runtime/lastRestart/outcome"), "done", "{status:#}");
    assert_eq!((tries(&machine).len(), starts(&machine)), (1, before + 2));
    assert_eq!(machine.pull(&image), Ok(()));
}

/// A job that is done while the runtime restarts was not ended by that; a container that nobody watches over any more was.
fn containers_that_end_while_the_runtime_restarts(kind: MachineKind) {
    let machine = Machine::boot(kind);
    let (job, watched) = (machine.container(), machine.container());
    let process = |container| machine.process(container).unwrap().0;
    let as_it_restarts_kill = |pid: &str| {
        machine.write(DROP_IN, format!("[Service]\nExecStopPost=-/bin/kill -KILL {pid}\n"));
        machine.run(&["systemctl", "daemon-reload"]).expect(0);
    };
    let told = "containers did not outlive the restart";
    let agent = machine.agent(&[], FAST);
    wait_two_cycles(&agent);
    as_it_restarts_kill(&process(&job).to_string());
    let before = starts(&machine);
    let ours = machine.registry_ca();
    machine.set_source_pem(&ours);
    wait_trusted(&agent, &ours);
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before + 1);
    assert!(machine.process(&job).is_none() && machine.process(&watched).is_some());
    assert!(!agent.log_text().contains(told), "{}", agent.log_text());
    agent.kill();
    let_an_hour_pass(&machine);

    let shim = machine.run(&["cut", "-d ", "-f4", &format!("/proc/{}/stat", process(&watched))]).expect(0).out;
    as_it_restarts_kill(shim.trim());
    let agent = machine.start_agent();
    wait_two_cycles(&agent);
    let next = ours + &Ca::new("The next CA").pem();
    machine.set_source_pem(&next);
    wait_trusted(&agent, &next);
    assert!(agent.log_text().contains(&format!("1 of 2 {told}")), "{}", agent.log_text());
}

#[test]
fn containers_that_end_while_containerd_1_6_restarts() {
    containers_that_end_while_the_runtime_restarts(MachineKind::Bookworm);
}

#[test]
fn containers_that_end_while_containerd_2_1_restarts() {
    containers_that_end_while_the_runtime_restarts(MachineKind::Containerd21);
}

#[test]
fn a_restart_that_would_end_containers_waits_and_one_that_failed_is_not_repeated() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    let agent = machine.agent(&[], FAST);
    wait_two_cycles(&agent);
    let drop_in = |text: &str| {
        machine.write(DROP_IN, text);
        machine.run(&["systemctl", "daemon-reload"]).expect(0);
    };
    drop_in("[Service]\nKillMode=control-group\n");
    let before = starts(&machine);
    let ours = machine.registry_ca();
    machine.set_source_pem(&ours);
    let status = wait_held(&agent, "kill-mode");
    assert!(text(&status, "/runtime/held/next").starts_with("drain the node"), "{status:#}");
    wait_two_cycles(&agent);
    assert_eq!((starts(&machine), tries(&machine).len()), (before, 0));

    // A runtime that would not start again keeps running.
    let config = machine.read(CONFIG).unwrap();
    machine.write(CONFIG, "this is no TOML");
    drop_in("");
    let status = wait_held(&agent, "failed");
    let why = text(&status, "/runtime/held/why");
    assert!(why.contains("it would not start again") && why.contains("config dump` fails"), "{status:#}");
    wait_two_cycles(&agent);
    assert_eq!((starts(&machine), tries(&machine).len()), (before, 1));
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");
    machine.write(CONFIG, config);
    agent.kill();
    let_an_hour_pass(&machine);

    // A failure that could not be foreseen is reported.
    drop_in("[Service]\nExecStartPre=/bin/sh -c \"echo no start today; exit 1\"\n");
    machine.configure_agent(&format!("{FAST}\nruntime: {{onChange: report}}"));
    let agent = machine.start_agent();
    wait_held(&agent, "policy");
    machine.configure_agent(FAST);
    let told = |status: &Value| -> Vec<String> {
        let problems = status["problems"].as_array().into_iter().flatten();
        problems
            .filter(|problem| problem["kind"] == "restart")
            .map(|problem| text(problem, "/text").to_owned())
            .collect()
    };
    let is_told = |status: &Value| !told(status).is_empty();
    let status = agent.wait_status("the failure", LIMIT, is_told);
    // The log is shown now and not kept.
    let log = told(&status).iter().any(|text| text.contains("its log ends with: ") && text.contains("no start today"));
    assert!(log || agent.log_text().contains("no start today"), "{status:#}");
    assert_eq!(told(&status).len(), 1, "told once: {status:#}");
    assert!(!machine.read("/var/lib/nodetrust/ledger.json").unwrap().contains("no start today"));
    assert!(text(&status, "/runtime/lastRestart/outcome").starts_with("failed: "), "{status:#}");
    assert_eq!(agent.metric("nodetrust_runtime_restarts_total{outcome=\"failed\"}"), Some(1.0));
    wait_two_cycles(&agent);
    let status = agent.status().unwrap();
    assert_eq!(told(&status).len(), 1, "told as long as it lasts: {status:#}");
    assert_eq!(tries(&machine).len(), 1);

    drop_in("");
    restart_by_hand(&machine);
    machine.wait_runtime();
    let status = wait_trusted(&agent, &ours);
    assert_eq!(told(&status).len(), 0, "{status:#}");
    let run = machine.invocation("containerd");
    wait_two_cycles(&agent);
    assert_eq!((machine.invocation("containerd"), tries(&machine).len()), (run, 1), "it is young");
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");
}

/// What can be seen of a cycle from outside, without asking anybody.
struct Outside {
    root: PathBuf,
    /// the pid of its first process
    leader: PathBuf,
}

impl Outside {
    fn of(machine: &Machine) -> Self {
        let root = machine.root();
        Self { leader: root.parent().unwrap().to_owned(), root }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path.trim_start_matches('/'))).unwrap_or_default()
    }

    fn ledger(&self) -> String {
        self.read("/var/lib/nodetrust/ledger.json")
    }

    fn has_anchor(&self, pem: &str) -> bool {
        !self.read(&format!("/usr/local/share/ca-certificates/nodetrust-{}.crt", &sha256(pem)[0][..16])).is_empty()
    }

    fn is_in_bundle(&self, pem: &str) -> bool {
        self.read("/etc/ssl/certs/ca-certificates.crt").contains(pem.trim())
    }

    /// The id of containerd's current run.
    fn run(&self) -> PathBuf {
        fs::read_link(self.root.join("run/systemd/units/invocation:containerd.service")).unwrap_or_default()
    }

    /// Our own pid of the agent: the one program of this name on the machine's network that is the first in a PID namespace.
    fn agent(&self) -> Option<Pid> {
        let network = |process: &Path| fs::read_link(process.join("ns/net")).ok();
        let is_agent = |process: &Path| {
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            let first =
                status.lines().any(|line| line.starts_with("NSpid:") && line.split_whitespace().nth(3) == Some("1"));
            status.starts_with("Name:\tnodetrust\n") && first && network(process) == network(&self.leader)
        };
        let mut processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let process = processes.find(|process| is_agent(process))?;
        Some(Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?))
    }

    /// Kills the agent, and all that it runs, this long after something is seen.
    #[track_caller]
    fn kill_after(&self, what: &str, milliseconds: u64, seen: impl Fn() -> bool) {
        let pid = wait_for("the agent's process", LIMIT, || self.agent());
        wait_for(what, LONG, || seen().then_some(()));
        // The delay varies, to hit many moments.
        std::thread::sleep(Duration::from_millis(milliseconds));
        must("a kill", kill(pid, Signal::SIGKILL));
        wait_for("its end", LIMIT, || self.agent().is_none().then_some(()));
    }
}

/// Forgets the tries, as if an hour had passed (simulated).
#[track_caller]
fn let_an_hour_pass(machine: &Machine) {
    let mut ledger = ledger(machine);
    ledger.as_object_mut().unwrap().remove("tries");
    machine.write("/var/lib/nodetrust/ledger.json", ledger.to_string());
}

#[test]
fn an_agent_that_is_killed_at_any_moment_restarts_the_runtime_once() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    let agent = machine.agent(&[], FAST);
    wait_two_cycles(&agent);
    let outside = Outside::of(&machine);
    let mut pem = machine.registry_ca();

    // Before a try is written down, the agent may be killed any number of times.
    let before = starts(&machine);
    machine.set_source_pem(&pem);
    let first = pem.clone();
    type Level<'a> = (&'a str, Vec<u64>, Box<dyn Fn() -> bool + 'a>);
    let levels: [Level<'_>; 4] = [
        ("the ledger of a change", vec![0], Box::new(|| outside.ledger().contains("\"pending\": true"))),
        ("the anchor file", vec![0, 100, 300], Box::new(|| outside.has_anchor(&first))),
        ("the bundle", vec![0, 30], Box::new(|| outside.is_in_bundle(&first))),
        ("the end of the change", vec![0, 30], Box::new(|| !outside.ledger().contains("\"pending\": true"))),
    ];
    for (what, delays, seen) in &levels {
        for delay in delays {
            outside.kill_after(what, *delay, seen);
            machine.wait_runtime();
            machine.start_agent();
        }
    }
    outside.kill_after("a try", 0, || outside.ledger().contains("\"tries\""));
    machine.wait_runtime();
    let agent = machine.start_agent();
    wait_trusted(&agent, &pem);
    assert_eq!(starts(&machine), before + 1, "{:#}", ledger(&machine));
    assert_eq!(machine.pull(&image), Ok(()));

    // After a try is written down.
    for n in 0..4 {
        outside.kill_after("nothing", 0, || true);
        let_an_hour_pass(&machine);
        let (before, run) = (starts(&machine), outside.run());
        machine.start_agent();
        pem += &Ca::new(&format!("CA {n}")).pem();
        machine.set_source_pem(&pem);
        match n {
            0 => outside.kill_after("a try", 30, || outside.ledger().contains("\"tries\"")),
            1 => outside.kill_after("a new process", 0, || outside.run() != run),
            2 => outside.kill_after("a new process", 2_000, || outside.run() != run),
            _ => outside.kill_after("the outcome", 0, || outside.ledger().contains("\"done\"")),
        }
        machine.wait_runtime();
        let agent = machine.start_agent();
        wait_trusted(&agent, &pem);
        if n == 3 {
            wait_two_cycles(&agent);
        }
        assert_eq!(starts(&machine), before + 1, "kill {n}: {:#}", ledger(&machine));
    }
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");
}

#[test]
fn a_reboot_between_the_change_and_the_restart_makes_that_needless() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{onChange: report}}"));
    wait_two_cycles(&agent);
    let ours = machine.registry_ca();
    machine.set_source_pem(&ours);
    wait_held(&agent, "policy");
    agent.kill();
    machine.configure_agent(FAST);
    machine.reboot();
    let run = machine.invocation("containerd");
    let agent = machine.start_agent();
    let status = wait_trusted(&agent, &ours);
    assert_eq!(machine.pull(&image), Ok(()));
    wait_two_cycles(&agent);
    assert_eq!((machine.invocation("containerd"), tries(&machine).len()), (run, 0), "{status:#}");
}
