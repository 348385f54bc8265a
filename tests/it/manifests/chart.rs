//! What the chart promises by its values: the same as the components, and refusal of what could not work.

use std::collections::BTreeSet;

use super::{
    meaning::{Installed, is_scheduled},
    *,
};

/// Values with which the chart makes every object that it knows.
const EVERYTHING: &str = "certificates=x,openshiftSCC=true,approveRemovals.enabled=true,monitoring.podMonitor.enabled=true,\
                          monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true";

/// The chart keeps the same promises, by its values and the cluster's version.
#[test]
fn every_value_of_the_chart_keeps_its_promise_in_every_version_of_kubernetes() {
    let since_1_30: &[&str] = &["apparmor-field", "admission-policy"];
    let table: [(&str, &[&str]); 9] = [
        ("", &[]),
        ("privileged=true", &["privileged"]),
        ("openshiftSCC=true", &["openshift-scc"]),
        ("openshiftSCC=true,privileged=true", &["openshift-scc", "privileged"]),
        ("port=9000", &[]),
        ("tlsSecret=x", &[]),
        ("config.http.address=127.0.0.1:9643", &[]),
        ("config.http.address=[::1]:9000,port=9000", &[]),
        ("config.http.tls.certFile=/host/a,config.http.tls.keyFile=/host/b", &[]),
    ];
    for (values, components) in table {
        for (kubernetes, more) in [("1.20.0", &[][..]), ("1.29.9", &[]), ("1.30.0", since_1_30), ("1.37.1", since_1_30)]
        {
            for age in AGES {
                let done = helm(age, kubernetes, &["--set", values, "-n", "elsewhere"]).expect(0);
                let all = objects(&done.out);
                let has = components.iter().chain(more).copied().collect();
                let what = format!("{age} {kubernetes} {values}");
                Installed { what, all: &all, components: has, namespace: "elsewhere" }.check();
            }
        }
    }
}

/// A user's own affinity terms do not select nodes of Fargate again: each term alone would be enough.
#[test]
fn an_affinity_of_ones_own_keeps_virtual_nodes_out_of_the_chart() {
    let terms = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let one = |index: usize, key: &str| {
        let at = format!("{terms}[{index}].matchExpressions[0]");
        format!("{at}.key={key},{at}.operator=Exists")
    };
    let values = format!("{},{},affinity.podAffinity.x=y", one(0, "first"), one(1, "second"));
    for age in AGES {
        let all = objects(&helm(age, "1.37.0", &["--set", &values]).expect(0).out);
        let spec = &pod(&all)["spec"];
        for key in ["first", "second"] {
            assert!(is_scheduled(spec, &json!({key: ""})), "{age} {key}");
            let fargate = json!({key: "", "eks.amazonaws.com/compute-type": "fargate"});
            assert!(!is_scheduled(spec, &fargate), "{age} {key}");
        }
        assert!(!is_scheduled(spec, &json!({})), "{age}");
        assert_eq!(spec["affinity"]["podAffinity"], json!({"x": "y"}), "{age}");
    }
}

/// With the policy such a taint would stay, and the node would never take pods.
#[test]
fn the_chart_refuses_a_startup_taint_that_its_policy_would_keep() {
    let taint = |key: &str| format!("config.kubernetes.startupTaint={key}");
    for age in AGES {
        let run = |kubernetes: &str, values: &str| helm(age, kubernetes, &["--set", values]);
        for key in ["example.com/new:NoSchedule", "nodetrust.io.example.com/x", "nodetrust=x:NoExecute"] {
            let done = run("1.37.0", &taint(key));
            assert_ne!(done.code, 0, "{age} {key}");
            assert!(done.err.contains("startupTaint") && done.err.contains("admissionPolicy: false"), "{}", done.err);
            assert_ne!(run("1.29.0", &format!("admissionPolicy=true,{}", taint(key))).code, 0, "{age} {key}");
            run("1.29.0", &taint(key)).expect(0);
            run("1.37.0", &format!("admissionPolicy=false,{}", taint(key))).expect(0);
            run("1.37.0", &format!("config.kubernetes.enabled=false,{}", taint(key))).expect(0);
        }
        run("1.37.0", &taint("nodetrust.io/not-trusted=x:NoSchedule")).expect(0);
    }
}

/// The kubelet would kill the pod again and again if nobody listened on the port.
#[test]
fn the_chart_refuses_an_address_whose_port_the_kubelet_does_not_ask() {
    for age in AGES {
        for values in ["config.http.address=127.0.0.1:9000", "config.http.address=[::]:9643,port=9000"] {
            let done = helm(age, "1.37.0", &["--set", values]);
            assert!(done.code != 0 && done.err.contains("config.http.address"), "{values}: {done:?}");
        }
    }
}

