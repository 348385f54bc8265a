//! A booted node: a machine of `scripts/node` with its own systemd and containerd, a registry with a private CA beside it.
//!
//! Each machine has its registry, network and name for itself, so that tests run side by side. When the test process ends, in
//! whatever way, a shell that waits for the end of a pipe takes the machine down.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Deref,
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
    node::{self, Done},
    pki::Ca,
    rights,
    served::AgentHttp,
    wait_for,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/node");
/// The node's address, as seen by the registry and by tests.
const ADDRESS: &str = "198.51.100.11";
/// The registry's address, as seen by the node.
const HUB: &str = "198.51.100.1";
/// Where the agent serves HTTP, on the node's network.
const PORT: u16 = 9643;
/// Longest wait for what a healthy machine does in seconds; it may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// The folder of the agent's pod, as the kubelet would make it.
const VOLUMES: &str = "/var/lib/kubelet/pods/nodetrust/volumes";
const AGENT_IMAGE: &str = "nodetrust.test/nodetrust:test";

/// The kinds of machines, made by scripts/node setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineKind {
    /// Debian 12 with containerd 1.6.
    Bookworm,
    /// Debian 13 with containerd 1.7.
    Trixie,
    /// Debian 13's files with containerd 1.7 and RHEL's trust store, whose update-ca-trust script is simulated.
    Rhelish,
    /// Debian 13's files with containerd 2.1.
    Containerd21,
    /// Debian 12 with Docker beside containerd.
    Docker,
    /// Debian 13 with OpenRC instead of systemd.
    OpenRc,
}

impl MachineKind {
    /// Its name in scripts/node.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Rhelish => "rhelish",
            Self::Containerd21 => "containerd21",
            Self::Docker => "docker",
            Self::OpenRc => "openrc",
        }
    }

    /// The distribution: where its anchors and its bundle are, and what its tool is called.
    pub fn system(self) -> node::Kind {
        match self {
            Self::Bookworm | Self::Docker => node::Kind::Bookworm,
            Self::Trixie | Self::Containerd21 | Self::OpenRc => node::Kind::Trixie,
            Self::Rhelish => node::Kind::Rhelish,
        }
    }
}

/// A way into a running machine.
#[derive(Debug, Clone)]
pub struct Access {
    rig: String,
    node: String,
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

/// A running machine; it is taken down with the test.
pub struct Machine {
    /// The kind of the machine.
    pub kind: MachineKind,
    access: Access,
    pki: PathBuf,
    _rig: Rig,
}

impl Deref for Machine {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Machine {
    /// Boots a machine whose containerd has no `config_path`, as containerd's own default is.
    #[track_caller]
    pub fn boot(kind: MachineKind) -> Self {
        Self::boot_with_config_path(kind, "")
    }

    /// Boots a machine with this `config_path`: one directory, or several with colons between them.
    #[track_caller]
    pub fn boot_with_config_path(kind: MachineKind, config_path: &str) -> Self {
        let rig = Rig::up(&[kind.name()], &[("RIG_CONFIG_PATH", config_path)]);
        let access = Access::new(&rig.name, kind.name());
        let ca = rig.up.out.trim().rsplit(' ').next().map(PathBuf::from);
        let pki = ca.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap();
        Self { kind, access, pki, _rig: rig }
    }

    /// A free port of the registry's address, for a server beside the machine.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let namespace = format!("/run/netns/{}-hub", self.access.rig);
        let listen = move || {
            setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
            TcpListener::bind((HUB, 0))
        };
        thread::spawn(listen).join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }

    /// What the registry was asked by the machine: `METHOD /path` of each request, from its own log.
    #[track_caller]
    pub fn registry_log(&self) -> Vec<String> {
        let log = self.pki.with_file_name("log").join("registry.log");
        let text = must("the registry's log", fs::read_to_string(log));
        let lines = text.lines().filter(|line| line.starts_with(&format!("{ADDRESS} ")));
        let requests = lines.filter_map(|line| line.split('"').nth(1)?.strip_suffix(" HTTP/1.1"));
        requests.map(str::to_owned).collect()
    }

    /// The CA that has signed the registry's certificate.
    pub fn registry_ca(&self) -> String {
        fs::read_to_string(self.pki.join("registry-ca.crt")).unwrap()
    }

    /// The CA of the inspecting proxy.
    pub fn inspection_ca(&self) -> String {
        fs::read_to_string(self.pki.join("inspection-ca.crt")).unwrap()
    }

    /// Pushes an image `NAME:TAG` to the registry and returns its whole name.
    #[track_caller]
    pub fn push(&self, image: &str) -> String {
        Done::new(must("scripts/node push", self.script(&["push", image]).output())).expect(0);
        format!("registry.test:5443/{image}")
    }

