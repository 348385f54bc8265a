//! A simulated API server with one Node, which can fail in the ways that real ones do. The real one is in `cluster`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::mount::{MsFlags, mount};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};

use super::{must, node::Node, pki::Ca};

/// The node's name, as `Node` gives it to our program.
pub const NODE: &str = "node-under-test";
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// How the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// Answers as a real server.
    Good,
    /// Answers only when the manner changes.
    Slow,
    /// Answers with this status and these header lines.
    Refuses(u16, &'static str),
    /// Answers with this status where the path contains this text.
    RefusesAt(&'static str, u16),
    /// Answers with a body that is no JSON.
    Garbage,
    /// Answers with an HTML page, as a proxy may.
    Page,
    /// Answers with another node's object.
    OtherNode,
    /// Sends half an answer.
    Cut,
    /// Answers well, and drops what is written.
    Forgets,
    /// Answers well, but an admission policy refuses to remove a taint, with this status and message.
    KeepsTaints(u16, &'static str),
}

/// A request that was received.
#[derive(Debug, Clone)]
pub struct Request {
    /// `PATCH`, …
    pub method: String,
    /// With the query.
    pub path: String,
    /// How the program that asks calls itself.
    pub agent: String,
}

struct State {
    manner: Manner,
    token: String,
    /// how many more writes that name a version are refused as outdated
    conflicts: u32,
    node: Value,
    events: BTreeMap<String, Value>,
    requests: Vec<Request>,
}

/// A running server; it ends with the test's process.
pub struct SimulatedApi {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
    tls: Arc<ServerConfig>,
}

impl SimulatedApi {
    /// A server that does not listen yet, and a node whose agent will find it as a pod does.
    pub fn new(node: &mut Node) -> Self {
        // Nobody else listens on this address, so the port is free.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let ca = Ca::new("Cluster CA");
        let (cert, key) = ca.leaf("127.0.0.1");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        // Only this test's mount namespace has it.
        must("a tmpfs", mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755")));
        fs::create_dir_all(ACCOUNT).unwrap();
        fs::write(Path::new(ACCOUNT).join("ca.crt"), ca.pem()).unwrap();
        fs::write(Path::new(ACCOUNT).join("namespace"), "nodetrust").unwrap();
        node.environment.push(("KUBERNETES_SERVICE_HOST", address.ip().to_string()));
        node.environment.push(("KUBERNETES_SERVICE_PORT", address.port().to_string()));
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "uid": "1", "resourceVersion": "1", "annotations": {"somebody": "else's"}},
            "spec": {"podCIDR": "198.18.1.0/24", "taints": [{"key": "other", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
        });
        let state = State {
            manner: Manner::Good,
            token: String::new(),
            conflicts: 0,
            node: object,
            events: BTreeMap::new(),
            requests: Vec::new(),
        };
        let api = Self { address, state: Arc::new((Mutex::new(state), Condvar::new())), tls: Arc::new(tls) };
        api.token("first");
        api
    }

    /// The same server, listening.
    pub fn start(node: &mut Node) -> Self {
        let api = Self::new(node);
        api.listen();
        api
    }

    /// Begins to listen.
    pub fn listen(&self) {
        let listener = must("the server's port", TcpListener::bind(self.address));
        let (state, tls) = (self.state.clone(), self.tls.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (state.clone(), tls.clone());
                thread::spawn(move || serve(stream, &state, tls));
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers in this manner from now on.
    pub fn answer(&self, manner: Manner) {
        self.state().manner = manner;
        self.state.1.notify_all();
    }

    /// Takes this token from now on, and gives it to the pod as the kubelet does.
    pub fn token(&self, token: &str) {
        self.state().token = token.to_owned();
        let new = Path::new(ACCOUNT).join(".new");
        fs::write(&new, token).unwrap();
        fs::rename(new, Path::new(ACCOUNT).join("token")).unwrap();
    }

    /// The Node.
    pub fn node(&self) -> Value {
        self.state().node.clone()
    }

    /// Changes the Node as somebody else would.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        change(&mut state.node);
        bump(&mut state.node);
    }

    /// Has somebody else change the Node before each of so many writes that name its version.
    pub fn conflict(&self, times: u32) {
        self.state().conflicts = times;
    }

    /// The events.
    pub fn event_objects(&self) -> Vec<Value> {
        self.state().events.values().cloned().collect()
    }

    /// The reasons of the events, sorted.
    pub fn events(&self) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.state().events.values().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect();
        reasons.sort();
        reasons
    }

    /// What was received so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }
}

fn serve(stream: TcpStream, state: &(Mutex<State>, Condvar), tls: Arc<ServerConfig>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
    let Ok(connection) = ServerConnection::new(tls) else { return };
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    while let Some((request, headers, body)) = receive(&mut stream) {
        let (status, extra, text, cut) = answer(state, request, &headers, &body);
        let kind = if text.starts_with('<') { "text/html" } else { "application/json" };
        let length = if cut { text.len() * 2 } else { text.len() };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{extra}\r\n");
        let out = stream.get_mut();
        if out.write_all((head + &text).as_bytes()).and_then(|()| out.flush()).is_err() || cut {
            return;
        }
    }
}

fn receive(stream: &mut impl BufRead) -> Option<(Request, BTreeMap<String, String>, Value)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Request { method: words.next()?, path: words.next()?, agent: String::new() };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    request.agent = headers.get("user-agent").cloned().unwrap_or_default();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((request, headers, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Status, more header lines, body, and whether only half of it comes.
fn answer(
    state: &(Mutex<State>, Condvar),
    request: Request,
    headers: &BTreeMap<String, String>,
    body: &Value,
) -> (u16, String, String, bool) {
    let (lock, changed) = state;
    let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
    state.requests.push(request.clone());
    while state.manner == Manner::Slow {
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let plain = |status: u16, text: String| (status, String::new(), text, false);
    let refusal = |status: u16, why: &str| {
        plain(status, json!({"kind": "Status", "status": "Failure", "message": why, "code": status}).to_string())
    };
    if headers.get("authorization") != Some(&format!("Bearer {}", state.token)) {
        return refusal(401, "Unauthorized");
    }
    match state.manner.clone() {
        Manner::Refuses(status, headers) => {
            let (status, _, text, _) = refusal(status, "a test says so");
            return (status, headers.to_owned(), text, false);
        }
        Manner::RefusesAt(part, status) if request.path.contains(part) => return refusal(status, "a test says so"),
        Manner::Garbage => return plain(200, "\u{1}{{{".into()),
        Manner::Page => return plain(200, "<html><body>Please log in</body></html>".into()),
        Manner::OtherNode => return plain(200, json!({"metadata": {"name": "somebody"}}).to_string()),
        Manner::Cut => return (200, String::new(), "{\"metadata\":".into(), true),
        Manner::Forgets => return plain(200, state.node.to_string()),
        Manner::KeepsTaints(status, why) if body["spec"]["taints"].is_array() => return refusal(status, why),
        Manner::Good | Manner::Slow | Manner::RefusesAt(..) | Manner::KeepsTaints(..) => {}
    }
    let content_type = headers.get("content-type").map(String::as_str);
    let path = request.path.split('?').next().unwrap_or_default();
    let own = format!("/api/v1/nodes/{NODE}");
    match (request.method.as_str(), path.strip_prefix(&own)) {
        ("GET", Some("")) => plain(200, state.node.to_string()),
        ("PATCH", Some("/status")) if content_type == Some("application/strategic-merge-patch+json") => {
            let conditions = state.node["status"]["conditions"].as_array_mut().unwrap();
            for new in body["status"]["conditions"].as_array().into_iter().flatten() {
                conditions.retain(|known| known["type"] != new["type"]);
                conditions.push(new.clone());
            }
            bump(&mut state.node);
            plain(200, state.node.to_string())
        }
        ("PATCH", Some("")) if content_type == Some("application/merge-patch+json") => {
            let version = &body["metadata"]["resourceVersion"];
            if !version.is_null() && state.conflicts > 0 {
                state.conflicts -= 1;
                bump(&mut state.node);
            }
            if !version.is_null() && *version != state.node["metadata"]["resourceVersion"] {
                return refusal(409, "the object has been modified");
            }
            for (key, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
                state.node["metadata"]["annotations"][key] = value.clone();
            }
            if body["spec"]["taints"].is_array() {
                state.node["spec"]["taints"] = body["spec"]["taints"].clone();
            }
            bump(&mut state.node);
            plain(200, state.node.to_string())
        }
        ("POST", None) if path == "/api/v1/namespaces/default/events" => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if state.events.contains_key(&name) {
                return refusal(409, "already exists");
            }
            state.events.insert(name, body.clone());
            plain(201, body.to_string())
        }
        _ => refusal(404, "not found"),
    }
}

/// Another version of the object.
fn bump(node: &mut Value) {
    let version: u64 = node["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    node["metadata"]["resourceVersion"] = (version + 1).to_string().into();
}
