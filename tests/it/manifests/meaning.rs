//! What every overlay and component promises, looked for in what is rendered: which container runs the program, what it may do, what it
//! finds there, whose account the policies are about, and that uninstalling takes away what installing has made.

use std::{collections::BTreeSet, thread};

use super::*;

const COMPONENTS: [&str; 4] = ["openshift-scc", "privileged", "apparmor-field", "admission-policy"];
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const PROFILE: &str = "appArmorProfile";

/// What is installed, by whatever tool.
pub(super) struct Installed<'a> {
    pub(super) what: String,
    pub(super) all: &'a Objects,
    /// What of `COMPONENTS` is in it.
    pub(super) components: BTreeSet<&'a str>,
    pub(super) namespace: &'a str,
}

impl<'a> Installed<'a> {
    fn pod(&self) -> &'a Value {
        pod(self.all)
    }

    fn spec(&self) -> &'a Value {
        &self.pod()["spec"]
    }

    fn has(&self, component: &str) -> bool {
        self.components.contains(component)
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        array(&self.spec()["initContainers"]).chain(array(&self.spec()["containers"]))
    }

    /// The container that runs the program on the node.
    fn program(&self) -> &'a Value {
        let runs = |container: &&Value| matches!(text(&container["args"][0]), "run" | "uninstall");
        let found: Vec<&Value> = self.containers().filter(runs).collect();
        assert_eq!(found.len(), 1, "{}", self.what);
        found[0]
    }

    fn is_uninstall(&self) -> bool {
        self.program()["args"][0] == "uninstall"
    }

    /// Every promise.
    pub(super) fn check(&self) {
        self.the_program_has_its_rights();
        self.the_program_is_not_confined_by_apparmor();
        self.the_program_finds_the_node_and_its_configuration();
        self.the_account_is_one();
        self.the_policies_are_in_force();
        self.openshift_lets_the_pod_in();
        self.virtual_nodes_get_no_pod();
        self.the_kubelet_reaches_the_agent();
    }

    fn the_program_has_its_rights(&self) {
        let what = &self.what;
        let mut rights = json!({"runAsUser": 0, "runAsGroup": 0, "readOnlyRootFilesystem": true});
        let more = match self.has("privileged") {
            true => json!({"privileged": true}),
            false => json!({
                "privileged": false, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["SYS_CHROOT", "DAC_OVERRIDE"]},
                "seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"type": "spc_t"},
            }),
        };
        rights.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut have = self.program()["securityContext"].clone();
        have.as_object_mut().unwrap().remove(PROFILE);
        assert_eq!(have, rights, "{what}: the container that runs the program");
        for other in self.containers().filter(|container| *container != self.program()) {
            assert_eq!(other["securityContext"]["privileged"], false, "{what}: the container that waits");
            assert_eq!(other["securityContext"]["runAsNonRoot"], true, "{what}: the container that waits");
            assert!(other["volumeMounts"].is_null() && other["ports"].is_null(), "{what}: the container that waits");
            assert_eq!(other["image"], self.program()["image"], "{what}");
        }
    }

    fn the_program_is_not_confined_by_apparmor(&self) {
        let what = &self.what;
        let annotations = self.pod()["metadata"]["annotations"].as_object().unwrap();
        let annotated: Vec<(&str, &Value)> =
            annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(APPARMOR)?, value))).collect();
        let name = text(&self.program()["name"]);
        let field = &self.program()["securityContext"][PROFILE];
        if self.has("apparmor-field") {
            assert_eq!(annotated, [], "{what}: of which Kubernetes 1.30 warns");
            assert_eq!(*field, json!({"type": "Unconfined"}), "{what}");
        } else {
            assert_eq!(annotated, [(name, &json!("unconfined"))], "{what}");
            assert!(field.is_null(), "{what}: before 1.30 there is no such field");
        }
        for other in self.containers().filter(|container| *container != self.program()) {
            assert!(other["securityContext"][PROFILE].is_null(), "{what}: the container that waits");
        }
    }

    fn the_program_finds_the_node_and_its_configuration(&self) {
        let what = &self.what;
        let mounts: Vec<&Value> = array(&self.program()["volumeMounts"]).collect();
        let volume = |path: &str| {
            let mount =
                mounts.iter().find(|mount| mount["mountPath"] == path).unwrap_or_else(|| panic!("{what}: {path}"));
            let volume = array(&self.spec()["volumes"]).find(|volume| volume["name"] == mount["name"]).unwrap();
            (*mount, volume)
        };
        let (mount, host) = volume("/host");
        assert_eq!(host["hostPath"]["path"], "/", "{what}");
        assert_eq!(
            (&mount["mountPropagation"], &mount["readOnly"]),
            (&json!("HostToContainer"), &Value::Null),
            "{what}"
        );
        let (_, config) = volume("/etc/nodetrust/config");
        assert_eq!(config["configMap"], json!({"name": "nodetrust-config"}), "{what}");
        let config = &self.all["ConfigMap nodetrust-config"];
        assert_eq!(config["metadata"]["namespace"], self.namespace, "{what}");
        let settings = must(what, Settings::parse(text(&config["data"]["config.yaml"])));
        let env = |name: &str| array(&self.program()["env"]).find(|entry| entry["name"] == name);
        assert_eq!(env("NODETRUST_CONFIG").unwrap()["value"], "/etc/nodetrust/config/config.yaml", "{what}");
        if self.is_uninstall() {
            return;
        }
        let node_name = &env("NODE_NAME").unwrap()["valueFrom"]["fieldRef"]["fieldPath"];
        assert_eq!(node_name, "spec.nodeName", "{what}");
        for source in &settings.sources {
            let SourceLocation::Path(path) = &source.from else { continue };
            assert!(is_mounted(self.program(), path), "{what}: {}", path.display());
        }
        // No taint keeps the agent away, not even the one that it removes.
        assert_eq!(self.spec()["tolerations"], json!([{"operator": "Exists"}]), "{what}");
    }

    /// Bindings, policies and constraints are about the account of the pods, and what they name is there.
    fn the_account_is_one(&self) {
        let what = &self.what;
        let name = text(&self.spec()["serviceAccountName"]);
        let account = &self.all[&format!("ServiceAccount {name}")];
        assert_eq!(account["metadata"]["namespace"], self.namespace, "{what}");
        assert_eq!(self.all["DaemonSet nodetrust"]["metadata"]["namespace"], self.namespace, "{what}");
        for object in self.all.values() {
            match text(&object["kind"]) {
                "ClusterRoleBinding" | "RoleBinding" => {
                    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}]);
                    assert_eq!(object["subjects"], subject, "{what}");
                    let role = format!("{} {}", text(&object["roleRef"]["kind"]), text(&object["roleRef"]["name"]));
                    assert_eq!(self.all[&role]["metadata"]["namespace"], object["metadata"]["namespace"], "{what}");
                }
                "ValidatingAdmissionPolicy" => {
                    let rule =
                        format!("request.userInfo.username == 'system:serviceaccount:{}:{name}'", self.namespace);
                    let wanted = json!([{"name": "our-account", "expression": rule}]);
                    assert_eq!(object["spec"]["matchConditions"], wanted, "{what}");
                }
                _ => {}
            }
        }
    }

    fn the_policies_are_in_force(&self) {
        let what = &self.what;
        let of = |kind: &'static str| self.all.values().filter(move |object| object["kind"] == kind);
        let names: Vec<&str> =
            of("ValidatingAdmissionPolicy").map(|policy| text(&policy["metadata"]["name"])).collect();
        let wanted: &[&str] =
            if self.has("admission-policy") { &["nodetrust", "nodetrust-events", "nodetrust-leases"] } else { &[] };
        assert_eq!(names, wanted, "{what}");
        let bound = of("ValidatingAdmissionPolicyBinding").map(|binding| &binding["spec"]);
        let wanted = wanted.iter().map(|name| json!({"policyName": name, "validationActions": ["Deny"]}));
        assert_eq!(bound.cloned().collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{what}");
        // The policies look at everything that the roles allow.
        for rule in self.all.values().flat_map(|object| array(&object["rules"])) {
            for (resource, verb) in array(&rule["resources"]).flat_map(|r| array(&rule["verbs"]).map(move |v| (r, v))) {
                let operation = match text(verb) {
                    "get" | "list" => continue,
                    "create" => "CREATE",
                    "patch" => "UPDATE",
                    _ => panic!("{what}: {verb} {resource}"),
                };
                let mut rules = of("ValidatingAdmissionPolicy")
                    .flat_map(|policy| array(&policy["spec"]["matchConstraints"]["resourceRules"]));
                let is_seen = rules.any(|rule| {
                    array(&rule["resources"]).any(|r| r == resource)
                        && array(&rule["operations"]).any(|o| o == operation)
                });
                assert_eq!(is_seen, self.has("admission-policy"), "{what}: {verb} {resource}");
            }
        }
    }

    /// Each constraint allows what the pod needs and no more.
    fn openshift_lets_the_pod_in(&self) {
        let what = &self.what;
        let Some(constraints) = self.all.get("SecurityContextConstraints nodetrust") else {
            return assert!(!self.has("openshift-scc"), "{what}");
        };
        let account = format!("system:serviceaccount:{}:{}", self.namespace, text(&self.spec()["serviceAccountName"]));
        assert_eq!(constraints["users"], json!([account]), "{what}");
        let privileged = self.has("privileged");
        for field in ["allowPrivilegedContainer", "allowPrivilegeEscalation", "defaultAllowPrivilegeEscalation"] {
            // The API server refuses privileged: true together with allowPrivilegeEscalation: false.
            assert_eq!(constraints[field], privileged, "{what}: {field}");
        }
        let allows = |list: &str, word: &str| array(&constraints[list]).any(|entry| entry == word || entry == "*");
        for container in self.containers() {
            let context = &container["securityContext"];
            for capability in array(&context["capabilities"]["add"]) {
                assert!(allows("allowedCapabilities", text(capability)), "{what}");
            }
            let dropped: Vec<&Value> = array(&context["capabilities"]["drop"]).collect();
            for capability in array(&constraints["requiredDropCapabilities"]) {
                assert!(dropped.contains(&capability), "{what}: {capability} would be taken from it");
            }
            assert!(allows("seccompProfiles", if privileged { "*" } else { "runtime/default" }), "{what}");
            assert_eq!(context["readOnlyRootFilesystem"], constraints["readOnlyRootFilesystem"], "{what}");
        }
        assert_eq!(constraints["allowHostNetwork"], self.spec()["hostNetwork"], "{what}");
        assert_eq!(
            (&constraints["allowHostPID"], &constraints["allowHostIPC"]),
            (&json!(false), &json!(false)),
            "{what}"
        );
        for volume in array(&self.spec()["volumes"]) {
            let mut kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
            assert!(kinds.all(|kind| allows("volumes", kind)), "{what}: {volume}");
        }
    }

    fn virtual_nodes_get_no_pod(&self) {
        let what = &self.what;
        for labels in [
            json!({}),
            json!({"eks.amazonaws.com/compute-type": "auto", "node.kubernetes.io/instance-type": "m5.large"}),
            json!({"type": "worker", "node-role.kubernetes.io/control-plane": ""}),
        ] {
            assert!(is_scheduled(self.spec(), &labels), "{what}: {labels}");
        }
        for labels in [
            json!({"eks.amazonaws.com/compute-type": "fargate"}),
            json!({"type": "virtual-kubelet"}),
            json!({"liqo.io/type": "virtual-node"}),
            json!({"node.kubernetes.io/instance-type": "eklet"}),
            json!({"kubernetes.io/os": "windows"}),
        ] {
            assert!(!is_scheduled(self.spec(), &labels), "{what}: {labels}");
        }
    }

    /// At the node's own address, be it of IPv4 or IPv6: nothing names one, and the agent listens at all.
    fn the_kubelet_reaches_the_agent(&self) {
        let what = &self.what;
        assert_eq!(self.spec()["hostNetwork"], true, "{what}");
        if self.is_uninstall() {
            return;
        }
        let port = &self.program()["ports"][0];
        assert!(port["hostIP"].is_null() && matches!(&port["hostPort"], Value::Null), "{what}");
        let settings =
            must(what, Settings::parse(text(&self.all["ConfigMap nodetrust-config"]["data"]["config.yaml"])));
        let address = settings.http.address;
        assert_eq!(port["containerPort"], address.port(), "{what}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &self.program()[probe]["httpGet"];
            assert_eq!(get["port"], port["name"], "{what}");
            assert_eq!(get["scheme"] == "HTTPS", settings.http.tls.is_some(), "{what}");
            let host = if address.ip().is_unspecified() { Value::Null } else { json!(address.ip().to_string()) };
            assert_eq!(get["host"], host, "{what}: {probe}");
        }
    }
}

