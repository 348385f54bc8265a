//! Bottlerocket, whose API is simulated: anchors as settings, one transaction a change, and the restart of the runtime that comes with it.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink};

use data_encoding::BASE64;
use nodetrust_core::certificate::{fingerprint::Fingerprint, pem::scan};

use crate::support::{
    following::{FAST, LIMIT, assert_untrusted, ledger, starts, wait_trusted, wait_two_cycles},
    machine::{Machine, MachineKind},
    node::{Kind, Node},
    pki::Ca,
    simulated_bottlerocket::{BUNDLE, OS_RELEASE, SimulatedBottlerocket},
};

/// A node root that looks like Bottlerocket, with its API.
fn bottlerocket(more: &str) -> (Node, SimulatedBottlerocket) {
    let node = Node::new(Kind::Trixie, more);
    let shipped = fs::read(node.path("/etc/ssl/certs/ca-certificates.crt")).unwrap();
    fs::remove_file(node.path("/etc/os-release")).unwrap();
    fs::remove_dir_all(node.path("/etc/ssl/certs")).unwrap();
    node.write("/etc/os-release", OS_RELEASE);
    node.write(BUNDLE, shipped);
    symlink("../pki/tls/certs", node.path("/etc/ssl/certs")).unwrap();
    fs::create_dir_all(node.path("/run")).unwrap();
    let api = SimulatedBottlerocket::serve(&node.root, || {});
    (node, api)
}

fn bundle(node: &Node) -> BTreeSet<String> {
    let text = fs::read(node.path(BUNDLE)).unwrap();
    scan(&text).blocks.iter().map(|block| Fingerprint::of_der(&block.der).to_string()).collect()
}

fn entry(ca: &Ca) -> String {
    format!("nodetrust-{}", ca.fp16())
}

/// What a change of this many entries asks of the API.
fn one_change(entries: usize) -> Vec<String> {
    let mut requests = vec!["DELETE /tx?tx=nodetrust".to_owned()];
    requests.extend(vec!["PATCH /settings?tx=nodetrust".to_owned(); entries]);
    requests.push("POST /tx/commit_and_apply?tx=nodetrust".to_owned());
    requests
}

#[test]
fn simulated_bottlerocket_whole_life() {
    let (node, api) = bottlerocket("rotation: {removalGrace: 0s}");
    let shipped = bundle(&node);
    let (old, new, other) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"), Ca::new("Somebody's"));
    api.set("site", &other.pem(), true);
    api.leave_pending("default", "motd", "of somebody else");
    let stores = node.nodetrust(&["-o", "json", "stores"]).expect(0).json();
    assert_eq!(stores["family"], "bottlerocket", "{stores:#}");

    node.set_source(&[&old]);
    let plan = node.nodetrust(&["plan"]).expect(2).out;
    assert!(plan.contains(&entry(&old)), "{plan}");
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(api.take_changes(), one_change(1));
    assert!(bundle(&node).contains(&old.sha256()));
    assert_eq!(api.live()[&entry(&old)]["trusted"], true, "an entry without it would distrust");
    let status = node.nodetrust(&["status"]).expect(0).out;
    assert!(status.contains("TRUSTED"), "{status}");

    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(api.take_changes(), Vec::<String>::new(), "what is as it should be is not touched");

    node.set_source(&[&new]);
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(api.take_changes(), one_change(2), "both in one transaction");
    assert!(bundle(&node).contains(&new.sha256()) && !bundle(&node).contains(&old.sha256()));
    assert_eq!(api.live()[&entry(&old)]["data"], "", "the API deletes no entry");
    node.nodetrust(&["status"]).expect(0);

    node.nodetrust(&["uninstall"]).expect(0);
    let mut left = shipped;
    left.insert(other.sha256());
    assert_eq!(bundle(&node), left);
    assert_eq!(api.live()[&entry(&new)]["data"], "");
    assert_eq!(api.pending(), ["default"], "others' pending settings are theirs");
    assert!(!node.path("/var/lib/nodetrust").exists());
}

#[test]
fn simulated_bottlerocket_drift_is_healed() {
    let (node, api) = bottlerocket("");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    for (pem, trusted) in [(ca.pem(), false), (String::new(), true), (Ca::new("Another").pem(), true)] {
        api.set(&entry(&ca), &pem, trusted);
        assert!(!bundle(&node).contains(&ca.sha256()));
        api.take_changes();
        // the attempts so far would hold back a third restart within the hour
        fs::remove_dir_all(node.path("/var/lib/nodetrust")).unwrap();
        node.nodetrust(&["apply"]).expect(0);
        assert_eq!(api.take_changes(), one_change(1), "{pem}");
        assert!(bundle(&node).contains(&ca.sha256()));
    }
    // what is told to a fleet before an uninstall
    node.configure("policy: {emptySource: remove}\nrotation: {removalGrace: 0s}");
    node.set_source(&[]);
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(api.live()[&entry(&ca)]["data"], "");
    assert!(!bundle(&node).contains(&ca.sha256()));
}

