//! A booted node: a machine of `scripts/node` with its own systemd and containerd, a registry with a private CA beside it.
//!
//! Each machine has its registry, network and name for itself, so that tests run side by side. When the test process ends, in
//! whatever way, a shell that waits for the end of a pipe takes the machine down.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    ops::Deref,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::{
    cri::Message,
    must,
    node::{self, Done},
    pki::Ca,
    rig::{ADDRESS, Access, AgentContainer, LIMIT, PORT, Rig, connect},
    rights,
    served::AgentHttp,
    wait_for,
};

/// The registry's address, as seen by the node.
const HUB: &str = "198.51.100.1";
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

    /// An archive of an image of this name with the program under test, or with what `NODETRUST_IMAGE` names. The machine has that image then.
    #[track_caller]
    pub fn image_archive(&self, name: &str) -> PathBuf {
        let built = std::env::var("NODETRUST_IMAGE").unwrap_or_else(|_| super::program().to_owned());
        Done::new(must("scripts/node image", self.script(&["image", name, &built]).output())).expect(0);
        self.pki.with_file_name("images").join(name.replace(['/', ':'], "_") + ".tar")
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

    /// Makes the fleet's approvals this text, as a changed ConfigMap would.
    #[track_caller]
    pub fn write_approvals(&self, text: &str) {
        self.volume("config/approvals", "approvals.json", text);
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
