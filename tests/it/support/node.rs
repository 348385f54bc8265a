//! A throw-away node root: an overlay over a real distribution's files, in a mount namespace of the test's own thread.
//!
//! `unshare(CLONE_NEWNS)` is per thread: what a test mounts is seen by it and by the processes that it starts, and vanishes with
//! them, also when the test is killed. The overlay's upper layer shows exactly what has changed.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    net::{TcpListener, TcpStream},
    ops::Deref,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{must, pki::Ca, rights, served::AgentHttp, wait_for};

/// Where the program finds the fleet's approvals.
const APPROVALS: &str = nodetrust::config::APPROVALS_DIRECTORY;

/// The kinds of node roots, made by scripts/node-roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian 12 with Java's hook.
    Bookworm,
    /// Debian 13.
    Trixie,
    /// Debian 13's files with real p11-kit on RHEL's paths; the update-ca-trust script is simulated.
    Rhelish,
    /// The same on SUSE's paths; the update-ca-certificates script and its hooks are simulated.
    Suselike,
}

impl Kind {
    fn dir(self) -> PathBuf {
        let name = match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Rhelish => "rhelish",
            Self::Suselike => "suselike",
        };
        let dir = roots().join(name);
        assert!(dir.is_dir(), "no node root {}: run scripts/node-roots first (scripts/test does)", dir.display());
        dir
    }

    /// Where anchors go.
    pub fn anchors_dir(self) -> &'static str {
        match self {
            Self::Rhelish => "/etc/pki/ca-trust/source/anchors",
            Self::Suselike => "/etc/pki/trust/anchors",
            Self::Bookworm | Self::Trixie => "/usr/local/share/ca-certificates",
        }
    }

    /// The extension of anchor files.
    pub fn extension(self) -> &'static str {
        if matches!(self, Self::Rhelish | Self::Suselike) { "pem" } else { "crt" }
    }

    /// The extracted bundle.
    pub fn bundle(self) -> &'static str {
        match self {
            Self::Rhelish => "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            Self::Suselike => "/var/lib/ca-certificates/ca-bundle.pem",
            Self::Bookworm | Self::Trixie => "/etc/ssl/certs/ca-certificates.crt",
        }
    }

    /// The directory in which OpenSSL looks for links.
    pub fn hash_dir(self) -> &'static str {
        if self == Self::Suselike { "/var/lib/ca-certificates/openssl" } else { "/etc/ssl/certs" }
    }

    /// The distribution's tool.
    pub fn tool(self) -> &'static str {
        if self == Self::Rhelish { "update-ca-trust" } else { "update-ca-certificates" }
    }
}

/// Where scripts/node-roots puts what it makes.
pub fn roots() -> PathBuf {
    std::env::var_os("NODETRUST_ROOTS").map(PathBuf::from).unwrap_or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        home.join(".cache/nodetrust/root")
    })
}

/// A node root with a source directory and a configuration beside it.
pub struct Node {
    /// The kind of the root.
    pub kind: Kind,
    /// The node's `/`.
    pub root: PathBuf,
    /// The directory of the source `org`.
    pub source: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// More environment for our program.
    pub environment: Vec<(&'static str, String)>,
    base: TempDir,
}

/// How a program of the node ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code, -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// What a finished program has left.
    pub fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        must(&format!("JSON of {self:?}"), serde_json::from_str(&self.out))
    }

    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }
}