    /// Sends containerd's pulls through the inspecting proxy, or not; restarts containerd.
    #[track_caller]
    pub fn proxy(&self, on: bool) {
        let word = if on { "on" } else { "off" };
        Done::new(must("scripts/node proxy", self.script(&["proxy", word, &self.node]).output())).expect(0);
        self.wait_runtime();
    }

    /// What a person does by hand: puts a CA into the anchor directory and runs the distribution's tool.
    #[track_caller]
    pub fn trust_by_hand(&self, name: &str, pem: &str) {
        let system = self.kind.system();
        self.write(&format!("{}/{name}.{}", system.anchors_dir(), system.extension()), pem);
        self.run(&[system.tool()]).expect(0);
    }

    /// Starts a container that sleeps, in a pod with a network of its own, as the kubelet would.
    #[track_caller]
    pub fn container(&self) -> AgentContainer {
        let image = Message::new().text(1, "rig.test/busybox:1");
        let config = Message::new().message(2, &image);
        self.start("sleeper", &Message::new(), config, &Message::new())
    }

    /// Puts the agent into the machine and starts it, with the source `org`, which holds these CAs, and this more of
    /// configuration.
    #[track_caller]
    pub fn agent(&self, cas: &[&Ca], more: &str) -> PodAgent {
        self.load_agent(Path::new(super::program()));
        self.configure_agent(more);
        self.set_source(cas);
        self.start_agent()
    }

    /// Makes this program the one that agents are started from.
    #[track_caller]
    pub fn load_agent(&self, program: &Path) {
        let image = self.script(&["image", AGENT_IMAGE]).arg(program).output();
        Done::new(must("scripts/node image", image)).expect(0);
    }

    /// Starts the agent again, with all as it is. It runs as its DaemonSet has it: uid 0 with the manifest's
    /// capabilities, no new privileges, containerd's own seccomp profile, a read-only root, its own PID namespace, the
    /// node's network, and the node's `/` at `/host`.
    #[track_caller]
    pub fn start_agent(&self) -> PodAgent {
        let mount = |from: &str, to: &str, read_only: bool| {
            let host_to_container = 1;
            Message::new().text(1, to).text(2, from).number(3, read_only.into()).number(5, host_to_container)
        };
        let config = Message::new()
            .message(2, &Message::new().text(1, AGENT_IMAGE))
            .texts(4, &["-v", "run"])
            .message(6, &Message::new().text(1, "NODE_NAME").text(2, &self.node))
            .message(7, &mount("/", "/host", false))
            .message(7, &mount(&format!("{VOLUMES}/config"), "/etc/nodetrust", true))
            .message(7, &mount(&format!("{VOLUMES}/org"), "/sources/org", true));
        let capabilities = rights::capabilities();
        let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        let security = Message::new()
            .message(1, &Message::new().texts(1, &capabilities).text(2, "ALL"))
            .number(7, 1) // a read-only root
            .number(11, 1) // no new privileges
            .texts(13, &MASKED)
            .texts(14, &READ_ONLY)
            .message(15, &Message::new()); // seccomp: the runtime's default
        let (pod, container) = (2, 1);
        let namespaces = Message::new().number(1, pod).number(2, container);
        let container = self.start("nodetrust", &namespaces, config, &security);

        let access = self.access.clone();
        let (rig, log) = (access.rig.clone(), container.log.clone());
        let served = AgentHttp::new(move || connect(&rig, ADDRESS, PORT), move || access.log(&log));
        PodAgent { access: self.access.clone(), container, served }
    }

    /// Writes the agent's configuration, as a changed ConfigMap would.
    #[track_caller]
    pub fn configure_agent(&self, more: &str) {
        let text =
            format!("sources:\n- {{name: org, path: /sources/org}}\nhttp: {{address: \"0.0.0.0:{PORT}\"}}\n{more}\n");
        self.volume("config", "config.yaml", &text);
    }

    /// Makes the agent's source hold exactly these CAs, as a changed ConfigMap would.
    #[track_caller]
    pub fn set_source(&self, cas: &[&Ca]) {
        let pems: Vec<String> = cas.iter().map(|ca| ca.pem()).collect();
        self.set_source_pem(&pems.concat());
    }

    /// Makes the agent's source hold this text.
    #[track_caller]
    pub fn set_source_pem(&self, text: &str) {
        self.volume("org", "ca.crt", text);
    }

