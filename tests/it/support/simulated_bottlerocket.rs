//! A simulated Bottlerocket: the endpoints of its API that concern `settings.pki`, as facts A.13 gives them, over a real unix socket; and
//! a stand-in for certdog, which makes the bundle from the system's own and the settings.
//!
//! Simulated: all of it. Its data store, its other settings and SELinux are not there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{fd::AsRawFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use data_encoding::BASE64;
use nodetrust_core::certificate::{
    fingerprint::Fingerprint,
    pem::{encode, scan},
};
use serde_json::{Map, Value, json};

use super::must;

/// Its os-release, as far as it matters.
pub const OS_RELEASE: &str =
    "ID=bottlerocket\nVERSION_ID=1.32.0\nVARIANT_ID=aws-k8s-1.31\nPRETTY_NAME=\"Bottlerocket OS\"\n";
/// The bundle.
pub const BUNDLE: &str = "etc/pki/tls/certs/ca-bundle.crt";
/// The API's socket.
const SOCKET: &str = "run/api.sock";
/// Between the answer to a commit and the new bundle: the API does not wait for certdog.
const LATER: Duration = Duration::from_millis(300);
/// Between two parts of the bundle as it is written.
const WRITING: Duration = Duration::from_millis(100);

type Pki = Map<String, Value>;

#[derive(Default)]
struct SettingsState {
    live: Pki,
    pending: BTreeMap<String, Pki>,
    /// Requests that change something, in order.
    changes: Vec<String>,
    /// Requests that begin so are refused.
    refuses: Option<&'static str>,
}

/// The API of a node whose root this is.
pub struct SimulatedBottlerocket {
    root: PathBuf,
    state: Arc<Mutex<SettingsState>>,
    certdog: Arc<dyn Fn(&Pki) + Send + Sync>,
}

impl SimulatedBottlerocket {
    /// Serves the API in a root that has a bundle; after each change of the bundle `restart` is called.
    #[track_caller]
    pub fn serve(root: &Path, restart: impl Fn() + Send + Sync + 'static) -> Self {
        let bundle = root.join(BUNDLE);
        let factory = must("the system's own bundle", fs::read(&bundle));
        let certdog = Arc::new(move |pki: &Pki| {
            // in place, as certdog does: who looks meanwhile sees a part of it
            let text = made_of(&factory, pki);
            for part in [&[], &text[..text.len() / 2], &text] {
                must("the bundle", fs::write(&bundle, part));
                thread::sleep(WRITING);
            }
            restart();
        });
        let server = Self { root: root.to_owned(), state: Arc::default(), certdog };
        server.listen();
        server
    }

    fn listen(&self) {
        let dir = must("/run", File::open(self.root.join("run")));
        let listener = must("a socket", UnixListener::bind(format!("/proc/self/fd/{}/api.sock", dir.as_raw_fd())));
        let (state, certdog) = (Arc::clone(&self.state), Arc::clone(&self.certdog));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let Some((method, path, body)) = read_request(&mut reader) else { continue };
                let (status, answer) = answer(&state, &certdog, &method, &path, &body);
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
                let _ = reader.get_mut().write_all((head + &answer).as_bytes()); // the client may have gone
            }
        });
    }

    /// Takes the socket away, as where the host's /run is not there.
    pub fn hide_socket(&self) {
        fs::remove_file(self.root.join(SOCKET)).unwrap();
    }

    /// `settings.pki` as it is in force.
    pub fn live(&self) -> BTreeMap<String, Value> {
        self.state.lock().unwrap().live.clone().into_iter().collect()
    }

    /// Sets an entry by other means, as user data or another client.
    pub fn set(&self, name: &str, pem: &str, trusted: bool) {
        let mut state = self.state.lock().unwrap();
        state.live.insert(name.into(), json!({ "data": BASE64.encode(pem.as_bytes()), "trusted": trusted }));
        (self.certdog)(&state.live);
    }

    /// Leaves a setting in a transaction, as a client that was killed.
    pub fn leave_pending(&self, transaction: &str, name: &str, pem: &str) {
        let entry = json!({ "data": BASE64.encode(pem.as_bytes()), "trusted": true });
        self.state.lock().unwrap().pending.entry(transaction.into()).or_default().insert(name.into(), entry);
    }

    /// What is pending, by transaction.
    pub fn pending(&self) -> Vec<String> {
        self.state.lock().unwrap().pending.keys().cloned().collect()
    }

    /// Refuses requests that begin so, or none.
    pub fn refuse(&self, request: Option<&'static str>) {
        self.state.lock().unwrap().refuses = request;
    }

    /// The requests since the last call that change something.
    pub fn take_changes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().changes)
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, String, Vec<u8>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let length = lines.iter().filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.filter_map(|(_, value)| value.trim().parse().ok()).next().unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, body))
}