#[test]
fn simulated_bottlerocket_takes_over_what_user_data_has_set() {
    let (node, api) = bottlerocket("");
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    let rendered = node.nodetrust(&["render", "bottlerocket"]).expect(0).out;
    let data = rendered.lines().find_map(|line| line.strip_prefix("data = \"")?.strip_suffix('"')).unwrap();
    assert!(rendered.contains(&format!("[settings.pki.{}]", entry(&ca))) && rendered.contains("trusted = true"));
    let pem = String::from_utf8(BASE64.decode(data.as_bytes()).unwrap()).unwrap();
    api.set(&entry(&ca), &pem, true);
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(api.take_changes(), Vec::<String>::new(), "nothing is restarted for what is there");
    node.nodetrust(&["status"]).expect(0);
}

#[test]
fn simulated_bottlerocket_that_refuses_or_was_left_half_done_is_not_worse() {
    let (node, api) = bottlerocket("");
    let (ca, stranger) = (Ca::new("Corp Root"), Ca::new("Left behind"));
    node.set_source(&[&ca]);
    let before = bundle(&node);
    for (refused, last) in [("PATCH", 1), ("POST /tx/commit_and_apply", 2)] {
        api.refuse(Some(refused));
        let failed = node.nodetrust(&["apply"]).expect(1);
        let told = format!("{}{}", failed.out, failed.err);
        assert!(told.contains("/run/api.sock") && told.contains("no space left"), "{told}");
        assert_eq!(bundle(&node), before);
        assert!(api.live().is_empty());
        assert!(api.take_changes()[last].starts_with(refused));
    }
    api.refuse(None);
    // by an agent that was killed between its requests
    api.leave_pending("nodetrust", "nodetrust-0123456789abcdef", &stranger.pem());
    node.nodetrust(&["apply"]).expect(0);
    assert!(bundle(&node).contains(&ca.sha256()) && !bundle(&node).contains(&stranger.sha256()));

    api.hide_socket();
    let lost = node.nodetrust(&["status"]);
    assert_ne!(lost.code, 0);
    assert!(lost.out.contains("/run/api.sock"), "{}", lost.out);
    assert!(bundle(&node).contains(&ca.sha256()));
}

#[test]
fn simulated_bottlerocket_restarts_the_real_containerd_once_and_only_if_it_may() {
    let machine = Machine::boot(MachineKind::Trixie);
    let image = machine.push("app:1");
    let layout = "mkdir -p /etc/pki/tls/certs\n\
        cp /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt\n\
        rm -rf /etc/ssl/certs /usr/local/share/ca-certificates /usr/sbin/update-ca-certificates\n\
        ln -s ../pki/tls/certs /etc/ssl/certs\n\
        rm /etc/os-release\n\
        systemctl restart containerd";
    machine.run(&["sh", "-ec", layout]).expect(0);
    machine.write("/etc/os-release", OS_RELEASE);
    machine.wait_runtime();
    let access = (*machine).clone();
    let api = SimulatedBottlerocket::serve(&machine.root(), move || {
        // affected-services of settings.pki
        access.run(&["systemctl", "try-restart", "containerd.service"]).expect(0);
    });
    assert_untrusted(&machine, &image);
    let before = starts(&machine);

    // a restart may not be made: so nothing is changed that would bring one
    let ca = machine.registry_ca();
    let agent = machine.agent(&[], &format!("{FAST}\nruntime: {{onChange: report}}"));
    machine.set_source_pem(&ca);
    let status =
        agent.wait_status("a change that is held", LIMIT, |status| status["runtime"]["held"]["reason"] == "policy");
    assert!(status["runtime"]["held"]["next"].as_str().unwrap().contains("runtime.onChange"), "{status:#}");
    wait_two_cycles(&agent);
    assert!(api.live().is_empty() && api.take_changes().is_empty());
    assert_eq!(starts(&machine), before);
    assert_untrusted(&machine, &image);

    machine.configure_agent(FAST);
    wait_trusted(&agent, &ca);
    assert_eq!(machine.pull(&image), Ok(()));
    assert_eq!(api.take_changes(), one_change(1));
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before + 1, "the API's restart is the only one");
    assert_eq!(ledger(&machine)["tries"][0]["outcome"], "done", "{:#}", ledger(&machine));
    assert_eq!(agent.metric("nodetrust_runtime_restarts_total{outcome=\"done\"}"), Some(1.0));

    // it is taken over by the next agent, and by a second change soon after held back by its rate
    agent.stop();
    let agent = machine.start_agent();
    wait_trusted(&agent, &ca);
    assert_eq!(starts(&machine), before + 1);
    let next = Ca::new("The next CA");
    machine.set_source_pem(&(ca.clone() + &next.pem()));
    agent.wait_status("the pause between two restarts", LIMIT, |status| {
        status["runtime"]["held"]["reason"] == "rate-limit"
    });
    wait_trusted(&agent, &(ca + &next.pem()));
    assert_eq!(starts(&machine), before + 2);

    let refused = agent.nodetrust(&["uninstall"]).expect(1);
    assert!(refused.out.contains("asks no other node"), "{}", refused.out);
    wait_two_cycles(&agent);
    assert_eq!(starts(&machine), before + 2);
    assert_ne!(api.live()[&entry(&next)]["data"], "");
}
