use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> String {
    KIND.from_json(spec).map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
}

fn full() -> Value {
    json!({
        "targetRef": { "kind": "Mesh" },
        "to": [{
            "targetRef": { "kind": "MeshService", "labels": { "a": "b" }, "sectionName": "db" },
            "rules": [{ "default": { "backendRefs": [
                { "kind": "MeshService", "labels": { "a": "b" }, "sectionName": "db", "weight": 9 },
                { "kind": "MeshExternalService", "labels": { "a": "c" }, "weight": 1 },
            ] } }],
        }],
    })
}

#[test]
fn every_violation_has_its_path() {
    let target = json!({ "kind": "MeshService", "labels": { "a": "b" } });
    let to = |rules: Value| json!({ "to": [{ "targetRef": target, "rules": rules }] });
    for (spec, expected) in [
        (full(), ""),
        (json!({}), ""),
        (json!({ "to": [] }), "spec.to: in body should have at least 1 items"),
        (
            json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "rules": [] }] }),
            "spec.to[0].targetRef.kind: in body should be one of [MeshService MeshExternalService MeshMultiZoneService]",
        ),
        (json!({ "to": [{ "targetRef": target }] }), "spec.to[0].rules: in body is required"),
        (
            to(
                json!([{ "default": {} }, { "default": { "backendRefs": [{ "kind": "MeshMultiZoneService" }] } }]),
            ),
            "spec.to[0].rules: in body should have at most 1 items; \
             spec.to[0].rules[0].default.backendRefs: must be defined; \
             spec.to[0].rules[1].default.backendRefs[0].labels: must be set when kind is MeshMultiZoneService; \
             spec.to[0].rules[1].default.backendRefs[0].port: must be defined with kind MeshMultiZoneService",
        ),
        (
            json!({ "targetRef": { "kind": "Mesh", "sectionName": "a" } }),
            "spec.targetRef.sectionName: must not be set when kind is Mesh",
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let read = KIND.from_json(full()).unwrap();
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), full());
}

#[test]
fn a_producers_route_goes_to_the_other_zones() {
    let target = json!({ "kind": "MeshService", "labels": { "kuma.io/display-name": "cart" } });
    let spec = json!({ "to": [{ "targetRef": target, "rules": [] }] });
    let spec = KIND.from_json(spec).unwrap();
    let route = spec.downcast_ref::<MeshTCPRoute>().unwrap();
    let of = |role| {
        Labels::from_iter([("kuma.io/policy-role", role), ("k8s.kuma.io/namespace", "shop")])
    };
    assert_eq!(
        [route.is_producer(&of("producer")), route.is_producer(&of("system"))],
        [true, false]
    );
}
