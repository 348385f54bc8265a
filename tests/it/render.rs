//! `nodetrust render`: each script is run for real on a root of its family, and each format is read by the program or parser that reads
//! it on a node. Cluster API's own schema cannot be had here: what is used of it is written down from its reference.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::Deserialize;
use serde_json::Value;

use crate::support::{
    must,
    node::{Done, Kind, Node},
    pki::Ca,
};

/// Runs the rendered script on a node.
fn run_script(node: &Node, arguments: &[&str]) -> Done {
    let script = node.nodetrust(&["render", "script"]).expect(0).out;
    node.write("/tmp/first-boot.sh", script);
    node.run(&[&["sh", "/tmp/first-boot.sh"][..], arguments].concat())
}

/// A CA, and a server certificate that a p11-kit store drops and a Debian store takes.
fn ca_and_leaf() -> (Ca, String, String) {
    let ca = Ca::new("Corp Root 2026");
    let leaf = ca.leaf("ingress.test").0.replace("\r\n", "\n");
    let sha256 =
        nodetrust_core::source::SourceFile::parse("leaf", leaf.as_bytes()).anchors[0].1.fingerprint.to_string();
    (ca, leaf, sha256)
}

#[test]
fn the_script_gives_a_real_root_the_set_of_the_agent_which_takes_its_files_over() {
    for kind in [Kind::Bookworm, Kind::Trixie, Kind::Rhelish, Kind::Suselike] {
        let (ca, leaf, leaf_sha256) = ca_and_leaf();
        let sources = |node: &Node| {
            node.set_source(&[&ca]);
            fs::write(node.source.join("ingress.crt"), &leaf).unwrap();
        };
        let by_agent = Node::new(kind, "store: {extractTimeout: 5m}");
        sources(&by_agent);
        assert!([0, 2].contains(&by_agent.nodetrust(&["apply"]).code));
        let mut wanted = by_agent.bundle();
        wanted.sort();
        drop(by_agent);

        let node = Node::new(kind, "store: {extractTimeout: 5m}");
        sources(&node);
        let pristine = node.tree(&["/etc", "/usr/local", "/var/lib"]);
        run_script(&node, &[]).expect(0);
        let mut bundle = node.bundle();
        bundle.sort();
        assert_eq!(bundle, wanted, "{kind:?}");
        assert_eq!(bundle.contains(&leaf_sha256), matches!(kind, Kind::Bookworm | Kind::Trixie), "{kind:?}");
        assert!(node.clients_trust(&ca), "{kind:?}");
        assert_eq!(fs::read_to_string(node.anchor_file(&ca)).unwrap(), ca.pem());

        // a second run changes nothing
        let after = node.tree(&["/etc", "/usr/local", "/var/lib"]);
        assert!(run_script(&node, &[]).expect(0).err.contains("already"));
        assert_eq!(node.tree(&["/etc", "/usr/local", "/var/lib"]), after, "{kind:?}");

        // the agent takes the files over: it neither writes one nor runs the tool
        let plan = node.nodetrust(&["-o", "json", "plan"]).json().to_string();
        assert!(!plan.contains("write-anchor") && !plan.contains("extract"), "{kind:?}: {plan}");
        assert!([0, 2].contains(&node.nodetrust(&["apply"]).code));
        let status = node.nodetrust(&["-o", "json", "status"]).json();
        assert_eq!(status["anchors"][0]["state"], "desired", "{status:#}");
        let files = |tree: &BTreeMap<String, String>| {
            let is_store = |path: &&String| !path.starts_with("/var/lib/nodetrust");
            tree.iter()
                .filter(|(path, _)| is_store(path))
                .map(|(path, what)| (path.clone(), what.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(files(&node.tree(&["/etc", "/usr/local", "/var/lib"])), files(&after), "{kind:?}");
        node.nodetrust(&["uninstall"]).expect(0);
        let left = node.tree(&["/etc", "/usr/local", "/var/lib"]);
        assert_eq!(left.keys().collect::<Vec<_>>(), pristine.keys().collect::<Vec<_>>(), "{kind:?}");
        assert!(!node.clients_trust(&ca), "{kind:?}");
    }
}

#[test]
fn the_script_repairs_what_was_cut_short() {
    let node = Node::new(Kind::Trixie, "");
    let (one, other) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&one, &other]);
    // a run that was killed after it had written one file in part and one whole, before the tool ran
    fs::create_dir_all(node.path(Kind::Trixie.anchors_dir())).unwrap();
    fs::write(node.anchor_file(&one), "-----BEGIN").unwrap();
    fs::write(node.anchor_file(&other), other.pem()).unwrap();
    run_script(&node, &["--restart-runtime"]).expect(0);
    assert!(node.trusts(&one) && node.trusts(&other));
    node.nodetrust(&["apply"]).expect(0);
}

#[test]
fn a_node_from_a_stale_template_is_corrected_by_the_agent() {
    let node = Node::new(Kind::Trixie, "rotation: {removalGrace: 0s}");
    let (old, new) = (Ca::new("Corp Root"), Ca::new("Corp Root"));
    node.set_source(&[&old]);
    let stale = node.nodetrust(&["render", "kubeadm"]).expect(0).out;
    let template: KubeadmFieldsOfTheReference = must("kubeadm", serde_saphyr::from_str(&stale));
    node.set_source(&[&new]);
    // the node boots from the stale template
    node.write(&template.files[0].path, &template.files[0].content);
    node.run(&["sh", "-c", &template.pre_kubeadm_commands[0]]).expect(0);
    assert!(node.clients_trust(&old) && !node.clients_trust(&new));
    node.nodetrust(&["apply"]).expect(0);
    assert!(node.clients_trust(&new) && !node.clients_trust(&old));
    node.write("/tmp/stale.yaml", &stale);
    let screen = node.nodetrust(&["render", "--check", node.path("/tmp/stale.yaml").to_str().unwrap()]).expect(2).out;
    assert!(screen.contains(&format!("- {}", old.sha256())), "{screen}");
}

#[test]
fn the_script_changes_nothing_where_the_agent_would_not() {
    for id in ["bottlerocket", "talos", "nixos", "cos", "flatcar", "photon", "alpine", "rhel"] {
        let node = Node::new(Kind::Trixie, "");
        fs::remove_file(node.path("/etc/os-release")).unwrap();
        node.write("/etc/os-release", format!("ID={id}\n"));
        node.set_source(&[&Ca::new("Corp Root")]);
        let is_supported = node.nodetrust(&["stores"]).code == 0;
        assert!(!is_supported, "{id}");
        let before = node.tree(&["/etc", "/usr/local", "/var/lib"]);
        let done = run_script(&node, &[]).expect(1);
        assert!(done.err.starts_with("nodetrust: ") && done.err.trim_end().lines().count() == 1, "{id}: {done:?}");
        assert_eq!(node.tree(&["/etc", "/usr/local", "/var/lib"]), before, "{id}");
    }
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&Ca::new("Corp Root")]);
    run_script(&node, &["--what"]).expect(64);
}

