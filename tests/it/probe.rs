//! `nodetrust probe` and the agent's own probes: real TLS servers of OpenSSL, and a real distribution's bundle.
//!
//! Long because the servers that it makes are needed by nearly all of its tests.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::mount::{MsFlags, mount};
use rcgen::date_time_ymd;
use serde_json::Value;

use crate::{
    agent::fast,
    support::{
        machine::{self, Machine},
        node::{Done, Kind, Node},
        pki::Ca,
        wait_for,
    },
};

const LIMIT: Duration = Duration::from_secs(120);

/// `openssl s_server` on a free port of the loopback; it is ended with the test.
pub struct TlsServer {
    child: Child,
    port: u16,
}

impl TlsServer {
    /// Serves a certificate with its key, followed by a chain.
    fn new(node: &Node, leaf: (String, String), chain: &[&Ca], more: &[&str]) -> Self {
        Self::of(node, &leaf.0, &leaf.1, &chain.iter().map(|ca| ca.pem()).collect::<String>(), more)
    }

    /// The same with all of it in PEM.
    pub fn of(node: &Node, leaf: &str, key_pem: &str, chain: &str, more: &[&str]) -> Self {
        let dir = tempfile::TempDir::new_in(node.beside("")).unwrap().keep();
        let (cert, key, above) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("chain.pem"));
        fs::write(&cert, leaf).unwrap();
        fs::write(&key, key_pem).unwrap();
        fs::write(&above, chain).unwrap();
        let mut command = Command::new("openssl");
        command.args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-www",
            "-no-CAfile",
            "-no-CApath",
            "-no-CAstore",
            "-cert",
        ]);
        command.arg(cert).arg("-key").arg(key).args(more);
        if !chain.is_empty() {
            command.arg("-cert_chain").arg(above);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().ok())
            .expect("s_server tells its port");
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop)); // the server must not block on a full pipe
        Self { child, port }
    }

    /// Whether the node's own OpenSSL would trust this server under this name.
    pub fn openssl_trusts(&self, node: &Node, name: &str) -> bool {
        let address = format!("127.0.0.1:{}", self.port);
        let mut client = node.chroot(&["openssl", "s_client", "-connect", &address, "-verify_return_error"]);
        let check = if name.parse::<std::net::IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
        client.args([check, name, "-CAfile", node.kind.bundle(), "-no-CApath", "-no-CAstore"]);
        let output = client.output().unwrap();
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Verify return code: 0")
    }

    pub fn target(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node whose bundle has these CAs beside the distribution's.
fn node(cas: &[&Ca]) -> Node {
    let node = Node::new(Kind::Bookworm, "rotation: {removalGrace: 1h}");
    node.set_source(cas);
    node.nodetrust(&["apply"]).expect(0);
    node
}

/// The one answer as JSON, after the exit code.
#[track_caller]
fn ask(node: &Node, code: i32, args: &[&str]) -> Value {
    let done = node.nodetrust(&[&["probe", "-o", "json"], args].concat()).expect(code);
    let answer = done.json();
    assert_eq!(answer["trusted"], code == 0);
    answer["probes"][0].clone()
}

/// Checks that the probe refuses for this reason, with all of these words.
#[track_caller]
fn refused(node: &Node, target: &str, verdict: &str, reason: &str, words: &[&str]) -> Value {
    let answer = ask(node, 2, &[target]);
    assert_eq!((&answer["verdict"], &answer["reason"]), (&verdict.into(), &reason.into()), "{answer:#}");
    let all = answer.to_string();
    for word in words {
        assert!(all.contains(word), "`{word}` is not in {answer:#}");
    }
    assert!(answer["next"].as_array().is_some_and(|next| !next.is_empty()), "{answer:#}");
    answer
}

#[test]
fn a_server_of_an_installed_ca_is_trusted() {
    let corp = Ca::new("Corp Root CA");
    let issuing = corp.below("Corp Issuing CA");
    let node = node(&[&corp]);
    let (plain, chained) = (
        TlsServer::new(&node, corp.leaf("localhost"), &[], &[]),
        TlsServer::new(&node, issuing.leaf("localhost"), &[&issuing], &["-tls1_2"]),
    );
    let before = node.footprint();
    let answer = ask(&node, 0, &[&plain.target()]);
    assert!([&plain, &chained].into_iter().all(|server| server.openssl_trusts(&node, "localhost")));
    assert_eq!(
        (&answer["verdict"], &answer["anchor"]["sha256"], &answer["anchor"]["state"]),
        (&"trusted".into(), &corp.sha256().into(), &"desired".into())
    );
    let answer = ask(&node, 0, &[&format!("https://{}/v2/", chained.target())]);
    assert_eq!(
        (answer["chain"].as_array().unwrap().len(), &answer["anchor"]["commonName"]),
        (2, &"Corp Root CA".into())
    );

    // The screen's first line is the answer, and no line is wider than a terminal.
    let done = node.nodetrust(&["probe", &plain.target(), &chained.target()]).expect(0);
    let first = done.out.lines().next().unwrap();
    assert!(first.starts_with(&format!("{}   TRUSTED   by \"Corp Root CA\"", plain.target())), "{}", done.out);
    assert!(done.out.contains(&corp.fp16()) && !done.out.contains('\x1b'), "{}", done.out);
    assert!(done.out.lines().all(|line| line.chars().count() <= 100), "{}", done.out);
    let yaml = node.nodetrust(&["probe", "-o", "yaml", &plain.target()]).expect(0);
    assert!(yaml.out.contains("verdict: trusted"), "{}", yaml.out);

    // The command runs without a configuration, as in a debug session.
    let mut bare = Command::new(crate::support::program());
    bare.env_remove("NODETRUST_CONFIG").arg("--host-root").arg(&node.root).args(["probe", &plain.target()]);
    assert!(Done::new(bare.output().unwrap()).expect(0).out.contains("desired"), "the ledger knows whose the CA is");
    // A CA in grace is trusted, and the answer names its end.
    node.set_source(&[&Ca::new("Next Root CA")]);
    node.nodetrust(&["apply"]).expect(0);
    let answer = ask(&node, 0, &[&plain.target()]);
    assert_eq!(answer["anchor"]["state"], "grace");
    assert!(answer["anchor"]["graceEnd"].is_string() && answer["notes"][0].as_str().unwrap().contains("renew"));
    let after = node.footprint();
    let changed =
        after.keys().filter(|path| !before.contains_key(*path) && !path.contains("nodetrust")).collect::<Vec<_>>();
    assert!(changed.iter().all(|path| path.starts_with("/etc/ssl/certs")), "a probe changes nothing: {changed:?}");
}

#[test]
fn every_reason_against_a_chain() {
    let corp = Ca::new("Corp Root CA");
    let (other, twin) = (Ca::new("Other Root"), Ca::new("Corp Root CA"));
    let (issuing, foreign) = (corp.below("Corp Issuing CA"), twin.below("Corp Issuing CA 7"));
    let node = node(&[&corp]);
    let serve = |leaf: (String, String), chain: &[&Ca]| TlsServer::new(&node, leaf, chain, &[]);
    let no = |server: &TlsServer, reason: &str, words: &[&str]| {
        refused(&node, &server.target(), "not-trusted", reason, words)
    };
    no(&serve(other.leaf("localhost"), &[]), "unknown-issuer", &["Other Root", "sent no chain"]);
    no(&serve(other.leaf("localhost"), &[&other]), "unknown-issuer", &["unknown root", &other.fp16()]);
    no(&serve(issuing.leaf("localhost"), &[]), "unknown-issuer", &["Corp Issuing CA", "have the server send it"]);
    // The CA has a new key under the same name.
    no(
        &serve(foreign.leaf("localhost"), &[&foreign]),
        "other-key",
        &["Corp Root CA", &corp.fp16(), "with another key"],
    );
    let past = corp.leaf_with("localhost", |params| params.not_after = date_time_ymd(2024, 2, 29));
    no(&serve(past, &[]), "expired", &["2024-02-29", "renew"]);
    let future = corp.leaf_with("localhost", |params| params.not_before = date_time_ymd(2090, 1, 1));
    no(&serve(future, &[]), "not-yet-valid", &["2090-01-01", "clock"]);
    no(&serve(corp.leaf("registry.corp"), &[]), "name-mismatch", &["localhost", "registry.corp"]);
    let server = serve(corp.leaf("localhost"), &[]);
    assert!(server.openssl_trusts(&node, "localhost") && !server.openssl_trusts(&node, "127.0.0.1"));
    refused(&node, &format!("127.0.0.1:{}", server.port), "not-trusted", "name-mismatch", &["for localhost"]);
    let client = corp.leaf_with("localhost", |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    no(&serve(client, &[]), "wrong-usage", &["serverAuth"]);

    // One of several is not trusted: all are printed, and the exit code is 2.
    let good = server;
    let bad = serve(other.leaf("localhost"), &[]);
    let done = node.nodetrust(&["probe", &good.target(), &bad.target()]).expect(2);
    let (good_at, bad_at) = (done.out.find("   TRUSTED   ").unwrap(), done.out.find("   NOT TRUSTED   ").unwrap());
    assert!(good_at < bad_at && done.out.contains("\n  next    if "), "{}", done.out);
    assert!(done.out.lines().all(|line| line.chars().count() <= 100), "{}", done.out);

    // A source has the CA, and the policy denies it.
    node.set_source(&[&corp, &other]);
    node.configure(&format!("policy: {{deniedFingerprints: [\"{}\"]}}", other.sha256()));
    no(&bad, "not-installed", &["rejected as denied", "source org"]);
    node.configure("");
    no(&bad, "not-installed", &["source org wants it", "nodetrust apply"]);
    node.nodetrust(&["apply"]).expect(0);
    assert_eq!(ask(&node, 0, &[&bad.target()])["anchor"]["sha256"], other.sha256());
}

#[test]
fn a_server_that_wants_a_client_certificate_is_judged_all_the_same() {
    let corp = Ca::new("Corp Root CA");
    let node = node(&[&corp]);
    for version in ["-tls1_2", "-tls1_3"] {
        let server = TlsServer::new(&node, corp.leaf("localhost"), &[], &["-Verify", "1", version]);
        assert_eq!(ask(&node, 0, &[&server.target()])["verdict"], "trusted", "{version}");
    }
}

#[test]
fn what_keeps_a_server_from_showing_its_certificate() {
    let corp = Ca::new("Corp Root CA");
    let node = node(&[&corp]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    refused(&node, &format!("127.0.0.1:{free}"), "not-reached", "refused", &[&free.to_string(), "port"]);
    // A name that is too long for the DNS is asked of no resolver.
    let long = format!("{}.test:443", vec!["a".repeat(60); 4].join("."));
    refused(&node, &long, "not-reached", "dns", &["cannot be resolved", "resolv.conf"]);
    let plain = answering(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request\n");
    });
    refused(&node, &format!("127.0.0.1:{plain}"), "not-reached", "not-tls", &["http://"]);
    let closing = answering(|_| {});
    refused(&node, &format!("127.0.0.1:{closing}"), "not-reached", "handshake", &["closed"]);
    let old = TlsServer::new(&node, corp.leaf("localhost"), &[], &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    refused(&node, &old.target(), "not-reached", "tls-version", &["TLS 1.2"]);

    for bad in [
        &["probe"][..],
        &["probe", "registry"],
        &["probe", "http://registry:80"],
        &["probe", "a:1", "--via-proxy", "p:1"],
    ] {
        node.nodetrust(bad).expect(64);
    }
    fs::remove_file(node.path(node.kind.bundle())).unwrap();
    let done = node.nodetrust(&["probe", &old.target()]).expect(1);
    assert!(done.err.contains(node.kind.bundle()), "{}", done.err);
}

/// Serves every connection by this, after the client has said something. Returns the port.
fn answering(answer: impl Fn(&mut TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            answer(&mut stream);
        }
    });
    port
}

/// A proxy that lets through by CONNECT with one password, and otherwise says 407; simulated.
fn simulated_proxy(refusal: Option<&'static str>) -> u16 {
    answering_head(move |head, stream| {
        if let Some(refusal) = refusal {
            let _ = write!(stream, "HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        // me:pass
        if !head.contains("Proxy-Authorization: Basic bWU6cGFzcw==\r\n") {
            let _ =
                stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n");
            return;
        }
        let target = head.split(' ').nth(1).unwrap_or_default();
        let Ok(mut server) = TcpStream::connect(target) else {
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
            return;
        };
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        let (mut up, mut down) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut up, &mut server);
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut down, stream);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    })
}

fn answering_head(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if !matches!(stream.read(&mut byte), Ok(1)) {
                    break;
                }
                head.push(byte[0]);
            }
            answer(&String::from_utf8_lossy(&head), &mut stream);
        }
    });
    port
}

