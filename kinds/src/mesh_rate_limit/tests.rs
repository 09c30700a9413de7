use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    let proxies = json!({ "kind": "Dataplane" });
    let rules =
        |local| json!({ "targetRef": proxies, "rules": [{ "default": { "local": local } }] });
    let tcp = json!({ "connectionRate": { "num": 1, "interval": "1s" } });
    let id = json!([{ "spiffeID": { "type": "Exact", "value": "spiffe://a/b" } }]);
    for (spec, expected) in [
        (rules(json!({ "http": { "disabled": true }, "tcp": tcp })), &[][..]),
        (
            json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "default": { "local": { "tcp": tcp } } }] }),
            &[],
        ),
        (json!({}), &["spec: at least one of 'to' or 'rules' has to be defined"]),
        (
            json!({ "rules": [{ "default": {} }] }),
            &[
                "spec.rules: must not be defined: it needs a targetRef of kind Dataplane",
                "spec.rules[0].default.local: must be defined",
            ],
        ),
        (
            json!({
                "targetRef": proxies,
                "to": [{
                    "targetRef": { "kind": "MeshService", "labels": { "a": "b" } },
                    "default": { "local": { "tcp": tcp } },
                }],
            }),
            &[
                "spec.to: must not be defined: it needs a targetRef of kind Mesh",
                "spec.to[0].targetRef.kind: in body should be one of [Mesh]",
            ],
        ),
        (
            json!({ "targetRef": proxies, "rules": [{ "matches": id, "default": { "local": { "tcp": tcp } } }] }),
            &["spec.rules[0].default.local.tcp: must not be set when matches have a spiffeID"],
        ),
        (
            rules(json!({})),
            &["spec.rules[0].default.local: must have at least one defined: tcp, http"],
        ),
        (
            rules(json!({ "http": {}, "tcp": {} })),
            &[
                "spec.rules[0].default.local.http: must have at least one defined: disabled, requestRate, onRateLimit",
                "spec.rules[0].default.local.tcp: must have at least one defined: disabled, connectionRate",
            ],
        ),
        (
            rules(json!({
                "http": {
                    "requestRate": { "num": 0, "interval": "50ms" },
                    "onRateLimit": { "status": 0, "headers": {
                        "set": [{ "name": "", "value": "" }],
                        "add": [{ "name": "X", "value": "" }],
                    } },
                },
                "tcp": { "connectionRate": { "num": 0, "interval": "-1s" } },
            })),
            &[
                "spec.rules[0].default.local.http.requestRate.num: must be greater than 0",
                "spec.rules[0].default.local.http.requestRate.interval: must be greater than: 50ms",
                "spec.rules[0].default.local.http.onRateLimit.status: must be greater than 0",
                "spec.rules[0].default.local.http.onRateLimit.headers.set[0].name: in body should be at least 1 chars long",
                r"spec.rules[0].default.local.http.onRateLimit.headers.add[0].name: in body should match '^[a-z0-9!#$%&'*+\-.^_\x60|~]+$'",
                "spec.rules[0].default.local.tcp.connectionRate.num: must be greater than 0",
                "spec.rules[0].default.local.tcp.connectionRate.interval: must be greater than: 50ms",
            ],
        ),
        (
            rules(json!({ "http": { "requestRate": {} } })),
            &[
                "spec.rules[0].default.local.http.requestRate.num: in body is required",
                "spec.rules[0].default.local.http.requestRate.interval: in body is required",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let header = json!({ "name": "x-a", "value": "1" });
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" }, "sectionName": "http" },
        "rules": [{
            "matches": [{ "sni": { "type": "Exact", "value": "a" } }],
            "default": { "local": {
                "http": {
                    "disabled": false,
                    "requestRate": { "num": 5, "interval": "10s" },
                    "onRateLimit": { "status": 423, "headers": { "set": [header], "add": [header] } },
                },
                "tcp": { "disabled": false, "connectionRate": { "num": 5, "interval": "51ms" } },
            } },
        }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}
