//! The rules of the admission policies, in a CEL implementation that is not the API server's: no server that has such policies is at
//! hand. `scripts/policy` has the same requests judged by the admission plugin of the API server as well.
//!
//! Long because every rule has a request that it allows and one that it refuses.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    rc::Rc,
    sync::{Arc, OnceLock},
};

use cel::{Context, Env, Program};
use k8s_openapi::{
    api::core::v1::{Event, NodeSpec, NodeStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use nodetrust_core::node_status::{ANNOTATION, CONDITION};
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor, value};

use super::*;

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const ACCOUNT: &str = "system:serviceaccount:nodetrust:nodetrust";

/// The policies and bindings of the component.
fn policies() -> &'static Objects {
    static POLICIES: OnceLock<Objects> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let all = kustomize("new", "base", &["admission-policy"]);
        all.into_iter().filter(|(name, _)| name.starts_with("ValidatingAdmissionPolicy")).collect()
    })
}

/// What is asked of the API server.
#[derive(Clone)]
struct AdmissionRequest {
    operation: &'static str,
    group: &'static str,
    resource: &'static str,
    username: String,
    extra: Value,
    old: Value,
    new: Value,
}

impl AdmissionRequest {
    /// The agent on the node `a` changes a Node.
    fn node(old: &Value, new: &Value) -> Self {
        let (old, new) = (old.clone(), new.clone());
        let extra = json!({NODE_NAME: ["a"]});
        Self { operation: "UPDATE", group: "", resource: "nodes", username: ACCOUNT.into(), extra, old, new }
    }

    /// The agent on the node `a` creates an event.
    fn event(new: &Value) -> Self {
        let group = if new["apiVersion"] == "v1" { "" } else { "events.k8s.io" };
        Self { operation: "CREATE", group, resource: "events", ..Self::node(&Value::Null, new) }
    }

    /// The messages of the rules that refuse it; None if no policy looks at it.
    fn refusals(&self) -> Option<Vec<String>> {
        let matches = |policy: &&Value| {
            let rules = &policy["spec"]["matchConstraints"]["resourceRules"];
            array(rules).any(|rule| {
                let has = |list: &str, word: &str| array(&rule[list]).any(|entry| entry == word);
                has("apiGroups", self.group) && has("operations", self.operation) && has("resources", self.resource)
            })
        };
        let mut policies = policies().values().filter(|object| object["kind"] == "ValidatingAdmissionPolicy");
        let policy = policies.find(matches)?;
        let spec = &policy["spec"];
        let mut variables = json!({});
        if array(&spec["matchConditions"]).any(|rule| self.eval(&rule["expression"], &variables) != true) {
            return None;
        }
        for variable in array(&spec["variables"]) {
            let value = self.eval(&variable["expression"], &variables);
            variables[text(&variable["name"])] = value;
        }
        let refused = array(&spec["validations"]).filter(|rule| self.eval(&rule["expression"], &variables) != true);
        Some(refused.map(|rule| text(&rule["message"]).to_owned()).collect())
    }

    fn eval(&self, expression: &Value, variables: &Value) -> Value {
        thread_local! {
            // Compiling takes longer than all the rest, so it is done once.
            static PROGRAMS: RefCell<BTreeMap<String, Rc<Program>>> = RefCell::default();
        }
        static ENV: OnceLock<Arc<Env>> = OnceLock::new();
        let env = ENV.get_or_init(|| Arc::new(Env::stdlib()));
        let mut context = Context::with_env(env.clone());
        let user = json!({"username": self.username, "extra": self.extra});
        let request = json!({"name": self.name(), "operation": self.operation, "userInfo": user});
        for (name, value) in
            [("object", &self.new), ("oldObject", &self.old), ("request", &request), ("variables", variables)]
        {
            must(name, context.add_variable(name, value.clone()));
        }
        let compile = || Rc::new(must("a rule", env.compile(text(expression))));
        let program = PROGRAMS
            .with_borrow_mut(|programs| programs.entry(text(expression).to_owned()).or_insert_with(compile).clone());
        // A rule that fails refuses the request, by `failurePolicy: Fail`.
        program.execute(&context).map(|value| must("a rule's value", value.json())).unwrap_or_default()
    }

