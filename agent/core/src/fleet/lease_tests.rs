use super::*;

fn object(name: &str, rest: Value) -> Value {
    let mut object = json!({"metadata": {"name": name, "resourceVersion": "7", "annotations": {}}, "spec": {}});
    for part in ["spec", "annotations"] {
        if let Value::Object(fields) = &rest[part] {
            let target = if part == "spec" { &mut object["spec"] } else { &mut object["metadata"]["annotations"] };
            for (field, value) in fields {
                target[field] = value.clone();
            }
        }
    }
    object
}

fn slot(rest: Value) -> SlotLease {
    match FleetLease::read(&object("nodetrust-restart-3", rest)) {
        FleetLease::Slot(slot) => slot,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_of_ours_reads_as_a_slot() {
    let read = slot(json!({
        "spec": {"holderIdentity": "node-a", "leaseTransitions": 4, "acquireTime": "2026-11-30T07:00:00.000001Z"},
        "annotations": {HALTED: r#"{"node":"node-b","reason":"not Ready","since":"2026-11-30T07:00:00Z"}"#, "other": "x"},
    }));
    assert_eq!(read.index, 3);
    assert_eq!(read.version, ResourceVersion("7".into()));
    assert_eq!((read.holder, read.transitions), (SlotHolder::Node("node-a".into()), 4));
    assert_eq!(read.halt.unwrap().reason, "not Ready");
    assert_eq!(read.pause, None);
}

#[test]
fn a_lease_without_a_holder_is_free() {
    assert_eq!(slot(json!({})).holder, SlotHolder::Nobody);
    assert_eq!(slot(json!({"spec": {"holderIdentity": ""}})).holder, SlotHolder::Nobody);
    assert_eq!(slot(json!({"spec": {"holderIdentity": null}})).holder, SlotHolder::Nobody);
}

#[test]
fn a_lease_that_cannot_be_read_is_not_free() {
    for identity in [json!(7), json!(["node-a"]), json!({"name": "node-a"}), json!(true)] {
        assert!(matches!(slot(json!({"spec": {"holderIdentity": identity}})).holder, SlotHolder::Unreadable(_)));
    }
    let mut odd = object("nodetrust-restart-3", json!({}));
    odd["spec"] = json!("free");
    let FleetLease::Slot(read) = FleetLease::read(&odd) else { panic!("{odd}") };
    assert!(matches!(read.holder, SlotHolder::Unreadable(_)));
}

#[test]
fn a_halt_that_cannot_be_read_is_a_halt() {
    for text in [json!(""), json!("stop"), json!("{"), json!("[]"), json!(1), json!("x".repeat(100_000))] {
        let read = slot(json!({"annotations": {HALTED: text.clone()}}));
        let halt = read.halt.unwrap_or_else(|| panic!("{text}"));
        assert!(halt.reason.len() < 10_000, "bounded");
    }
    assert_eq!(slot(json!({"annotations": {HALTED: "stop"}})).halt.unwrap().reason, "stop");
}

#[test]
fn names_that_are_not_quite_ours_are_foreign() {
    for name in [
        "nodetrust-restart-",
        "nodetrust-restart-01",
        "nodetrust-restart-+1",
        "nodetrust-restart--1",
        "nodetrust-restart-x",
        "nodetrust-restart-10000",
        "nodetrust-restart-99999999999999999999999",
        "restart-1",
        "Nodetrust-restart-1",
        "",
    ] {
        assert_eq!(FleetLease::read(&object(name, json!({}))), FleetLease::Foreign, "{name}");
    }
    for odd in [
        json!(null),
        json!([]),
        json!({"metadata": {"name": "nodetrust-restart-1"}}),
        json!({"metadata": 3}),
        json!("x"),
    ] {
        assert_eq!(FleetLease::read(&odd), FleetLease::Foreign, "{odd}");
    }
}

#[test]
fn a_list_is_sorted_and_has_each_slot_once() {
    let items =
        ["nodetrust-restart-10", "nodetrust-restart-2", "kube-scheduler", "nodetrust-canary", "nodetrust-restart-2"];
    let items: Vec<Value> = items.iter().map(|name| object(name, json!({}))).collect();
    let leases = FleetLeases::read(&items);
    assert_eq!(leases.slots.iter().map(|slot| slot.index).collect::<Vec<_>>(), [2, 10]);
    assert!(leases.slot(10).is_some() && leases.slot(3).is_none());
    assert_eq!(leases.canary.unwrap().mark, None);
}

#[test]
fn a_pause_counts_on_the_first_slot_only() {
    let paused = |name: &str| FleetLeases::read([&object(name, json!({"annotations": {PAUSE: "change freeze"}}))]);
    assert_eq!(paused("nodetrust-restart-0").pause(), Some("change freeze"));
    assert_eq!(paused("nodetrust-restart-1").pause(), None);
}

/// RFC 7386, as the API server applies a merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(field);
        } else {
            merge(&mut target[field], value);
        }
    }
}