#[test]
fn through_a_simulated_proxy() {
    let corp = Ca::new("Corp Root CA");
    let node = node(&[&corp]);
    let server = TlsServer::new(&node, corp.leaf("localhost"), &[], &[]);
    let proxy = simulated_proxy(None);
    let via = |proxy: &str, target: &str| {
        let done = node.nodetrust(&["probe", "-vvv", "-o", "json", target, "--via-proxy", proxy]);
        assert!(!done.out.contains("pass\"") && !format!("{}{}", done.out, done.err).contains("bWU6"), "{done:?}");
        (done.code, done.json()["probes"][0].clone())
    };
    let (code, answer) = via(&format!("http://me:pass@127.0.0.1:{proxy}"), &server.target());
    assert_eq!((code, &answer["verdict"]), (0, &"trusted".into()), "{answer:#}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (proxy, target, word) in [
        (format!("http://127.0.0.1:{proxy}"), server.target(), "wants a user"),
        (format!("http://me:wrong@127.0.0.1:{proxy}"), server.target(), "does not take"),
        (format!("http://127.0.0.1:{}", simulated_proxy(Some("403 Forbidden"))), server.target(), "allow CONNECT"),
        (format!("http://me:pass@127.0.0.1:{proxy}"), format!("127.0.0.1:{free}"), "does not reach"),
        (format!("http://127.0.0.1:{}", answering(|_| {})), server.target(), "HTTP proxy"),
    ] {
        let (code, answer) = via(&proxy, &target);
        assert_eq!((code, &answer["verdict"]), (2, &"not-reached".into()), "{answer:#}");
        assert_eq!(answer["reason"], "proxy", "{answer:#}");
        assert!(answer.to_string().contains(word), "`{word}`: {answer:#}");
    }
    let endless = answering(|stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let (_, answer) = via(&format!("http://127.0.0.1:{endless}"), &server.target());
    assert!(answer.to_string().contains("16 KiB"), "{answer:#}");
    let (_, answer) = via(&format!("http://127.0.0.1:{free}"), &server.target());
    assert_eq!(answer["reason"], "refused");
    // whoever names a proxy is not asked whether one is needed
    assert!(answer.to_string().contains("the proxy 127.0.0.1:") && !answer.to_string().contains("is needed"));
}

/// A name server that knows one name, and says its address by TCP only; simulated, for there is no other on a machine without a
/// network.
fn simulated_name_server(address: &str, known: &'static str) {
    let reply = move |message: &[u8], truncated: bool| {
        let asked = &message[12..];
        let name: Vec<u8> =
            known.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        let is_known = asked.starts_with(&[&name[..], &[0]].concat());
        let has_address = is_known && asked[asked.len() - 3] == 1;
        let (code, count) = (if is_known { 0x80 } else { 0x83 }, u8::from(has_address && !truncated));
        let flags = if has_address && truncated { 0x83 } else { 0x81 };
        let mut reply = [&message[..2], &[flags, code, 0, 1, 0, count, 0, 0, 0, 0], asked].concat();
        if count == 1 {
            reply.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01");
        }
        reply
    };
    let socket = UdpSocket::bind((address, 53)).unwrap();
    thread::spawn(move || {
        let mut message = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut message) {
            let _ = socket.send_to(&reply(&message[..length], true), client);
        }
    });
    let listener = TcpListener::bind((address, 53)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            let reply = reply(&message, false);
            stream.write_all(&[&(reply.len() as u16).to_be_bytes(), &reply[..]].concat()).unwrap();
        }
    });
}

