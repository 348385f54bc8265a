//! Installed in a cluster as people install it: what its API server says of the manifests, what the agent's account may do, the
//! first install, and how everything goes again.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    manifests::{chart_text, configmap, kustomize_with, overlays},
    support::{
        cluster::{IMAGE, PORT, TestCluster, items},
        machine::MachineKind,
        must,
        node::Done,
        pki::Ca,
        wait_for,
    },
};

/// Longest wait for events that take seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);

const NODES: [(&str, MachineKind); 3] =
    [("bookworm", MachineKind::Bookworm), ("trixie", MachineKind::Trixie), ("rhelish", MachineKind::Rhelish)];

/// A pod on every node, whose image is in the registry with the private CA.
const APP: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers: [{name: app, image: \"registry.test:5443/app:1\", command: [/bin/sleep, \"2147483647\"]}]
";

/// A pod on every node that reads what its node trusts, as nobody and under one path.
const READER: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: reader}
spec:
  selector: {matchLabels: {app: reader}}
  template:
    metadata: {labels: {app: reader}}
    spec:
      securityContext: {runAsUser: 65534, runAsNonRoot: true}
      containers:
      - name: reader
        image: rig.test/busybox:1
        imagePullPolicy: Never
        command: [/bin/sleep, \"2147483647\"]
        volumeMounts: [{name: trust, mountPath: /etc/node-trust, readOnly: true, mountPropagation: HostToContainer}]
      volumes: [{name: trust, hostPath: {path: /var/lib/nodetrust/export, type: Directory}}]
";
const EXPORT: &str = "export: {bundle: ca-certificates.crt}\n";

/// Our files on a node.
fn ours(cluster: &TestCluster, node: &str) -> Vec<String> {
    let find = "find /usr/local/share/ca-certificates /etc/pki/ca-trust/source/anchors /var/lib/nodetrust \
                /run/nodetrust.lock -name '*nodetrust*' 2>/dev/null; :";
    cluster.node(node).run(&["sh", "-c", find]).expect(0).out.lines().map(str::to_owned).collect()
}

/// From nothing: a pull fails on every node, one command installs, the pull works, and the agents did not restart. Deleting
/// leaves the trust as it is; `uninstall` takes it back.
#[test]
fn one_command_installs_and_one_uninstalls_on_every_kind_of_node() {
    let cluster = TestCluster::boot(&NODES);
    cluster.push("app:1");
    cluster.image(IMAGE, crate::support::program());
    cluster.apply(APP);
    cluster.apply(READER); // the readers' pods wait for the file
    let untrusted = |pod: &Value| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        matches!(waiting["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff"))
    };
    cluster.wait("failed pulls", &["pods", "-l", "app=app"], |list| {
        let pods = items(list);
        pods.len() == NODES.len() && pods.iter().all(untrusted)
    });

    let install = configmap(&cluster.registry_ca(), EXPORT);
    cluster.apply(&install);
    cluster.rolled_out();
    cluster.wait("pods of the private image", &["pods", "-l", "app=app"], |list| {
        items(list).iter().filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true).count() == NODES.len()
    });
    let agents = cluster.pods(&["-n", "nodetrust"]);
    assert_eq!(agents.len(), NODES.len());
    for pod in &agents {
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!((&status["restartCount"], &status["ready"]), (&0.into(), &true.into()), "{status:#}");
        let name = pod["metadata"]["name"].as_str().unwrap();
        let done = cluster.kubectl(&["-n", "nodetrust", "exec", name, "--", "nodetrust", "status"]).expect(0);
        assert!(
            done.out.starts_with(&format!("{}   TRUSTED", pod["spec"]["nodeName"].as_str().unwrap())),
            "{}",
            done.out
        );
    }

    // Every agent follows a changed ConfigMap without a restart.
    let second = Ca::new("Second CA");
    let change = json!({"data": {"second.crt": second.pem()}}).to_string();
    cluster.kubectl(&["-n", "nodetrust", "patch", "configmap", "nodetrust-ca", "-p", &change]).expect(0);
    for pod in &agents {
        let node = pod["spec"]["nodeName"].as_str().unwrap();
        let agent = cluster.agent(node, PORT, "nodetrust", pod["metadata"]["name"].as_str().unwrap());
        agent.wait_status("two anchors", LIMIT, |status| {
            let anchors = status["anchors"].as_array().map_or(0, Vec::len);
            status["converged"] == true && anchors == 2 && status["node"] == node
        });
        assert_eq!(agent.get("/readyz").map(|(code, _)| code), Some(200));
    }
    // Pods follow their node's bundle, wherever the distribution keeps it.
    cluster.wait("readers", &["pods", "-l", "app=reader"], |list| {
        items(list).iter().filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true).count() == NODES.len()
    });
    for pod in cluster.pods(&["-l", "app=reader"]) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let text = cluster.kubectl(&["exec", name, "--", "cat", "/etc/node-trust/ca-certificates.crt"]).expect(0).out;
        assert!(text.contains(&second.pem()) && text.contains(&cluster.registry_ca()), "{name}");
        assert!(text.matches("BEGIN CERTIFICATE").count() > 50, "{name}: the distribution's CAs are there too");
    }
    let names = |pods: &[Value]| pods.iter().map(|pod| pod["metadata"]["uid"].clone()).collect::<Vec<_>>();
    let now = cluster.pods(&["-n", "nodetrust"]);
    assert_eq!(names(&now), names(&agents));
    assert!(now.iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0));

    cluster.kubectl_with(&["delete", "-f", "-"], &install).expect(0);
    for (node, _) in NODES {
        assert!(ours(&cluster, node).len() > 1, "{node}: the trust has gone");
    }

    let uninstall = kustomize_with("new", "overlays/uninstall", &[], "");
    cluster.apply(&uninstall);
    cluster.rolled_out();
    for (node, _) in NODES {
        assert_eq!(ours(&cluster, node), [""; 0], "{node}");
    }
    cluster.kubectl_with(&["delete", "-f", "-"], &uninstall).expect(0);
}

