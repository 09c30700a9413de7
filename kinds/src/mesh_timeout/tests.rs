use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> Vec<String> {
    let spec: MeshTimeout = serde_json::from_value(spec).unwrap();
    let mut violations = Violations::default();
    spec.validate(&mut violations);
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn every_violation_has_its_path() {
    let mesh = json!({ "kind": "Mesh" });
    for (spec, expected) in [
        (json!({ "to": [{ "targetRef": mesh, "default": { "idleTimeout": "1m30s" } }] }), &[][..]),
        (json!({}), &["spec: at least one of 'to' or 'rules' has to be defined"]),
        (
            json!({
                "targetRef": mesh,
                "to": [
                    { "targetRef": mesh, "default": { "idleTimeout": "-1s" } },
                    { "targetRef": { "kind": "MeshService" }, "default": {} },
                ],
            }),
            &[
                "spec.to[1].targetRef.labels: must be set when kind is MeshService",
                "spec.to[0].default.idleTimeout: must not be negative when defined",
                "spec.to[1].default: at least one timeout should be configured",
            ],
        ),
        (
            json!({ "rules": [{ "default": { "connectionTimeout": "0s", "http": {} } }] }),
            &["spec.rules[0].default.connectionTimeout: must be greater than zero when defined"],
        ),
        (
            json!({ "rules": [{
                "matches": [{ "spiffeID": { "type": "Exact", "value": "spiffe://a/b" } }],
                "default": { "connectionTimeout": "1s", "http": { "requestTimeout": "1s" } },
            }] }),
            &[
                "spec.rules[0].default.connectionTimeout: must not be set when matches have a spiffeID",
            ],
        ),
        (
            json!({ "to": [{
                "targetRef": { "kind": "MeshHTTPRoute", "labels": { "a": "b" } },
                "default": { "idleTimeout": "1s", "http": {
                    "requestTimeout": "1s", "streamIdleTimeout": "1s", "maxStreamDuration": "1s"
                } },
            }] }),
            &[
                "spec.to[0].default.idleTimeout: must not be set when kind is MeshHTTPRoute",
                "spec.to[0].default.http.maxStreamDuration: must not be set when kind is MeshHTTPRoute",
            ],
        ),
        (
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "http" },
                "to": [{ "targetRef": mesh, "default": { "idleTimeout": "1s" } }],
            }),
            &["spec.targetRef.sectionName: can only be used with inbound policies"],
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn durations_are_written_as_the_field_writes_them() {
    let spec = json!({
        "targetRef": { "kind": "Mesh" },
        "rules": [{ "default": {
            "connectionTimeout": "10s",
            "idleTimeout": "2h",
            "http": { "requestTimeout": "0s", "streamIdleTimeout": "60m", "maxStreamDuration": "0" },
        } }],
    });
    let read = KIND.from_json(spec).unwrap();
    let expected = r#"{"targetRef":{"kind":"Mesh"},"rules":[{"default":{"connectionTimeout":"10s","idleTimeout":"2h0m0s","http":{"requestTimeout":"0s","streamIdleTimeout":"1h0m0s","maxStreamDuration":"0s"}}}]}"#;
    assert_eq!(KIND.encode(&read).unwrap(), expected);
}