#[test]
fn names_are_resolved_by_hosts_and_a_simulated_name_server() {
    let corp = Ca::new("Corp Root CA");
    let node = node(&[&corp]);
    let put = |path: &str, text: &str| {
        let file = node.beside(&path.replace('/', "_"));
        fs::write(&file, text).unwrap();
        let none: Option<&str> = None;
        mount(Some(&file), path, none, MsFlags::MS_BIND, none).unwrap(); // only this test sees it
    };
    put("/etc/hosts", "127.0.0.1 localhost\n::1 six.test\n");
    put("/etc/resolv.conf", "nameserver 127.77.0.1\nsearch nowhere.test corp.test\noptions ndots:2\n");
    // The C library would load further modules for this.
    put("/etc/nsswitch.conf", "hosts: compat mymachines files\n");
    simulated_name_server("127.77.0.1", "registry.corp.test");
    let server = TlsServer::new(&node, corp.leaf("registry"), &[], &[]);
    let answer = ask(&node, 0, &[&format!("registry:{}", server.port)]);
    assert_eq!(answer["verdict"], "trusted", "{answer:#}");
    let absent = format!("absent.test:{}", server.port);
    refused(&node, &absent, "not-reached", "dns", &["127.77.0.1 knows no address of absent.test"]);
    refused(&node, &format!("six.test:{}", server.port), "not-reached", "refused", &["[::1]"]);
}