#[test]
fn the_script_is_good_shell() {
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&Ca::new("Corp Root")]);
    let path = node.beside("first-boot.sh");
    fs::write(&path, node.nodetrust(&["render", "script"]).expect(0).out).unwrap();
    let mut shellcheck = Command::new("shellcheck");
    Done::new(must("shellcheck", shellcheck.arg("--shell=sh").arg(&path).output())).expect(0);
}

#[test]
fn what_cannot_be_told_is_no_template() {
    let node = Node::new(Kind::Trixie, "");
    // an empty source
    let done = node.nodetrust(&["render", "kubeadm"]).expect(1);
    assert!(done.out.is_empty() && done.err.contains("source org"), "{done:?}");
    // a source that is not there, beside a good one
    node.set_source(&[&Ca::new("Corp Root")]);
    node.configure("- {name: gone, path: /nowhere}");
    let done = node.nodetrust(&["render", "script"]).expect(1);
    assert!(done.out.is_empty() && done.err.contains("source gone (/nowhere)"), "{done:?}");
    node.nodetrust(&["render", "--check", "/dev/null"]).expect(1);
    // one that may be missing
    node.configure("- {name: gone, path: /nowhere, optional: true}");
    assert!(node.nodetrust(&["render", "script"]).expect(0).err.contains("source gone"));

    // something that is rejected: the rest is rendered, and stderr tells it; with `hold` nothing is
    fs::write(node.source.join("bad.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    node.configure("");
    let done = node.nodetrust(&["render", "talos"]).expect(0);
    assert!(done.out.contains("TrustedRootsConfig") && done.err.contains("bad.crt:1"), "{done:?}");
    node.configure("policy: {onRejection: hold}");
    assert!(node.nodetrust(&["render", "talos"]).expect(1).out.is_empty());

    node.nodetrust(&["render"]).expect(64);
    node.nodetrust(&["render", "debian"]).expect(64);
    node.nodetrust(&["render", "script", "--check", "x"]).expect(64);
    node.nodetrust(&["-o", "json", "render", "script"]).expect(64);
}

#[test]
fn check_tells_a_current_template_from_a_stale_one() {
    let node = Node::new(Kind::Trixie, "");
    let (old, new) = (Ca::new("Corp Root"), Ca::new("Corp Root"));
    node.set_source(&[&old]);
    let stale = node.beside("stale.yaml");
    fs::write(&stale, node.nodetrust(&["render", "kubeadm"]).expect(0).out).unwrap();
    let stale = stale.to_str().unwrap();
    let screen = node.nodetrust(&["render", "--check", stale]).expect(0).out;
    assert!(screen.contains("CURRENT   1 certificate"), "{screen}");

    node.set_source(&[&new]);
    let screen = node.nodetrust(&["render", "--check", stale]).expect(2).out;
    assert!(screen.contains(&format!("+ {}", new.sha256())), "{screen}");
    assert!(screen.contains(&format!("- {}", old.sha256())) && screen.contains("same subject as"), "{screen}");
    // one of several is enough
    let fresh = node.beside("fresh.json");
    fs::write(&fresh, node.nodetrust(&["render", "ignition"]).expect(0).out).unwrap();
    let checks = node.nodetrust(&["-o", "json", "render", "--check", fresh.to_str().unwrap(), stale]).expect(2).json();
    assert_eq!(checks["files"][0]["verdict"], "current");
    assert_eq!(checks["files"][1]["verdict"], "outdated");
    assert_eq!(checks["files"][1]["missing"][0]["sha256"], new.sha256());

    // a template with a key in it: the key is told nobody
    let secret = node.beside("secret.yaml");
    fs::write(&secret, format!("a: |\n{}{}", new.key_pem(), new.pem())).unwrap();
    let done = node.nodetrust(&["render", "--check", secret.to_str().unwrap()]).expect(0);
    let line = new.key_pem().lines().nth(1).unwrap().to_owned();
    assert!(!done.out.contains(&line) && !done.err.contains(&line));
    node.nodetrust(&["render", "--check", "/nowhere.yaml"]).expect(1);
}

/// What is used of `KubeadmConfigSpec`, written from the reference of Cluster API (bootstrap.cluster.x-k8s.io/v1beta1 and v1beta2): not its
/// own schema.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KubeadmFieldsOfTheReference {
    files: Vec<KubeadmFileOfTheReference>,
    pre_kubeadm_commands: Vec<String>,
}

/// What is used of `File` there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KubeadmFileOfTheReference {
    path: String,
    owner: String,
    permissions: String,
    content: String,
}

