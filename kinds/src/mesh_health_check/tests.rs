use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    let to = |conf| json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "default": conf }] });
    for (spec, expected) in [
        (to(json!({ "tcp": {} })), &[][..]),
        (json!({}), &[]),
        (to(json!({})), &["spec.to[0].default: must have at least one defined: http, tcp, grpc"]),
        (
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "http" },
                "to": [{
                    "targetRef": { "kind": "MeshHTTPRoute", "labels": { "a": "b" } },
                    "default": { "grpc": {} },
                }],
            }),
            &[
                "spec.targetRef.sectionName: can only be used with inbound policies",
                "spec.to[0].targetRef.kind: in body should be one of [Mesh MeshService MeshExternalService MeshMultiZoneService]",
            ],
        ),
        (
            to(json!({
                "interval": "0s", "timeout": "0s", "initialJitter": "0s", "intervalJitter": "0s",
                "noTrafficInterval": "0s", "unhealthyThreshold": 0, "healthyThreshold": -1,
                "intervalJitterPercent": 101, "eventLogPath": "log", "http": {
                    "path": "",
                    "expectedStatuses": [200, 600],
                    "requestHeadersToAdd": {
                        "set": [{ "name": "X", "value": "" }],
                        "add": [{ "name": "x", "value": "" }, { "name": "x", "value": "" }],
                    },
                },
            })),
            &[
                "spec.to[0].default.interval: must be greater than zero when defined",
                "spec.to[0].default.timeout: must be greater than zero when defined",
                "spec.to[0].default.initialJitter: must be greater than zero when defined",
                "spec.to[0].default.intervalJitter: must be greater than zero when defined",
                "spec.to[0].default.noTrafficInterval: must be greater than zero when defined",
                "spec.to[0].default.unhealthyThreshold: must be greater than 0",
                "spec.to[0].default.healthyThreshold: must be greater than 0",
                "spec.to[0].default.intervalJitterPercent: must be in inclusive range [0, 100]",
                "spec.to[0].default.eventLogPath: must be a valid path when defined",
                "spec.to[0].default.http.path: must not be empty",
                "spec.to[0].default.http.expectedStatuses[1]: must be in inclusive range [100, 599]",
                r"spec.to[0].default.http.requestHeadersToAdd.set[0].name: in body should match '^[a-z0-9!#$%&'*+\-.^_\x60|~]+$'",
                "spec.to[0].default.http.requestHeadersToAdd.add[1].name: duplicate header name",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let header = json!({ "name": "x-a", "value": "1" });
    let conf = json!({
        "interval": "10s", "timeout": "2s", "unhealthyThreshold": 3, "healthyThreshold": 1,
        "initialJitter": "5s", "intervalJitter": "6s", "intervalJitterPercent": 10,
        "eventLogPath": "/tmp/health.log", "alwaysLogHealthCheckFailures": true,
        "failTrafficOnPanic": true, "noTrafficInterval": "10s",
        "tcp": { "disabled": true, "send": "Zm9v", "receive": ["YmFy"] },
        "http": {
            "disabled": false,
            "path": "/health",
            "requestHeadersToAdd": { "set": [header], "add": [header] },
            "expectedStatuses": [200, 201],
        },
        "grpc": { "disabled": true, "serviceName": "cart", "authority": "cart.mesh" },
        "reuseConnection": false,
    });
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "web" } },
        "to": [{ "targetRef": { "kind": "Mesh" }, "default": conf }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}