#[test]
fn configured_probes_follow_the_set_in_force() {
    let node = Node::new(Kind::Bookworm, "");
    let (corp, next) = (Ca::new("Corp Root CA"), Ca::new("Next Root CA"));
    node.set_source(&[&corp]);
    let server = TlsServer::new(
        &node,
        corp.leaf_with("localhost", |params| params.not_after = date_time_ymd(2099, 1, 1)),
        &[],
        &[],
    );
    let target = server.target();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = format!("127.0.0.1:{free}");
    // The interval is an hour, so only the start and a change cause a probe.
    let probes = format!(
        "probes:\n- {{target: \"{target}\", interval: 1h}}\n- {{target: \"{refused}\", interval: 1s, viaProxy: \"http://me:secret@127.0.0.1:{free}\"}}\n"
    );
    let agent = node.agent(&format!("{}{probes}", fast("0s")));
    agent.wait_converged(&[&corp], LIMIT);
    let success =
        |target: &str| agent.metric(&format!("nodetrust_probe_success{{target=\"{target}\",through=\"host\"}}"));
    wait_for("the first answer", LIMIT, || success(&target).filter(|value| *value == 1.0));
    let of = |name: &str, target: &str| {
        agent.metric(&format!("nodetrust_probe_{name}{{target=\"{target}\",through=\"host\"}}"))
    };
    // 2075-01-01 is rcgen's end of the root's validity or later; the leaf's is 2099
    assert!(of("not_after_timestamp_seconds", &target).unwrap() > 3.3e9);
    assert!(of("duration_seconds", &target).unwrap() < 30.0);
    wait_for("the second target", LIMIT, || success(&refused).filter(|value| *value == 0.0));
    assert_eq!(of("not_after_timestamp_seconds", &refused), None, "nothing was shown");
    let (_, text) = agent.get("/metrics").unwrap();
    assert!(text.contains("# TYPE nodetrust_probe_success gauge"), "{text}");

    let status = agent.status().unwrap();
    let shown = status["probes"].as_array().unwrap();
    assert_eq!(shown.len(), 2, "{status:#}");
    assert!(shown.iter().any(|row| row["target"] == target && row["verdict"] == "trusted" && row["time"].is_string()));
    let page = agent.get("/").unwrap().1;
    assert!(page.contains("<h2>Probes</h2>") && page.contains(&target) && page.contains("not-reached"), "{page}");

    // The CA leaves the store: the probe runs at once.
    node.set_source(&[&next]);
    agent.wait_converged(&[&next], LIMIT);
    wait_for("the answer after the change", LIMIT, || success(&target).filter(|value| *value == 0.0));
    let status = agent.status().unwrap();
    let row = status["probes"].as_array().unwrap().iter().find(|row| row["target"] == target).unwrap();
    assert_eq!(row["reason"], "not-installed", "{row:#}");
    assert!(!status.to_string().contains("secret") && !agent.log_text().contains("secret"));

    // A probe that is no longer configured has no series.
    node.configure(&format!("http: {{address: \"127.0.0.1:{}\"}}\n{}", agent.port(), fast("0s")));
    wait_for("the series to go", LIMIT, || success(&target).is_none().then_some(()));
    assert!(!agent.get("/metrics").unwrap().1.contains("nodetrust_probe_"));
    assert!(agent.status().unwrap()["probes"].is_null());
}

