//! What somebody else changes is repaired and counted, and another owner who insists is called out.

use super::*;
use crate::support::following::wait_two_cycles;

/// Damages a converged node and waits for one repair of the kind. That it takes one cycle with the tool, begun by a hint,
/// is the promised "settle and one extract", checked without measuring time.
#[track_caller]
fn heals(node: &Node, agent: &NodeAgent, cas: &[&Ca], kind: &str, damage: impl FnOnce()) {
    let (before, runs) = (repaired(agent, kind), extracts(agent));
    damage();
    let started = Instant::now();
    agent.wait_status(&format!("a repair of {kind}"), LIMIT, |_| repaired(agent, kind) > before);
    agent.wait_converged(cas, LIMIT);
    assert!(repaired(agent, kind) - before == 1.0, "{kind} was counted more than once");
    assert!(extracts(agent) - runs <= 1.0, "one cycle with the tool is enough for {kind}");
    assert!(started.elapsed() < LIMIT, "{kind} took {:?}", started.elapsed());
    for ca in cas {
        assert!(node.clients_trust(ca), "after {kind}");
        assert_eq!(fs::read_to_string(node.anchor_file(ca)).unwrap(), ca.pem());
    }
}

fn heals_everything(kind: Kind) {
    let node = Node::new(kind, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    let (cas, file) = ([&one, &two], node.anchor_file(&one));
    let bundle = node.path(kind.bundle());
    node.set_source(&cas);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&cas, LIMIT);
    let all = node.bundle().len();

    heals(&node, &agent, &cas, "anchor-deleted", || fs::remove_file(&file).unwrap());
    heals(&node, &agent, &cas, "anchor-altered", || fs::write(&file, two.pem()).unwrap());
    heals(&node, &agent, &cas, "bundle", || {
        let text = fs::read(&bundle).unwrap();
        fs::write(&bundle, &text[..text.len() / 3]).unwrap();
    });
    assert_eq!(node.bundle().len(), all, "everybody's certificates are back");
    drop(agent);

    // A new agent counts repairs from zero, so this stays below the number that counts as a fight.
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&cas, LIMIT);
    heals(&node, &agent, &cas, "bundle", || {
        let other = bundle.with_file_name("somebody");
        fs::write(&other, Ca::new("Somebody Else").pem()).unwrap();
        fs::rename(other, &bundle).unwrap();
    });
    heals(&node, &agent, &cas, "bundle", || fs::remove_file(&bundle).unwrap());
    if kind != Kind::Rhelish {
        let links = node.path("/etc/ssl/certs");
        heals(&node, &agent, &cas, "link", || {
            let ours = format!("nodetrust-{}.pem", one.fp16());
            let is_link = |path: &Path| fs::read_link(path).is_ok_and(|target| target.to_str() == Some(&ours));
            let found = fs::read_dir(&links).unwrap().flatten().map(|entry| entry.path()).find(|path| is_link(path));
            fs::remove_file(found.expect("a hash link")).unwrap();
        });
    }
    assert_eq!(node.bundle().len(), all);
    let status = agent.status().unwrap();
    assert!(status["problems"].as_array().unwrap().is_empty(), "{status:#}");
}

#[test]
fn trixie_drift_is_healed() {
    heals_everything(Kind::Trixie);
}

#[test]
fn rhelish_drift_is_healed() {
    heals_everything(Kind::Rhelish);
}

#[test]
fn a_repair_that_succeeds_only_at_the_second_try_is_counted() {
    let (node, ca, agent) = converged();
    let tool = node.path("/usr/sbin/update-ca-certificates");
    let real = fs::read(&tool).unwrap();
    fs::write(&tool, "#!/bin/sh\necho simulated failure >&2\nexit 1\n").unwrap();
    let bundle = node.path(node.kind.bundle());
    fs::remove_file(bundle).unwrap();
    agent.wait_status("a failure", LIMIT, |status| has_problem(status, "extract"));
    assert_eq!(repaired(&agent, "bundle"), 0.0, "nothing is repaired yet");
    fs::write(&tool, real).unwrap();
    agent.wait_status("the repair", LIMIT, |_| repaired(&agent, "bundle") > 0.0);
    agent.wait_converged(&[&ca], LIMIT);
    assert_eq!(repaired(&agent, "bundle"), 1.0, "once, however many tries it took");
}

/// Every inotify instance of a node may be taken by others. Then the agent polls: trust does not depend on hints.
#[test]
fn without_inotify_it_polls() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let agent = agent_without(&node, "max_inotify_instances", "1h");
    agent.wait_converged(&[&one], LIMIT);
    assert!(node.clients_trust(&one));
    assert!(agent.log_text().contains("inotify cannot be started"), "{}", agent.log_text());
    node.set_source(&[&one, &two]);
    agent.wait_converged(&[&one, &two], LIMIT);
    assert!(node.clients_trust(&two));
    assert_eq!(agent.metric("nodetrust_reconciles_total{trigger=\"source\",outcome=\"changed\"}"), Some(0.0));
}

/// A command has followed a new source. The agent, which sees it for the first time after that, takes nothing back.
#[test]
fn what_a_command_has_followed_is_not_undone() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    let agent = agent_without(&node, "max_inotify_instances", "0s");
    agent.wait_converged(&[&one], LIMIT);
    node.set_source(&[&two]);
    node.nodetrust(&["apply"]).expect(0);
    agent.wait_converged(&[&two], LIMIT);
    wait_two_cycles(&agent);
    let log = agent.log_text();
    assert!(!log.contains(&format!("remove nodetrust-{}", two.fp16())), "{log}");
    assert_eq!(log.matches(&format!("write nodetrust-{}", one.fp16())).count(), 1, "at the start: {log}");
}