    fn name(&self) -> &Value {
        let object = if self.old.is_null() { &self.new } else { &self.old };
        &object["metadata"]["name"]
    }

    fn json(&self) -> Value {
        json!({
            "operation": self.operation, "group": self.group, "resource": self.resource, "username": self.username,
            "extra": self.extra, "name": self.name(), "object": self.new, "oldObject": self.old,
            "namespace": match self.resource { "events" => "default", "leases" => "nodetrust", _ => "" },
        })
    }
}

/// Requests with what is to become of them. Each is judged by the CEL implementation at hand as it comes, and at the end all of them by
/// the API server's plugin, where there is one.
#[derive(Default)]
struct Docket(Vec<(String, bool, AdmissionRequest)>);

impl Docket {
    /// Fails if no policy looks at the request, or not as wanted.
    #[track_caller]
    fn expect(&mut self, what: &str, allowed: bool, request: AdmissionRequest) {
        let refused = request.refusals();
        assert_eq!(refused.as_ref().map(Vec::is_empty), Some(allowed), "{what}: {refused:?}");
        self.0.push((what.to_owned(), allowed, request));
    }

    /// Returns how many requests the plugin has judged: not those that differ in what its version of Kubernetes does not know.
    #[track_caller]
    fn close(self) -> Option<usize> {
        let program = std::env::var_os("NODETRUST_POLICY_JUDGE")?;
        let of = |kind: &str| policies().values().filter(|object| object["kind"] == kind).collect::<Vec<_>>();
        let requests: Vec<Value> = self.0.iter().map(|(_, _, request)| request.json()).collect();
        let question = json!({
            "policies": of("ValidatingAdmissionPolicy"), "bindings": of("ValidatingAdmissionPolicyBinding"), "requests": requests,
        });
        let mut command = Command::new(program);
        let mut child = must("the judge", command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn());
        must("the judge", child.stdin.take().unwrap().write_all(question.to_string().as_bytes()));
        let done = Done::new(must("the judge", child.wait_with_output())).expect(0);
        let answer: Value = must("the judge", serde_json::from_str(&done.out));
        assert_eq!(answer["warnings"], json!([]), "of the type check");
        let denials = answer["denials"].as_array().unwrap();
        assert_eq!(denials.len(), self.0.len());
        for ((what, allowed, _), denial) in self.0.iter().zip(denials) {
            assert!(denial.is_null() || (denial == "") == *allowed, "{what}: {denial}");
        }
        Some(denials.iter().filter(|denial| !denial.is_null()).count())
    }
}