fn answer(
    state: &Mutex<SettingsState>,
    certdog: &Arc<dyn Fn(&Pki) + Send + Sync>,
    method: &str,
    path: &str,
    body: &[u8],
) -> (&'static str, String) {
    let mut state = state.lock().unwrap();
    let request = format!("{method} {path}");
    if method != "GET" {
        state.changes.push(request.clone());
    }
    if state.refuses.is_some_and(|refused| request.starts_with(refused)) {
        return ("500 Internal Server Error", "datastore error: no space left".into());
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let transaction = query.strip_prefix("tx=").unwrap_or("default").to_owned();
    match (method, path) {
        ("GET", "/settings") if query == "prefix=pki" => {
            let pki = &state.live;
            ("200 OK", if pki.is_empty() { "{}".into() } else { json!({ "pki": pki }).to_string() })
        }
        ("PATCH", "/settings") => {
            let Some(entries) =
                serde_json::from_slice::<Value>(body).ok().and_then(|body| body["pki"].as_object().cloned())
            else {
                return ("400 Bad Request", "Json deserialize error".into());
            };
            state.pending.entry(transaction).or_default().extend(entries);
            ("204 No Content", String::new())
        }
        ("DELETE", "/tx") => {
            let dropped: Vec<String> = state.pending.remove(&transaction).unwrap_or_default().keys().cloned().collect();
            ("200 OK", json!(dropped).to_string())
        }
        ("POST", "/tx/commit_and_apply") => {
            let pending = state.pending.remove(&transaction).unwrap_or_default();
            let changed: Pki =
                pending.into_iter().filter(|(name, entry)| state.live.get(name) != Some(entry)).collect();
            if changed.is_empty() {
                return ("422 Unprocessable Entity", "Commit requested for transaction with no pending changes".into());
            }
            let keys: Vec<String> = changed.keys().map(|name| format!("settings.pki.{name}.data")).collect();
            state.live.extend(changed);
            let (live, certdog) = (state.live.clone(), Arc::clone(certdog));
            thread::spawn(move || {
                thread::sleep(LATER);
                certdog(&live);
            });
            ("200 OK", json!(keys).to_string())
        }
        _ => ("404 Not Found", String::new()),
    }
}

/// The system's own certificates without those that an entry distrusts, and those of the other entries.
fn made_of(factory: &[u8], pki: &Pki) -> Vec<u8> {
    let ders = |pem: &[u8]| -> Vec<Vec<u8>> { scan(pem).blocks.into_iter().map(|block| block.der).collect() };
    let data = |entry: &Value| BASE64.decode(entry["data"].as_str().unwrap_or_default().as_bytes()).unwrap_or_default();
    let of = |trusted: bool| {
        let entries = pki.values().filter(move |entry| (entry["trusted"] == true) == trusted);
        entries.flat_map(|entry| ders(&data(entry))).collect::<Vec<_>>()
    };
    let distrusted: Vec<Fingerprint> = of(false).iter().map(|der| Fingerprint::of_der(der)).collect();
    let kept = ders(factory).into_iter().chain(of(true));
    kept.filter(|der| !distrusted.contains(&Fingerprint::of_der(der)))
        .flat_map(|der| encode(&der).into_bytes())
        .collect()
}
