//! HTTP: what is served, what is refused, and that no client can hold the agent up.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    agent::fast,
    support::{
        node::{Kind, Node, NodeAgent},
        pki::Ca,
        process::Running,
        served::AgentHttp,
        wait_for,
    },
};

const LIMIT: Duration = Duration::from_secs(240);

/// Status, head and body of one exchange.
struct HttpAnswer {
    code: u16,
    head: String,
    body: String,
}

fn connect(agent: &NodeAgent) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", agent.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends bytes as they are and reads to the end of the connection; None if there was no answer.
fn exchange(agent: &NodeAgent, request: &[u8]) -> Option<HttpAnswer> {
    let mut stream = connect(agent);
    let _ = stream.write_all(request); // the agent may refuse it before all of it is sent
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some(HttpAnswer { code, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

#[track_caller]
fn ask(agent: &NodeAgent, method: &str, path: &str) -> HttpAnswer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(agent, request.as_bytes()).expect("an answer")
}

fn converged(kind: Kind, name: &str) -> (Node, NodeAgent, Ca) {
    let node = Node::new(kind, "");
    let ca = Ca::new(name);
    node.set_source(&[&ca]);
    let agent = node.agent(&fast("1h"));
    agent.wait_converged(&[&ca], LIMIT);
    (node, agent, ca)
}

#[test]
fn every_path_answers_as_promised() {
    let (_node, agent, ca) = converged(Kind::Trixie, "Corp <script>alert(1)</script> & Sons");
    let paths = [
        ("/livez", "text/plain", "ok\n"),
        ("/readyz", "text/plain", "ok\n"),
        ("/metrics", "text/plain; version=0.0.4", "\nnodetrust_converged 1"),
        ("/status", "application/json", "\"converged\": true"),
        ("/", "text/html", "TRUSTED"),
    ];
    for (path, kind, content) in paths {
        let get = ask(&agent, "GET", path);
        assert_eq!(get.code, 200, "{path}");
        assert!(
            get.head.contains(&format!("content-type: {kind}")) && get.body.contains(content),
            "{path}: {}",
            get.head
        );
        // A query does not change the path.
        assert_eq!(ask(&agent, "GET", &format!("{path}?x=1")).code, 200);
        let head = ask(&agent, "HEAD", path);
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
        assert!(head.head.contains(&format!("content-type: {kind}")), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let refused = ask(&agent, method, path);
            assert_eq!(refused.code, 405, "{method} {path}");
            assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
        }
    }
    for path in ["/nothing", "/status/", "/metrics/x", "/../etc/passwd", "//"] {
        let missing = ask(&agent, "GET", path);
        assert_eq!(missing.code, 404, "{path}");
        assert!(missing.body.contains("/metrics"), "it says what there is: {}", missing.body);
    }
    // The owner of a CA chooses its name, so the page shows it and does not run it.
    let page = ask(&agent, "GET", "/").body;
    assert!(!page.contains("<script>") && page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(page.contains(&ca.fp16()) && page.starts_with("<!doctype html>"));
    let head = ask(&agent, "GET", "/").head;
    for header in [
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    // The page has the report that the command prints.
    let status: serde_json::Value = serde_json::from_str(&ask(&agent, "GET", "/status").body).unwrap();
    assert_eq!(status["anchors"][0]["sha256"], ca.sha256());
    assert_eq!(status["version"], 1);
}

/// What a person sees at night: the answer, why, where, and what to do, with no script and nothing from elsewhere.
#[test]
fn the_page_says_what_is_wrong_and_stays_small_with_five_hundred_anchors() {
    let node = Node::new(Kind::Trixie, "");
    let cas: Vec<Ca> = (0..500).map(|n| Ca::new(&format!("Corp Issuing CA number {n} <b>\"'&"))).collect();
    let all: Vec<&Ca> = cas.iter().collect();
    node.set_source(&all);
    fs::write(node.source.join("broken.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let agent = node.agent(&format!("{}probes: [{{target: \"127.0.0.1:1\"}}]\n", fast("1h")));
    agent.wait_converged(&all, LIMIT);
    let page = wait_for("the probe", LIMIT, || {
        Some(ask(&agent, "GET", "/").body).filter(|page| page.contains("<h2>Probes</h2>"))
    });
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    for ca in [&cas[0], &cas[499]] {
        assert!(page.contains(&ca.fp16()), "{page}");
    }
    for content in [
        "TRUSTED, WITH FINDINGS",
        "<h2>Next</h2>",
        "<h2>Sources</h2>",
        "<h2>Rejected</h2>",
        "broken.pem",
        "<h2>Anchors</h2>",
        "<h2>Store and runtime</h2>",
        "not-reached",
        "<h2>Last cycle</h2>",
    ] {
        assert!(page.contains(content), "{content}: {page}");
    }
    for loads in ["<script", "<b>\"", "src=", "url(", "@import", "http://", "https://"] {
        assert!(!page.contains(loads), "{loads}");
    }
    // While nothing changes the ages grow: they are made at the request.
    let looked = |page: &str| page.split("looked at ").nth(1).unwrap().split(" (").next().unwrap().to_owned();
    let first = looked(&ask(&agent, "GET", "/").body);
    wait_for("another age", LIMIT, || Some(looked(&ask(&agent, "GET", "/").body)).filter(|age| *age != first));
}

#[test]
fn metrics_are_in_the_format_that_was_asked_for() {
    let (_node, agent, _ca) = converged(Kind::Trixie, "Corp Root");
    let with = |accept: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{accept}\r\n");
        exchange(&agent, request.as_bytes()).unwrap().head
    };
    let open = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(with("Accept: application/openmetrics-text; version=1.0.0\r\n").contains(open));
    assert!(with("Accept: text/plain;q=0.2\r\nAccept: application/openmetrics-text\r\n").contains(open));
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain\r\n"] {
        assert!(with(accept).contains("content-type: text/plain; version=0.0.4"), "{accept}");
    }
}

#[test]
fn readiness_waits_for_the_first_verified_cycle_and_stays() {
    let node = Node::new(Kind::Trixie, "");
    let (one, two) = (Ca::new("Corp Root"), Ca::new("Inspection CA"));
    node.set_source(&[&one]);
    // The test holds the lock, as another cycle would.
    fs::create_dir_all(node.path("/run")).unwrap();
    let file = fs::File::create(node.path("/run/nodetrust.lock")).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    let agent = node.agent(&fast("1h"));
    wait_for("the server", LIMIT, || agent.get("/livez").filter(|(code, _)| *code == 200));
    for path in ["/readyz", "/status"] {
        let answer = ask(&agent, "GET", path);
        assert_eq!((answer.code, answer.body.as_str()), (503, "no cycle has ended yet\n"), "{path}");
    }
    assert!(ask(&agent, "GET", "/").body.contains("no cycle has ended yet"));
    assert!(ask(&agent, "GET", "/metrics").body.contains("nodetrust_build_info"));
    assert!(!node.trusts(&one));
    drop(lock);
    agent.wait_converged(&[&one], LIMIT);
    assert_eq!(ask(&agent, "GET", "/readyz").code, 200);

    let tool = node.path("/usr/sbin/update-ca-certificates");
    let real = fs::read(&tool).unwrap();
    fs::write(&tool, "#!/bin/sh\necho simulated failure; exit 1\n").unwrap();
    node.set_source(&[&two]);
    let status = agent.wait_status("the failure", LIMIT, |status| status["converged"] == false);
    assert!(status["headline"].as_str().unwrap().contains("simulated failure"), "it says why: {status:#}");
    // A Service keeps the metrics of a node that got worse.
    assert_eq!(ask(&agent, "GET", "/readyz").code, 200);
    assert_eq!(agent.metric("nodetrust_converged"), Some(0.0));
    assert_eq!(ask(&agent, "GET", "/livez").code, 200, "a restart of the agent would not help");
    assert_eq!(ask(&agent, "GET", "/status").code, 200);
    fs::write(&tool, real).unwrap();
    agent.wait_converged(&[&one, &two], LIMIT);
}

/// A rollout, or `helm --wait`, must not be told that a node is done on which a source has yet to speak.
#[test]
fn readiness_waits_for_a_source_that_has_never_given_an_anchor_on_this_node() {
    let node = Node::new(Kind::Trixie, "");
    let (ca, late) = (Ca::new("Corp Root"), Ca::new("Late"));
    // The volume is empty, as of a ConfigMap that does not exist yet.
    let later = node.beside("sources/later");
    fs::create_dir_all(later.join("..2026")).unwrap();
    symlink("..2026", later.join("..data")).unwrap();
    let start = |sources: &str| {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        node.configure(&format!("{sources}\nhttp: {{address: \"127.0.0.1:{port}\"}}\n{}", fast("1h")));
        let running = Running(node.command(&["run"]).stderr(Stdio::null()).spawn().unwrap());
        (running, AgentHttp::new(move || TcpStream::connect(("127.0.0.1", port)), String::new))
    };
    let state = |status: &serde_json::Value, name: &str| {
        let sources = status["sources"].as_array().unwrap();
        sources.iter().find(|row| row["name"] == name).map(|row| row["status"].as_str().unwrap().to_owned())
    };
    let wait = |agent: &AgentHttp, name: &str, wanted: &str| {
        let is_there = |status: &serde_json::Value| state(status, name).as_deref() == Some(wanted);
        agent.wait_status(&format!("{name} {wanted}"), LIMIT, is_there);
    };
    let ready = |agent: &AgentHttp| agent.get("/readyz").unwrap();
    let later_at = |more: &str| format!("- {{name: later, path: {}{more}}}", later.display());

    // The source is missing at first and comes later: the agent becomes ready by itself.
    let (running, agent) = start("");
    wait(&agent, "org", "failed");
    let (code, why) = ready(&agent);
    assert!(code == 503 && why.contains("source org has never given an anchor"), "{code} {why}");
    node.set_source(&[&ca]);
    agent.wait_converged(&[&ca], LIMIT);
    assert_eq!(ready(&agent).0, 200);

    // A ready agent gets one more source: its metrics report it, and the agent stays in its Service.
    node.configure(&format!("{}\n{}", later_at(""), fast("1h")));
    wait(&agent, "later", "failed");
    assert_eq!((ready(&agent).0, agent.metric("nodetrust_source_up{source=\"later\"}")), (200, Some(0.0)));
    drop(running);

    // A new agent waits for it, although the other source has converged, unless the source is optional.
    let (running, agent) = start(&later_at(""));
    wait(&agent, "later", "failed");
    let (code, why) = ready(&agent);
    assert!(code == 503 && why.contains("source later has never") && why.contains("projected volume"), "{code} {why}");
    drop(running);
    let (running, agent) = start(&later_at(", optional: true"));
    wait(&agent, "later", "failed");
    assert_eq!(ready(&agent).0, 200);
    drop(running);

    // It gives anchors once. When it is silent again they are held, and a new agent waits for nothing.
    fs::write(later.join("..2026/ca.crt"), late.pem()).unwrap();
    let (running, agent) = start(&later_at(""));
    agent.wait_converged(&[&ca, &late], LIMIT);
    assert_eq!(ready(&agent).0, 200);
    drop(running);
    fs::remove_file(later.join("..2026/ca.crt")).unwrap();
    let (_running, agent) = start(&later_at(""));
    wait(&agent, "later", "held");
    assert_eq!(ready(&agent).0, 200);
}

#[test]
fn no_client_holds_the_server_up() {
    let (_node, agent, _ca) = converged(Kind::Trixie, "Corp Root");
    // One hundred connections at a time.
    thread::scope(|scope| {
        let asked: Vec<_> = (0..100).map(|_| scope.spawn(|| ask(&agent, "GET", "/status").code)).collect();
        for answer in asked {
            assert_eq!(answer.join().unwrap(), 200);
        }
    });
    // A head beyond the limit.
    let huge = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(64 << 10));
    let refused = exchange(&agent, huge.as_bytes());
    assert!(refused.as_ref().is_none_or(|answer| (400..500).contains(&answer.code)), "a huge head was taken");
    // Bytes that are no HTTP.
    let garbage = exchange(&agent, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
    assert!(garbage.is_none_or(|answer| answer.code == 400));
    // A body that the agent does not read.
    let body = exchange(
        &agent,
        b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123456789",
    );
    assert_eq!(body.unwrap().code, 405);

    // Silent connections, and one that stays after its answer, are closed. Then others are served again.
    let started = Instant::now();
    let mut idle = connect(&agent);
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut silent: Vec<TcpStream> = (0..80).map(|_| connect(&agent)).collect();
    silent[0].write_all(b"GET /livez HT").unwrap();
    let answer = ask(&agent, "GET", "/livez");
    assert_eq!(answer.code, 200, "served although 80 others say nothing, after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    for stream in &mut silent[..60] {
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        assert!(closed.is_ok() || rest.is_empty(), "a silent connection is closed: {closed:?}");
    }
    let mut rest = String::new();
    idle.read_to_string(&mut rest).expect("an idle connection is closed");
    assert!(rest.starts_with("HTTP/1.1 200"), "{rest}");
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

/// The certificate that the agent shows, by the machine's own OpenSSL, and whether it verifies against this CA.
fn shown(node: &Node, port: u16, ca: &Ca) -> (String, bool) {
    let file = node.beside("trusted.pem");
    fs::write(&file, ca.pem()).unwrap();
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "agent.test"])
        .args(["-verify_hostname", "agent.test", "-verify_return_error", "-CAfile"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text.find("-----BEGIN CERTIFICATE-----").unwrap_or(0);
    let end = text.find("-----END CERTIFICATE-----").unwrap_or(0);
    (text[begin..end].trim().to_owned(), output.status.success() && text.contains("Verify return code: 0"))
}

#[test]
fn https_follows_a_renewed_certificate() {
    let node = Node::new(Kind::Trixie, "");
    let (ca, issuer, next) = (Ca::new("Corp Root"), Ca::new("Issuer 1"), Ca::new("Issuer 2"));
    node.set_source(&[&ca]);
    let (cert, key) = (node.beside("config/tls.crt"), node.beside("config/tls.key"));
    let install = |(new_cert, new_key): (String, String)| {
        for (path, text) in [(&cert, new_cert), (&key, new_key)] {
            let temp = path.with_extension("new");
            fs::write(&temp, text).unwrap();
            fs::rename(temp, path).unwrap();
        }
    };
    install(issuer.leaf("agent.test"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tls = format!("{{certFile: {}, keyFile: {}}}", cert.display(), key.display());
    node.configure(&format!("http: {{address: \"127.0.0.1:{port}\", tls: {tls}}}\n{}", fast("1h")));
    let running = Running(node.command(&["run"]).stderr(Stdio::null()).spawn().unwrap());
    {
        let first = wait_for("HTTPS", LIMIT, || Some(shown(&node, port, &issuer)).filter(|(_, verified)| *verified)).0;
        assert!(!shown(&node, port, &next).1);
        // A renewal is half done: the certificate is new, the key is old.
        let (new_cert, new_key) = next.leaf("agent.test");
        fs::write(&cert, &new_cert).unwrap();
        assert_eq!(shown(&node, port, &issuer), (first.clone(), true), "the old pair serves until the new one fits");
        install((new_cert, new_key));
        let (second, verified) = shown(&node, port, &next);
        assert!(verified && second != first, "the renewed certificate is shown to the next client");
        // A client that does not speak TLS gets no plain text.
        let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
        plain.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        let _ = plain.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&bytes));
    }
    drop(running);

    // A certificate file without an end makes the agent neither wait nor grow.
    for odd in ["/dev/zero", "/dev/tty", "/proc/kmsg"] {
        let tls = format!("{{certFile: {odd}, keyFile: {}}}", key.display());
        node.configure(&format!("http: {{address: \"127.0.0.1:{port}\", tls: {tls}}}\n{}", fast("1h")));
        let done = node.nodetrust(&["run"]).expect(1);
        assert!(done.err.contains(odd) && done.err.contains("http.tls"), "{}", done.err);
    }
    node.configure(&format!("http: {{address: \"127.0.0.1:{port}\", tls: {tls}}}\n{}", fast("1h")));

    // Files that are no pair are refused at the start, and the error does not quote the key.
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----\n").unwrap();
    let done = node.nodetrust(&["run"]).expect(1);
    assert!(done.err.contains("tls.key") && done.err.contains("http.tls.keyFile"), "{}", done.err);
    assert!(!done.err.contains("SECRET"), "{}", done.err);
}

/// What curl gets from the agent over HTTPS, with a client certificate or none: the status, 0 if there was no answer.
fn asked(port: u16, ca: &Path, client: Option<(&Path, &Path)>, path: &str) -> u16 {
    let mut command = Command::new("curl");
    command.args([
        "-q",
        "-s",
        "--noproxy",
        "*",
        "--max-time",
        "20",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ]);
    command.args(["--resolve", &format!("agent.test:{port}:127.0.0.1"), "--cacert"]).arg(ca);
    if let Some((cert, key)) = client {
        command.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    let output = command.arg(format!("https://agent.test:{port}{path}")).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
}

#[test]
fn a_ca_of_clients_lets_its_own_in_and_the_kubelet_ask_whether_the_agent_lives() {
    let node = Node::new(Kind::Trixie, "");
    let (ca, issuer, clients, others) =
        (Ca::new("Corp Root"), Ca::new("Issuer"), Ca::new("Scrapers"), Ca::new("Other Scrapers"));
    node.set_source(&[&ca]);
    let write = |name: &str, text: String| {
        let path = node.beside(&format!("config/{name}"));
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        path
    };
    let pair = |name: &str, (cert, key): (String, String)| {
        (write(&format!("{name}.crt"), cert), write(&format!("{name}.key"), key))
    };
    let client = |name: &str, ca: &Ca| {
        let usage = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
        pair(name, ca.leaf_with(name, |params| params.extended_key_usages = vec![usage]))
    };
    let (cert, key) = pair("tls", issuer.leaf("agent.test"));
    let issuer = write("issuer.pem", issuer.pem());
    let client_ca = write("clients.pem", clients.pem());
    let (good, other) = (client("prometheus", &clients), client("other", &others));
    let server_only = pair("server", clients.leaf("server"));
    let (good, other, server_only) =
        [&good, &other, &server_only].map(|(cert, key)| Some((cert.as_path(), key.as_path()))).into();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let files = [&cert, &key, &client_ca].map(|path| path.display().to_string());
    let tls = format!("{{certFile: {}, keyFile: {}, clientCAFile: {}}}", files[0], files[1], files[2]);
    node.configure(&format!("http: {{address: \"127.0.0.1:{port}\", tls: {tls}}}\n{}", fast("1h")));
    let running = Running(node.command(&["run"]).stderr(Stdio::null()).spawn().unwrap());
    // The kubelet shows no certificate.
    wait_for("/readyz", LIMIT, || (asked(port, &issuer, None, "/readyz") == 200).then_some(()));
    assert_eq!(asked(port, &issuer, None, "/livez"), 200);
    for path in ["/metrics", "/status", "/", "/nothing"] {
        assert_eq!(asked(port, &issuer, None, path), 403, "{path}");
        assert_eq!(asked(port, &issuer, good, path), if path == "/nothing" { 404 } else { 200 }, "{path}");
        // A shown certificate must be valid: one of another CA or of a server is refused.
        assert_eq!(asked(port, &issuer, other, path), 0, "{path}");
        assert_eq!(asked(port, &issuer, server_only, path), 0, "{path}");
    }
    // The agent follows a new CA of clients.
    write("clients.pem", others.pem());
    assert_eq!((asked(port, &issuer, good, "/status"), asked(port, &issuer, other, "/status")), (0, 200));
    // A file that is no CA leaves the last CA in force.
    write("clients.pem", "no certificate".to_owned());
    assert_eq!((asked(port, &issuer, None, "/status"), asked(port, &issuer, other, "/status")), (403, 200));
    drop(running);
    let done = node.nodetrust(&["run"]).expect(1);
    assert!(done.err.contains("clients.pem") && done.err.contains("http.tls.clientCAFile"), "{}", done.err);
}

/// Clients that ask without an end and read nothing: each is given up, and its peer's slots are free for others.
#[test]
fn a_client_that_does_not_read_is_given_up() {
    let (_node, agent, _ca) = converged(Kind::Trixie, "Corp Root");
    let requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let mut greedy: Vec<TcpStream> = (0..40).map(|_| connect(&agent)).collect();
    for stream in &greedy {
        stream.set_nonblocking(true).unwrap();
    }
    // Sends until the agent takes no more; returns whether the connection has ended.
    let has_ended = |stream: &mut TcpStream| loop {
        match stream.write_all(&requests) {
            Ok(()) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    wait_for("the end of each of them", LIMIT, || {
        assert_eq!(ask(&agent, "GET", "/livez").code, 200);
        greedy.retain_mut(|stream| !has_ended(stream));
        greedy.is_empty().then_some(())
    });
    assert_eq!(ask(&agent, "GET", "/status").code, 200);
}
