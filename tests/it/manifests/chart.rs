//! What the chart promises by its values: the same as the components, and refusal of what could not work.

use super::{
    meaning::{Installed, is_scheduled},
    *,
};

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