/// Somebody deletes an anchor while the tool runs for another repair. The cycle mends both, and tells of both.
#[test]
fn what_is_undone_while_the_tool_runs_is_counted() {
    let (node, ca, agent) = converged();
    let tool = node.path("/usr/sbin/update-ca-certificates");
    fs::rename(&tool, tool.with_extension("real")).unwrap();
    let anchor = node.anchor_file(&ca);
    let anchor = Path::new("/").join(anchor.strip_prefix(&node.root).unwrap());
    let script = format!(
        "#!/bin/sh\n[ -e /tmp/done ] || {{ touch /tmp/done; rm {}; }}\nexec /usr/sbin/update-ca-certificates.real \"$@\"\n",
        anchor.display()
    );
    node.write("/usr/sbin/update-ca-certificates", script);
    fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
    fs::remove_file(node.path(node.kind.bundle())).unwrap();
    agent.wait_status("the repair of the bundle", LIMIT, |_| repaired(&agent, "bundle") > 0.0);
    agent.wait_converged(&[&ca], LIMIT);
    assert!(node.path("/tmp/done").exists() && node.clients_trust(&ca));
    for kind in ["bundle", "anchor-deleted"] {
        assert_eq!(repaired(&agent, kind), 1.0, "{kind}");
    }
}

#[test]
fn what_is_not_drift_repairs_nothing() {
    let (node, ca, agent) = converged();
    let runs = extracts(&agent);
    let cycles = || agent.metric("nodetrust_reconciles_total{trigger=\"drift\",outcome=\"unchanged\"}").unwrap();
    let before = cycles();
    // Somebody else adds an anchor and runs the tool.
    let other = Ca::new("Somebody Else");
    node.write("/usr/local/share/ca-certificates/other.crt", other.pem());
    node.run(&[node.kind.tool()]).expect(0);
    wait_for("a look at what happened", LIMIT, || (cycles() > before).then_some(()));
    assert!(node.trusts(&other) && node.trusts(&ca));
    for kind in ["anchor-deleted", "anchor-altered", "bundle", "link"] {
        assert_eq!(repaired(&agent, kind), 0.0, "{kind}");
    }
    assert_eq!(extracts(&agent), runs);
}

/// Runs another owner in a thread: it acts whenever its condition holds, until the flag is lowered.
fn rival<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    goes_on: &'scope AtomicBool,
    mut act: impl FnMut() -> bool + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, usize> {
    scope.spawn(move || {
        let mut times = 0;
        while goes_on.load(Ordering::Relaxed) {
            times += usize::from(act());
            thread::sleep(Duration::from_millis(20));
        }
        times
    })
}

#[test]
fn an_owner_who_undoes_every_repair_is_called_out_and_gets_his_time() {
    let (node, ca, agent) = converged();
    let (goes_on, file) = (AtomicBool::new(true), node.anchor_file(&ca));
    let mut seen = Value::Null;
    thread::scope(|scope| {
        let stop = LoweredAtEnd(&goes_on);
        // Configuration management behaves so: it waits for the agent to finish, then removes files that it does not know.
        let rival = rival(scope, &goes_on, || {
            let status = agent.status().unwrap_or_default();
            let is_new = status["converged"] == true && status != seen && fs::remove_file(&file).is_ok();
            if is_new {
                seen = status;
            }
            is_new
        });
        agent.wait_status("the fight to be noticed", LIMIT, |status| has_problem(status, "drift-fight"));
        let before = extracts(&agent);
        thread::sleep(Duration::from_secs(8));
        let runs = extracts(&agent) - before;
        assert!(runs <= 3.0, "{runs} runs of the tool in 8 s of a fight are too many");
        drop(stop);
        assert!(rival.join().unwrap() >= 5);
    });
    // The last report may be older than the rival's last action.
    wait_for("the last repair", LIMIT, || node.anchor_file(&ca).exists().then_some(()));
    let repairs = repaired(&agent, "anchor-deleted");
    let status = agent.wait_status("its report", LIMIT, |status| status["converged"] == true && node.trusts(&ca));
    assert!(has_problem(&status, "drift-fight"), "the last ten minutes are remembered: {repairs}");
    assert!(node.clients_trust(&ca));
    assert!(agent.metric("nodetrust_errors_total{reason=\"drift-fight\"}").unwrap() >= 1.0);
}

#[test]
fn an_owner_who_deletes_each_anchor_at_once_does_not_keep_the_tool_running() {
    let (node, ca, agent) = converged();
    let (goes_on, file) = (AtomicBool::new(true), node.anchor_file(&ca));
    thread::scope(|scope| {
        let stop = LoweredAtEnd(&goes_on);
        rival(scope, &goes_on, || fs::remove_file(&file).is_ok());
        agent.wait_status("a failure", LIMIT, |status| status["converged"] == false);
        let before = extracts(&agent);
        thread::sleep(Duration::from_secs(20));
        let cycles = extracts(&agent) - before;
        assert!(cycles <= 3.0, "{cycles} cycles with the tool in 20 s of failure are too many");
        // A change that is undone within a cycle counts as drift too, although it is still pending.
        agent.wait_status("more drift", LIMIT, |_| repaired(&agent, "anchor-deleted") >= 2.0);
        drop(stop);
    });
    agent.wait_converged(&[&ca], LIMIT);
    assert!(node.clients_trust(&ca));
}
