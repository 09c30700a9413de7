use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> Vec<String> {
    let spec: MeshTrafficPermission = serde_json::from_value(spec).unwrap();
    let mut violations = Violations::default();
    spec.validate(&mut violations);
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn every_violation_has_its_path() {
    let caller = |id: &str| json!({ "spiffeID": { "type": "Prefix", "value": id } });
    for (spec, expected) in [
        (
            json!({ "rules": [{ "default": { "allow": [caller("spiffe://shop.east.mesh.local")] } }] }),
            &[][..],
        ),
        (json!({}), &["spec.rules: must not be empty"]),
        (
            json!({ "targetRef": { "kind": "MeshService" }, "rules": [{ "default": {} }] }),
            &[
                "spec.targetRef.kind: in body should be one of [Mesh Dataplane]",
                "spec.rules[0].default: at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined",
            ],
        ),
        (
            json!({ "rules": [{ "default": {
                "allow": [caller("shop")],
                "deny": [{}],
                "allowWithShadowDeny": [{ "sni": { "type": "Exact", "value": "" } }],
            } }] }),
            &[
                "spec.rules[0].default.allow[0].spiffeID.value: must be a valid SPIFFE ID",
                "spec.rules[0].default.allowWithShadowDeny[0].sni.value: must not be empty",
                "spec.rules[0].default.deny[0]: at least one of spiffeID, sni must be set",
            ],
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" }, "sectionName": "http" },
        "rules": [{ "default": {
            "deny": [{ "spiffeID": { "type": "Exact", "value": "spiffe://a/b" } }],
            "allow": [{ "sni": { "type": "Exact", "value": "x" } }],
        } }],
    });
    let read = KIND.from_json(spec.clone()).unwrap();
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), spec);
}
