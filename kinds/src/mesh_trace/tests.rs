use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    let backends = |backends| json!({ "default": { "backends": backends } });
    let datadog = |url: &str| backends(json!([{ "type": "Datadog", "datadog": { "url": url } }]));
    let zipkin = |url: &str| backends(json!([{ "type": "Zipkin", "zipkin": { "url": url } }]));
    for (spec, expected) in [
        (backends(json!([])), &[][..]),
        (datadog("http://agent:8126"), &[]),
        (zipkin("http://zipkin:9411/api/v2/spans"), &[]),
        (json!({}), &["spec.default.backends: must be defined"]),
        (
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "http" },
                "default": { "backends": [{ "type": "Zipkin" }, { "type": "Datadog" }] },
            }),
            &[
                "spec.targetRef.sectionName: can only be used with inbound policies",
                "spec.default.backends: must have zero or one backend defined",
                "spec.default.backends[0].zipkin: must be defined",
                "spec.default.backends[1].datadog: must be defined",
            ],
        ),
        (
            backends(json!([{ "type": "OpenTelemetry" }])),
            &["spec.default.backends[0].openTelemetry: must be defined"],
        ),
        (
            backends(json!([{ "type": "OpenTelemetry", "openTelemetry": {} }])),
            &["spec.default.backends[0].openTelemetry.backendRef: must be defined"],
        ),
        (zipkin(""), &["spec.default.backends[0].zipkin.url: must not be empty"]),
        (zipkin("http://"), &["spec.default.backends[0].zipkin.url: must be a valid url"]),
        (datadog("not a url"), &["spec.default.backends[0].datadog.url: must be a valid url"]),
        (
            datadog("https://me@agent/path"),
            &[
                "spec.default.backends[0].datadog.url: scheme must be http",
                "spec.default.backends[0].datadog.url: port must be defined",
                "spec.default.backends[0].datadog.url: user must not be defined",
                "spec.default.backends[0].datadog.url: path must not be defined",
            ],
        ),
        (
            datadog("http://agent:0"),
            &["spec.default.backends[0].datadog.url: port must be in the range [1, 65535]"],
        ),
        (
            json!({ "default": {
                "backends": [],
                "sampling": { "overall": 101, "client": "x", "random": "-0.1" },
                "tags": [
                    { "name": "", "literal": "a" },
                    { "name": "b" },
                    { "name": "c", "literal": "a", "header": { "name": "x" } },
                ],
            } }),
            &[
                "spec.default.tags[0].name: must not be empty",
                "spec.default.tags[1]: tag must have only one type defined: header, literal",
                "spec.default.tags[2]: tag must have only one type defined: header, literal",
                "spec.default.sampling.client: string must be a valid number",
                "spec.default.sampling.random: must be in inclusive range [0.0, 100.0]",
                "spec.default.sampling.overall: must be in inclusive range [0.0, 100.0]",
            ],
        ),
        (
            backends(
                json!([{ "type": "Jaeger", "zipkin": { "apiVersion": "thrift" }, "datadog": {} }]),
            ),
            &[
                "spec.default.backends[0].zipkin.url: in body is required",
                "spec.default.backends[0].zipkin.apiVersion: in body should be one of [httpJson httpProto]",
                "spec.default.backends[0].datadog.url: in body is required",
                "spec.default.backends[0].type: in body should be one of [Zipkin Datadog OpenTelemetry]",
            ],
        ),
    ] {
        let (mut found, mut expected) = (violations(KIND, spec.clone()), expected.to_vec());
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let of = |backend| {
        json!({
            "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" } },
            "default": {
                "backends": [backend],
                "sampling": { "overall": 80, "client": "40.5", "random": 60 },
                "tags": [
                    { "name": "team", "literal": "core" },
                    { "name": "env", "header": { "name": "x-env", "default": "prod" } },
                ],
            },
        })
    };
    for spec in [
        of(json!({ "type": "Zipkin", "zipkin": {
            "url": "http://zipkin:9411/api/v2/spans", "traceId128bit": true,
            "apiVersion": "httpProto", "sharedSpanContext": false,
        } })),
        of(
            json!({ "type": "Datadog", "datadog": { "url": "http://a:8126", "splitService": true } }),
        ),
        of(json!({ "type": "OpenTelemetry", "openTelemetry": {
            "backendRef": { "kind": "MeshOpenTelemetryBackend", "labels": { "app": "otel" } },
        } })),
    ] {
        assert_eq!(written(KIND, spec.clone()), spec);
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let of = |backend| json!({ "default": { "backends": [backend] } });
    assert_eq!(
        written(KIND, of(json!({ "type": "Zipkin", "zipkin": { "url": "http://a" } }))),
        of(json!({ "type": "Zipkin", "zipkin": {
            "url": "http://a", "traceId128bit": false, "apiVersion": "httpJson",
            "sharedSpanContext": true,
        } }))
    );
    assert_eq!(
        written(KIND, of(json!({ "type": "Datadog", "datadog": { "url": "http://a:1" } }))),
        of(json!({ "type": "Datadog", "datadog": { "url": "http://a:1", "splitService": false } }))
    );
    assert_eq!(KIND.blank_status(), "{}");
}