/// Each way of giving CAs and each addition, one after the other on one node, gets the node to trust the CA that is given so.
#[test]
fn every_overlay_has_its_agent_ready_and_its_ca_trusted() {
    let cluster = TestCluster::boot(&[("trixie", MachineKind::Trixie)]);
    cluster.image(IMAGE, crate::support::program());
    let ready = |what: &str, ca: &Ca| {
        cluster.rolled_out();
        let status = ["-n", "nodetrust", "exec", "daemonset/nodetrust", "--", "nodetrust", "-o", "json", "status"];
        wait_for(what, LIMIT, || {
            let done = cluster.kubectl(&status);
            let status: Value = serde_json::from_str(&done.out).ok()?;
            let mut anchors = status["anchors"].as_array()?.iter();
            anchors.any(|anchor| anchor["sha256"] == *ca.sha256() && anchor["trusted"] == true).then_some(())
        });
    };
    let give = |kind: &[&str], name: &str, ca: &Ca| {
        let file = format!("{name}={}", ca.pem());
        let words = [&["-n", "nodetrust", "create"], kind, &["nodetrust-ca", "--from-literal", &file]].concat();
        cluster.kubectl(&words).expect(0);
    };

    // The source is empty at first: the agent starts, reports that, and follows when anchors come.
    cluster.apply(&kustomize_with("new", "base", &[], ""));
    let running = |list: &Value| items(list).iter().any(|pod| pod["status"]["containerStatuses"][0]["started"] == true);
    cluster.wait("a started agent", &["pods", "-n", "nodetrust"], running);
    let agent = cluster.agent("trixie", PORT, "nodetrust", "daemonset/nodetrust");
    let why =
        wait_for("an unready agent", LIMIT, || agent.get("/readyz").filter(|(_, why)| why.contains("source org")));
    assert!(why.0 == 503 && why.1.contains("ConfigMap does not exist"), "{why:?}");
    assert_eq!(cluster.pods(&["-n", "nodetrust"])[0]["status"]["containerStatuses"][0]["ready"], false);
    let ca = Ca::new("Given later");
    give(&["configmap"], "any-key", &ca);
    ready("the ConfigMap's CA", &ca);

    // The source has given anchors on this node before: they are held, and the rollout does not wait.
    cluster.apply(&kustomize_with("new", "overlays/secret", &[], ""));
    cluster.rolled_out();
    let done =
        cluster.kubectl(&["-n", "nodetrust", "exec", "daemonset/nodetrust", "--", "nodetrust", "-o", "json", "status"]);
    let held = &done.json()["sources"][0];
    assert_eq!(held["status"], "held", "{held}");
    assert!(held["detail"].as_str().unwrap().contains("Secret does not exist"), "{held}");
    let ca = Ca::new("In a Secret");
    give(&["secret", "generic"], "ca.crt", &ca);
    cluster.apply(&kustomize_with("new", "overlays/secret", &[], ""));
    ready("the Secret's CA", &ca);

    let ca = Ca::new("On the host");
    cluster.node("trixie").write("/etc/nodetrust/sources/org/ca.crt", ca.pem());
    cluster.apply(&kustomize_with("new", "overlays/host-path", &[], ""));
    ready("the host's CA", &ca);

    let ca = Ca::new("From trust-manager");
    let change = json!({"data": {"ca-certificates.crt": ca.pem(), "any-key": "no certificate"}}).to_string();
    cluster.kubectl(&["-n", "nodetrust", "patch", "configmap", "nodetrust-ca", "-p", &change]).expect(0);
    let text = kustomize_with("new", "overlays/trust-manager", &[], "");
    cluster.apply(&without_bundle(&text));
    ready("the Bundle's CA", &ca);

    // The kubelet's probes use HTTPS, and the agent can read a Secret that only root may read.
    let (cert, key) = ca.leaf("trixie");
    let (cert, key) = (format!("tls.crt={cert}"), format!("tls.key={key}"));
    let words = [
        "-n",
        "nodetrust",
        "create",
        "secret",
        "generic",
        "nodetrust-tls",
        "--from-literal",
        &cert,
        "--from-literal",
        &key,
    ];
    cluster.kubectl(&words).expect(0);
    let ca = Ca::new("Over HTTPS");
    let change = json!({"data": {"any-key": ca.pem()}}).to_string();
    cluster.kubectl(&["-n", "nodetrust", "patch", "configmap", "nodetrust-ca", "-p", &change]).expect(0);
    cluster.apply(&kustomize_with("new", "overlays/metrics-tls", &["privileged"], ""));
    ready("the CA of an agent with HTTPS", &ca);
    let pod = &cluster.pods(&["-n", "nodetrust"])[0];
    assert_eq!(pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["scheme"], "HTTPS");
    assert_eq!(pod["spec"]["containers"][0]["securityContext"]["privileged"], true);
}

