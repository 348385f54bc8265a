//! What people install: kustomizations and the chart, as kubectl 1.22 and 1.37 and Helm 3.9 and 4.3 render them. They agree with
//! each other, with the program's own configuration, and with what docs/security.md says of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nodetrust::config::{From, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{must, node::Done};

pub const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
const AGES: [&str; 2] = ["old", "new"];

/// Objects by kind and name.
type Objects = BTreeMap<String, Value>;

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

fn objects(yaml: &str) -> Objects {
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

/// The same for a directory of ours and these components, written as a person would.
#[track_caller]
fn kustomize(age: &str, resource: &str, components: &[&str]) -> Objects {
    objects(&kustomize_with(age, resource, components, ""))
}

/// And with more in the kustomization.
#[track_caller]
pub fn kustomize_with(age: &str, resource: &str, components: &[&str], more: &str) -> String {
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
    kustomize_text(age, dir.path())
}

/// `overlays/configmap` with this text as `ca.crt`, and this more of configuration.
#[track_caller]
pub fn configmap(pem: &str, more: &str) -> String {
    let patch = |name: &str, key: &str, text: &str| {
        let text: String = text.lines().map(|line| format!("        {line}\n")).collect();
        format!(
            "- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {{name: {name}, namespace: nodetrust}}\n    \
             data:\n      {key}: |\n{text}"
        )
    };
    let base = must("config.yaml", fs::read_to_string(Path::new(MANIFESTS).join("base/config.yaml")));
    let patches = patch("nodetrust-ca", "ca.crt", pem) + &patch("nodetrust-config", "config.yaml", &(base + more));
    kustomize_with("new", "overlays/configmap", &[], &format!("patches:\n{patches}"))
}

/// `helm template`.
fn helm(age: &str, kubernetes: &str, args: &[&str]) -> Done {
    let mut command = tool(age, "helm");
    command.args(["template", "nodetrust", "-n", "nodetrust", "--kube-version", kubernetes]).args(args);
    // what a cluster of that version would say
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
    for component in ["privileged", "apparmor-field", "admission-policy"] {
        let rendered = AGES.map(|age| kustomize(age, "base", &[component]));
        assert_same(&rendered[0], &rendered[1], component);
        assert_ne!(rendered[0], kustomize("new", "base", &[]), "{component} does nothing");
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
    let table: [(&str, &str, &str, &[&str]); 13] = [
        ("1.29.0", "", "base", &[]),
        ("1.37.0", "", "base", &["apparmor-field", "admission-policy"]),
        ("1.37.0", "admissionPolicy=false", "base", &["apparmor-field"]),
        ("1.29.0", "admissionPolicy=true", "base", &["admission-policy"]),
        ("1.29.0", "config.kubernetes.enabled=false", "overlays/no-api", &[]),
        ("1.37.0", "config.kubernetes.enabled=false", "overlays/no-api", &["apparmor-field"]),
        ("1.29.0", "privileged=true", "base", &["privileged"]),
        ("1.29.0", "tlsSecret=nodetrust-tls", "overlays/metrics-tls", &[]),
        ("1.29.0", mtls, "overlays/metrics-mtls", &[]),
        ("1.29.0", "config.runtime.onChange=report", "overlays/k3s", &[]),
        ("1.29.0", secret, "overlays/secret", &[]),
        ("1.29.0", bundle, "overlays/cluster-trust-bundle", &[]),
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

/// Whoever has no use for the API has no token for it, and no rights.
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
    let all = kustomize("new", "overlays/configmap-1.30", &[]);
    let (policy, rest): (Objects, Objects) =
        all.into_iter().partition(|(name, _)| name.starts_with("ValidatingAdmissionPolicy"));
    assert_eq!(policy.len(), 2);
    assert_same(&rest, &kustomize("new", "overlays/configmap", &[]), "beside the policy");
    for overlay in overlays().iter().filter(|overlay| *overlay != "overlays/configmap-1.30") {
        let all = kustomize("new", overlay, &[]);
        assert!(!all.keys().any(|name| name.starts_with("ValidatingAdmissionPolicy")), "{overlay}");
    }
}

/// A path in the pod is a mount, or below one.
fn is_mounted(container: &Value, path: &Path) -> bool {
    array(&container["volumeMounts"]).any(|mount| path.starts_with(text(&mount["mountPath"])))
}

#[test]
fn what_is_configured_is_mounted_and_served() {
    for overlay in overlays() {
        let all = kustomize("new", &overlay, &[]);
        let config = text(&all["ConfigMap nodetrust-config"]["data"]["config.yaml"]);
        let settings = Settings::parse(config).unwrap_or_else(|error| panic!("{overlay}: {error}"));
        assert!(!settings.sources.is_empty(), "{overlay}");

        let spec = &pod(&all)["spec"];
        // in `uninstall` the program's container is the one that runs first, and sources do not matter
        let uninstall = spec["initContainers"].is_array();
        let container = &spec[if uninstall { "initContainers" } else { "containers" }][0];
        let variables = array(&container["env"]);
        let variables: BTreeMap<&str, &Value> = variables.map(|entry| (text(&entry["name"]), entry)).collect();
        let file = Path::new(text(&variables["NODETRUST_CONFIG"]["value"]));
        assert!(is_mounted(container, file), "{overlay}");
        assert_eq!(file.file_name().unwrap(), "config.yaml", "{overlay}");
        // every mount has its volume, and every volume is used
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
            let From::Path(path) = &source.from else { continue };
            assert!(is_mounted(container, path), "{overlay}: {}", path.display());
        }
        let tls = settings.http.tls.as_ref();
        assert!(tls.is_none_or(|files| files.all().all(|path| is_mounted(container, path))), "{overlay}");
        let port = &container["ports"][0];
        assert_eq!(port["containerPort"], settings.http.address.port(), "{overlay}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["port"], port["name"], "{overlay}");
            assert_eq!(get["scheme"] == "HTTPS", tls.is_some(), "{overlay} {probe}");
        }
    }
}

/// The rights of the contract: no more than these, in every overlay but for the container that only waits.
#[test]
fn no_overlay_has_more_rights_than_the_base() {
    let base = kustomize("new", "base", &[]);
    let agent = &pod(&base)["spec"]["containers"][0];
    let rights = json!({
        "runAsUser": 0, "runAsGroup": 0, "privileged": false, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["SYS_CHROOT", "DAC_OVERRIDE"]},
        "seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"type": "spc_t"},
    });
    assert_eq!(agent["securityContext"], rights);
    for overlay in overlays() {
        let all = kustomize("new", &overlay, &[]);
        let spec = &pod(&all)["spec"];
        assert_eq!(spec["hostNetwork"], true, "{overlay}");
        assert!(spec.get("hostPID").is_none() && spec.get("hostIPC").is_none(), "{overlay}");
        for container in array(&spec["containers"]).chain(array(&spec["initContainers"])) {
            let mut have = container["securityContext"].clone();
            if have["runAsNonRoot"] == true {
                // the one that only waits has less: no mount, no capability
                assert!(container["volumeMounts"].is_null(), "{overlay}");
                assert_eq!(have["capabilities"], json!({"drop": ["ALL"]}), "{overlay}");
                for name in ["runAsUser", "runAsGroup", "capabilities", "seLinuxOptions"] {
                    have[name] = rights[name].clone();
                }
                have.as_object_mut().unwrap().remove("runAsNonRoot");
            }
            assert_eq!(have, rights, "{overlay}");
        }
        for object in all.values().filter(|object| text(&object["kind"]).contains("Role")) {
            let name = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
            assert_eq!(Some(object), base.get(&name), "{overlay}: {name}");
        }
    }
}

/// OpenShift's constraints allow what the DaemonSet asks for, and nothing else.
#[test]
fn openshifts_constraints_are_the_rights_of_the_base() {
    let all = kustomize("new", "base", &["openshift-scc"]);
    let constraints = &all["SecurityContextConstraints nodetrust"];
    let spec = &pod(&all)["spec"];
    let context = &spec["containers"][0]["securityContext"];
    assert_eq!(constraints["allowedCapabilities"], context["capabilities"]["add"]);
    assert_eq!(constraints["requiredDropCapabilities"], context["capabilities"]["drop"]);
    assert_eq!(constraints["allowPrivilegedContainer"], context["privileged"]);
    assert_eq!(constraints["allowPrivilegeEscalation"], context["allowPrivilegeEscalation"]);
    assert_eq!(constraints["readOnlyRootFilesystem"], context["readOnlyRootFilesystem"]);
    assert_eq!(constraints["allowHostNetwork"], spec["hostNetwork"]);
    assert_eq!((&constraints["allowHostPID"], &constraints["allowHostIPC"]), (&json!(false), &json!(false)));
    let account = format!("system:serviceaccount:nodetrust:{}", text(&spec["serviceAccountName"]));
    assert_eq!(constraints["users"], json!([account]));
    for volume in array(&spec["volumes"]) {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        for kind in kinds {
            assert!(array(&constraints["volumes"]).any(|allowed| allowed == kind.as_str()), "{kind}");
        }
    }
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
    for field in ["hostNetwork", "dnsPolicy", "priorityClassName", "tolerations"] {
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
    // each rule stands with its verbs
    for role in all.values().filter(|object| matches!(text(&object["kind"]), "Role" | "ClusterRole")) {
        for rule in array(&role["rules"]) {
            let resource = text(&rule["resources"][0]);
            let verbs: Vec<&str> = array(&rule["verbs"]).map(text).collect();
            let told = format!("`{resource}`: {}", verbs.join(", "));
            assert!(lines.iter().any(|line| line.contains(&told)), "{told}");
        }
    }
}

/// Of what no server at hand knows: the fields that the Kubernetes API reference has for it, and no others.
#[test]
fn new_kinds_of_objects_have_fields_that_are_documented_though_no_server_at_hand_knows_them() {
    let only = |value: &Value, known: &[&str]| {
        let value = value.as_object().unwrap();
        assert!(value.keys().all(|key| known.contains(&key.as_str())), "{value:?}: want {known:?}");
    };
    let all = kustomize("new", "overlays/cluster-trust-bundle", &[]);
    let volume = array(&pod(&all)["spec"]["volumes"]).find(|volume| volume["name"] == "source-org").unwrap();
    only(volume, &["name", "projected"]);
    let bundle = &volume["projected"]["sources"][0]["clusterTrustBundle"];
    only(bundle, &["name", "signerName", "labelSelector", "path", "optional"]);
    assert!(bundle["name"].is_string() != bundle["signerName"].is_string() && bundle["path"].is_string());

    let all = kustomize("new", "base", &["admission-policy", "apparmor-field"]);
    let policy = &all["ValidatingAdmissionPolicy nodetrust"];
    assert_eq!(policy["apiVersion"], "admissionregistration.k8s.io/v1");
    let spec = &policy["spec"];
    only(spec, &["failurePolicy", "matchConstraints", "matchConditions", "variables", "validations"]);
    only(&spec["matchConstraints"], &["resourceRules"]);
    only(&spec["matchConstraints"]["resourceRules"][0], &["apiGroups", "apiVersions", "operations", "resources"]);
    array(&spec["matchConditions"])
        .chain(array(&spec["variables"]))
        .for_each(|rule| only(rule, &["name", "expression"]));
    array(&spec["validations"]).for_each(|rule| only(rule, &["expression", "message"]));
    let binding = &all["ValidatingAdmissionPolicyBinding nodetrust"]["spec"];
    assert_eq!(*binding, json!({"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}));
    let profile = &pod(&all)["spec"]["containers"][0]["securityContext"]["appArmorProfile"];
    assert_eq!(*profile, json!({"type": "Unconfined"}));
}

/// The rules of the policy in a CEL implementation that is not the API server's: no server that has them is at hand.
mod policy_in_another_cel_implementation {
    use std::sync::{Arc, OnceLock};

    use cel::{Context, Env};
    use nodetrust_core::node::{ANNOTATION, CONDITION};

    use super::*;

    const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

    fn node() -> Value {
        json!({
            "metadata": {
                "name": "a", "labels": {"role": "x"}, "annotations": {"theirs": "1", "nodetrust.io/status": "{}"},
            },
            "spec": {"providerID": "p", "taints": [
                {"key": "nodetrust.io/not-trusted", "effect": "NoSchedule"}, {"key": "theirs", "effect": "NoSchedule"},
            ]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "198.51.100.11"}],
                "capacity": {"cpu": "2"},
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "nodetrust.io/TrustReady", "status": "True"}],
                "images": [],
            },
        })
    }

    fn user(extra: Value) -> Value {
        json!({"username": "system:serviceaccount:nodetrust:nodetrust", "extra": extra})
    }

    /// The messages of the rules that refuse, None if the policy does not look at the request.
    fn refusals(old: &Value, new: &Value, user: &Value) -> Option<Vec<String>> {
        static POLICY: OnceLock<Objects> = OnceLock::new();
        let policy = POLICY.get_or_init(|| kustomize("new", "base", &["admission-policy"]));
        let spec = &policy["ValidatingAdmissionPolicy nodetrust"]["spec"];
        let env = Arc::new(Env::stdlib());
        let mut variables = serde_json::Map::new();
        let eval = |expression: &Value, variables: &Value| {
            let mut context = Context::with_env(env.clone());
            let request = json!({"name": old["metadata"]["name"], "userInfo": user});
            for (name, value) in [("object", new), ("oldObject", old), ("request", &request), ("variables", variables)]
            {
                must(name, context.add_variable(name, value.clone()));
            }
            let program = must("a rule", env.compile(text(expression)));
            // one that fails refuses, as `failurePolicy: Fail` has it
            program.execute(&context).map(|value| must("a rule's value", value.json())).unwrap_or_default()
        };
        if array(&spec["matchConditions"]).any(|rule| eval(&rule["expression"], &json!({})) != true) {
            return None;
        }
        for variable in array(&spec["variables"]) {
            let value = eval(&variable["expression"], &json!({}));
            variables.insert(text(&variable["name"]).to_owned(), value);
        }
        let variables = Value::Object(variables);
        let refused = array(&spec["validations"]).filter(|rule| eval(&rule["expression"], &variables) != true);
        Some(refused.map(|rule| text(&rule["message"]).to_owned()).collect())
    }

    #[track_caller]
    fn check(what: &str, allowed: bool, change: impl Fn(&mut Value)) {
        let (old, mut new) = (node(), node());
        change(&mut new);
        let refused = refusals(&old, &new, &user(json!({NODE_NAME: ["a"]}))).unwrap();
        assert_eq!(refused.len(), usize::from(!allowed), "{what}: {refused:?}");
    }

    #[test]
    fn the_agent_may_change_what_is_its_own() {
        check("nothing", true, |_| {});
        check("annotation", true, |node| node["metadata"]["annotations"]["nodetrust.io/status"] = json!("{1}"));
        check("condition", true, |node| node["status"]["conditions"][1]["status"] = json!("False"));
        check("first condition", true, |node| drop(node["status"]["conditions"].as_array_mut().unwrap().pop()));
        check("startup taint", true, |node| drop(node["spec"]["taints"].as_array_mut().unwrap().remove(0)));
    }

    #[test]
    fn the_agent_may_change_nothing_else() {
        check("annotation", false, |node| node["metadata"]["annotations"]["theirs"] = json!("2"));
        check("annotations", false, |node| drop(node["metadata"].as_object_mut().unwrap().remove("annotations")));
        check("label", false, |node| node["metadata"]["labels"]["role"] = json!("control-plane"));
        check("their taint", false, |node| drop(node["spec"]["taints"].as_array_mut().unwrap().pop()));
        check("all taints", false, |node| drop(node["spec"].as_object_mut().unwrap().remove("taints")));
        let more = json!({"key": "nodetrust.io/x", "effect": "NoExecute"});
        check("a taint more", false, |node| node["spec"]["taints"].as_array_mut().unwrap().push(more.clone()));
        check("cordon", false, |node| node["spec"]["unschedulable"] = json!(true));
        check("Ready", false, |node| node["status"]["conditions"][0]["status"] = json!("False"));
        check("capacity", false, |node| node["status"]["capacity"]["cpu"] = json!("200"));
        check("addresses", false, |node| drop(node["status"].as_object_mut().unwrap().remove("addresses")));
    }

    /// A Node with every field that the API reference of 1.33 has for it, and with some that nobody knows yet.
    fn whole_node() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node", "later": {"deep": [1]},
            "metadata": {
                "name": "a", "generateName": "x", "namespace": "", "selfLink": "x", "uid": "u", "resourceVersion": "7",
                "generation": 1, "creationTimestamp": null, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "deletionGracePeriodSeconds": 1, "labels": {"role": "x", "a": ""},
                "annotations": {"theirs": "1", "nodetrust.io/status": "{}", "nodetrust.io/status2": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u", "controller": true}],
                "finalizers": ["x"], "managedFields": [{"manager": "m", "operation": "Update"}], "later": "x",
            },
            "spec": {
                "podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "fd00::/64"], "providerID": "p", "unschedulable": true,
                "taints": [
                    {"key": "first", "effect": "NoSchedule"},
                    {"key": "nodetrust.io/not-trusted", "effect": "NoSchedule"},
                    {"key": "nodetrust", "value": "x", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
                ],
                "configSource": {"configMap": {"name": "x", "kubeletConfigKey": "x"}}, "externalID": "x", "later": {},
            },
            "status": {
                "capacity": {"cpu": "2", "memory": "1Gi"}, "allocatable": {"cpu": "2"}, "phase": "Running",
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "x", "lastHeartbeatTime": null},
                    {"type": "nodetrust.io/TrustReady", "status": "True"},
                    {"type": "nodetrust.io/TrustReady2", "status": "True"},
                ],
                "addresses": [{"type": "InternalIP", "address": "198.51.100.11"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "nodeInfo": {"kernelVersion": "6", "swap": {"capacity": 1}, "bootID": "x"},
                "images": [{"names": ["a", "b"], "sizeBytes": 1}], "volumesInUse": ["v"],
                "volumesAttached": [{"name": "v", "devicePath": ""}], "config": {"error": "x"},
                "runtimeHandlers": [{"name": "", "features": {"recursiveReadOnlyMounts": true}}],
                "features": {"supplementalGroupsPolicy": true}, "declaredFeatures": ["x"], "later": [{}],
            },
        })
    }

    /// Each place in a document, as a JSON pointer.
    fn places(value: &Value, at: &str, found: &mut Vec<String>) {
        let inner: Vec<(String, &Value)> = match value {
            Value::Object(map) => {
                map.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
            }
            Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
            _ => Vec::new(),
        };
        for (name, value) in inner {
            let at = format!("{at}/{name}");
            places(value, &at, found);
            found.push(at);
        }
    }

    /// The same document with one change at a place: taken away, another value, and one more in what holds others.
    fn changed(node: &Value, at: &str) -> Vec<(&'static str, Value)> {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut new = node.clone();
            change(new.pointer_mut(at).unwrap());
            new
        };
        let (above, name) = at.rsplit_once('/').unwrap();
        let mut without = node.clone();
        match without.pointer_mut(above).unwrap() {
            Value::Object(map) => drop(map.remove(&name.replace("~1", "/").replace("~0", "~"))),
            Value::Array(list) => drop(list.remove(name.parse().unwrap())),
            _ => unreachable!(),
        }
        let other = with(&|value| {
            *value = match value {
                Value::String(text) => json!(format!("{text}x")),
                Value::Bool(flag) => json!(!*flag),
                Value::Number(number) => json!(number.as_i64().unwrap() + 1),
                _ => json!("x"),
            }
        });
        let more = with(&|value| match value {
            Value::Object(map) => drop(map.insert("added".into(), json!("x"))),
            Value::Array(list) => list.push(list.first().cloned().unwrap_or_else(|| json!("x"))),
            _ => {}
        });
        let mut all = vec![("gone", without), ("another", other)];
        all.extend((more != *node).then_some(("more", more)));
        all
    }

    #[test]
    fn every_other_field_of_a_node_is_compared() {
        let old = whole_node();
        let mut all = Vec::new();
        places(&old, "", &mut all);
        assert!(all.len() > 100, "{}", all.len());
        let user = user(json!({NODE_NAME: ["a"]}));
        // ours, and what the API server alone sets
        let free = [
            "/metadata/annotations/nodetrust.io~1status",
            "/metadata/managedFields",
            "/metadata/resourceVersion",
            "/metadata/generation",
            "/status/conditions/1",
            "/apiVersion",
            "/kind",
        ];
        let is_free = |at: &str| free.iter().any(|free| at == *free || at.starts_with(&format!("{free}/")));
        let mut checked = 0;
        for at in &all {
            for (how, new) in changed(&old, at) {
                // another type would be another condition beside theirs; a taint of ours may go, and not change
                let allowed = (is_free(at)
                    && at != "/status/conditions/1/type"
                    && !(at == "/status/conditions/1" && how == "another"))
                    || (at == "/spec/taints/1" && how == "gone");
                let refused = refusals(&old, &new, &user);
                assert_eq!(refused.as_ref().map(Vec::is_empty), Some(allowed), "{at} {how}: {refused:?}");
                checked += 1;
            }
        }
        assert!(checked > 250, "{checked}");
        // a field that comes, in each of the four parts
        for at in ["", "/metadata", "/spec", "/status"] {
            let mut new = old.clone();
            new.pointer_mut(at).unwrap()["comes"] = json!({});
            assert_eq!(refusals(&old, &new, &user).map(|refused| refused.len()), Some(1), "{at}");
            assert_eq!(refusals(&new, &old, &user).map(|refused| refused.len()), Some(1), "{at}");
        }
        // what is the same in another order is not the same
        for at in ["/spec/taints", "/status/conditions", "/spec/podCIDRs"] {
            let mut new = old.clone();
            new.pointer_mut(at).unwrap().as_array_mut().unwrap().reverse();
            assert_eq!(refusals(&old, &new, &user).map(|refused| refused.len()), Some(1), "{at}");
        }
        // a node that has little, as a new one
        let bare = json!({"metadata": {"name": "a"}});
        let mut new = bare.clone();
        new["metadata"]["annotations"] = json!({"nodetrust.io/status": "{}"});
        new["status"] = json!({"conditions": [{"type": "nodetrust.io/TrustReady", "status": "True"}]});
        assert_eq!(refusals(&bare, &bare, &user), Some(Vec::new()));
        let refused = refusals(&bare, &new, &user).unwrap();
        assert_eq!(refused, [""; 0]);
    }

    #[test]
    fn the_policy_speaks_of_what_the_program_writes() {
        let policy = kustomize("new", "base", &["admission-policy"]);
        let rules = policy["ValidatingAdmissionPolicy nodetrust"]["spec"]["validations"].to_string();
        for name in [CONDITION, ANNOTATION] {
            assert!(rules.contains(&format!("'{name}'")), "{name}");
        }
        let overlay = kustomize("new", "overlays/startup-taint", &[]);
        let config = text(&overlay["ConfigMap nodetrust-config"]["data"]["config.yaml"]);
        let taint = Settings::parse(config).unwrap().kubernetes.startup_taint.unwrap().to_string();
        assert!(taint.starts_with("nodetrust.io/"), "the policy would not let the agent take away {taint}");
    }

    #[test]
    fn the_policy_knows_whose_pod_it_is() {
        let node = node();
        for extra in [json!({NODE_NAME: ["b"]}), json!({}), json!({NODE_NAME: ["a", "b"]})] {
            assert_eq!(refusals(&node, &node, &user(extra.clone())).unwrap().len(), 1, "{extra}");
        }
        assert_eq!(refusals(&node, &node, &json!({"username": "system:node:a"})), None);
    }
}
