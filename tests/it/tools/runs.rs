//! Several runs of the tool, at once or one after another that was killed.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{alone::ScriptGeneration, *};
use crate::support::wait_for;

/// Somebody else who runs the tool again and again.
struct Runner<'a> {
    node: &'a Node,
    child: Child,
}

const STOP: &str = "/tmp/stop";

impl<'a> Runner<'a> {
    fn start(node: &'a Node) -> Self {
        let script = format!("while ! test -e {STOP}; do {} >>/tmp/runner.log 2>&1; done", node.kind.tool());
        let mut command = node.chroot(&["sh", "-c", &script]);
        Self { node, child: quiet(&mut command).process_group(0).spawn().unwrap() }
    }

    /// Lets the last run come to its end.
    fn stop(mut self) {
        self.node.write(STOP, "");
        wait_for("the runner's end", Duration::from_secs(30), || self.child.try_wait().unwrap());
    }
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            kill_group(&self.child);
            let _ = self.child.wait();
        }
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

fn kill_group(child: &Child) {
    let _ = killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL); // it may have ended already
}

/// Two runs at once destroy the bundle, and both exit 0 (facts 0.1). nodetrust notices and repairs it.
#[test]
fn two_runs_at_once_destroy_the_bundle() {
    const TRIES: usize = 30;
    let ca = Ca::new("Corp");
    let node = Node::new(DEBIAN, "");
    node.set_source(&[&ca]);
    apply(&node, 0);
    let right = sorted(&node);
    let script = "update-ca-certificates & first=$!; update-ca-certificates || exit 1; wait $first";
    let wrong = (0..TRIES).any(|_| node.run(&["sh", "-c", script]).code == 0 && sorted(&node) != right);
    assert!(wrong, "{TRIES} pairs of runs did no harm: has the tool learned to lock?");

    node.nodetrust(&["status"]).expect(2);
    apply(&node, 0);
    assert_eq!(sorted(&node), right);
    assert_right(&node, &[&ca]);
}

/// A killed run damages the result of the next one, which exits 0 (facts 0.2).
#[test]
fn a_killed_run_poisons_the_next() {
    let ca = Ca::new("Corp");
    let node = Node::new(DEBIAN, "");
    node.set_source(&[&ca]);
    apply(&node, 0);
    let right = sorted(&node);
    let temp = node.path("/etc/ssl/certs/ca-certificates.crt.new");
    let mut child = quiet(&mut node.chroot(&[node.kind.tool()])).process_group(0).spawn().unwrap();
    wait_for("some certificates in the tool's temporary file", Duration::from_secs(30), || {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        fs::metadata(&temp).ok().filter(|meta| meta.len() > 20_000)
    });
    kill_group(&child);
    child.wait().unwrap();
    node.run(&["sh", "-c", "rm /tmp/ca-certificates.tmp.*"]).expect(0); // its other temporary files do no harm
    let cut = fs::read(&temp).unwrap();
    tool(&node, &[]).expect(0);
    assert_ne!(sorted(&node), right, "the next run appends to it");

    // nodetrust repairs the damage.
    apply(&node, 0);
    assert_eq!(sorted(&node), right);

    // nodetrust removes the temporary file before a run can append to it.
    fs::write(&temp, cut).unwrap();
    node.run(&["touch", "-d", "1 hour ago", "/etc/ssl/certs/ca-certificates.crt.new"]).expect(0);
    let another = Ca::new("Another");
    node.set_source(&[&ca, &another]);
    apply(&node, 0);
    assert!(!temp.exists());
    assert_right(&node, &[&ca, &another]);
    tool(&node, &[]).expect(0);
    assert!(without_repetition(&node));
}

/// A cut temporary file makes the whole bundle unreadable for OpenSSL, exit code 0 (facts 0.2).
#[test]
fn a_cut_left_over_breaks_the_bundle() {
    let ca = Ca::new("Corp");
    let node = Node::new(DEBIAN, "");
    let good = bundle_bytes(&node);
    let temp = "/etc/ssl/certs/ca-certificates.crt.new";
    node.write(temp, &good[..300]);
    tool(&node, &[]).expect(0);
    assert!(!python_loads(&node));

    node.write(temp, &good[..300]);
    node.run(&["touch", "-d", "1 hour ago", temp]).expect(0);
    node.set_source(&[&ca]);
    apply(&node, 0);
    assert!(python_loads(&node));
    assert_right(&node, &[&ca]);
}

/// Rotations beside somebody else's endless runs: whenever nodetrust says converged, it is true. How many of them converge is a matter of the
/// machine's speed: it goes on until two have.
fn rotations_beside_a_runner(node: &Node) {
    let foreign = sorted(node);
    let runner = Runner::start(node);
    let mut last = Ca::new("Corp 0");
    node.set_source(&[&last]);
    node.nodetrust(&["apply"]);
    let mut converged = 0;
    for n in 1..=16 {
        let next = Ca::new(&format!("Corp {n}"));
        node.set_source(&[&next]);
        if node.nodetrust(&["apply"]).code == 0 {
            converged += 1;
            let mut right = foreign.clone();
            right.push(next.sha256());
            right.sort();
            assert_eq!(sorted(node), right, "it says converged, and that is not true");
            assert!(by_file(node, &next) && !by_file(node, &last));
        }
        last = next;
        if converged == 2 {
            break;
        }
    }
    runner.stop();
    assert_eq!(converged, 2, "rotations that converged, of 16");
    apply(node, 0);
    assert_right(node, &[&last]);
    assert_eq!(sorted(node).len(), foreign.len() + 1);
}

#[test]
fn debian_rotations_beside_a_runner() {
    rotations_beside_a_runner(&Node::new(DEBIAN, "rotation: {removalGrace: 0s}"));
}

#[test]
fn rhelish_rotations_beside_a_runner() {
    rotations_beside_a_runner(&ScriptGeneration::New.node("rotation: {removalGrace: 0s}"));
}

/// Two runs of nodetrust take turns.
#[test]
fn two_of_ours_take_turns() {
    for kind in [DEBIAN, Kind::Rhelish] {
        let node = Node::new(kind, "");
        let ca = Ca::new("Corp");
        node.set_source(&[&ca]);
        let mut both = [0, 1].map(|_| quiet(&mut node.command(&["apply"])).spawn().unwrap());
        for child in &mut both {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        assert_right(&node, &[&ca]);
    }
}
