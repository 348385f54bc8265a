//! The job that approves removals: what it may do, and that agents see what it writes.

use nodetrust::config::APPROVALS_DIRECTORY;
use nodetrust_core::fleet::removal::APPROVALS_CONFIG_MAP;

use super::*;

const COMPONENT: &str = "approve-removals";
const NAME: &str = "nodetrust-approver";

/// The job's pod.
fn job(all: &Objects) -> &Value {
    &all[&format!("CronJob {NAME}")]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
}

#[test]
fn the_approver_may_list_nodes_and_write_one_config_map_and_nothing_else() {
    for age in AGES {
        for overlay in ["base", "overlays/configmap-1.30", "overlays/no-api"] {
            let all = kustomize(age, overlay, &[COMPONENT]);
            let nodes = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]);
            assert_eq!(all[&format!("ClusterRole {NAME}")]["rules"], nodes);
            let approvals = json!([{
                "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [APPROVALS_CONFIG_MAP], "verbs": ["get", "update"],
            }]);
            assert_eq!(all[&format!("Role {NAME}")]["rules"], approvals, "create cannot be limited to a name");
            // Its account has these two roles, and the agents' account has neither.
            let bindings = all.values().filter(|object| text(&object["kind"]).ends_with("RoleBinding"));
            for binding in bindings {
                let is_its_own = binding["roleRef"]["name"] == NAME;
                assert_eq!(binding["subjects"][0]["name"] == NAME, is_its_own, "{binding:#}");
            }
            // The ConfigMap comes along, without data: to apply it again leaves what was approved.
            let config_map = &all[&format!("ConfigMap {APPROVALS_CONFIG_MAP}")];
            assert!(
                config_map["data"].is_null() && config_map["metadata"]["namespace"] == "nodetrust",
                "{config_map:#}"
            );

            let spec = job(&all);
            assert_eq!(spec["serviceAccountName"], NAME);
            assert!(spec["hostNetwork"].is_null() && spec["volumes"].is_null(), "{spec:#}");
            let container = &spec["containers"][0];
            assert_eq!(container["args"], json!(["topology", "--approve-removal", "all"]));
            assert_eq!(container["image"], pod(&all)["spec"]["containers"][0]["image"]);
            let context = &container["securityContext"];
            assert_eq!((&context["runAsNonRoot"], &context["capabilities"]), (&json!(true), &json!({"drop": ["ALL"]})));
            // The DaemonSet's selector must not match the job's pods.
            let labels =
                &all[&format!("CronJob {NAME}")]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"];
            let selector = &all["DaemonSet nodetrust"]["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"];
            assert_ne!(&labels["app.kubernetes.io/name"], selector);
        }
    }
}

#[test]
fn every_agent_sees_the_approvals_without_a_right_to_them() {
    for overlay in overlays() {
        let all = kustomize("new", &overlay, &[]);
        let spec = &pod(&all)["spec"];
        if spec["initContainers"].is_array() {
            continue; // `uninstall` asks nobody
        }
        let volume = array(&spec["volumes"]).find(|volume| volume["name"] == "approvals").unwrap();
        assert_eq!(volume["configMap"], json!({"name": APPROVALS_CONFIG_MAP, "optional": true}), "{overlay}");
        let mount = array(&spec["containers"][0]["volumeMounts"]).find(|mount| mount["name"] == "approvals").unwrap();
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&json!(APPROVALS_DIRECTORY), &json!(true)), "{overlay}");
    }
}

#[test]
fn the_charts_job_runs_in_the_releases_namespace_with_its_image_and_schedule() {
    let values = "approveRemovals.enabled=true,approveRemovals.schedule=@hourly,image.repository=registry.corp/nodetrust,image.tag=x";
    for age in AGES {
        let all = objects(&helm(age, "1.37.0", &["--set", values, "-n", "elsewhere"]).expect(0).out);
        let cron = &all[&format!("CronJob {NAME}")];
        assert_eq!(
            (&cron["spec"]["schedule"], &cron["metadata"]["namespace"]),
            (&json!("@hourly"), &json!("elsewhere"))
        );
        assert_eq!(job(&all)["containers"][0]["image"], "registry.corp/nodetrust:x");
        assert_eq!(all[&format!("ClusterRoleBinding {NAME}")]["subjects"][0]["namespace"], "elsewhere");
        let without = objects(&helm(age, "1.37.0", &[]).expect(0).out);
        assert!(!without.keys().any(|name| name.contains("approv")), "{:?}", without.keys());
        assert_ne!(helm(age, "1.37.0", &["--set", "approveRemovals.enable=true"]).code, 0);
    }
    let page = must("README.md", fs::read_to_string(Path::new(MANIFESTS).join("README.md")));
    assert!(page.lines().any(|line| line.starts_with(&format!("| `components/{COMPONENT}` |"))));
}