/// Whether a DaemonSet's pod with this `spec` would be made for a node with these labels.
pub(super) fn is_scheduled(spec: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).or((key == "kubernetes.io/os").then_some(&json!("linux"))).cloned();
    let matches = |expression: &Value| {
        let have = label(text(&expression["key"]));
        let is_in = array(&expression["values"]).any(|value| Some(value) == have.as_ref());
        match text(&expression["operator"]) {
            "In" => is_in,
            "NotIn" => !is_in,
            "Exists" => have.is_some(),
            "DoesNotExist" => have.is_none(),
            other => panic!("{other}"),
        }
    };
    let selected =
        spec["nodeSelector"].as_object().unwrap().iter().all(|(key, value)| label(key).as_ref() == Some(value));
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let mut terms = array(&required["nodeSelectorTerms"]);
    // A term without any expression selects nothing.
    let term = |term: &Value| {
        array(&term["matchExpressions"]).next().is_some() && array(&term["matchExpressions"]).all(matches)
    };
    selected && (required.is_null() || terms.any(term))
}

/// The components that an overlay includes already.
fn included(overlay: &str) -> &'static [&'static str] {
    match overlay {
        "overlays/cluster-trust-bundle" | "overlays/configmap-1.30" | "overlays/uninstall-1.30" => {
            &["apparmor-field", "admission-policy"]
        }
        _ => &[],
    }
}

