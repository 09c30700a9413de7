use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> String {
    KIND.from_json(spec).map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
}

#[test]
fn every_violation_has_its_path() {
    let http = |path: &str| json!({ "endpoint": { "path": path }, "protocol": "http" });
    for (spec, expected) in [
        (json!({}), ""),
        (json!({ "endpoint": { "address": "otel.example", "port": 4317 } }), ""),
        (json!({ "endpoint": { "path": "" } }), ""),
        (http("/otlp"), ""),
        (
            json!({ "endpoint": { "address": "", "port": 0, "path": "/a" } }),
            "spec.endpoint.address: must not be empty; \
             spec.endpoint.port: port must be a valid (1-65535); \
             spec.endpoint.path: must not be set when protocol is grpc",
        ),
        (
            json!({ "endpoint": { "address": "a b", "port": 65536 }, "protocol": "grpc" }),
            "spec.endpoint.address: address has to be a valid IP or hostname; \
             spec.endpoint.port: port must be a valid (1-65535)",
        ),
        (
            http("a?b"),
            "spec.endpoint.path: must start with /; \
             spec.endpoint.path: must not contain query or fragment",
        ),
        (
            json!({ "protocol": "thrift", "env": { "mode": "On", "precedence": "None" } }),
            "spec.protocol: in body should be one of [grpc http]; \
             spec.env.mode: in body should be one of [Disabled Optional Required]; \
             spec.env.precedence: in body should be one of [ExplicitFirst EnvFirst]",
        ),
    ] {
        assert_eq!(violations(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "endpoint": { "address": "10.0.0.1", "port": 4318, "path": "/otlp" },
        "protocol": "http",
        "env": {
            "mode": "Required", "precedence": "ExplicitFirst", "allowSignalOverrides": false,
        },
    });
    let read = KIND.from_json(spec.clone()).unwrap();
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), spec);
    assert_eq!(KIND.blank_status(), "{}");
}

#[test]
fn what_is_not_said_gets_its_default() {
    let read = KIND.from_json(json!({ "env": {} })).unwrap();
    let written = KIND.encode(&read).unwrap();
    assert_eq!(written, r#"{"env":{"mode":"Optional","precedence":"EnvFirst"}}"#);
}
