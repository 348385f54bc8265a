//! Where the agent is reached: IPv4, IPv6, both or one of them, each in a network namespace of its own.
//!
//! The kubelet's probes come to the node's first address; an agent that is not reached there is killed for ever.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    agent::fast,
    support::{
        must,
        node::{Kind, Node},
        pki::Ca,
        process::Running,
        wait_for,
    },
};

const LIMIT: Duration = Duration::from_secs(120);
/// An address of each family beside the loopback's; its interface does not matter.
const OUTER: &str = "ip addr add 192.0.2.1/32 dev lo";
const OUTER_6: &str = "ip addr add 2001:db8::1/128 dev lo";

/// An agent in a network namespace that was made ready by these commands.
struct Apart {
    running: Running,
    _node: Node,
}

impl Apart {
    /// Starts the agent with this `http` configuration.
    fn start(prepare: &str, http: &str) -> Self {
        Self::start_under(&[], prepare, http)
    }

    /// The same, started through another program.
    fn start_under(program: &[&str], prepare: &str, http: &str) -> Self {
        let node = Node::new(Kind::Trixie, "");
        node.set_source(&[&Ca::new("Corp Root")]);
        node.configure(&format!("{http}\n{}", fast("1h")));
        let agent = node.command(&["run"]);
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-ec", &format!("ip link set lo up; {OUTER}; {prepare}; exec \"$@\""), "sh"]);
        command.args(program).arg(agent.get_program()).args(agent.get_args());
        command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let running = Running(must("the agent", command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()));
        Self { running, _node: node }
    }

    /// Whether an address answers inside the namespace.
    fn answers(&self, address: &str) -> bool {
        let namespace = format!("--net=/proc/{}/ns/net", self.running.0.id());
        let url = format!("http://{address}/livez");
        let curl = ["curl", "-q", "-s", "-g", "--fail", "--noproxy", "*", "--max-time", "10", "-o", "/dev/null"];
        let output = Command::new("nsenter").arg(namespace).args(curl).arg(url).output();
        must("nsenter", output).status.success()
    }

    /// Waits for the first of these addresses; then all of them must answer, and none of the others.
    #[track_caller]
    fn expect(&self, answer: &[&str], silent: &[&str]) {
        wait_for(&format!("an answer at {}", answer[0]), LIMIT, || self.answers(answer[0]).then_some(()));
        for address in answer {
            assert!(self.answers(address), "nobody answers at {address}");
        }
        for address in silent {
            assert!(!self.answers(address), "somebody answers at {address}");
        }
    }
}

const IPV4: [&str; 2] = ["127.0.0.1:9643", "192.0.2.1:9643"];
const IPV6: [&str; 2] = ["[::1]:9643", "[2001:db8::1]:9643"];

#[test]
fn an_agent_answers_on_ipv4_and_ipv6_unless_it_is_told_otherwise() {
    let all = [IPV4, IPV6].concat();
    Apart::start(OUTER_6, "").expect(&all, &[]);
    let other: Vec<String> = all.iter().map(|address| address.replace("9643", "9000")).collect();
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    Apart::start(OUTER_6, "http: {address: \"[::]:9000\"}").expect(&other, &all);
}

/// The node's setting says that a socket of IPv6 is for IPv6 only.
#[test]
fn an_agent_answers_on_ipv4_where_bindv6only_is_set() {
    let prepare = format!("{OUTER_6}; sysctl -qw net.ipv6.bindv6only=1");
    let all = [IPV4, IPV6].concat();
    Apart::start(&prepare, "").expect(&all, &[]);
    Apart::start(&prepare, "http: {address: \"[::]:9643\"}").expect(&all, &[]);
}

#[test]
fn an_agent_answers_on_a_node_that_has_only_ipv6() {
    let prepare = format!("{OUTER_6}; ip -4 addr flush dev lo");
    Apart::start(&prepare, "").expect(&[IPV6[1], IPV6[0]], &IPV4);
}

#[test]
fn an_agent_answers_on_a_node_whose_ipv6_is_off() {
    let prepare = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
    for http in ["", "http: {address: \"[::]:9643\"}"] {
        Apart::start(prepare, http).expect(&IPV4, &IPV6);
    }
}

/// `ipv6.disable=1` on the kernel's command line: no socket of IPv6 can be had. A filter of system calls gives the kernel's answer.
#[test]
fn simulated_kernel_without_ipv6_leaves_the_agent_on_ipv4() {
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/it/support/without_ipv6.py");
    let program = ["python3", filter.to_str().unwrap()];
    for http in ["", "http: {address: \"[::]:9643\"}"] {
        Apart::start_under(&program, OUTER_6, http).expect(&IPV4, &IPV6);
    }
}

#[test]
fn an_address_of_one_family_is_taken_as_it_is() {
    Apart::start(OUTER_6, "http: {address: \"0.0.0.0:9643\"}").expect(&IPV4, &IPV6);
    Apart::start(OUTER_6, "http: {address: \"192.0.2.1:9643\"}").expect(&IPV4[1..], &[IPV4[0], IPV6[0], IPV6[1]]);
    Apart::start(OUTER_6, "http: {address: \"[2001:db8::1]:9643\"}").expect(&IPV6[1..], &[IPV6[0], IPV4[0], IPV4[1]]);
}