#[test]
fn kubeadm_has_the_fields_of_the_reference_and_the_script() {
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&Ca::new("Corp Root"), &Ca::new("K\u{f6}rper {{ x }}")]);
    let text = node.nodetrust(&["render", "kubeadm"]).expect(0).out;
    let KubeadmFieldsOfTheReference { files, pre_kubeadm_commands } = must("kubeadm", serde_saphyr::from_str(&text));
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!((file.owner.as_str(), file.permissions.as_str()), ("root:root", "0755"));
    assert_eq!(file.content, node.nodetrust(&["render", "script"]).expect(0).out);
    assert_eq!(pre_kubeadm_commands, [format!("sh {} --restart-runtime", file.path)]);
    // as kubeadm's node would run it
    node.write(&file.path, &file.content);
    node.run(&["sh", "-c", &pre_kubeadm_commands[0]]).expect(0);
}

/// The programs that read configuration for the first boot (`first_boot_readers` in scripts/lib.sh), in a mount namespace of the test's
/// own thread.
struct FirstBootReaders {
    root: PathBuf,
}

impl FirstBootReaders {
    fn new() -> Self {
        let root = std::env::var_os("NODETRUST_FIRST_BOOT").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/nodetrust/first-boot-1"),
            Into::into,
        );
        assert!(root.is_dir(), "no {}: scripts/test makes it", root.display());
        must("a mount namespace", unshare(CloneFlags::CLONE_NEWNS));
        let none: Option<&str> = None;
        must("private mounts", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none));
        for dir in ["tmp", "run", "usr/local/bin"] {
            must("a tmpfs", mount(Some("tmpfs"), &root.join(dir), Some("tmpfs"), MsFlags::empty(), none));
        }
        Self { root }
    }

    /// Runs a program on a file with this content, whose path is its last argument.
    fn run(&self, program: &[&str], name: &str, content: &str) -> Done {
        fs::write(self.root.join("tmp").join(name), content).unwrap();
        let mut command = Command::new("/usr/sbin/chroot");
        command.arg(&self.root).args(program).arg(format!("/tmp/{name}"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("PYTHONDONTWRITEBYTECODE", "1").env("LC_ALL", "C.UTF-8");
        Done::new(must(program[0], command.output()))
    }

    /// What a Python expression makes of the file's bytes, `data`.
    fn python(&self, program: &str, content: &str) -> Value {
        let program = format!("import json, sys\ndata = open(sys.argv[1], 'rb').read()\n{program}");
        self.run(&["python3", "-c", &program], "input", content).expect(0).json()
    }
}

#[test]
fn cloud_init_itself_reads_its_user_data_and_the_part_for_eks() {
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&Ca::new("Corp Root"), &Ca::new("K\u{f6}rper")]);
    let script = node.nodetrust(&["render", "script"]).expect(0).out;
    let rendered = |format: &str| node.nodetrust(&["render", format]).expect(0).out;
    let (cloud, eks) = (rendered("cloud-init"), rendered("eks-al2023"));

    let readers = FirstBootReaders::new();
    let parts = "