/// The names of a type's fields, as its `Deserialize` tells them.
fn fields_of<T: DeserializeOwned>() -> BTreeSet<&'static str> {
    struct Ask<'a>(&'a mut BTreeSet<&'static str>);
    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = value::Error;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            Err(value::Error::custom("only the fields of a struct are asked"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, value::Error> {
            self.0.extend(fields);
            self.deserialize_any(visitor)
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
            seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut fields = BTreeSet::new();
    assert!(T::deserialize(Ask(&mut fields)).is_err());
    assert!(!fields.is_empty());
    fields
}

/// A Node with every field that the newest Kubernetes has for it, and some that went.
fn whole_node() -> Value {
    let source = json!({"configMap": {"name": "x", "namespace": "x", "kubeletConfigKey": "x"}});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "a", "generateName": "x", "namespace": "x", "selfLink": "x", "uid": "u", "resourceVersion": "7",
            "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 1, "labels": {"role": "x", "a": ""},
            "annotations": {"theirs": "1", "nodetrust.io/status": "{}", "nodetrust.io/status2": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u", "controller": true}],
            "finalizers": ["x"], "managedFields": [{"manager": "m", "operation": "Update"}],
        },
        "spec": {
            "podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "fd00::/64"], "providerID": "p", "unschedulable": true,
            "taints": [
                {"key": "first", "effect": "NoSchedule"},
                {"key": "nodetrust.io/not-trusted", "effect": "NoSchedule"},
                {"key": "nodetrust", "value": "x", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
            ],
            "configSource": source, "externalID": "x", "podPreemptionPolicy": {"disableResizePreemption": ["x"]},
        },
        "status": {
            "capacity": {"cpu": "2", "memory": "1Gi"}, "allocatable": {"cpu": "2"}, "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "x", "lastHeartbeatTime": "2026-01-01T00:00:00Z"},
                {"type": "nodetrust.io/TrustReady", "status": "True"},
                {"type": "nodetrust.io/TrustReady2", "status": "True"},
            ],
            "addresses": [{"type": "InternalIP", "address": "198.51.100.11"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "kernelVersion": "6", "swap": {"capacity": 1}, "bootID": "x", "machineID": "x", "systemUUID": "x",
                "osImage": "x", "containerRuntimeVersion": "x", "kubeletVersion": "x", "kubeProxyVersion": "x",
                "operatingSystem": "linux", "architecture": "x", "runningInUserNamespace": true,
            },
            "images": [{"names": ["a", "b"], "sizeBytes": 1}], "volumesInUse": ["v"],
            "volumesAttached": [{"name": "v", "devicePath": "x"}],
            "config": {"assigned": source, "active": source, "lastKnownGood": source, "error": "x"},
            "runtimeHandlers": [{"name": "x", "features": {"recursiveReadOnlyMounts": true, "userNamespaces": true}}],
            "features": {"supplementalGroupsPolicy": true}, "declaredFeatures": ["x"],
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
            // A time stays a valid time.
            Value::String(text) if text.ends_with("00:00Z") => json!(text.replace("00:00Z", "00:01Z")),
            Value::String(text) => json!(format!("{text}1")),
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

fn change(old: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut new = old.clone();
    change(&mut new);
    new
}

#[test]
fn the_agent_may_change_its_condition_annotation_and_startup_taint_and_nothing_else_that_a_node_has() {
    let old = whole_node();
    let mut all = Vec::new();
    places(&old, "", &mut all);
    // Fields that the agent may set, and fields that only the API server sets.
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
    let mut docket = Docket::default();
    docket.expect("nothing", true, AdmissionRequest::node(&old, &old));
    for at in &all {
        for (how, new) in changed(&old, at) {
            // Another type would add a condition of another owner. A taint of ours may be removed, not changed.
            let allowed = (is_free(at)
                && at != "/status/conditions/1/type"
                && !(at == "/status/conditions/1" && how == "another"))
                || (at == "/spec/taints/1" && how == "gone");
            docket.expect(&format!("{at} {how}"), allowed, AdmissionRequest::node(&old, &new));
        }
    }
    for (what, at, more) in [
        ("a taint of ours more", "/spec/taints", json!({"key": "nodetrust.io/x", "effect": "NoExecute"})),
        ("a taint more", "/spec/taints", json!({"key": "x", "effect": "NoExecute"})),
        ("a condition more", "/status/conditions", json!({"type": "x", "status": "True"})),
    ] {
        let push = |node: &mut Value| node.pointer_mut(at).unwrap().as_array_mut().unwrap().push(more);
        docket.expect(what, false, AdmissionRequest::node(&old, &change(&old, push)));
    }
    // The same elements in another order are a change.
    for at in ["/spec/taints", "/status/conditions", "/spec/podCIDRs"] {
        let reverse = |node: &mut Value| node.pointer_mut(at).unwrap().as_array_mut().unwrap().reverse();
        docket.expect(at, false, AdmissionRequest::node(&old, &change(&old, reverse)));
    }
    // A new node has few fields.
    let bare = json!({"metadata": {"name": "a"}});
    let told = json!({
        "metadata": {"name": "a", "annotations": {"nodetrust.io/status": "{}"}},
        "status": {"conditions": [{"type": "nodetrust.io/TrustReady", "status": "True"}]},
    });
    docket.expect("a bare node", true, AdmissionRequest::node(&bare, &told));
    assert!(docket.0.len() > 300, "{}", docket.0.len());
    // The API server refuses other types and fields that were removed.
    let judged = docket.close();
    assert!(judged.is_none_or(|count| count > 200), "{judged:?}");
}

/// The test above is about all that there is: a field of the newest Kubernetes that it lacks fails here.
#[test]
fn every_field_that_the_newest_kubernetes_has_for_a_node_is_compared() {
    let node = whole_node();
    let missing = |at: &str, fields: BTreeSet<&'static str>| {
        let missing: Vec<_> = fields.into_iter().filter(|field| node[at].get(field).is_none()).collect();
        assert!(missing.is_empty(), "{at} of `whole_node` lacks {missing:?}");
    };
    missing("metadata", fields_of::<ObjectMeta>());
    missing("spec", fields_of::<NodeSpec>());
    let status = fields_of::<NodeStatus>();
    for field in ["volumesInUse", "phase", "runtimeHandlers", "features", "declaredFeatures", "capacity", "allocatable"]
    {
        assert!(status.contains(field), "{field}");
    }
    missing("status", status);
}

#[test]
fn a_field_that_nobody_knows_yet_is_not_the_agents_either() {
    let old = whole_node();
    let mut docket = Docket::default();
    for at in ["", "/metadata", "/spec", "/status"] {
        let new = change(&old, |node| node.pointer_mut(at).unwrap()["comes"] = json!({"deep": [1]}));
        docket.expect(at, false, AdmissionRequest::node(&old, &new));
        docket.expect(at, false, AdmissionRequest::node(&new, &old));
        let other = change(&new, |node| node.pointer_mut(at).unwrap()["comes"]["deep"][0] = json!(2));
        docket.expect(at, false, AdmissionRequest::node(&new, &other));
    }
}

#[test]
fn the_agent_may_change_no_node_but_that_of_its_pod() {
    let node = whole_node();
    let mut docket = Docket::default();
    for extra in [json!({NODE_NAME: ["b"]}), json!({}), json!({NODE_NAME: ["a", "b"]}), json!({NODE_NAME: []})] {
        docket.expect(
            &extra.to_string(),
            false,
            AdmissionRequest { extra: extra.clone(), ..AdmissionRequest::node(&node, &node) },
        );
        let event = AdmissionRequest { extra: extra.clone(), ..AdmissionRequest::event(&event()) };
        docket.expect(&format!("an event, {extra}"), false, event);
    }
    docket.close();
    let kubelet =
        |request: AdmissionRequest| AdmissionRequest { username: "system:node:a".into(), extra: json!({}), ..request };
    assert_eq!(kubelet(AdmissionRequest::node(&node, &whole_node())).refusals(), None);
    assert_eq!(kubelet(AdmissionRequest::event(&event())).refusals(), None);
}

/// An event as the program makes it.
fn event() -> Value {
    let kind = nodetrust_core::node_status::EventKind::TrustAnchorsChanged;
    let time = nodetrust_core::time::Time(1_800_000_000);
    nodetrust_core::node_status::NodeEvent { kind, warning: false, message: "+1 anchor".into(), time }.object("a")
}

/// The same by the other API of events.
fn new_event() -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a.1", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "a"},
        "deprecatedSource": {"component": "nodetrust", "host": "a"}, "reportingController": "nodetrust",
        "reportingInstance": "a", "action": "x", "reason": "x", "note": "x", "type": "Normal",
    })
}

#[test]
fn the_agent_may_not_forge_events_of_other_nodes_pods_or_reporters() {
    let known = fields_of::<Event>();
    let event = event();
    let mut docket = Docket::default();
    docket.expect("its own", true, AdmissionRequest::event(&event));
    let plain = change(&event, |event| {
        for field in ["source", "reportingComponent", "reportingInstance"] {
            event.as_object_mut().unwrap().remove(field).unwrap();
        }
    });
    docket.expect("nameless", true, AdmissionRequest::event(&plain));
    docket.expect("of the other API", true, AdmissionRequest::event(&new_event()));
    for (event, subject, source, reporter) in [
        (&event, "involvedObject", "source", "reportingComponent"),
        (&new_event(), "regarding", "deprecatedSource", "reportingController"),
    ] {
        for (at, value) in [
            (format!("/{subject}/name"), json!("b")),
            (format!("/{subject}/kind"), json!("Pod")),
            (format!("/{subject}/apiVersion"), json!("v2")),
            (format!("/{subject}/uid"), json!("b")),
            (format!("/{source}/component"), json!("kubelet")),
            (format!("/{reporter}"), json!("kubelet")),
        ] {
            let new = change(event, |event| *event.pointer_mut(&at).unwrap() = value);
            docket.expect(&at, false, AdmissionRequest::event(&new));
        }
        for field in ["name", "kind", "apiVersion"] {
            let new = change(event, |event| drop(event[subject].as_object_mut().unwrap().remove(field)));
            docket.expect(field, false, AdmissionRequest::event(&new));
        }
        let new = change(event, |event| event[subject]["namespace"] = json!("default"));
        docket.expect("in a namespace", false, AdmissionRequest::event(&new));
        let new = change(event, |event| event["related"] = json!({"kind": "Pod", "name": "x", "namespace": "default"}));
        docket.expect("related", false, AdmissionRequest::event(&new));
        let new = change(event, |event| drop(event.as_object_mut().unwrap().remove(subject)));
        docket.expect("about nothing", false, AdmissionRequest::event(&new));
        // An existing event must not be rewritten, not even the agent's own.
        let update = AdmissionRequest { operation: "UPDATE", old: event.clone(), ..AdmissionRequest::event(event) };
        docket.expect("rewritten", false, update);
    }
    for field in ["involvedObject", "related", "source", "reportingComponent"] {
        assert!(known.contains(field), "{field}");
    }
    docket.close();
}

#[test]
fn the_policy_speaks_of_what_the_program_writes() {
    let rules = policies()["ValidatingAdmissionPolicy nodetrust"]["spec"]["validations"].to_string();
    for name in [CONDITION, ANNOTATION] {
        assert!(rules.contains(&format!("'{name}'")), "{name}");
    }
    let overlay = kustomize("new", "overlays/startup-taint", &[]);
    let config = text(&overlay["ConfigMap nodetrust-config"]["data"]["config.yaml"]);
    let taint = Settings::parse(config).unwrap().kubernetes.startup_taint.unwrap().to_string();
    assert!(taint.starts_with("nodetrust.io/"), "the policy would not let the agent take away {taint}");
}

/// Who configures another taint reads it where the taint and where the policy is chosen, and in the API server's answer.
#[test]
fn a_startup_taint_that_the_policy_keeps_is_named_as_such_where_it_is_chosen() {
    for file in ["overlays/startup-taint/kustomization.yaml", "components/admission-policy/kustomization.yaml"] {
        let page = must(file, fs::read_to_string(Path::new(MANIFESTS).join(file)));
        assert!(page.contains("key") && page.contains("nodetrust.io/…"), "{file}: {page}");
    }
    let old = whole_node();
    let new = change(&old, |node| drop(node["spec"]["taints"].as_array_mut().unwrap().remove(0)));
    let refused = AdmissionRequest::node(&old, &new).refusals().unwrap().join("");
    assert!(refused.contains("nodetrust.io/…") && refused.contains("kubernetes.startupTaint"), "{refused}");
}

/// A slot, held by a node.
fn slot(holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "nodetrust-restart-3", "namespace": "nodetrust", "labels": {"app.kubernetes.io/name": "nodetrust"}},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 60, "renewTime": "2026-11-30T07:00:00.000000Z"},
    })
}

