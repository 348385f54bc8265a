//! What `scripts/node up` has started, and the ways into its machines.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use super::{
    cri::{self, Answer, Message},
    must,
    node::Done,
    served::AgentHttp,
    wait_for,
};

/// The program that makes rigs.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/node");
/// The node's address, as seen by the registry and by tests.
pub(super) const ADDRESS: &str = "198.51.100.11";
/// Where the agent serves HTTP, on the node's network.
pub(super) const PORT: u16 = 9643;
/// Longest wait for what a healthy machine does in seconds; it may be busy.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// A way into a running machine.
#[derive(Debug, Clone)]
pub struct Access {
    pub(super) rig: String,
    pub(super) node: String,
}

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentContainer {
    pub(super) id: String,
    pub(super) log: String,
}

/// What `scripts/node up` has started, under a name that is this test's. It is taken down with the test.
pub(super) struct Rig {
    /// Its name.
    pub(super) name: String,
    /// What `up` said.
    pub(super) up: Done,
    guard: Child,
    guarded: Option<ChildStdin>,
    _lock: File,
}

impl Rig {
    /// `scripts/node up` with these words and this environment.
    #[track_caller]
    pub(super) fn up(words: &[&str], environment: &[(&str, &str)]) -> Self {
        let name = rig_name();
        // The same test may run twice at the same time and would use the same name.
        let lock =
            must("a lock file", File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lock"))));
        must("a lock", lock.lock());
        must("scripts/node down (tests of machines need root)", script(&name, &["down"]).status());

        // The guard has a session of its own, so that Ctrl-C ends the test and not the guard.
        let mut guard = must(
            "a guard",
            Command::new("setsid")
                .args(["bash", "-c", "cat >/dev/null; exec \"$0\" down", SCRIPT])
                .env("RIG_NAME", &name)
                .stdin(Stdio::piped())
                .spawn(),
        );
        let guarded = guard.stdin.take();
        let mut rig =
            Self { name, up: Done { code: 0, out: String::new(), err: String::new() }, guard, guarded, _lock: lock };
        let words: Vec<&str> = ["up"].iter().chain(words).copied().collect();
        let up = script(&rig.name, &words).envs(environment.iter().copied()).output();
        rig.up = Done::new(must("scripts/node up", up)).expect(0);
        rig
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.guarded.take());
        let _ = self.guard.wait();
    }
}

impl Access {
    /// A way into this node of a rig.
    pub(super) fn new(rig: &str, node: &str) -> Self {
        Self { rig: rig.to_owned(), node: node.to_owned() }
    }

    /// Runs a program in the machine to its end.
    #[track_caller]
    pub fn run(&self, program: &[&str]) -> Done {
        self.run_with(program, b"")
    }

    /// Runs a program in the machine to its end, with this on its standard input.
    #[track_caller]
    pub fn run_with(&self, program: &[&str], input: &[u8]) -> Done {
        let mut command = self.script(&["exec", &self.node]);
        command.args(program).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = must("scripts/node exec", command.spawn());
        let _ = child.stdin.take().unwrap().write_all(input); // the program need not read all of it
        Done::new(must("scripts/node exec", child.wait_with_output()))
    }

    /// The machine's `/` in our own view: that of its first process.
    #[track_caller]
    pub fn root(&self) -> PathBuf {
        let group = format!("/{}-{}", self.rig, self.node);
        let is_first = |process: &Path| {
            let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
            // The machine's init has two pids, the second of which is 1.
            let status = read("status");
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            matches!(pids.split_whitespace().collect::<Vec<_>>()[..], [_, "1"]) && read("cgroup").contains(&group)
        };
        let mut processes = must("/proc", fs::read_dir("/proc")).filter_map(|entry| Some(entry.ok()?.path()));
        processes.find(|process| is_first(process)).expect("the machine does not run").join("root")
    }

