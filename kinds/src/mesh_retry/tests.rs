use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    let to = |conf| json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "default": conf }] });
    for (spec, expected) in [
        (to(json!({ "tcp": { "maxConnectAttempt": 1 } })), &[][..]),
        (to(json!({ "http": { "perTryTimeout": "0s" }, "grpc": { "retryOn": [] } })), &[]),
        (json!({}), &["spec.to: needs at least one item"]),
        (
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "http" },
                "to": [{ "targetRef": { "kind": "MeshHTTPRoute" } }],
            }),
            &[
                "spec.targetRef.sectionName: can only be used with inbound policies",
                "spec.to[0].targetRef.labels: must be set when kind is MeshHTTPRoute",
                "spec.to[0].default: at least one of the 'tcp', 'http', 'grpc' must be specified",
            ],
        ),
        (
            to(json!({ "tcp": {}, "http": {}, "grpc": {} })),
            &[
                "spec.to[0].default.tcp: must not be empty",
                "spec.to[0].default.http: must not be empty",
                "spec.to[0].default.grpc: must not be empty",
            ],
        ),
        (
            to(json!({
                "tcp": { "maxConnectAttempt": 0 },
                "http": {
                    "perTryTimeout": "-1s",
                    "backOff": {},
                    "rateLimitedBackOff": { "maxInterval": "0s" },
                    "retryOn": ["5xx", "HttpMethodGet", "503", "5XX", "HttpMethod", "306", "x"],
                    "retriableResponseHeaders": [{ "name": "X" }],
                    "retriableRequestHeaders": [{ "name": "x", "type": "Present", "value": "1" }],
                    "hostSelection": [
                        { "predicate": "OmitPreviousHosts" },
                        { "predicate": "OmitHostsWithTags" },
                        { "predicate": "OmitPreviousPriorities", "updateFrequency": 0 },
                        { "predicate": "OmitPreviousPriorities" },
                    ],
                },
                "grpc": {
                    "backOff": { "baseInterval": "0s", "maxInterval": "-1s" },
                    "rateLimitedBackOff": { "resetHeaders": [{ "name": "", "format": "Seconds" }] },
                },
            })),
            &[
                "spec.to[0].default.tcp.maxConnectAttempt: must be greater than 0",
                "spec.to[0].default.http.perTryTimeout: must not be negative when defined",
                "spec.to[0].default.http.backOff: must not be empty",
                "spec.to[0].default.http.rateLimitedBackOff.maxInterval: must be greater than zero when defined",
                "spec.to[0].default.http.rateLimitedBackOff.resetHeaders: must be defined",
                "spec.to[0].default.http.retryOn[3]: unknown item '5XX'",
                "spec.to[0].default.http.retryOn[4]: unknown item 'HttpMethod'",
                "spec.to[0].default.http.retryOn[5]: unknown item '306'",
                "spec.to[0].default.http.retryOn[6]: unknown item 'x'",
                r"spec.to[0].default.http.retriableResponseHeaders[0].name: in body should match '^[a-z0-9!#$%&'*+\-.^_\x60|~]+$'",
                "spec.to[0].default.http.retriableRequestHeaders[0].value: must not be defined",
                "spec.to[0].default.http.hostSelection[1].tags: must be defined",
                "spec.to[0].default.http.hostSelection[2].updateFrequency: must be greater than 0",
                "spec.to[0].default.http.hostSelection[3].predicate: OmitPreviousPriorities must only be specified once",
                "spec.to[0].default.grpc.backOff.baseInterval: must be greater than zero when defined",
                "spec.to[0].default.grpc.backOff.maxInterval: must be greater than zero when defined",
                "spec.to[0].default.grpc.rateLimitedBackOff.resetHeaders[0].name: in body should be at least 1 chars long",
            ],
        ),
        (
            to(json!({ "grpc": { "retryOn": ["Internal", "Broken"], "numRetries": -1 } })),
            &[
                "spec.to[0].default.grpc.retryOn[1]: in body should be one of [Canceled DeadlineExceeded Internal ResourceExhausted Unavailable]",
                "spec.to[0].default.grpc.numRetries: in body should be greater than or equal to 0",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let back_off = json!({ "baseInterval": "25ms", "maxInterval": "250ms" });
    let limited = json!({
        "resetHeaders": [
            { "name": "retry-after", "format": "Seconds" },
            { "name": "x-reset", "format": "UnixTimestamp" },
        ],
        "maxInterval": "5m0s",
    });
    let target = json!({ "kind": "MeshHTTPRoute", "labels": { "a": "b" } });
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "web" } },
        "to": [{ "targetRef": target, "default": {
            "tcp": { "maxConnectAttempt": 5 },
            "http": {
                "numRetries": 5, "perTryTimeout": "16s",
                "backOff": back_off, "rateLimitedBackOff": limited,
                "retryOn": ["5xx", "GatewayError", "HttpMethodPut", "503"],
                "retriableResponseHeaders": [{ "name": "x", "type": "RegularExpression", "value": ".*" }],
                "retriableRequestHeaders": [{ "name": "x", "type": "Absent" }],
                "hostSelection": [
                    { "predicate": "OmitHostsWithTags", "tags": { "a": "b" }, "updateFrequency": 2 },
                    { "predicate": "OmitPreviousPriorities", "updateFrequency": 3 },
                ],
                "hostSelectionMaxAttempts": 3,
            },
            "grpc": {
                "numRetries": 5, "perTryTimeout": "16s",
                "backOff": back_off, "rateLimitedBackOff": limited,
                "retryOn": ["Canceled", "DeadlineExceeded", "Internal", "ResourceExhausted", "Unavailable"],
            },
        } }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}

#[test]
fn what_is_left_out_has_its_default() {
    let http = |header, selection| {
        let http = json!({ "retriableRequestHeaders": [header], "hostSelection": [selection] });
        json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "default": { "http": http } }] })
    };
    assert_eq!(
        written(
            KIND,
            http(json!({ "name": "x", "value": "1" }), json!({ "predicate": "OmitPreviousHosts" }))
        ),
        http(
            json!({ "name": "x", "type": "Exact", "value": "1" }),
            json!({ "predicate": "OmitPreviousHosts", "updateFrequency": 2 })
        )
    );
}