/// The chart adds OpenShift's constraints where the cluster has such objects.
#[test]
fn the_chart_has_openshifts_constraints_on_openshift_and_nowhere_else() {
    let name = "SecurityContextConstraints nodetrust";
    let api = "security.openshift.io/v1/SecurityContextConstraints";
    for age in AGES {
        let there = objects(&helm(age, "1.33.0", &["--api-versions", api]).expect(0).out);
        assert_eq!(there[name], kustomize("new", "base", &["openshift-scc"])[name], "{age}");
        assert!(!objects(&helm(age, "1.33.0", &[]).expect(0).out).contains_key(name), "{age}");
        let never = helm(age, "1.33.0", &["--api-versions", api, "--set", "openshiftSCC=false"]).expect(0);
        assert!(!objects(&never.out).contains_key(name), "{age}");
    }
}

/// The account that an object gives rights to.
fn accounts(all: &Objects) -> BTreeSet<String> {
    let subjects = all.values().flat_map(|object| array(&object["subjects"]));
    subjects.map(|subject| format!("{}/{}", text(&subject["namespace"]), text(&subject["name"]))).collect()
}

/// Helm refuses to take over what another release has made, and an agent must not have another release's rights.
#[test]
fn two_releases_of_the_chart_live_in_one_cluster() {
    let rendered = |age: &str, release: &str, more: &str| {
        objects(&helm_release(age, release, "1.37.0", &["--set", &format!("{EVERYTHING}{more}")]).expect(0).out)
    };
    // what is in a namespace of its own is apart already
    let shared = |all: &Objects, namespace: &str| -> BTreeSet<String> {
        all.iter()
            .filter(|(_, object)| object["metadata"]["namespace"] != namespace)
            .map(|(name, _)| name.clone())
            .collect()
    };
    for age in AGES {
        let first = rendered(age, "nodetrust", "");
        for (release, more, name) in [
            ("edge", "", "edge-nodetrust"),
            ("nodetrust-gpu", "", "nodetrust-gpu"),
            ("edge", ",nameOverride=trust", "edge-trust"),
            ("edge", ",fullnameOverride=roots", "roots"),
        ] {
            let second = rendered(age, release, more);
            let both: Vec<String> =
                shared(&first, "nodetrust").intersection(&shared(&second, release)).cloned().collect();
            assert_eq!(both, [""; 0], "{age} {release}{more}");
            assert!(shared(&second, release).len() > 8, "{age} {release}");
            let own = [name.to_owned(), format!("{name}-approver")].map(|name| format!("{release}/{name}"));
            assert_eq!(accounts(&second), BTreeSet::from(own), "{age} {release}{more}");
            let set = &second[&format!("DaemonSet {name}")];
            let pod = &set["spec"]["template"];
            assert_eq!(pod["spec"]["serviceAccountName"], name, "{age}");
            // the agent counts the pods of its own DaemonSet, which it may read
            let told = array(&pod["spec"]["containers"][0]["env"]).find(|entry| entry["name"] == "NODETRUST_DAEMONSET");
            assert_eq!(told.map(|entry| &entry["value"]), Some(&json!(name)), "{age}");
            let rules = &second[&format!("Role {name}-fleet")]["rules"];
            assert_eq!(rules[1]["resourceNames"], json!([name]), "{age}");
            let policy = &second[&format!("ValidatingAdmissionPolicy {name}")]["spec"];
            let account = format!("request.userInfo.username == 'system:serviceaccount:{release}:{name}'");
            assert_eq!(policy["matchConditions"][0]["expression"], account, "{age}");
            // neither selects the other's pods by its own labels
            let selector = &set["spec"]["selector"]["matchLabels"];
            assert_ne!(*selector, first["DaemonSet nodetrust"]["spec"]["selector"]["matchLabels"], "{age}");
            for (key, value) in selector.as_object().unwrap() {
                assert_eq!(pod["metadata"]["labels"][key], *value, "{age} {key}");
            }
            let alerts = second[&format!("PrometheusRule {name}")].to_string();
            assert!(
                alerts.contains(&format!("daemonset=\\\"{name}\\\""))
                    && !alerts.contains("daemonset=\\\"nodetrust\\\"")
            );
            assert!(second.contains_key(&format!("ConfigMap {name}-ca")), "{age}");
            let volumes = array(&pod["spec"]["volumes"]);
            let mounted: Vec<&str> = volumes.map(|volume| text(&volume["configMap"]["name"])).collect();
            assert!(mounted.contains(&format!("{name}-ca").as_str()), "{age} {mounted:?}");
        }
    }
}