    /// Puts a file into the machine.
    #[track_caller]
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let put = "mkdir -p \"$(dirname \"$1\")\" && cat >\"$1\"";
        self.run_with(&["sh", "-c", put, "sh", path], content.as_ref()).expect(0);
    }

    /// A file of the machine, if it is there.
    #[track_caller]
    pub fn read(&self, path: &str) -> Option<String> {
        let done = self.run(&["cat", path]);
        (done.code == 0).then_some(done.out)
    }

    /// Has containerd pull an image, as the kubelet does. The error is containerd's message.
    #[track_caller]
    pub fn pull(&self, image: &str) -> Result<(), String> {
        let request = Message::new().message(1, &Message::new().text(1, image));
        self.cri("ImageService/PullImage", &request).map(drop)
    }

    /// Calls containerd. The error is its message.
    #[track_caller]
    pub fn cri(&self, method: &str, request: &Message) -> Result<Answer, String> {
        cri::call(self.script(&["cri", &self.node, method]), request)
    }

    /// The same through another socket of the machine.
    #[track_caller]
    pub fn pull_at(&self, socket: &str, image: &str) -> Result<(), String> {
        let request = Message::new().message(1, &Message::new().text(1, image));
        self.cri_at(socket, "ImageService/PullImage", &request).map(drop)
    }

    /// Calls the containerd behind a socket of the machine. The error is its message.
    #[track_caller]
    pub fn cri_at(&self, socket: &str, method: &str, request: &Message) -> Result<Answer, String> {
        let mut command = self.script(&["cri", &self.node, method]);
        command.env("RIG_SOCKET", socket);
        cri::call(command, request)
    }

    /// What an agent on the machine's network says of itself, whose log is this file of the machine.
    pub fn served(&self, log: &'static str) -> AgentHttp {
        let (access, rig) = (self.clone(), self.rig.clone());
        AgentHttp::new(move || connect(&rig, ADDRESS, PORT), move || access.read(log).unwrap_or_default())
    }

    /// Waits until containerd answers the kubelet.
    #[track_caller]
    pub fn wait_runtime(&self) {
        // Not Version: containerd answers that before it has found its containers again.
        wait_for("containerd", LIMIT, || self.cri("RuntimeService/ListPodSandbox", &Message::new()).ok());
    }

    /// Reboots the machine, and waits until its containerd answers.
    #[track_caller]
    pub fn reboot(&self) {
        let before = self.boot_id();
        assert!(before.is_some(), "the machine does not run");
        let ordered = self.run(&["systemctl", "reboot"]);
        if self.boot_id() == before {
            println!("systemctl reboot ended with {}: {}{}", ordered.code, ordered.out, ordered.err);
        }
        wait_for("another boot id", LIMIT, || self.boot_id().filter(|id| Some(id) != before.as_ref()));
        self.wait_runtime();
    }

    /// The id of systemd's present run of a unit; another after each restart.
    #[track_caller]
    pub fn invocation(&self, unit: &str) -> String {
        self.run(&["systemctl", "show", "--property", "InvocationID", "--value", unit]).expect(0).out.trim().to_owned()
    }

    /// A container's process in the machine, its pid and start time: whether it is still the same one. None if it has ended.
    #[track_caller]
    pub fn process(&self, container: &AgentContainer) -> Option<(u32, String)> {
        let request = Message::new().text(1, &container.id).number(2, 1);
        let answer = must("a container's status", self.cri("RuntimeService/ContainerStatus", &request));
        let running = 1;
        if answer.message(1).number(3) != running {
            return None;
        }
        let entries = answer.all(2).into_iter().map(Answer::of);
        let info = entries.into_iter().find(|entry| entry.text(1) == "info").unwrap().text(2);
        let info: serde_json::Value = must("a container's info", serde_json::from_str(&info));
        let pid = u32::try_from(info["pid"].as_u64().unwrap()).unwrap();
        let stat = self.read(&format!("/proc/{pid}/stat"))?;
        let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
        Some((pid, start))
    }

    fn boot_id(&self) -> Option<String> {
        self.read("/proc/sys/kernel/random/boot_id").filter(|id| !id.is_empty())
    }

    /// A log in CRI's format, as the program wrote it.
    pub(super) fn log(&self, path: &str) -> String {
        let text = self.read(path).unwrap_or_default();
        let lines = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// `scripts/node` with these words, for this machine.
    pub(super) fn script(&self, words: &[&str]) -> Command {
        script(&self.rig, words)
    }
}

/// `scripts/node` with these words, for the rig of this name; nothing that it does takes minutes.
pub(super) fn script(rig: &str, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300", SCRIPT]).args(words).env("RIG_NAME", rig).stdin(Stdio::null());
    command
}

/// A connection to a node from the network beside it.
pub(super) fn connect(rig: &str, address: &str, port: u16) -> io::Result<TcpStream> {
    connect_from(&format!("{rig}-hub"), address, port)
}

/// A connection from a network namespace, which only this thread enters.
pub(super) fn connect_from(namespace: &str, address: &str, port: u16) -> io::Result<TcpStream> {
    let namespace = format!("/run/netns/{namespace}");
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let connect = move || {
        setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
        TcpStream::connect_timeout(&address, Duration::from_secs(5))
    };
    thread::spawn(connect).join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// The name of a rig: unique to the test and the machine, and the same at the next run.
fn rig_name() -> String {
    thread_local! { static BOOTED: AtomicU32 = const { AtomicU32::new(0) } }
    let nth = BOOTED.with(|booted| booted.fetch_add(1, Ordering::Relaxed));
    let test = thread::current().name().unwrap_or_default().to_owned();
    let digest = nodetrust_core::certificate::fingerprint::content_digest(format!("{SCRIPT} {test} {nth}").as_bytes());
    format!("t{}", &nodetrust_core::certificate::fingerprint::hex(&digest)[..10])
}
