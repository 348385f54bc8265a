//! `nodetrust topology --approve-removal`: what it writes, when it refuses, and that somebody else's write is not lost. The API server is
//! simulated; the real one is asked in `removals`.

use std::io::Read as _;

use super::*;

const SETS: &str = "/api/v1/namespaces/nodetrust/configmaps";
const NAME: &str = "nodetrust-approvals";

/// What the simulated server keeps.
#[derive(Default)]
struct ApprovalState {
    nodes: Vec<Value>,
    config_map: Option<Value>,
    version: u64,
    /// Before each of so many writes somebody else writes this.
    meanwhile: Vec<Value>,
    /// Writes are refused with this status.
    refuses: Option<u16>,
    /// Methods and paths that were asked.
    asked: Vec<String>,
}

/// A simulated API server with Nodes and one ConfigMap, which compares resource versions as a real one does.
struct ApprovalApi {
    state: Arc<Mutex<ApprovalState>>,
    desk: UserHome,
}

impl ApprovalApi {
    fn new(nodes: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(ApprovalState { nodes, ..ApprovalState::default() }));
        let served = state.clone();
        // The server ends with the test's process; a connection has one request.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some((method, target, body)) = receive(&stream) else { continue };
                let (status, answer) = served.lock().unwrap().answer(&method, &target, &body);
                let text = answer.to_string();
                let head = "Content-Type: application/json\r\nConnection: close\r\n";
                let _ = write!(&stream, "HTTP/1.1 {status} X\r\n{head}Content-Length: {}\r\n\r\n{text}", text.len());
            }
        });
        let desk = UserHome::new();
        fs::create_dir(desk.path().join(".kube")).unwrap();
        desk.kubeconfig(".kube/config", "prod-eu", &format!("http://127.0.0.1:{port}"));
        Self { state, desk }
    }

    fn change(&self, change: impl FnOnce(&mut ApprovalState)) {
        change(&mut self.state.lock().unwrap());
    }

    fn approve(&self, what: &str, more: &[&str]) -> Done {
        self.desk.topology(&[&["--approve-removal", what][..], more].concat())
    }

    /// The approvals that are kept, by fingerprint and the first digit of the set.
    fn kept(&self) -> Vec<(String, char)> {
        let state = self.state.lock().unwrap();
        let text = state.config_map.as_ref().and_then(|map| map["data"]["approvals.json"].as_str()).unwrap_or("{}");
        let document: Value = serde_json::from_str(text).unwrap();
        let word = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
        let entries = document["approvals"].as_array().into_iter().flatten();
        entries.map(|entry| (word(entry, "fingerprint"), word(entry, "desired").chars().next().unwrap())).collect()
    }

    fn writes(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|asked| !asked.starts_with("GET ")).cloned().collect()
    }
}