#[test]
fn a_probe_tells_what_the_runtime_does_not_trust_yet() {
    let machine = Machine::boot(machine::MachineKind::Trixie);
    let target = "registry.test:5443";
    let image = machine.push("app:1");
    machine.pull(&image).unwrap_err(); // containerd loads its roots here
    // The interval is an hour, so only a change causes a further probe.
    let agent = machine.agent(
        &[],
        &format!(
            "settle: 100ms\nresync: 5s\nruntime: {{onChange: report}}\nprobes: [{{target: \"{target}\", interval: 1h}}]"
        ),
    );
    let success = format!("nodetrust_probe_success{{target=\"{target}\",through=\"host\"}}");
    wait_for("a first probe", LIMIT, || agent.metric(&success).filter(|value| *value == 0.0));
    machine.set_source_pem(&machine.registry_ca());
    agent.wait_status("a probe that tells of the runtime", LIMIT, |status| {
        status["probes"].as_array().is_some_and(|probes| probes[0]["verdict"] == "not-trusted-by-runtime")
    });
    machine.pull(&image).unwrap_err();
    let done = agent.nodetrust(&["probe", "-o", "json", target]).expect(2);
    let answer = &done.json()["probes"][0];
    assert_eq!((&answer["verdict"], &answer["reason"]), (&"not-trusted-by-runtime".into(), &"runtime-stale".into()));
    assert_eq!(answer["next"], serde_json::json!(["when it suits: systemctl restart containerd.service"]));
    let done = agent.nodetrust(&["probe", target]).expect(2);
    assert!(done.out.contains("TRUSTED, but not by the runtime yet"), "{}", done.out);

    machine.run(&["systemctl", "restart", "containerd"]).expect(0);
    machine.wait_runtime();
    wait_for("a probe after the restart", LIMIT, || agent.metric(&success).filter(|value| *value == 1.0));
    assert_eq!(machine.pull(&image), Ok(()));
    agent.nodetrust(&["probe", target]).expect(0);
}