/// None, each, every two, and all, in the order of the README.
fn combinations() -> Vec<Vec<&'static str>> {
    let mut all = vec![vec![], COMPONENTS.to_vec()];
    for (index, one) in COMPONENTS.iter().enumerate() {
        all.push(vec![*one]);
        all.extend(COMPONENTS[index + 1..].iter().map(|other| vec![*one, *other]));
    }
    all
}

/// Calls a function for each of many, a few at a time.
fn each<T: Sync>(all: &[T], call: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(4)) {
            scope.spawn(|| part.iter().for_each(&call));
        }
    });
}

#[test]
fn every_component_keeps_its_promise_on_every_overlay() {
    let mut table = Vec::new();
    for overlay in overlays() {
        for components in combinations() {
            if !components.iter().any(|component| included(&overlay).contains(component)) {
                table.push((overlay.clone(), components));
            }
        }
    }
    assert!(table.len() > 100, "{}", table.len());
    each(&table, |(overlay, components)| {
        let all = kustomize("new", overlay, components);
        let has = components.iter().chain(included(overlay)).copied().collect();
        let what = format!("{overlay} with {components:?}");
        Installed { what, all: &all, components: has, namespace: "nodetrust" }.check();
    });
}

#[test]
fn old_kubectl_makes_the_same_of_every_component_on_every_overlay() {
    let mut table = Vec::new();
    for overlay in ["base", "overlays/uninstall"] {
        // Each takes a second, so not every pair is rendered.
        let few = combinations().into_iter().filter(|components| components.len() != 2);
        table.extend(few.map(|components| (overlay, components)));
    }
    each(&table, |(overlay, components)| {
        let rendered = AGES.map(|age| kustomize(age, overlay, components));
        assert_same(&rendered[0], &rendered[1], &format!("{overlay} with {components:?}"));
    });
    // Only the order that the README names matters.
    for overlay in ["base", "overlays/uninstall"] {
        let pair = kustomize("new", overlay, &["privileged", "apparmor-field"]);
        assert_same(&pair, &kustomize("new", overlay, &["apparmor-field", "privileged"]), overlay);
    }
}

