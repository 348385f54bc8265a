//! `nodetrust topology`: the fleet, read from an API server. Simulated ones fail on request; the last test asks a real one.

// Approvals of removals.
mod approvals;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nodetrust_core::node_status::{ANNOTATION, CONDITION};
use serde_json::{Value, json};

use crate::support::{cluster::TestCluster, machine::MachineKind, node::Done};

/// An answer of the simulated server.
enum ApiReply {
    /// The list, or the part of it that was asked for.
    List,
    /// An error with this status and a `Status` object.
    Refused(u16, &'static str),
    /// Status 200 with this body.
    Body(&'static str),
    /// The list, byte by byte for a while, in chunks.
    Dribble,
    /// A page that points to itself.
    Circle,
    /// Half a page.
    Cut,
}

/// A simulated API server that knows one list of nodes, and how the programs that have asked call themselves.
struct NodeListApi {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What follows the number in a continue token: a URL must not change it.
const TOKEN: &str = "/+=&% ü";

impl NodeListApi {
    /// Serves these nodes; `reply` says how, by the number of the request from 0.
    fn new(nodes: Vec<Value>, reply: impl Fn(usize) -> ApiReply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        // The server ends with the test's process; a connection has at most one request.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let Some((target, agent)) = request(&stream) else { continue };
                if !target.starts_with("/api/v1/nodes?") {
                    // to a user who may list nodes, and nothing else
                    let _ = answer(stream, &target, &nodes, ApiReply::Refused(403, "nodes only"));
                    continue;
                }
                let n = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(agent);
                    seen.len() - 1
                };
                let _ = answer(stream, &target, &nodes, reply(n)); // the client may have gone
            }
        });
        Self { port, asked }
    }

    fn good(nodes: Vec<Value>) -> Self {
        Self::new(nodes, |_| ApiReply::List)
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// The target of a GET, and its User-Agent.
fn request(stream: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut agent = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("user-agent") => agent = value.trim_end().to_owned(),
            _ => {}
        }
    }
    Some((first.strip_prefix("GET ")?.split(' ').next()?.to_owned(), agent))
}

fn answer(mut stream: TcpStream, target: &str, nodes: &[Value], reply: ApiReply) -> std::io::Result<()> {
    let (status, body) = match reply {
        ApiReply::List | ApiReply::Dribble | ApiReply::Cut => (200, page(target, nodes).to_string()),
        ApiReply::Circle => {
            (200, json!({"kind": "NodeList", "metadata": {"continue": "here"}, "items": []}).to_string())
        }
        ApiReply::Refused(code, message) => {
            (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message}).to_string())
        }
        ApiReply::Body(text) => (200, text.to_owned()),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n");
    if matches!(reply, ApiReply::Dribble) {
        write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
        let (slow, rest) = body.as_bytes().split_at(body.len().min(200));
        for piece in slow.chunks(1).chain(rest.chunks(1 << 16)) {
            write!(stream, "{:x}\r\n", piece.len())?;
            stream.write_all(piece)?;
            stream.write_all(b"\r\n")?;
            stream.flush()?;
            thread::yield_now();
        }
        return stream.write_all(b"0\r\n\r\n");
    }
    let sent = if matches!(reply, ApiReply::Cut) { body.len() / 2 } else { body.len() };
    write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body.as_bytes()[..sent])
}

fn page(target: &str, nodes: &[Value]) -> Value {
    let query = target.strip_prefix("/api/v1/nodes?").expect("a list of nodes");
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decoded);
    let limit: usize = value("limit").expect("a limit").parse().unwrap();
    let from: usize =
        value("continue").map_or(0, |token| token.strip_suffix(TOKEN).expect("our token").parse().unwrap());
    let to = nodes.len().min(from + limit);
    let next = if to < nodes.len() { format!("{to}{TOKEN}") } else { String::new() };
    json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "7", "continue": next}, "items": nodes[from..to]})
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).copied().collect();
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

const OLD: (&str, &str) = ("1be0447c9d2f6a35", "Corp Root CA 2021");
const NEW: (&str, &str) = ("9f3c51d2ab77e014", "Corp Root CA 2026");
const INSPECTION: (&str, &str) = ("77aa02c4e1905b8d", "Inspection CA");