impl ApprovalState {
    fn answer(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let path = target.split('?').next().unwrap_or_default();
        self.asked.push(format!("{method} {path}"));
        let refusal = |code: u16| (code, json!({"kind": "Status", "code": code, "message": "a test says so"}));
        if method != "GET" {
            if let Some(code) = self.refuses {
                return refusal(code);
            }
            if let Some(other) = self.meanwhile.pop() {
                self.keep(other);
            }
        }
        match (method, path) {
            ("GET", "/api/v1/nodes") => (200, page(target, &self.nodes)),
            ("GET", path) if path == format!("{SETS}/{NAME}") => {
                self.config_map.clone().map_or_else(|| refusal(404), |map| (200, map))
            }
            ("POST", SETS) if self.config_map.is_some() => refusal(409),
            ("POST", SETS) => (201, self.keep(body.clone())),
            ("PUT", path) if path == format!("{SETS}/{NAME}") => match &self.config_map {
                None => refusal(404),
                Some(map) if map["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => refusal(409),
                Some(_) => (200, self.keep(body.clone())),
            },
            _ => refusal(404),
        }
    }

    /// Keeps an object in a new version.
    fn keep(&mut self, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.config_map.insert(object).clone()
    }
}

/// Method, target and body of a request.
fn receive(stream: &TcpStream) -> Option<(String, String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim_end().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    Some((words.next()?, words.next()?, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// An annotation with `OLD` in grace where the sources want the set of this digit.
fn in_grace(sources: char) -> String {
    let mut annotation: Value =
        serde_json::from_str(&says('e', &[(NEW, "desired"), (OLD, "grace"), (INSPECTION, "desired")])).unwrap();
    annotation["sourcesDigest"] = sources.to_string().repeat(64).into();
    annotation.to_string()
}

fn config_map(text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "labels": {"somebody": "else's"}}, "data": {
        "approvals.json": text, "other": "kept"}})
}

fn other_approval() -> Value {
    let entry = json!({"fingerprint": INSPECTION.0, "desired": "2".repeat(64), "time": "2026-11-30T00:00:00Z"});
    config_map(&json!({"version": 1, "approvals": [entry]}).to_string())
}

#[test]
fn a_simulated_fleet_that_holds_everything_is_approved_once() {
    let api = ApprovalApi::new(nodes("n", 3, Some(&in_grace('2'))));
    let done = api.approve("all", &[]).expect(0);
    assert!(done.out.starts_with("prod-eu   APPROVED   "), "{}", done.out);
    for part in ["Corp Root CA 2021 (1be0447c9d2f6a35)", "3 nodes", "2222222222222222"] {
        assert!(done.out.contains(part), "{part}: {}", done.out);
    }
    assert_eq!(api.kept(), [(OLD.0.to_owned(), '2')]);
    assert_eq!(api.writes(), [format!("POST {SETS}")]);
    // Again: nothing is written, by whatever name.
    for what in ["all", OLD.0] {
        let json = api.approve(what, &["-o", "json"]).expect(0).json();
        assert_eq!((&json["verdict"], &json["written"]), (&json!("approved"), &json!(false)), "{json:#}");
    }
    assert_eq!(api.writes().len(), 1);
    // It has left every node: its approval goes.
    api.change(|state| state.nodes = nodes("n", 3, Some(&says('2', &[(NEW, "desired"), (INSPECTION, "desired")]))));
    let done = api.approve("all", &[]).expect(0);
    assert!(done.out.starts_with("prod-eu   NOTHING TO APPROVE   "), "{}", done.out);
    assert_eq!((api.kept(), api.writes().len()), (Vec::new(), 2));
    api.approve("all", &[]).expect(0);
    assert_eq!(api.writes().len(), 2);
}

#[test]
fn a_simulated_fleet_with_a_node_that_lacks_the_new_ca_is_refused_and_the_node_named() {
    let mut all = nodes("new", 4, Some(&in_grace('2')));
    all.push(node("late", Some(&before())));
    all.push(node("bare", None));
    let api = ApprovalApi::new(all);
    let done = api.approve("all", &[]).expect(2);
    assert!(done.out.starts_with("prod-eu   REFUSED   "), "{}", done.out);
    for part in ["VIOLATION", "Corp Root CA 2026", "[late]", "[bare]", "different sets", "--force"] {
        assert!(done.out.contains(part), "{part}: {}", done.out);
    }
    assert_eq!(api.writes(), [""; 0]);
    let json = api.approve(OLD.0, &["-o", "json"]).expect(2).json();
    assert_eq!((&json["verdict"], &json["anchors"], &json["written"]), (&json!("refused"), &json!([]), &json!(false)));
    let kinds: Vec<&str> =
        json["blocking"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["grace-needed", "sources-differ", "no-agent"]);
    assert_eq!(json["blocking"][0]["nodes"]["names"], json!(["late"]));

    let forced = api.approve("all", &["--force"]).expect(0);
    assert!(forced.out.starts_with("prod-eu   APPROVED BY FORCE   "), "{}", forced.out);
    assert!(
        forced.out.contains("VIOLATION") && forced.out.contains("[late]"),
        "it says what it overrides: {}",
        forced.out
    );
    assert_eq!(api.kept(), [(OLD.0.to_owned(), '2')]);
}

#[test]
fn simulated_writes_of_others_are_kept_and_conflicts_are_tried_again() {
    let both = says('e', &[(NEW, "desired"), (OLD, "grace"), (INSPECTION, "grace")]);
    let mut both: Value = serde_json::from_str(&both).unwrap();
    both["sourcesDigest"] = "2".repeat(64).into();
    let api = ApprovalApi::new(nodes("n", 2, Some(&both.to_string())));
    // Somebody creates it, and then writes it again, between our read and our write.
    api.change(|state| state.meanwhile = vec![other_approval(), config_map("{\"version\": 1, \"approvals\": []}")]);
    api.approve(OLD.0, &[]).expect(0);
    let mut kept = api.kept();
    kept.sort();
    assert_eq!(kept, [(OLD.0.to_owned(), '2'), (INSPECTION.0.to_owned(), '2')]);
    assert_eq!(api.writes(), [format!("POST {SETS}"), format!("PUT {SETS}/{NAME}"), format!("PUT {SETS}/{NAME}")]);
    let object = api.state.lock().unwrap().config_map.clone().unwrap();
    assert_eq!(
        (&object["metadata"]["labels"], &object["data"]["other"]),
        (&json!({"somebody": "else's"}), &json!("kept"))
    );

    let api = ApprovalApi::new(nodes("n", 2, Some(&in_grace('2'))));
    api.change(|state| state.meanwhile = vec![config_map("{\"version\": 1, \"approvals\": []}"); 50]);
    let done = api.approve("all", &[]).expect(1);
    assert!(done.err.contains(NAME) && done.err.contains("somebody else wrote it"), "{}", done.err);
    assert_eq!(api.writes().len(), 5, "it gives up");
}

#[test]
fn simulated_damaged_approvals_are_written_anew() {
    for damaged in ["{", "{\"version\":9}"] {
        let api = ApprovalApi::new(nodes("n", 2, Some(&in_grace('2'))));
        api.change(|state| drop(state.keep(config_map(damaged))));
        let done = api.approve("all", &[]).expect(0);
        assert!(done.err.contains("written anew"), "{}", done.err);
        assert_eq!(api.kept(), [(OLD.0.to_owned(), '2')]);
    }
}

#[test]
fn simulated_refusals_of_a_write_say_what_to_do() {
    let api = ApprovalApi::new(nodes("n", 2, Some(&in_grace('2'))));
    for (code, part) in [(403, "components/approve-removals"), (401, "log in again"), (500, "try again")] {
        api.change(|state| state.refuses = Some(code));
        let done = api.approve("all", &[]).expect(1);
        let whole = done.out.is_empty() && !done.err.contains("secret-token");
        assert!(whole && done.err.contains(part) && done.err.contains(&code.to_string()), "{}", done.err);
    }
    for args in [
        &["topology", "--force"][..],
        &["topology", "--approve-removal", "0123"],
        &["topology", "--approve-removal"],
        &["topology", "--approve-removal", "all", "--namespace", "../x"],
    ] {
        api.desk.run(Path::new(crate::support::program()), args, &[]).expect(64);
    }
    let unknown = api.approve("0123456789abcdef", &[]).expect(2).out;
    assert!(unknown.starts_with("prod-eu   REFUSED   no node that reports has 0123456789abcdef"), "{unknown}");
}
