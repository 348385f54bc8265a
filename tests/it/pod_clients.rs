//! What docs/layers.md tells pods to do, done: the settings of its manifests are taken out of the page, the files are those of the real
//! agent on a node root, and real clients connect with them to a server of a private CA on the loopback.
//!
//! The mount is a bind mount in the test's own mount namespace, in the place of the kubelet's; the clients are this machine's.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::{
    docs::{read, repository},
    support::{
        must,
        node::{Done, Kind, Node},
        pki::Ca,
    },
};

/// The section with the manifests.
const SECTION: &str = "## Pods that read the node's bundle";
/// What the server serves to whoever trusts it: a text, a repository for git, and a revocation list, which is all that keytool fetches.
const GREETING: &str = "trusted";

/// A client and the variable that tells it what to trust.
struct Client {
    variable: &'static str,
    name: &'static str,
    command: fn(&str, &Path) -> Vec<String>,
    /// What it prints if it trusts the server.
    prints: &'static str,
    /// What it says if it does not.
    refuses: &'static str,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const CLIENTS: [Client; 8] = [
    Client {
        variable: "CURL_CA_BUNDLE",
        name: "curl",
        command: |url, _| words(&["/usr/bin/curl", "-sS", &format!("{url}/greeting")]),
        prints: GREETING,
        refuses: "SSL certificate problem",
    },
    Client {
        variable: "SSL_CERT_FILE",
        name: "openssl",
        command: |url, _| {
            let server = url.trim_start_matches("https://");
            words(&[
                "/usr/bin/openssl",
                "s_client",
                "-verify_return_error",
                "-verify_ip",
                "127.0.0.1",
                "-connect",
                server,
            ])
        },
        prints: "Verification: OK",
        refuses: "verify error",
    },
    Client {
        variable: "SSL_CERT_FILE",
        name: "Python's ssl",
        command: |url, _| {
            let program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())";
            words(&["/usr/bin/python3", "-I", "-c", program, &format!("{url}/greeting")])
        },
        prints: GREETING,
        refuses: "CERTIFICATE_VERIFY_FAILED",
    },
    Client {
        variable: "SSL_CERT_FILE",
        name: "Go",
        command: |url, go| words(&[go.to_str().unwrap(), &format!("{url}/greeting")]),
        prints: GREETING,
        refuses: "certificate signed by unknown authority",
    },
    Client {
        variable: "REQUESTS_CA_BUNDLE",
        name: "Python's requests",
        command: |url, _| {
            let program = "import requests, sys; print(requests.get(sys.argv[1]).text)";
            words(&["/usr/bin/python3", "-I", "-c", program, &format!("{url}/greeting")])
        },
        prints: GREETING,
        refuses: "CERTIFICATE_VERIFY_FAILED",
    },
    Client {
        variable: "GIT_SSL_CAINFO",
        name: "git",
        command: |url, _| words(&["/usr/bin/git", "ls-remote", &format!("{url}/repository")]),
        prints: "refs/heads/main",
        refuses: "certificate verification failed",
    },
    Client {
        variable: "NODE_EXTRA_CA_CERTS",
        name: "Node.js",
        command: |url, _| {
            let program = "require('https').get(process.argv[1], answer => answer.pipe(process.stdout))";
            words(&["/usr/bin/node", "-e", program, &format!("{url}/greeting")])
        },
        prints: GREETING,
        refuses: "UNABLE_TO",
    },
    Client {
        variable: "JAVA_TOOL_OPTIONS",
        name: "Java",
        // the one program of a Java without a compiler that fetches by HTTPS, as every other does
        command: |url, _| words(&["/usr/bin/keytool", "-printcrl", "-file", &format!("{url}/list.crl")]),
        prints: "Issuer: CN=Corp Root",
        refuses: "unable to find valid certification path",
    },
];

/// A container of the page: what it is told, and where its volume lies on the node.
struct PodSettings {
    environment: BTreeMap<String, String>,
    mount_path: String,
    host_path: String,
}

/// The agent's configuration and the containers of the page.
fn page() -> (String, Vec<PodSettings>) {
    let text = read(repository().join("docs/layers.md"));
    let section = text.split_once(SECTION).expect(SECTION).1.split("\n## ").next().unwrap();
    let (mut config, mut containers) = (String::new(), Vec::new());
    for block in section.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let parsed: Value = serde_saphyr::from_str(block).unwrap();
        let Some(spec) = parsed.get("spec") else {
            config.push_str(block);
            continue;
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let [volume] = spec["volumes"].as_array().unwrap().as_slice() else { panic!("{spec}") };
        for container in spec["containers"].as_array().unwrap() {
            let [mounted] = container["volumeMounts"].as_array().unwrap().as_slice() else { panic!("{container}") };
            assert_eq!((&mounted["name"], &mounted["readOnly"]), (&volume["name"], &true.into()), "{container}");
            let pairs = container["env"].as_array().unwrap().iter();
            containers.push(PodSettings {
                environment: pairs.map(|pair| (text(&pair["name"]), text(&pair["value"]))).collect(),
                mount_path: text(&mounted["mountPath"]),
                host_path: text(&volume["hostPath"]["path"]),
            });
        }
    }
    (config, containers)
}