/// An annotation of a node that has what it wants.
fn says(digit: char, anchors: &[((&str, &str), &str)]) -> String {
    let digest = digit.to_string().repeat(64);
    let anchor = |((fp16, cn), state): &((&str, &str), &str)| json!({"fp16": fp16, "cn": cn, "state": state, "notAfter": "2096-01-02T00:00:00Z"});
    let anchors: Vec<Value> = anchors.iter().map(anchor).collect();
    json!({"v": 1, "desired": digest, "effective": digest, "anchors": anchors, "runtimeStale": false}).to_string()
}

fn rotated() -> String {
    says('2', &[(NEW, "desired"), (OLD, "grace"), (INSPECTION, "desired")])
}

fn before() -> String {
    says('1', &[(OLD, "desired"), (INSPECTION, "desired")])
}

/// A Node as API servers send it, with fields that topology does not read.
fn node(name: &str, annotation: Option<&str>) -> Value {
    let mut node = json!({
        "metadata": {"name": name, "uid": "u", "labels": {"kubernetes.io/os": "linux"}, "annotations": {"other": "text"},
            "managedFields": [{"manager": "kubelet", "operation": "Update"}]},
        "spec": {"podCIDR": "10.0.0.0/24", "taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "8"}, "images": [{"names": ["registry.corp/app@sha256:0"], "sizeBytes": 1}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": null}]},
    });
    if let Some(annotation) = annotation {
        node["metadata"]["annotations"][ANNOTATION] = annotation.into();
        let condition = json!({"type": CONDITION, "status": "True", "reason": "Trusted", "message": "m"});
        node["status"]["conditions"].as_array_mut().unwrap().push(condition);
    }
    node
}

fn nodes(prefix: &str, count: usize, annotation: Option<&str>) -> Vec<Value> {
    (0..count).map(|n| node(&format!("{prefix}-{n:04}"), annotation)).collect()
}

/// A user's home with a kubeconfig; the environment names no other.
struct UserHome(tempfile::TempDir);

impl UserHome {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A home whose kubeconfig leads to a simulated server, by a name that must be resolved.
    fn at(api: &NodeListApi) -> Self {
        let desk = Self::new();
        fs::create_dir(desk.path().join(".kube")).unwrap();
        desk.kubeconfig(".kube/config", "prod-eu", &format!("http://localhost:{}", api.port));
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn kubeconfig(&self, file: &str, context: &str, server: &str) -> PathBuf {
        let path = self.path().join(file);
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "secret-token"}}],
            "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}]});
        fs::write(&path, text.to_string()).unwrap();
        path
    }

    fn run(&self, program: &Path, args: &[&str], environment: &[(&str, &str)]) -> Done {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.path()).env("PATH", format!("{}:/usr/bin:/bin", self.path().display()));
        command.envs(environment.iter().copied()).args(args).stdin(Stdio::null());
        Done::new(command.output().unwrap())
    }

    fn topology(&self, args: &[&str]) -> Done {
        let args: Vec<&str> = ["topology"].iter().chain(args).copied().collect();
        self.run(Path::new(crate::support::program()), &args, &[])
    }
}

