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