from cloudinit import helpers, user_data
processor = user_data.UserDataProcessor(helpers.Paths({'cloud_dir': '/tmp/cloud', 'run_dir': '/tmp/run'}))
parts = [part for part in processor.process(data).walk() if not part.is_multipart()]
print(json.dumps([[part.get_content_type(), part.get_payload(decode=True).decode()] for part in parts]))";
    let read = readers.python(parts, &eks);
    assert_eq!(read.as_array().unwrap().len(), 1, "{read:#}");
    assert_eq!(read[0][0], "text/x-shellscript");
    assert_eq!(read[0][1].as_str().unwrap().trim_end(), script.trim_end());
    assert_eq!(readers.python(parts, &cloud)[0][0], "text/cloud-config");

    // its own schema, its own writing of files, and its own making of a script from commands
    let read = readers.python(
        "
from cloudinit import util
from cloudinit.config import schema
from cloudinit.config.cc_write_files import write_files
config = util.load_yaml(data)
schema.validate_cloudconfig_schema(config, schema.get_schema(), strict=True)
entry = config['write_files'][0]
mode, path = entry['permissions'], entry['path']
entry['path'], entry['owner'] = '/tmp/first-boot.sh', '0:0'
from unittest import mock
with mock.patch('cloudinit.util.chownbyname'):
    write_files('nodetrust', [entry], 'root:root')
import os
written = open('/tmp/first-boot.sh').read()
print(json.dumps([path, oct(os.stat('/tmp/first-boot.sh').st_mode & 0o777), written, util.shellify(config['runcmd'])]))",
        &cloud,
    );
    assert_eq!(read[0], "/etc/nodetrust/first-boot.sh");
    assert_eq!(read[1], "0o755");
    assert_eq!(read[2], script);
    assert_eq!(read[3], "#!/bin/sh\n'sh' '/etc/nodetrust/first-boot.sh' '--restart-runtime'\n");
}

