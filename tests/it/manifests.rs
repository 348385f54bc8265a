//! What people install: kustomizations and the chart, as kubectl 1.22 and 1.37 and Helm 3.9 and 4.3 render them. They agree with
//! each other, with the program's own configuration, and with what docs/security.md says of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use nodetrust::config::{Settings, SourceLocation};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{must, node::Done};

// The job that approves removals.
mod approvals;
// The chart makes the same objects by its values.
mod chart;
// What each overlay and component promises.
mod meaning;
// What Prometheus and Grafana get.
mod monitoring;
// What the admission policies allow.
mod policy;
// What the newest Kubernetes knows of the objects.
mod round_trip;

pub const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
const AGES: [&str; 2] = ["old", "new"];

/// Objects by kind and name.
pub type Objects = BTreeMap<String, Value>;

/// kubectl or helm, of one of the two ages.
fn tool(age: &str, name: &str) -> Command {
    Command::new(tool_path(age, name))
}

/// Where it is.
pub fn tool_path(age: &str, name: &str) -> PathBuf {
    let dir = std::env::var_os("NODETRUST_KUBE_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/nodetrust/kube-tools-1")
    });
    let path = dir.join(age).join(name);
    assert!(path.exists(), "no {}: scripts/test fetches it", path.display());
    path
}

/// Every directory below `manifests/overlays`, and the base.
pub fn overlays() -> Vec<String> {
    let entries = must("manifests/overlays", fs::read_dir(Path::new(MANIFESTS).join("overlays"))).flatten();
    let names = entries.map(|entry| format!("overlays/{}", entry.file_name().to_string_lossy()));
    let mut all: Vec<String> = names.chain(["base".to_owned()]).collect();
    all.sort();
    assert!(all.len() > 5, "{all:?}");
    all
}

pub fn objects(yaml: &str) -> Objects {
    let documents: Vec<Value> = must("YAML", serde_saphyr::from_multiple(yaml));
    let mut objects = Objects::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = format!("{} {}", word(&document["kind"]), word(&document["metadata"]["name"]));
        assert!(objects.insert(name.clone(), document).is_none(), "{name} twice");
    }
    objects
}

/// `kubectl kustomize` of a directory.
#[track_caller]
pub fn kustomize_text(age: &str, dir: &Path) -> String {
    Done::new(must("kubectl", tool(age, "kubectl").arg("kustomize").arg(dir).output())).expect(0).out
}

/// The same for one of our directories with these components, as a person writes it.
#[track_caller]
fn kustomize(age: &str, resource: &str, components: &[&str]) -> Objects {
    objects(&kustomize_with(age, resource, components, ""))
}

/// The same with more text in the kustomization.
#[track_caller]
pub fn kustomize_with(age: &str, resource: &str, components: &[&str], more: &str) -> String {
    // the same is asked by many tests
    static RENDERED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let asked = format!("{age} {resource} {components:?} {more}");
    if let Some(text) = must("rendered", RENDERED.lock()).get(&asked) {
        return text.clone();
    }
    let dir = must("a directory", TempDir::with_prefix_in("nodetrust-test-", env!("CARGO_TARGET_TMPDIR")));
    let up = "../".repeat(dir.path().components().count() - 1); // kustomize wants relative paths
    let manifests = must("manifests", fs::canonicalize(MANIFESTS));
    let path = |name: &str| format!("- {up}{}/{name}\n", manifests.display().to_string().trim_start_matches('/'));
    let mut text = format!("resources:\n{}", path(resource));
    if !components.is_empty() {
        text.push_str("components:\n");
        text.extend(components.iter().map(|name| path(&format!("components/{name}"))));
    }
    must("a kustomization", fs::write(dir.path().join("kustomization.yaml"), text + more));
    let text = kustomize_text(age, dir.path());
    must("rendered", RENDERED.lock()).insert(asked, text.clone());
    text
}