/// Without trust-manager's kind of object, which is not at hand.
fn without_bundle(text: &str) -> String {
    without(text, "kind: Bundle\n")
}

/// Without the objects that contain these words.
fn without(text: &str, words: &str) -> String {
    let known: Vec<&str> = text.split("\n---\n").filter(|object| !object.contains(words)).collect();
    known.join("\n---\n")
}

/// What kubectl sends is what the API server takes: no field that it would drop, no value that it refuses. It is 1.20, which
/// has neither ClusterTrustBundle nor ValidatingAdmissionPolicy nor AppArmor's field: those are not asked here.
#[test]
fn the_api_server_of_1_20_takes_every_overlay_that_it_can_know() {
    let cluster = TestCluster::boot(&[("bookworm", MachineKind::Bookworm)]);
    cluster.kubectl(&["create", "namespace", "nodetrust"]).expect(0);
    let dry_run = ["apply", "--dry-run=server", "-f", "-"];
    let newer = ["overlays/cluster-trust-bundle", "overlays/configmap-1.30", "overlays/uninstall-1.30"];
    for overlay in overlays().iter().filter(|overlay| !newer.contains(&overlay.as_str())) {
        let text = kustomize_with("new", overlay, &[], "");
        let done = cluster.kubectl_with(&dry_run, &without_bundle(&text));
        assert_eq!(done.code, 0, "{overlay}: {}", done.err);
    }
    let done = cluster.kubectl_with(&dry_run, &kustomize_with("new", "base", &["privileged"], ""));
    assert_eq!(done.code, 0, "{}", done.err);
    // One of them sets every value of the chart.
    let digest = format!("image.repository=r.test/n,image.pullPolicy=Always,image.digest=sha256:{}", "0".repeat(64));
    let secret = "sources[0].name=a,sources[0].optional=true,sources[0].volume.secret.secretName=x,\
                  sources[0].volume.secret.items[0].key=k,sources[0].volume.secret.items[0].path=p,\
                  sources[1].name=b,sources[1].volume.hostPath.path=/x,image.tag=x,podAnnotations.a=b,nodeSelector.a=b";
    let on_host = "sources=null,config.sources[0].name=a,config.sources[0].path=/x,config.rotation.removalGrace=7d,\
                   priorityClassName=system-cluster-critical,maxUnavailable=1,resources.requests.cpu=1,\
                   tolerations[0].key=a,tolerations[0].operator=Exists,affinity.nodeAffinity.\
                   requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key=metadata.name,\
                   affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
                   matchFields[0].operator=In,affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.\
                   nodeSelectorTerms[0].matchFields[0].values[0]=bookworm";
    let more = "privileged=true,tlsSecret=x,tlsClientCASecret=y,port=9000,certificates=x,podLabels.a=b,imagePullSecrets[0].name=x";
    for values in ["", more, &digest, secret, on_host] {
        let done = cluster.kubectl_with(&dry_run, &chart_text("1.20.2", values));
        assert_eq!(done.code, 0, "{values}: {}", done.err);
    }
    // The API server refuses a field that it does not know, so the checks above prove something.
    let text =
        without(&kustomize_with("new", "overlays/cluster-trust-bundle", &[], ""), "kind: ValidatingAdmissionPolicy");
    let done = cluster.kubectl_with(&dry_run, &text);
    assert!(done.code != 0 && done.err.contains("clusterTrustBundle"), "{done:?}");

    // The API server itself says who may do what.
    cluster.apply(&kustomize_with("new", "base", &[], ""));
    let may = |words: &str| {
        let who = ["auth", "can-i", "--as=system:serviceaccount:nodetrust:nodetrust", "--quiet"];
        cluster.kubectl(&who.into_iter().chain(words.split(' ')).collect::<Vec<_>>()).code == 0
    };
    for words in [
        "get nodes",
        "patch nodes",
        "patch nodes --subresource=status",
        "create events -n default",
        "list leases.coordination.k8s.io -n nodetrust",
        "create leases.coordination.k8s.io -n nodetrust",
        "patch leases.coordination.k8s.io -n nodetrust",
        "get daemonsets.apps/nodetrust -n nodetrust",
    ] {
        assert!(may(words), "{words}");
    }
    for words in [
        "list nodes",
        "delete nodes",
        "update nodes",
        "create events -n nodetrust",
        "patch events -n default",
        "delete leases.coordination.k8s.io -n nodetrust",
        "update leases.coordination.k8s.io -n nodetrust",
        "list leases.coordination.k8s.io -n kube-node-lease",
        "get daemonsets.apps/other -n nodetrust",
        "list daemonsets.apps -n nodetrust",
        "update leases.coordination.k8s.io -n kube-node-lease",
        "get secrets -n nodetrust",
        "get configmaps -n nodetrust",
        "get pods -n nodetrust",
        "create pods -n nodetrust",
    ] {
        assert!(!may(words), "{words}");
    }
}

/// `scripts/cluster show`, given a cluster as people give their own: it installs, rotates and takes everything away, and says so.
#[test]
fn show_works_in_a_cluster_that_is_already_there() {
    let cluster = TestCluster::boot(&[("bookworm", MachineKind::Bookworm)]);
    let image = "registry.test:5443/nodetrust:shown";
    cluster.image(image, crate::support::program());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cluster");
    let mut command = cluster.beside(Path::new(script));
    command.args(["show", "--image", image, "--kubeconfig"]).arg(cluster.kubeconfig());
    command.env("NODETRUST_BIN", crate::support::program());
    let done = Done::new(must("scripts/cluster", command.output())).expect(0);
    assert!(done.out.contains("UNIFORM   the only node trusts 2 anchors"), "{}", done.out);
    assert!(done.out.contains("All steps showed what they say"), "{}", done.out);
    assert_eq!(ours(&cluster, "bookworm"), [""; 0]);
}
