//! The newest Kubernetes knows every field of the objects: the types of k8s-openapi stand in for the schema of a server that is not at
//! hand. What they do not know would be dropped by the server, with a warning at most.

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apps::v1::DaemonSet,
    batch::v1::CronJob,
    core::v1::{ConfigMap, Event, Namespace, Node, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use nodetrust_core::node_status;
use serde::{Serialize, de::DeserializeOwned};

use super::*;

/// Kinds that are not Kubernetes' own.
const FOREIGN: [(&str, &str); 2] =
    [("security.openshift.io/v1", "SecurityContextConstraints"), ("trust.cert-manager.io/v1alpha1", "Bundle")];

/// What a type makes of an object.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
}

/// The places of an object that are lost or changed in a round trip through the type of its kind.
#[track_caller]
fn lost(object: &Value) -> Vec<String> {
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let back = match (version, kind) {
        ("v1", "ConfigMap") => through::<ConfigMap>(object),
        ("v1", "Event") => through::<Event>(object),
        ("v1", "Namespace") => through::<Namespace>(object),
        ("v1", "Node") => through::<Node>(object),
        ("v1", "ServiceAccount") => through::<ServiceAccount>(object),
        ("apps/v1", "DaemonSet") => through::<DaemonSet>(object),
        ("batch/v1", "CronJob") => through::<CronJob>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => through::<ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>(object),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            through::<ValidatingAdmissionPolicy>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            through::<ValidatingAdmissionPolicyBinding>(object)
        }
        _ => panic!("no type for {version} {kind}: give it one, or name it as foreign"),
    };
    let back = back.unwrap_or_else(|error| panic!("{kind}: {error}"));
    let mut lost = Vec::new();
    differences(object, &back, "", &mut lost);
    lost
}

/// Each place that is in `object` and not the same in `back`.
fn differences(object: &Value, back: &Value, at: &str, found: &mut Vec<String>) {
    match (object, back) {
        (Value::Object(map), Value::Object(known)) => {
            for (key, value) in map {
                let at = format!("{at}/{key}");
                match known.get(key) {
                    Some(back) => differences(value, back, &at, found),
                    None => found.push(at),
                }
            }
        }
        (Value::Array(list), Value::Array(known)) if list.len() == known.len() => {
            for (index, (value, back)) in list.iter().zip(known).enumerate() {
                differences(value, back, &format!("{at}/{index}"), found);
            }
        }
        _ if object == back => {}
        _ => found.push(at.to_owned()),
    }
}

#[test]
fn the_newest_kubernetes_drops_no_field_of_any_manifest() {
    let mut kinds = std::collections::BTreeSet::new();
    let mut check = |what: &str, all: &Objects| {
        for object in all.values() {
            let names = (text(&object["apiVersion"]), text(&object["kind"]));
            kinds.insert(names.1.to_owned());
            if FOREIGN.contains(&names) {
                continue;
            }
            assert_eq!(lost(object), [""; 0], "{what}: lost of the {}", names.1);
        }
    };
    for overlay in overlays() {
        check(&overlay, &kustomize("new", &overlay, &[]));
    }
    for components in
        [&["openshift-scc", "privileged"][..], &["apparmor-field", "admission-policy"], &["approve-removals"]]
    {
        check(&components.join(" and "), &kustomize("new", "base", components));
    }
    // Every value of the chart that makes a field.
    for values in [
        "",
        "privileged=true,openshiftSCC=true,tlsSecret=x,tlsClientCASecret=y,port=9000,certificates=x,imagePullSecrets[0].name=x",
        "config.http.address=127.0.0.1:9643,maxUnavailable=1,podLabels.a=b,podAnnotations.a=b,affinity.podAffinity.\
         requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=x",
        "sources[0].name=a,sources[0].volume.projected.sources[0].clusterTrustBundle.signerName=x.y/z,\
         sources[0].volume.projected.sources[0].clusterTrustBundle.path=x",
    ] {
        for kubernetes in ["1.29.0", "1.37.0"] {
            check(values, &objects(&chart_text(kubernetes, values)));
        }
    }
    for kind in ["DaemonSet", "ValidatingAdmissionPolicy", "ClusterRole", "RoleBinding", "Bundle"] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_named_with_its_place() {
    let all = kustomize("new", "overlays/cluster-trust-bundle", &[]);
    let mut daemonset = all["DaemonSet nodetrust"].clone();
    assert_eq!(lost(&daemonset), [""; 0]);
    let spec = &mut daemonset["spec"]["template"]["spec"];
    spec["containers"][0]["securityContext"]["apparmorProfile"] = json!({"type": "Unconfined"});
    let volumes = spec["volumes"].as_array().unwrap();
    let bundle = volumes.iter().position(|volume| volume["projected"].is_object()).unwrap();
    spec["volumes"][bundle]["projected"]["sources"][0]["clusterTrustBundles"] = json!({});
    let wanted = [
        "/spec/template/spec/containers/0/securityContext/apparmorProfile".to_owned(),
        format!("/spec/template/spec/volumes/{bundle}/projected/sources/0/clusterTrustBundles"),
    ];
    assert_eq!(lost(&daemonset), wanted);
}

#[test]
fn the_newest_kubernetes_drops_nothing_of_what_the_agent_tells_it() {
    let kind = node_status::EventKind::DriftRepaired;
    let time = nodetrust_core::time::Time(1_800_000_000);
    let event = node_status::NodeEvent { kind, warning: true, message: "x".into(), time }.object("a");
    assert_eq!(lost(&event), [""; 0]);
}