/// Compares with a file of tests/data; UPDATE_GOLDEN=1 writes it anew. Read it in review: it is what people see.
#[track_caller]
fn assert_golden(name: &str, actual: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../tests/data", name].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "tests/data/{name} differs (UPDATE_GOLDEN=1 writes it anew):\n{actual}");
    assert!(actual.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{actual}");
}

#[test]
fn simulated_five_thousand_nodes_fit_a_screen() {
    let mut all = nodes("new", 4_200, Some(&rotated()));
    all.extend(nodes("old", 700, Some(&before())));
    all.extend(nodes("bare", 97, None));
    for (name, text) in [("odd-a", "{"), ("odd-b", "\u{1b}[2Jhello"), ("odd-c", "{\"v\":9}")] {
        all.push(node(name, Some(text)));
    }
    let api = NodeListApi::good(all);
    let desk = UserHome::at(&api);
    let done = desk.topology(&[]).expect(2);
    assert_golden("topology/screen.txt", &done.out);
    assert_eq!(api.requests(), 10);

    let fleet = desk.topology(&["-o", "json"]).expect(2).json();
    assert_eq!(
        (&fleet["verdict"], &fleet["nodes"], &fleet["reporting"]),
        (&json!("violation"), &json!(5000), &json!(4900))
    );
    assert_eq!(fleet["anchors"][0]["lacking"]["count"], 700);
    assert!(desk.topology(&["-o", "yaml"]).expect(2).out.contains("verdict: violation"));
}

#[test]
fn simulated_uniform_fleet_is_success() {
    let api = NodeListApi::good(nodes("n", 3, Some(&rotated())));
    assert_golden("topology/uniform.txt", &UserHome::at(&api).topology(&[]).expect(0).out);
    // API servers know a program by this in audit logs and limits.
    assert_eq!(*api.asked.lock().unwrap(), [concat!("nodetrust/", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn simulated_list_is_begun_anew_when_its_token_expires() {
    let gone = ApiReply::Refused;
    let all = || nodes("n", 1_200, Some(&rotated()));
    let api = NodeListApi::new(all(), move |n| if n == 1 { gone(410, "too old") } else { ApiReply::List });
    let fleet = UserHome::at(&api).topology(&["-o", "json"]).expect(0).json();
    assert_eq!((&fleet["nodes"], api.requests()), (&json!(1_200), 2 + 3));

    let api = NodeListApi::new(all(), move |n| if n % 2 == 1 { gone(410, "too old") } else { ApiReply::List });
    let done = UserHome::at(&api).topology(&[]).expect(1);
    assert!(done.err.contains("410 Gone") && done.out.is_empty(), "{}", done.err);
    assert_eq!(api.requests(), 8, "it gives up");
}

#[test]
fn simulated_refusals_say_what_to_do() {
    let tell = |reply: fn(usize) -> ApiReply| {
        let done = UserHome::at(&NodeListApi::new(nodes("n", 3, None), reply)).topology(&[]).expect(1);
        assert!(done.out.is_empty() && !done.err.contains("secret-token"), "{}", done.err);
        done.err
    };
    let forbidden = tell(|_| ApiReply::Refused(403, "nodes is forbidden: User \"eve\" cannot list\nresource"));
    for part in [
        "403",
        "User \"eve\" cannot list resource",
        "create clusterrole nodetrust-topology --verb=list --resource=nodes",
    ] {
        assert!(forbidden.contains(part), "{part} in {forbidden}");
    }
    assert!(tell(|_| ApiReply::Refused(401, "Unauthorized")).contains("log in again"));
    assert!(tell(|_| ApiReply::Body("<html>")).contains("no list of nodes"));
    assert!(tell(|_| ApiReply::Cut).contains("cut off"));
    assert!(tell(|_| ApiReply::Circle).contains("the same page again and again"));
}

#[test]
fn simulated_slow_server_is_heard_to_the_end() {
    let api = NodeListApi::new(nodes("n", 700, Some(&rotated())), |_| ApiReply::Dribble);
    assert_eq!(UserHome::at(&api).topology(&["-o", "json"]).expect(0).json()["nodes"], 700);
}

#[test]
fn simulated_server_that_is_not_there_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let desk = UserHome::new();
    let file = desk.kubeconfig("k", "gone", &format!("https://127.0.0.1:{port}"));
    let done = desk.topology(&["--kubeconfig", file.to_str().unwrap()]).expect(1);
    assert!(done.err.contains(&format!("127.0.0.1:{port}")) && done.err.contains("refused"), "{}", done.err);
}

#[test]
fn the_kubeconfig_is_chosen_as_kubectl_does() {
    let (one, two) =
        (NodeListApi::good(nodes("n", 1, Some(&rotated()))), NodeListApi::good(nodes("n", 2, Some(&rotated()))));
    let desk = UserHome::at(&one);
    let other = desk.kubeconfig("other", "other", &format!("http://127.0.0.1:{}", two.port));
    let other = other.to_str().unwrap();
    let counts = |done: Done| done.expect(0).json()["nodes"].as_u64().unwrap();
    assert_eq!(counts(desk.topology(&["-o", "json"])), 1);
    assert_eq!(counts(desk.topology(&["-o", "json", "--kubeconfig", other])), 2);
    let both = format!("{}:{other}", desk.path().join(".kube/config").display());
    let with = |args: &[&str]| desk.run(Path::new(crate::support::program()), args, &[("KUBECONFIG", &both)]);
    assert_eq!(counts(with(&["topology", "-o", "json"])), 1);
    // A proxy of the environment is not used for this machine.
    let proxy = [("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "corp, localhost")];
    assert_eq!(counts(desk.run(Path::new(crate::support::program()), &["topology", "-o", "json"], &proxy)), 1);
    assert!(desk.topology(&["--context", "nowhere"]).expect(1).err.contains("nowhere"));
    assert!(desk.topology(&["--kubeconfig", "/no/such"]).expect(1).err.contains("/no/such"));
    assert!(UserHome::new().topology(&[]).expect(1).err.contains("--kubeconfig"));
    desk.topology(&["--no-such-flag"]).expect(64);
}

#[test]
fn kubectl_runs_it_as_its_plugin() {
    let api = NodeListApi::good(nodes("n", 2, Some(&rotated())));
    let desk = UserHome::at(&api);
    symlink(crate::support::program(), desk.path().join("kubectl-nodetrust")).unwrap();
    for args in [&["nodetrust"][..], &["nodetrust", "topology"], &["nodetrust", "--context", "prod-eu", "topology"]] {
        let done = desk.run(Path::new("kubectl"), args, &[]).expect(0);
        assert!(done.out.starts_with("prod-eu   UNIFORM   "), "{}", done.out);
    }
    let help = desk.run(Path::new("kubectl"), &["nodetrust", "--help"], &[]).expect(0).out;
    assert!(help.contains("kubectl nodetrust") && !help.contains("--host-root"), "{help}");
    assert!(desk.run(Path::new("kubectl"), &["nodetrust", "version"], &[]).expect(0).out.contains("nodetrust"));
}

#[test]
fn a_real_api_server_sends_its_nodes_in_pages() {
    let cluster = TestCluster::boot(&[("real", MachineKind::Bookworm)]);
    let mut all = nodes("new", 400, Some(&rotated()));
    all.extend(nodes("old", 150, Some(&before())));
    for node in &mut all {
        node["apiVersion"] = "v1".into();
        node["kind"] = "Node".into();
        node["metadata"] = json!({"name": node["metadata"]["name"], "annotations": node["metadata"]["annotations"]});
        node["spec"] = json!({});
    }
    // Several at a time: kubectl limits itself to a few requests each second.
    thread::scope(|scope| {
        for some in all.chunks(110) {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": some}).to_string();
            let cluster = &cluster;
            scope.spawn(move || cluster.kubectl_with(&["create", "-f", "-"], &list).expect(0));
        }
    });

    let admin = cluster.kubeconfig();
    let fleet = cluster.topology(&admin, &["-o", "json"]).expect(2).json();
    assert_eq!(
        (&fleet["verdict"], &fleet["nodes"], &fleet["reporting"]),
        (&json!("violation"), &json!(551), &json!(550))
    );
    let new = fleet["anchors"].as_array().unwrap().iter().find(|row| row["fp16"] == NEW.0).unwrap();
    assert_eq!((&new["trusted"], &new["lacking"]["count"], &new["unknown"]), (&json!(400), &json!(150), &json!(1)));
    let no_agent = fleet["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == "no-agent").unwrap();
    assert_eq!(no_agent["nodes"]["names"], json!(["real"]));
    assert!(cluster.topology(&admin, &[]).expect(2).out.starts_with("rig   VIOLATION   "));

    // The same user acts as somebody without rights.
    let desk = UserHome::new();
    let eve = desk.path().join("eve");
    fs::write(&eve, fs::read_to_string(&admin).unwrap().replace("user: {client", "user: {as: eve, client")).unwrap();
    let refused = cluster.topology(&eve, &[]).expect(1).err;
    assert!(refused.contains("User \"eve\" cannot list") && refused.contains("clusterrolebinding"), "{refused}");
}