    /// A volume with one file, swapped as the kubelet does it.
    #[track_caller]
    fn volume(&self, name: &str, file: &str, text: &str) {
        let swap = "set -e; mkdir -p \"$1\"; cd \"$1\"; old=$(readlink ..data || :); new=$(mktemp -d ..XXXXXXXX); \
                    chmod 755 $new; cat >$new/$2; ln -s $new ..data_tmp; mv -T ..data_tmp ..data; \
                    [ -L $2 ] || ln -s ..data/$2 $2; [ -z \"$old\" ] || rm -rf $old";
        self.run_with(&["sh", "-c", swap, "sh", &format!("{VOLUMES}/{name}"), file], text.as_bytes()).expect(0);
    }

    /// Starts a pod with one container.
    #[track_caller]
    fn start(&self, name: &str, namespaces: &Message, config: Message, security: &Message) -> AgentContainer {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let logs = format!("/var/log/pods/test_{name}_{name}");
        self.run(&["mkdir", "-p", &logs]).expect(0);
        let metadata = Message::new().text(1, &name).text(2, &name).text(3, "test");
        let context = Message::new().message(1, namespaces);
        let pod_config =
            Message::new().message(1, &metadata).text(3, &logs).message(8, &Message::new().message(2, &context));
        let answer = self.cri("RuntimeService/RunPodSandbox", &Message::new().message(1, &pod_config));
        let pod = must("a pod", answer).text(1);

        let security = security.clone().message(3, namespaces);
        let config = config
            .message(1, &Message::new().text(1, "main"))
            .text(11, "main.log")
            .message(15, &Message::new().message(2, &security));
        let request = Message::new().text(1, &pod).message(2, &config).message(3, &pod_config);
        let id = must("a container", self.cri("RuntimeService/CreateContainer", &request)).text(1);
        let request = Message::new().text(1, &id);
        let started = self.cri("RuntimeService/StartContainer", &request);
        let container = AgentContainer { id, log: format!("{logs}/main.log") };
        if let Err(error) = started {
            // The agent may restart containerd before containerd has answered.
            self.wait_runtime();
            assert!(self.process(&container).is_some(), "{name} was not started: {error}");
        }
        container
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.run(&["journalctl", "--no-pager", "-o", "cat", "-n", "200", "-u", "containerd"]);
            let lines: Vec<_> = log.out.lines().filter(|line| !line.contains("level=info")).collect();
            println!("containerd's journal at the end:\n{}\n{}", lines.join("\n"), log.err);
        }
    }
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
    fn log(&self, path: &str) -> String {
        let text = self.read(path).unwrap_or_default();
        let lines = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// `scripts/node` with these words, for this machine.
    fn script(&self, words: &[&str]) -> Command {
        script(&self.rig, words)
    }
}

/// `scripts/node` with these words, for the rig of this name; nothing that it does takes minutes.
pub(super) fn script(rig: &str, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300", SCRIPT]).args(words).env("RIG_NAME", rig).stdin(Stdio::null());
    command
}

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentContainer {
    id: String,
    log: String,
}

/// An agent in a container of the machine. It ends with the machine.
pub struct PodAgent {
    access: Access,
    /// Its container.
    pub container: AgentContainer,
    served: AgentHttp,
}

impl Deref for PodAgent {
    type Target = AgentHttp;

    fn deref(&self) -> &AgentHttp {
        &self.served
    }
}

impl PodAgent {
    /// Runs our program in the agent's container, as `kubectl exec` does.
    #[track_caller]
    pub fn nodetrust(&self, args: &[&str]) -> Done {
        let request = Message::new().text(1, &self.container.id).text(2, "/bin/nodetrust").texts(2, args).number(3, 60);
        let answer = must("a run in the container", self.access.cri("RuntimeService/ExecSync", &request));
        Done { code: i32::try_from(answer.number(3)).unwrap(), out: answer.text(1), err: answer.text(2) }
    }

    /// Ends it as the kubelet does, with SIGTERM, and returns its exit code.
    #[track_caller]
    pub fn stop(&self) -> u64 {
        let request = Message::new().text(1, &self.container.id);
        must("a stop", self.access.cri("RuntimeService/StopContainer", &request.clone().number(2, 30)));
        let answer = self.access.cri("RuntimeService/ContainerStatus", &request);
        must("a container's status", answer).message(1).number(7)
    }

    /// Kills it with SIGKILL.
    #[track_caller]
    pub fn kill(&self) {
        if let Some((pid, _)) = self.access.process(&self.container) {
            self.access.run(&["kill", "-KILL", &pid.to_string()]);
        }
        wait_for("the agent's end", LIMIT, || self.access.process(&self.container).is_none().then_some(()));
    }
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

/// What Kubernetes hides from containers, and what it shows them read-only.
const MASKED: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
const READ_ONLY: [&str; 6] = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