impl Node {
    /// A fresh node whose configuration has one source, the directory `org`, and this more.
    #[track_caller]
    pub fn new(kind: Kind, more: &str) -> Self {
        let lower = kind.dir();
        must("a mount namespace (tests of node roots need root)", unshare(CloneFlags::CLONE_NEWNS));
        let none: Option<&str> = None;
        must("private mounts", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none));
        let base = must("a temporary directory", TempDir::with_prefix("nodetrust-test-"));
        must("a tmpfs", mount(Some("tmpfs"), base.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=0755")));
        let at = |name: &str| {
            let path = base.path().join(name);
            must("a directory", fs::create_dir_all(&path));
            path
        };
        let (upper, work, root, source) = (at("upper"), at("work"), at("root"), at("sources/org"));
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        must("an overlay", mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())));
        must("/proc", mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), none));
        must("/dev", mount(Some("/dev"), &root.join("dev"), none, MsFlags::MS_BIND | MsFlags::MS_REC, none));
        // The configuration has its own directory, which the agent watches: a log beside it would cause cycles.
        let config = at("config").join("config.yaml");
        let node = Self { kind, root, source, config, environment: Vec::new(), base };
        node.configure(more);
        node
    }

    /// Writes the configuration: the source `org` and this more.
    pub fn configure(&self, more: &str) {
        let text = format!("sources:\n- {{name: org, path: {}}}\n{more}\n", self.source.display());
        let temp = self.config.with_extension("new");
        fs::write(&temp, text).unwrap();
        fs::rename(temp, &self.config).unwrap();
    }

    /// A path outside the node root that vanishes with the node.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// A path of the node as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Makes the source hold exactly these CAs, one file, by rename.
    pub fn set_source(&self, cas: &[&Ca]) {
        let text: String = cas.iter().map(|ca| ca.pem()).collect();
        let temp = self.source.join(".new");
        fs::write(&temp, text).unwrap();
        fs::rename(temp, self.source.join("ca.crt")).unwrap();
    }

    /// Gives this test a directory of approvals at the place where pods have it.
    #[track_caller]
    pub fn show_approvals(&self) {
        self.own_etc();
        must("the directory of approvals", fs::create_dir_all(APPROVALS));
    }

    /// Gives this test an `/etc` of its own over the machine's: an overlay in the test's own mount namespace.
    #[track_caller]
    pub fn own_etc(&self) {
        let at = |name: &str| {
            let path = self.beside(name);
            must("a directory", fs::create_dir_all(&path));
            path
        };
        let options = format!("lowerdir=/etc,upperdir={},workdir={}", at("etc").display(), at("etc-work").display());
        must("an overlay", mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str())));
    }

    /// Makes the fleet's approvals this text, by rename.
    #[track_caller]
    pub fn approve(&self, text: &str) {
        let temp = Path::new(APPROVALS).with_file_name(".approvals.new"); // an event in the directory itself would count
        must("approvals", fs::write(&temp, text));
        must("approvals", fs::rename(temp, Path::new(APPROVALS).join("approvals.json")));
    }

    /// Our program, with the node's configuration and root, and with the rights that its manifest gives it.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_with(&rights::capabilities(), args)
    }

    /// The same with these capabilities.
    pub fn command_with(&self, capabilities: &[String], args: &[&str]) -> Command {
        let mut command = rights::confined(super::program(), capabilities);
        command.arg("--config").arg(&self.config).arg("--host-root").arg(&self.root).args(args);
        command
            .stdin(Stdio::null())
            .env_remove("NODETRUST_CONFIG")
            .env_remove("NODETRUST_HOST_ROOT")
            .env("NODE_NAME", "node-under-test")
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs our program to its end.
    #[track_caller]
    pub fn nodetrust(&self, args: &[&str]) -> Done {
        Done::new(must("nodetrust", self.command(args).output()))
    }

    /// Starts the agent.
    #[track_caller]
    pub fn agent(&self, more: &str) -> NodeAgent {
        self.agent_under(&[], more)
    }

    /// Starts the agent by way of another program, which is given the agent's command line.
    #[track_caller]
    pub fn agent_under(&self, program: &[&str], more: &str) -> NodeAgent {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        self.configure(&format!("http: {{address: \"127.0.0.1:{port}\"}}\n{more}"));
        let log = self.beside("agent.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let agent = self.command(&["-v", "run"]);
        let mut words = program.iter().map(OsStr::new).chain([agent.get_program()]).chain(agent.get_args());
        let mut command = Command::new(words.next().unwrap());
        command.args(words).envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = must("the agent", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn());
        let served = AgentHttp::new(
            move || TcpStream::connect(("127.0.0.1", port)),
            move || fs::read_to_string(&log).unwrap_or_default(),
        );
        NodeAgent { child, port, served }
    }

    /// Runs a program of the node in the node, with a clean environment.
    #[track_caller]
    pub fn run(&self, program: &[&str]) -> Done {
        Done::new(must(program[0], self.chroot(program).output()))
    }

    /// A program of the node, to be started in the node.
    pub fn chroot(&self, program: &[&str]) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command.arg(&self.root).args(program).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null());
        command
    }

    /// Puts a file into the node.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The file of an anchor.
    pub fn anchor_file(&self, ca: &Ca) -> PathBuf {
        self.path(&format!("{}/nodetrust-{}.{}", self.kind.anchors_dir(), ca.fp16(), self.kind.extension()))
    }

    /// The certificates in the extracted bundle, repetitions included.
    pub fn bundle(&self) -> Vec<String> {
        let text = fs::read(self.path(self.kind.bundle())).unwrap_or_default();
        let scan = nodetrust_core::certificate::pem::scan(&text);
        scan.blocks
            .iter()
            .map(|block| nodetrust_core::certificate::fingerprint::Fingerprint::of_der(&block.der).to_string())
            .collect()
    }

    /// Whether the bundle has a CA.
    pub fn trusts(&self, ca: &Ca) -> bool {
        self.bundle().contains(&ca.sha256())
    }

    /// Asks the node's own OpenSSL, by file and by directory, and its Python, whether a server of this CA is trusted. The three
    /// must agree.
    #[track_caller]
    pub fn clients_trust(&self, ca: &Ca) -> bool {
        self.write("/tmp/leaf.pem", ca.leaf("registry.test").0);
        let verify = |place: &[&str]| {
            let mut args = vec!["openssl", "verify", "-no-CAstore"];
            args.extend(place);
            args.push("/tmp/leaf.pem");
            self.run(&args).code == 0
        };
        let by_file = verify(&["-CAfile", self.kind.bundle(), "-no-CApath"]);
        let links = self.run(&["sh", "-c", &format!("ls {}/*.[0-9]", self.kind.hash_dir())]);
        let by_directory = match self.kind {
            // RHEL's old update-ca-trust makes no links, so no client uses the directory there.
            Kind::Rhelish if links.code != 0 => by_file,
            _ => verify(&["-CApath", self.kind.hash_dir(), "-no-CAfile"]),
        };
        let python = "import ssl,sys; c=ssl.create_default_context(cafile=sys.argv[1]); \
                      sys.exit(0 if sys.argv[2].encode() in [__import__('hashlib').sha256(d).hexdigest().encode() for d in c.get_ca_certs(True)] else 1)";
        let by_python = self.run(&["python3", "-c", python, self.kind.bundle(), &ca.sha256()]).code == 0;
        assert!(
            by_file == by_directory && by_file == by_python,
            "file {by_file}, directory {by_directory}, Python {by_python}"
        );
        by_file
    }

    /// Every path that differs from the pristine root, with what it is now: the overlay's upper layer.
    pub fn footprint(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        walk(&self.base.path().join("upper"), "", &mut found);
        found
    }

    /// The whole tree of the node below these directories: path, kind, mode, owner, and content or target.
    pub fn tree(&self, dirs: &[&str]) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for dir in dirs {
            walk(&self.path(dir), dir, &mut found);
        }
        found
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The namespace ends with the thread; this frees the memory earlier.
        let _ = umount2(&self.root.join("proc"), MntFlags::MNT_DETACH);
        let _ = umount2(&self.root.join("dev"), MntFlags::MNT_DETACH);
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        let _ = umount2(self.base.path(), MntFlags::MNT_DETACH);
    }
}