impl AdmissionRequest {
    /// The agent on the node `a` changes a Lease, or creates one if there is no old one.
    fn lease(old: &Value, new: &Value) -> Self {
        let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
        Self { operation, group: "coordination.k8s.io", resource: "leases", ..Self::node(old, new) }
    }
}

#[test]
fn the_agent_may_touch_only_slots_that_it_holds_or_takes_and_no_halt_of_others() {
    use nodetrust_core::fleet::lease::{CANARY, HALTED, Halt, PAUSE};
    let mut docket = Docket::default();
    let lease = AdmissionRequest::lease;
    let mut none = slot("");
    none["spec"].as_object_mut().unwrap().remove("holderIdentity");
    let (mine, other) = (slot("a"), slot("b"));
    let with = |lease: &Value, key: &str, value: &str| {
        change(lease, |lease| lease["metadata"]["annotations"][key] = json!(value))
    };
    let halt =
        |node: &str| serde_json::to_string(&Halt { node: node.into(), reason: "r".into(), since: "t".into() }).unwrap();
    // what the protocol does
    docket.expect("create", true, lease(&Value::Null, &mine));
    docket.expect("take a free one", true, lease(&none, &mine));
    docket.expect("take one that may have expired", true, lease(&other, &mine));
    docket.expect(
        "renew",
        true,
        lease(&mine, &change(&mine, |slot| slot["spec"]["renewTime"] = json!("2026-11-30T07:01:00.000000Z"))),
    );
    docket.expect("release", true, lease(&mine, &none));
    docket.expect("halt", true, lease(&mine, &with(&mine, HALTED, &halt("a"))));
    docket.expect("halt on a free one", true, lease(&none, &with(&mine, HALTED, &halt("a"))));
    docket.expect("release where a pause is", true, lease(&with(&mine, PAUSE, "p"), &with(&none, PAUSE, "p")));
    // what it never does
    docket.expect("create for another", false, lease(&Value::Null, &other));
    docket.expect("give to another", false, lease(&mine, &other));
    docket.expect("give up another's", false, lease(&other, &none));
    docket.expect("halt for another", false, lease(&mine, &with(&mine, HALTED, &halt("b"))));
    docket.expect("halt without holding", false, lease(&none, &with(&none, HALTED, &halt("a"))));
    docket.expect(
        "a halt in a form that hides its node",
        false,
        lease(&mine, &with(&mine, HALTED, r#"{"x":"\"node\":\"a\"","node":"b"}"#)),
    );
    for node in ["a", "b"] {
        let halted = with(&slot(node), HALTED, &halt(node));
        docket.expect("take away a halt", false, lease(&halted, &slot(node)));
        docket.expect("take over a halted slot", false, lease(&halted, &with(&none, HALTED, &halt(node))));
        docket.expect("change a halt", false, lease(&halted, &with(&slot(node), HALTED, &halt("c"))));
    }
    docket.expect("pause", false, lease(&mine, &with(&mine, PAUSE, "p")));
    docket.expect("end a pause", false, lease(&with(&mine, PAUSE, "p"), &mine));
    docket.expect("another annotation", false, lease(&mine, &with(&mine, "x", "y")));
    let renamed = |name: &str| change(&mine, |slot| slot["metadata"]["name"] = json!(name));
    for name in ["kube-scheduler", "nodetrust", "xnodetrust-restart-1"] {
        docket.expect(name, false, lease(&Value::Null, &renamed(name)));
    }
    let nobody = AdmissionRequest { extra: json!({}), ..lease(&Value::Null, &mine) };
    docket.expect("a token without a node", false, nobody);
    let canary = |lease: &Value| change(lease, |lease| lease["metadata"]["name"] = json!("nodetrust-canary"));
    let unmarked = canary(&none);
    docket.expect("the canary's mark", true, lease(&unmarked, &with(&unmarked, CANARY, "{}")));
    docket.expect("a new canary's mark", true, lease(&with(&unmarked, CANARY, "{}"), &with(&unmarked, CANARY, "{1}")));
    docket.expect("hold the canary's Lease", false, lease(&unmarked, &canary(&mine)));
    docket.expect("halt on the canary's Lease", false, lease(&unmarked, &with(&unmarked, HALTED, &halt("a"))));
    docket.close();
}