/// `overlays/configmap` with this text as `ca.crt`, and this more of configuration.
#[track_caller]
pub fn configmap(pem: &str, more: &str) -> String {
    configmap_with(pem, more, &[])
}

/// The same with these components.
#[track_caller]
pub fn configmap_with(pem: &str, more: &str, components: &[&str]) -> String {
    let patch = |name: &str, key: &str, text: &str| {
        let text: String = text.lines().map(|line| format!("        {line}\n")).collect();
        format!(
            "- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {{name: {name}, namespace: nodetrust}}\n    \
             data:\n      {key}: |\n{text}"
        )
    };
    let base = must("config.yaml", fs::read_to_string(Path::new(MANIFESTS).join("base/config.yaml")));
    let patches = patch("nodetrust-ca", "ca.crt", pem) + &patch("nodetrust-config", "config.yaml", &(base + more));
    kustomize_with("new", "overlays/configmap", components, &format!("patches:\n{patches}"))
}

/// `helm template`.
fn helm(age: &str, kubernetes: &str, args: &[&str]) -> Done {
    helm_release(age, "nodetrust", kubernetes, args)
}

/// The same of a release in the namespace of its name.
fn helm_release(age: &str, release: &str, kubernetes: &str, args: &[&str]) -> Done {
    let mut command = tool(age, "helm");
    command.args(["template", release, "-n", release, "--kube-version", kubernetes]).args(args);
    // The versions that a cluster of that age has.
    let minor = kubernetes.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor >= 30) {
        command.args(["--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"]);
    }
    Done::new(must("helm", command.arg(Path::new(MANIFESTS).join("chart")).output()))
}

/// The chart with these values, as text.
#[track_caller]
pub fn chart_text(kubernetes: &str, values: &str) -> String {
    helm("new", kubernetes, &["--set", values]).expect(0).out
}

/// Without the Namespace, which Helm makes itself, with the configuration as data, and volumes in the order of their names.
fn comparable(mut objects: Objects) -> Objects {
    objects.remove("Namespace nodetrust");
    if let Some(text) = objects.get_mut("ConfigMap nodetrust-config").map(|object| &mut object["data"]["config.yaml"]) {
        *text = must("config.yaml", serde_saphyr::from_str(text.as_str().unwrap()));
    }
    let spec = objects.get_mut("DaemonSet nodetrust").map(|object| &mut object["spec"]["template"]["spec"]);
    if let Some(spec) = spec {
        for path in ["/volumes", "/containers/0/volumeMounts"] {
            let list = spec.pointer_mut(path).and_then(Value::as_array_mut);
            list.into_iter().for_each(|list| list.sort_by_key(|entry| text(&entry["name"]).to_owned()));
        }
    }
    objects
}

/// Fails with the first object that differs.
#[track_caller]
fn assert_same(left: &Objects, right: &Objects, what: &str) {
    for name in left.keys().chain(right.keys()) {
        assert_eq!(left.get(name), right.get(name), "{what}: {name}");
    }
}

