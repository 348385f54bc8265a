//! What the agent is for: a pull through the runtime that failed works, for every kind of node, and nothing is restarted
//! without need.

use nodetrust_core::runtime::services::HoldReason;

use crate::support::{
    following::{FAST, LIMIT, assert_untrusted, install, sha256, starts, wait_trusted, wait_two_cycles},
    machine::{Machine, MachineKind},
    wait_for,
};

/// The pull fails, the agent acts, the pull works; what ran before runs on. Once with a containerd that has loaded its roots.
fn a_pull_works_once_the_agent_has_acted(kind: MachineKind) {
    let machine = Machine::boot(kind);
    let image = machine.push("app:1");
    assert_untrusted(&machine, &image);
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    let before = machine.invocation("containerd");

    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&machine.registry_ca());
    let status = wait_trusted(&agent, &machine.registry_ca());
    assert_eq!(machine.pull(&image), Ok(()), "{status:#}");
    assert_ne!(machine.invocation("containerd"), before, "a containerd that has loaded its roots needs a restart");
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");
    assert_eq!(status["runtime"]["kind"], "containerd");
    assert_eq!(agent.metric("nodetrust_runtime_restarts_total{outcome=\"done\"}"), Some(1.0));
    assert_eq!(agent.metric("nodetrust_runtime_trust_stale"), Some(0.0));
}

#[test]
fn debian_12_with_containerd_1_6_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(MachineKind::Bookworm);
}

#[test]
fn debian_13_with_containerd_1_7_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(MachineKind::Trixie);
}

#[test]
fn a_rhel_like_node_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(MachineKind::Rhelish);
}

#[test]
fn containerd_2_1_pulls_once_the_agent_has_acted() {
    a_pull_works_once_the_agent_has_acted(MachineKind::Containerd21);
}

/// The proxy signs every certificate that it passes on.
#[test]
fn a_pull_through_an_inspecting_proxy_works_once_the_agent_has_the_proxys_ca() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    machine.proxy(true);
    assert_untrusted(&machine, &image);
    let agent = machine.agent(&[], FAST);
    machine.set_source_pem(&machine.inspection_ca());
    wait_trusted(&agent, &machine.inspection_ca());
    assert_eq!(machine.pull(&image), Ok(()));
    machine.proxy(false);
    assert_untrusted(&machine, &image);
}

/// The unix sockets of containerd and of the bus to which somebody is connected.
fn connections(machine: &Machine) -> Vec<String> {
    let table = machine.read("/proc/net/unix").unwrap();
    let connected = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let connected = connected.filter(|row| row.len() == 8 && row[5] == "03").map(|row| row[7].to_owned());
    let ends = ["/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"];
    let mut found: Vec<String> = connected.filter(|path| ends.contains(&path.as_str())).collect();
    found.sort();
    found
}

/// The first change on a node, from the plan to the rest after it.
#[test]
fn the_first_anchor_restarts_what_has_not_read_it_once_and_then_all_is_still() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    let container = machine.container();
    let process = machine.process(&container).unwrap();
    machine.write("/etc/systemd/system/dummy.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    machine.run(&["systemctl", "start", "dummy"]).expect(0);
    let connected = connections(&machine);
    let (before, dummy) = (starts(&machine), machine.invocation("dummy"));

    let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{alsoRestart: [dummy.service, nosuch.service]}}"));
    agent.wait_status("the unit that is not there", LIMIT, |status| {
        let problems = status["problems"].as_array().into_iter().flatten();
        problems.filter_map(|problem| problem["text"].as_str()).any(|text| text.contains("nosuch.service"))
    });
    wait_two_cycles(&agent);
    assert_eq!((starts(&machine), machine.invocation("dummy")), (before, dummy.clone()), "nothing has changed yet");

    // The agent sleeps, so that there is time for `plan`.
    let (pid, _) = machine.process(&agent.container).unwrap();
    machine.run(&["kill", "-STOP", &pid.to_string()]).expect(0);
    machine.set_source_pem(&machine.registry_ca());
    let plan = agent.nodetrust(&["plan"]).expect(2);
    let wanted = [
        format!("write nodetrust-{}.crt", &sha256(&machine.registry_ca())[0][..16]),
        "extract".into(),
        "restart containerd.service (1 anchor newer than the process)".into(),
        "restart dummy.service (1 anchor newer than the process)".into(),
    ];
    let lines: Vec<String> =
        plan.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let places = wanted.map(|wanted| lines.iter().position(|line| line.starts_with(&wanted)));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}", plan.out);
    assert_eq!(starts(&machine), before, "a plan changes nothing");
    machine.run(&["kill", "-CONT", &pid.to_string()]).expect(0);

    // containerd has verified nothing yet and would read the new roots at its first pull, which nobody can see from outside.
    let status = wait_trusted(&agent, &machine.registry_ca());
    assert_eq!(starts(&machine), before + 1, "{status:#}");
    assert_ne!(machine.invocation("dummy"), dummy);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(machine.process(&container).unwrap(), process, "the container did not live on");

    let dummy = machine.invocation("dummy");
    machine.write("/run/stamp", "");
    wait_two_cycles(&agent);
    assert_eq!((starts(&machine), machine.invocation("dummy")), (before + 1, dummy));
    let newer = ["find", "/", "-xdev", "-newer", "/run/stamp", "-not", "-path", "/var/log/*"];
    assert_eq!(machine.run(&newer).expect(0).out, "", "written at rest");
    wait_for("the end of the agent's conversations", LIMIT, || (connections(&machine) == connected).then_some(()));

    let (_, text) = agent.get("/metrics").unwrap();
    let wanted = ["nodetrust_runtime_", "nodetrust_restart_held{"];
    let lines = text.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    let version = status["runtime"]["version"].as_str().unwrap();
    assert!(version.starts_with("1.7."), "{version}");
    let golden = [
        &format!(
            "nodetrust_runtime_info{{runtime=\"containerd\",unit=\"containerd.service\",version=\"{version}\"}} 1"
        ),
        "nodetrust_runtime_state{state=\"current\"} 1",
        "nodetrust_runtime_state{state=\"none\"} 0",
        "nodetrust_runtime_state{state=\"stale\"} 0",
        "nodetrust_runtime_state{state=\"unknown\"} 0",
        "nodetrust_runtime_trust_stale 0",
        "nodetrust_runtime_restarts_total{outcome=\"done\"} 2", // both units were restarted
        "nodetrust_runtime_restarts_total{outcome=\"failed\"} 0",
    ];
    let held = HoldReason::ALL.map(|reason| format!("nodetrust_restart_held{{reason=\"{}\"}} 0", reason.as_str()));
    let (mut lines, mut golden): (Vec<_>, Vec<_>) = (lines.collect(), golden.map(str::to_owned).to_vec());
    golden.extend(held);
    lines.sort_unstable();
    golden.sort_unstable();
    let plain = |line: &str| line.trim_end_matches(".0").to_owned();
    assert_eq!(lines.into_iter().map(plain).collect::<Vec<_>>(), golden);

    // A debug session has no agent and no configuration.
    agent.kill();
    install(&machine);
    let screen = machine.run(&["nodetrust", "status"]).expect(0).out;
    let line = screen.lines().find(|line| line.starts_with("RUNTIME")).unwrap_or_else(|| panic!("{screen}"));
    assert!(line.contains(&format!("containerd {version}  containerd.service")), "{line}");
}