/// What is outside of the namespace would stay for ever, and a DaemonSet's selector cannot change.
#[test]
fn deleting_the_uninstall_overlay_takes_away_what_every_overlay_has_made() {
    let outside = |all: &Objects| -> BTreeSet<String> {
        let is_outside = |object: &Value| object["metadata"]["namespace"] != "nodetrust";
        let names = all.iter().filter(|(_, object)| is_outside(object)).map(|(name, _)| name.clone());
        // It belongs to an operator of its own and is named in the README.
        names.filter(|name| *name != "Bundle nodetrust-ca").collect()
    };
    let page = must("README.md", fs::read_to_string(Path::new(MANIFESTS).join("README.md")));
    assert!(page.contains("kubectl delete bundles.trust.cert-manager.io nodetrust-ca"));
    let whole = |resource: &str| -> Objects {
        let more = COMPONENTS.into_iter().filter(|component| !included(resource).contains(component));
        kustomize("new", resource, &more.collect::<Vec<_>>())
    };
    let before_1_30 = |resource: &str| kustomize("new", resource, &["openshift-scc"]);
    let check = |overlay: &str, installed: &Objects, removed: &Objects| {
        let left: Vec<String> = outside(installed).difference(&outside(removed)).cloned().collect();
        assert_eq!(left, [""; 0], "{overlay}");
        let selector = |all: &Objects| all["DaemonSet nodetrust"]["spec"]["selector"].clone();
        assert_eq!(selector(installed), selector(removed), "{overlay}");
    };
    let (old, new) = (before_1_30("overlays/uninstall"), whole("overlays/uninstall-1.30"));
    for overlay in overlays() {
        check(&overlay, &whole(&overlay), &new);
        if included(&overlay).is_empty() {
            check(&overlay, &before_1_30(&overlay), &old);
        }
    }
}