fn pod(objects: &Objects) -> &Value {
    &objects["DaemonSet nodetrust"]["spec"]["template"]
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn old_and_new_kubectl_render_every_overlay_alike() {
    for overlay in overlays() {
        let rendered = AGES.map(|age| kustomize(age, &overlay, &[]));
        assert_same(&rendered[0], &rendered[1], &overlay);
        assert!(rendered[0].contains_key("DaemonSet nodetrust"), "{overlay}");
    }
}

/// Values of the chart, and what of kustomize says the same.
#[test]
fn the_chart_makes_the_same_objects() {
    let secret = "sources[0].name=org,sources[0].volume.secret.secretName=nodetrust-ca,sources[0].volume.secret.optional=true,\
                  sources[0].volume.secret.items[0].key=ca.crt,sources[0].volume.secret.items[0].path=ca.crt";
    let bundle = "sources[0].name=org,sources[0].volume.projected.sources[0].clusterTrustBundle.name=org-ca,\
                  sources[0].volume.projected.sources[0].clusterTrustBundle.path=ca.crt,\
                  sources[0].volume.projected.sources[0].clusterTrustBundle.optional=true";
    let on_host = "sources=null,config.sources[0].name=org,config.sources[0].path=/host/etc/nodetrust/sources/org";
    let mtls = "tlsSecret=nodetrust-tls,tlsClientCASecret=nodetrust-tls-clients";
    let table: [(&str, &str, &str, &[&str]); 16] = [
        ("1.29.0", "", "base", &[]),
        ("1.37.0", "", "base", &["apparmor-field", "admission-policy"]),
        ("1.37.0", "admissionPolicy=false", "base", &["apparmor-field"]),
        ("1.29.0", "admissionPolicy=true", "base", &["admission-policy"]),
        ("1.29.0", "config.kubernetes.enabled=false", "overlays/no-api", &[]),
        ("1.37.0", "config.kubernetes.enabled=false", "overlays/no-api", &["apparmor-field"]),
        ("1.29.0", "privileged=true", "base", &["privileged"]),
        ("1.29.0", "approveRemovals.enabled=true", "base", &["approve-removals"]),
        ("1.37.0", "privileged=true", "base", &["privileged", "apparmor-field", "admission-policy"]),
        ("1.29.0", "privileged=true,openshiftSCC=true", "base", &["openshift-scc", "privileged"]),
        ("1.29.0", "tlsSecret=nodetrust-tls", "overlays/metrics-tls", &[]),
        ("1.29.0", mtls, "overlays/metrics-mtls", &[]),
        ("1.29.0", "config.runtime.onChange=registry", "overlays/k3s", &[]),
        ("1.29.0", secret, "overlays/secret", &[]),
        ("1.37.0", bundle, "overlays/cluster-trust-bundle", &[]),
        ("1.29.0", on_host, "overlays/host-path", &[]),
    ];
    for age in AGES {
        for (kubernetes, values, resource, components) in table {
            let rendered = helm(age, kubernetes, &["--set", values]).expect(0);
            let wanted = comparable(kustomize("new", resource, components));
            assert_same(&comparable(objects(&rendered.out)), &wanted, &format!("{age} {values}"));
        }
    }
}

#[test]
fn the_chart_takes_certificates_and_refuses_what_it_does_not_know() {
    for age in AGES {
        let done = helm(age, "1.29.0", &["--set", "certificates=PEM", "-n", "elsewhere"]).expect(0);
        let all = objects(&done.out);
        assert_eq!(text(&all["ConfigMap nodetrust-ca"]["data"]["ca.crt"]).trim(), "PEM");
        assert_eq!(all["RoleBinding nodetrust-events"]["metadata"]["namespace"], "default");
        assert_eq!(all["RoleBinding nodetrust-events"]["subjects"][0]["namespace"], "elsewhere");

        let done = helm(age, "1.29.0", &["--set", "port=9000"]).expect(0);
        let all = comparable(objects(&done.out));
        assert_eq!(all["ConfigMap nodetrust-config"]["data"]["config.yaml"]["http"]["address"], "[::]:9000");
        assert_eq!(pod(&all)["spec"]["containers"][0]["ports"][0]["containerPort"], 9000);

        let key = "certificates=-----BEGIN PRIVATE KEY-----";
        for values in [
            "tlsClientCASecret=x",
            "pivileged=true",
            "config.polici.weak=reject",
            "image.digest=latest",
            "sources=null",
            key,
        ] {
            assert_ne!(helm(age, "1.29.0", &["--set", values]).code, 0, "{values}");
        }
    }
}

/// An installation that does not use the API has no token for it and no rights.
#[test]
fn a_token_is_mounted_where_the_cluster_is_told_and_nowhere_else() {
    for overlay in overlays() {
        let all = kustomize("new", &overlay, &[]);
        let spec = &pod(&all)["spec"];
        let settings = Settings::parse(text(&all["ConfigMap nodetrust-config"]["data"]["config.yaml"])).unwrap();
        let is_silent = settings.kubernetes.enabled == Some(false);
        let wants_none = is_silent || spec["initContainers"].is_array();
        let mounted = &spec["automountServiceAccountToken"];
        assert_eq!(*mounted, if wants_none { json!(false) } else { Value::Null }, "{overlay}");
        let roles = all.values().filter(|object| text(&object["kind"]).contains("Role")).count();
        assert_eq!(roles == 0, is_silent, "{overlay}");
    }
    assert!(overlays().iter().any(|overlay| overlay == "overlays/no-api"));
}

/// What people are told to type on Kubernetes 1.30 and later has the policy; the base has none.
#[test]
fn the_command_for_kubernetes_1_30_includes_the_policy() {
    for readme in ["../README.md", "README.md"] {
        let page = must(readme, fs::read_to_string(Path::new(MANIFESTS).join(readme)));
        let command = "kubectl apply -k manifests/overlays/configmap-1.30";
        assert!(page.contains(command), "{readme} lacks `{command}`");
    }
    let since = kustomize("new", "overlays/configmap", &["admission-policy", "apparmor-field"]);
    assert_same(&kustomize("new", "overlays/configmap-1.30", &[]), &since, "overlays/configmap-1.30");
    assert!(!kustomize("new", "base", &[]).keys().any(|name| name.starts_with("ValidatingAdmissionPolicy")));
}

/// Checks that a path in the pod is a mount or lies below one.
fn is_mounted(container: &Value, path: &Path) -> bool {
    array(&container["volumeMounts"]).any(|mount| path.starts_with(text(&mount["mountPath"])))
}

#[test]
fn what_is_configured_is_mounted() {
    for overlay in overlays() {
        let all = kustomize("new", &overlay, &[]);
        let config = text(&all["ConfigMap nodetrust-config"]["data"]["config.yaml"]);
        let settings = Settings::parse(config).unwrap_or_else(|error| panic!("{overlay}: {error}"));
        assert!(!settings.sources.is_empty(), "{overlay}");

        let spec = &pod(&all)["spec"];
        // In `uninstall` the init container runs the program, and sources do not matter.
        let uninstall = spec["initContainers"].is_array();
        let container = &spec[if uninstall { "initContainers" } else { "containers" }][0];
        let variables = array(&container["env"]);
        let variables: BTreeMap<&str, &Value> = variables.map(|entry| (text(&entry["name"]), entry)).collect();
        let file = Path::new(text(&variables["NODETRUST_CONFIG"]["value"]));
        assert!(is_mounted(container, file), "{overlay}");
        assert_eq!(file.file_name().unwrap(), "config.yaml", "{overlay}");
        // Every mount has its volume, and every volume is used.
        let mounts: Vec<&str> = array(&container["volumeMounts"]).map(|mount| text(&mount["name"])).collect();
        let volumes: Vec<&str> = array(&spec["volumes"]).map(|volume| text(&volume["name"])).collect();
        for mount in &mounts {
            assert!(volumes.contains(mount), "{overlay}: {mount} of {volumes:?}");
        }
        assert_eq!(mounts.len(), volumes.len(), "{overlay}: {mounts:?} {volumes:?}");
        let sub_path = array(&container["volumeMounts"]).any(|mount| mount.get("subPath").is_some());
        assert!(!sub_path, "{overlay}: a subPath never follows its source");
        if uninstall {
            continue;
        }

        for source in &settings.sources {
            let SourceLocation::Path(path) = &source.from else { continue };
            assert!(is_mounted(container, path), "{overlay}: {}", path.display());
        }
        let tls = settings.http.tls.as_ref();
        assert!(tls.is_none_or(|files| files.all().all(|path| is_mounted(container, path))), "{overlay}");
    }
}

/// The rights that every overlay has. `meaning` checks what the containers may do.
#[test]
fn no_overlay_has_more_rights_than_the_base() {
    let base = kustomize("new", "base", &[]);
    for overlay in overlays() {
        let all = kustomize("new", &overlay, &[]);
        let spec = &pod(&all)["spec"];
        assert!(spec.get("hostPID").is_none() && spec.get("hostIPC").is_none(), "{overlay}");
        for object in all.values().filter(|object| text(&object["kind"]).contains("Role")) {
            let name = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
            assert_eq!(Some(object), base.get(&name), "{overlay}: {name}");
        }
    }
    // Whoever may rewrite events can falsify those of others.
    let events = &base["Role nodetrust-events"]["rules"];
    assert_eq!(*events, json!([{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]));
}

/// docs/security.md has a line for every right, mount, variable and rule of the base.
#[test]
fn every_right_of_the_daemonset_is_explained() {
    let page = must("docs", fs::read_to_string(Path::new(MANIFESTS).join("../docs/security.md")));
    let page = page.split("## What the DaemonSet may do").nth(1).expect("a section").split("\n## ").next().unwrap();
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    let mut wanted: Vec<String> = Vec::new();
    let all = kustomize("new", "base", &[]);
    let spec = &pod(&all)["spec"];
    for field in ["hostNetwork", "dnsPolicy", "priorityClassName", "tolerations", "affinity"] {
        assert!(!spec[field].is_null(), "{field}");
        wanted.push(field.to_owned());
    }
    let container = &spec["containers"][0];
    let rights = container["securityContext"].as_object().unwrap();
    wanted.extend(rights.keys().filter(|name| *name != "runAsGroup").cloned());
    wanted.extend(array(&container["securityContext"]["capabilities"]["add"]).map(|name| text(name).to_owned()));
    wanted.extend(array(&container["volumeMounts"]).map(|mount| text(&mount["mountPath"]).to_owned()));
    wanted.extend(array(&container["env"]).map(|entry| text(&entry["name"]).to_owned()));
    wanted.extend(array(&container["ports"]).map(|port| port["containerPort"].to_string()));
    let annotations = pod(&all)["metadata"]["annotations"].as_object().unwrap();
    wanted.extend(annotations.keys().filter(|key| key.contains("apparmor")).map(|_| "AppArmor".to_owned()));
    let label = "pod-security.kubernetes.io/enforce";
    assert_eq!(all["Namespace nodetrust"]["metadata"]["labels"][label], "privileged");
    wanted.push(label.to_owned());
    for word in &wanted {
        assert!(lines.iter().any(|line| line.contains(word.as_str())), "{word}");
    }
    // Each rule is listed with its verbs.
    for role in all.values().filter(|object| matches!(text(&object["kind"]), "Role" | "ClusterRole")) {
        for rule in array(&role["rules"]) {
            let resource = text(&rule["resources"][0]);
            let verbs: Vec<&str> = array(&rule["verbs"]).map(text).collect();
            let told = format!("`{resource}`: {}", verbs.join(", "));
            assert!(lines.iter().any(|line| line.contains(&told)), "{told}");
        }
    }
}

/// A bundle by its name, or by its signer with labels: by both, or by neither, the API server refuses it.
#[test]
fn the_cluster_trust_bundle_is_named_in_one_way() {
    let all = kustomize("new", "overlays/cluster-trust-bundle", &[]);
    let volume = array(&pod(&all)["spec"]["volumes"]).find(|volume| volume["name"] == "source-org").unwrap();
    let bundle = &volume["projected"]["sources"][0]["clusterTrustBundle"];
    assert!(bundle["name"].is_string() != bundle["signerName"].is_string() && bundle["path"].is_string());
    assert_eq!(bundle["signerName"].is_string(), bundle["labelSelector"].is_object());
}