/// `openssl s_server` that serves files; it ends with the test.
struct FileServer {
    child: Child,
    url: String,
}

impl FileServer {
    fn new(dir: &Path, ca: &Ca) -> Self {
        let (cert, key) = ca.leaf("127.0.0.1");
        fs::create_dir_all(dir.join("repository/info")).unwrap();
        for (name, content) in [
            ("cert.pem", cert.as_bytes()),
            ("key.pem", key.as_bytes()),
            ("greeting", GREETING.as_bytes()),
            ("list.crl", &ca.revocation_list()),
            (
                "repository/info/refs?service=git-upload-pack",
                format!("{}\trefs/heads/main\n", "1".repeat(40)).as_bytes(),
            ),
            ("repository/HEAD", b"ref: refs/heads/main\n"),
        ] {
            fs::write(dir.join(name), content).unwrap();
        }
        let mut child = Command::new("/usr/bin/openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-WWW", "-cert", "cert.pem", "-key", "key.pem"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port: u16 = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().ok())
            .expect("s_server tells its port");
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop)); // the server must not block on a full pipe
        Self { child, url: format!("https://127.0.0.1:{port}") }
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program in Go that fetches, with Go's defaults.
fn go_client() -> PathBuf {
    const PROGRAM: &str = r#"package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, answer.Body)
}
"#;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = target.join("pod-client");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("main.go"), PROGRAM).unwrap();
    let done = Command::new("/usr/bin/go")
        .args(["build", "-o", "client", "main.go"])
        .current_dir(&place)
        .envs([
            ("CGO_ENABLED", "0"),
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", ""),
            ("GOPROXY", "off"),
            ("GO111MODULE", "off"),
        ])
        .env("GOCACHE", target.join("go-cache"))
        .env_remove("GOROOT")
        .output()
        .expect("Go of Debian's golang-go: scripts/test installs it");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    place.join("client")
}

impl Client {
    /// Runs it with these variables and no others that tell it what to trust.
    fn run(&self, url: &str, go: &Path, environment: &[(&str, &str)]) -> Done {
        let words = (self.command)(url, go);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/nonexistent");
        command.envs(environment.iter().copied()).stdin(Stdio::null());
        Done::new(must(self.name, command.output()))
    }

    #[track_caller]
    fn must_trust(&self, done: &Done, how: &str) {
        assert!(done.code == 0 && done.out.contains(self.prints), "{} {how}: {done:?}", self.name);
    }
}

#[test]
fn every_client_trusts_the_server_by_the_settings_of_the_page_and_not_without_them() {
    let (config, containers) = page();
    let node = Node::new(Kind::Bookworm, &config);
    let ca = Ca::new("Corp Root");
    node.set_source(&[&ca]);
    node.nodetrust(&["apply"]).expect(0);
    node.own_etc();
    let server = FileServer::new(&node.beside("served"), &ca);
    let go = go_client();
    let mut used = 0;
    for container in &containers {
        fs::create_dir_all(&container.mount_path).unwrap();
        let from = node.path(&container.host_path);
        let none: Option<&str> = None;
        must("a bind mount", mount(Some(&from), Path::new(&container.mount_path), none, MsFlags::MS_BIND, none));
        let all: Vec<(&str, &str)> =
            container.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for (variable, value) in &all {
            let mut clients = CLIENTS.iter().filter(|client| client.variable == *variable).peekable();
            assert!(clients.peek().is_some(), "no client here reads {variable}");
            for client in clients {
                let without = client.run(&server.url, &go, &[]);
                let said = format!("{}{}", without.out, without.err);
                assert!(said.contains(client.refuses), "{} without {variable}: {without:?}", client.name);
                assert!(!without.out.contains(client.prints), "{} without {variable}: {without:?}", client.name);
                client.must_trust(&client.run(&server.url, &go, &[(variable, value)]), variable);
                client.must_trust(&client.run(&server.url, &go, &all), "with all that the page sets");
                used += 1;
            }
        }
    }
    assert_eq!(used, CLIENTS.len(), "the page tells each client of this test");

    // The password may be left out.
    let java = &CLIENTS[CLIENTS.len() - 1];
    let options = containers.iter().find_map(|container| container.environment.get(java.variable)).unwrap();
    let (without, _) = options.split_once(" -Djavax.net.ssl.trustStorePassword=").unwrap();
    java.must_trust(&java.run(&server.url, &go, &[(java.variable, without)]), "without a password");
}