const NOW: MicroTime = MicroTime(1_796_022_245_000_123);

fn after(before: &Value, change: &SlotChange) -> SlotLease {
    let mut object = before.clone();
    merge(&mut object, &change.patch(&ResourceVersion("7".into()), 60, NOW));
    assert_eq!(object["metadata"]["resourceVersion"], "7", "the version that is expected");
    assert_eq!(object["metadata"]["annotations"]["other"], before["metadata"]["annotations"]["other"], "not ours");
    match FleetLease::read(&object) {
        FleetLease::Slot(slot) => slot,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_patch_makes_its_change_and_no_other() {
    let halt = Halt::new("node-a", "not Ready", Time(0));
    let before = object(
        "nodetrust-restart-3",
        json!({
            "spec": {"holderIdentity": "node-b", "leaseTransitions": 1},
            "annotations": {"other": "x", HALTED: serde_json::to_string(&halt).unwrap()},
        }),
    );
    let taken = after(&before, &SlotChange::Take { node: "node-a".into(), transitions: 2 });
    assert_eq!((&taken.holder, taken.transitions), (&SlotHolder::Node("node-a".into()), 2));
    assert_eq!(taken.halt, Some(halt.clone()), "no take removes a halt");
    let renewed = after(&before, &SlotChange::Renew { node: "node-b".into() });
    assert_eq!((renewed.holder, renewed.transitions), (SlotHolder::Node("node-b".into()), 1));
    let released = after(&before, &SlotChange::Release);
    assert_eq!((released.holder, released.halt), (SlotHolder::Nobody, Some(halt.clone())));
    let resumed = after(&before, &SlotChange::Resume);
    assert_eq!((resumed.holder, resumed.halt), (SlotHolder::Node("node-b".into()), None));
    let halted = after(&object("nodetrust-restart-3", json!({})), &SlotChange::Halt(halt.clone()));
    assert_eq!((halted.holder, halted.halt), (SlotHolder::Node("node-a".into()), Some(halt)));
}

#[test]
fn a_new_lease_has_the_form_of_kubernetes() {
    let object = SlotChange::Take { node: "node-a".into(), transitions: 0 }.object(12, 60, NOW);
    assert_eq!(
        object,
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "nodetrust-restart-12", "labels": {"app.kubernetes.io/name": "nodetrust"}},
            "spec": {
                "holderIdentity": "node-a", "leaseDurationSeconds": 60, "leaseTransitions": 0,
                "acquireTime": "2026-11-30T07:04:05.000123Z", "renewTime": "2026-11-30T07:04:05.000123Z",
            },
        })
    );
    let renewed = SlotChange::Renew { node: "node-a".into() }.patch(&ResourceVersion("7".into()), 60, MicroTime(0));
    assert_eq!(renewed["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
    let short = SlotChange::Take { node: "node-a".into(), transitions: 0 }.object(0, 0, MicroTime(i64::MAX));
    assert_eq!(short["spec"]["leaseDurationSeconds"], 1, "Kubernetes refuses 0");
}

#[test]
fn the_canarys_mark_goes_out_and_comes_back() {
    let mark = CanaryMark { digest: "ab".into(), healthy_since: "2026-11-30T07:00:00Z".into(), passed: false };
    let mut created = mark.object();
    created["metadata"]["resourceVersion"] = json!("9");
    let read = |object: &Value| match FleetLease::read(object) {
        FleetLease::Canary(canary) => canary,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&created).mark, Some(mark.clone()));
    let passed = CanaryMark { passed: true, digest: "cd".into(), ..mark };
    merge(&mut created, &passed.patch(&ResourceVersion("9".into())));
    assert_eq!(read(&created).mark, Some(passed));
    created["metadata"]["annotations"][CANARY] = json!("{}");
    assert_eq!(read(&created).mark, None, "a mark without a digest is none");
}