fn walk(dir: &Path, name: &str, found: &mut BTreeMap<String, String>) {
    let mut entries: Vec<_> = fs::read_dir(dir).map(|entries| entries.flatten().collect()).unwrap_or_default();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            walk(&path, &name, found);
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_char_device() && meta.rdev() == 0 {
            "deleted".to_owned()
        } else if kind.is_file() {
            let digest = nodetrust_core::certificate::fingerprint::content_digest(&fs::read(&path).unwrap());
            format!("file {}", nodetrust_core::certificate::fingerprint::hex(&digest))
        } else {
            "other".to_owned()
        };
        let mode = if kind.is_symlink() { 0 } else { meta.permissions().mode() & 0o7777 };
        found.insert(name, format!("{what} {mode:o} {}:{}", meta.uid(), meta.gid()));
    }
}

/// A running agent; it is ended with the test.
pub struct NodeAgent {
    child: Child,
    port: u16,
    served: AgentHttp,
}

impl Deref for NodeAgent {
    type Target = AgentHttp;

    fn deref(&self) -> &AgentHttp {
        &self.served
    }
}

impl NodeAgent {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The port that it serves HTTP on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end and returns the exit code, -1 after a signal.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        wait_for("the agent's end", Duration::from_secs(30), || self.child.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

impl Drop for NodeAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