#[test]
fn ignition_validate_accepts_the_ignition_and_systemd_its_unit() {
    let node = Node::new(Kind::Trixie, "");
    node.set_source(&[&Ca::new("Corp Root")]);
    let script = node.nodetrust(&["render", "script"]).expect(0).out;
    let text = node.nodetrust(&["render", "ignition"]).expect(0).out;
    let unit = node.nodetrust(&["render", "systemd"]).expect(0).out;
    let config: Value = must("Ignition", serde_json::from_str(&text));

    let readers = FirstBootReaders::new();
    let done = readers.run(&["ignition-validate"], "config.ign", &text).expect(0);
    assert!(done.err.is_empty() && done.out.is_empty(), "{done:?}");
    let source = config["storage"]["files"][0]["contents"]["source"].as_str().unwrap();
    let content = readers.python(
        "import urllib.request\nprint(json.dumps(urllib.request.urlopen(data.decode()).read().decode()))",
        source,
    );
    assert_eq!(content, script);
    let path = config["storage"]["files"][0]["path"].as_str().unwrap();
    let first_boot = config["systemd"]["units"][0]["contents"].as_str().unwrap();
    assert!(first_boot.contains(&format!("ExecStart=/bin/sh {path}\n")), "{first_boot}");

    // systemd wants the programs to be there
    for program in ["usr/local/bin/nodetrust", "tmp/sh", "tmp/touch"] {
        fs::copy("/bin/true", readers.root.join(program)).unwrap();
    }
    let verify = |name: &str, unit: &str| {
        let done = readers.run(&["systemd-analyze", "verify", "--man=no"], name, unit).expect(0);
        assert!(done.err.is_empty(), "{done:?}");
    };
    verify("nodetrust-apply.service", &unit);
    verify("nodetrust-first-boot.service", &first_boot.replace("=/bin/", "=/tmp/"));
    assert!(unit.contains("\nSuccessExitStatus=2\n"));
    for before in ["containerd.service", "kubelet.service", "nodeadm-run.service"] {
        assert!(unit.lines().any(|line| line.starts_with("Before=") && line.contains(before)), "{before}");
    }
}

#[test]
fn talos_bottlerocket_and_trust_manager_are_read_by_real_parsers() {
    let node = Node::new(Kind::Trixie, "");
    let (one, other) = (Ca::new("Corp Root 2021"), Ca::new("Corp Root 2026"));
    node.set_source(&[&one, &other]);
    let mut both = [&one, &other];
    both.sort_by_key(|ca| ca.sha256());
    let pem: String = both.iter().map(|ca| ca.pem()).collect();
    let yaml = |format: &str| -> Value {
        must(format, serde_saphyr::from_str(&node.nodetrust(&["render", format]).expect(0).out))
    };
    let talos = yaml("talos");
    let expected = serde_json::json!({"apiVersion": "v1alpha1", "kind": "TrustedRootsConfig", "name": "nodetrust", "certificates": pem});
    assert_eq!(talos, expected);
    let bundle = yaml("trust-manager");
    assert_eq!(bundle["kind"], "Bundle");
    assert_eq!(bundle["apiVersion"], "trust.cert-manager.io/v1alpha1");
    assert_eq!(bundle["spec"]["sources"], serde_json::json!([{"useDefaultCAs": true}, {"inLine": pem}]));
    assert_eq!(bundle["spec"]["target"], serde_json::json!({"configMap": {"key": "ca-certificates.crt"}}));

    let toml = node.nodetrust(&["render", "bottlerocket"]).expect(0).out;
    let readers = FirstBootReaders::new();
    let read = readers.python(
        "import base64, tomllib\npki = tomllib.loads(data.decode())['settings']['pki']\n\
         print(json.dumps({name: [base64.b64decode(entry['data']).decode(), entry['trusted']] for name, entry in pki.items()}))",
        &toml,
    );
    for ca in both {
        assert_eq!(read[format!("nodetrust-{}", ca.fp16())], serde_json::json!([ca.pem(), true]));
    }
    assert_eq!(read.as_object().unwrap().len(), 2);
}