/// What people expect of a chart reaches the pods, and only they.
#[test]
fn the_usual_values_of_charts_reach_their_place() {
    let values = "commonLabels.team=platform,commonLabels.app\\.kubernetes\\.io/name=other,podLabels.tier=node,logLevel=debug,\
                  serviceAccount.name=trust,serviceAccount.annotations.corp\\.test/owner=me,\
                  extraArgs[0]=--log-format,extraArgs[1]=text,extraEnv[0].name=RUST_LOG,extraEnv[0].value=info,\
                  extraVolumes[0].name=more,extraVolumes[0].emptyDir.medium=Memory,\
                  extraVolumeMounts[0].name=more,extraVolumeMounts[0].mountPath=/more,updateStrategy.type=OnDelete,\
                  livenessProbe.periodSeconds=60,readinessProbe.failureThreshold=9,startupProbe.failureThreshold=90";
    for age in AGES {
        let all = objects(&helm(age, "1.37.0", &["--set", &format!("{EVERYTHING},{values}")]).expect(0).out);
        for (name, object) in &all {
            assert_eq!(object["metadata"]["labels"]["team"], "platform", "{age} {name}");
            let is_ours = ["nodetrust", "nodetrust-approver"]
                .iter()
                .any(|ours| object["metadata"]["labels"]["app.kubernetes.io/name"] == *ours);
            assert!(is_ours || name.starts_with("SecurityContextConstraints"), "{age} {name}");
        }
        let set = &all["DaemonSet nodetrust"]["spec"];
        assert_eq!(set["updateStrategy"], json!({"type": "OnDelete"}), "{age}");
        assert_eq!(set["selector"]["matchLabels"], json!({"app.kubernetes.io/name": "nodetrust"}), "{age}");
        let labels = &set["template"]["metadata"]["labels"];
        assert_eq!(
            *labels,
            json!({"app.kubernetes.io/name": "nodetrust", "team": "platform", "tier": "node"}),
            "{age}"
        );
        let spec = &set["template"]["spec"];
        assert_eq!(spec["serviceAccountName"], "trust", "{age}");
        assert_eq!(all["ServiceAccount trust"]["metadata"]["annotations"], json!({"corp.test/owner": "me"}), "{age}");
        assert!(accounts(&all).contains("nodetrust/trust"), "{age}");
        assert_eq!(
            all["SecurityContextConstraints nodetrust"]["users"],
            json!(["system:serviceaccount:nodetrust:trust"])
        );
        assert!(array(&all["SecurityContextConstraints nodetrust"]["volumes"]).any(|kind| kind == "emptyDir"), "{age}");
        let container = &spec["containers"][0];
        assert_eq!(container["args"], json!(["run", "--log-format", "text"]), "{age}");
        assert!(array(&container["env"]).any(|entry| *entry == json!({"name": "RUST_LOG", "value": "info"})), "{age}");
        assert!(array(&container["env"]).any(|entry| entry["name"] == "NODE_NAME"), "{age}");
        assert!(array(&container["volumeMounts"]).any(|mount| *mount == json!({"name": "more", "mountPath": "/more"})));
        assert!(
            array(&spec["volumes"]).any(|volume| *volume == json!({"name": "more", "emptyDir": {"medium": "Memory"}}))
        );
        let probe = |name: &str, field: &str| container[format!("{name}Probe")][field].clone();
        assert_eq!((probe("liveness", "periodSeconds"), probe("liveness", "timeoutSeconds")), (json!(60), json!(5)));
        assert_eq!(
            (probe("readiness", "failureThreshold"), probe("readiness", "periodSeconds")),
            (json!(9), json!(10))
        );
        assert_eq!(
            (probe("startup", "failureThreshold"), probe("startup", "httpGet")["path"].clone()),
            (json!(90), json!("/livez"))
        );
        let config = text(&all["ConfigMap nodetrust-config"]["data"]["config.yaml"]);
        assert_eq!(must("the configuration", Settings::parse(config)).log.level.to_string(), "debug", "{age}");
        let kept = objects(&helm(age, "1.37.0", &["--set", "config.log.format=json,logLevel=warn"]).expect(0).out);
        let config = text(&kept["ConfigMap nodetrust-config"]["data"]["config.yaml"]);
        let log = must("the configuration", Settings::parse(config)).log;
        assert_eq!((log.level.to_string().as_str(), log.format), ("warn", nodetrust::config::LogFormat::Json), "{age}");
        let other = objects(
            &helm(age, "1.37.0", &["--set", "serviceAccount.create=false,serviceAccount.name=given"]).expect(0).out,
        );
        assert!(
            !other.keys().any(|name| name.starts_with("ServiceAccount "))
                && accounts(&other).contains("nodetrust/given")
        );
    }
}

#[test]
fn the_chart_refuses_values_that_would_do_something_else() {
    for age in AGES {
        for (values, word) in [
            ("logLevel=loud", "logLevel"),
            ("livenessProbe.httpGet.path=/x", "httpGet"),
            ("readinessProbe.periodSeconds=0", "periodSeconds"),
            ("extraEnv[0].name=NODE_NAME", "extraEnv"),
            ("extraEnv[0].value=x", "name"),
            ("extraVolumes[0].name=x", "extraVolumes"),
            ("extraVolumeMounts[0].name=x", "mountPath"),
            ("updateStrategy.type=Recreate", "type"),
            ("nameOverride=Bad_Name", "nameOverride"),
            ("fullnameOverride=-x", "fullnameOverride"),
            ("serviceAccount.create=false", "serviceAccount.name"),
            ("serviceAcount.name=x", "serviceAcount"),
            ("commonLabels.n=1", "commonLabels"),
        ] {
            let done = helm(age, "1.37.0", &["--set", values]);
            assert!(done.code != 0 && done.err.contains(word), "{age} {values}: {done:?}");
        }
    }
}