/// A copy of the image, as every site has one, is what each container runs.
#[test]
fn an_image_of_ones_own_reaches_every_container() {
    let images = "images:\n- {name: ghcr.io/nodetrust/nodetrust, newName: registry.corp/nodetrust, newTag: x}\n";
    for overlay in overlays() {
        let all = objects(&kustomize_with("new", &overlay, &[], images));
        let spec = &pod(&all)["spec"];
        for container in array(&spec["containers"]).chain(array(&spec["initContainers"])) {
            assert_eq!(container["image"], "registry.corp/nodetrust:x", "{overlay}");
        }
    }
}

/// Each overlay says what it needs of the cluster.
#[test]
fn the_readme_has_a_row_for_every_overlay_and_component_with_what_it_needs() {
    let page = must("README.md", fs::read_to_string(Path::new(MANIFESTS).join("README.md")));
    let row = |name: &str| {
        let mut rows = page.lines().filter(|line| line.starts_with(&format!("| `{name}` |")));
        rows.next().unwrap_or_else(|| panic!("no row for {name}"))
    };
    for overlay in overlays() {
        row(&overlay);
    }
    for component in COMPONENTS {
        row(&format!("components/{component}"));
    }
    let bundle = row("overlays/cluster-trust-bundle");
    for need in ["1.37", "ClusterTrustBundle`", "ClusterTrustBundleProjection", "certificates.k8s.io/v1beta1", "1.33"] {
        assert!(bundle.contains(need), "{need}: {bundle}");
    }
    let comment = Path::new(MANIFESTS).join("overlays/cluster-trust-bundle/kustomization.yaml");
    let comment = must("kustomization", fs::read_to_string(comment));
    assert!(comment.contains("ClusterTrustBundleProjection"));
    assert!(page.contains("helm install --wait") && page.contains("waits"), "who waits for the ConfigMap");
}
