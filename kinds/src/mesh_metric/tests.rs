use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    for (spec, expected) in [
        (json!({}), &[][..]),
        (json!({ "default": { "applications": [{ "port": 8080 }], "backends": [] } }), &[]),
        (
            json!({
                "targetRef": { "kind": "Dataplane", "sectionName": "http" },
                "default": {
                    "applications": [{ "port": 0 }],
                    "backends": [
                        { "type": "Prometheus" },
                        { "type": "Prometheus", "prometheus": { "port": 65536 } },
                        { "type": "OpenTelemetry" },
                        { "type": "OpenTelemetry", "openTelemetry": { "refreshInterval": "0s" } },
                        { "type": "OpenTelemetry", "openTelemetry": {
                            "backendRef": { "kind": "MeshOpenTelemetryBackend" },
                        } },
                    ],
                },
            }),
            &[
                "spec.targetRef.sectionName: can only be used with inbound policies",
                "spec.default.applications[0].port: port must be in the range [1, 65535]",
                "spec.default.backends[0].prometheus: must be defined",
                "spec.default.backends[1].prometheus.port: port must be in the range [1, 65535]",
                "spec.default.backends[2].openTelemetry: must be defined",
                "spec.default.backends[3].openTelemetry.backendRef: must be defined",
                "spec.default.backends[3].openTelemetry.refreshInterval: must be greater than zero when defined",
                "spec.default.backends[4].openTelemetry.backendRef.labels: must be set when kind is MeshOpenTelemetryBackend",
            ],
        ),
        (
            json!({ "default": { "sidecar": { "profiles": {
                "exclude": [{ "type": "Regex", "match": "a(" }, { "type": "Prefix", "match": "a(" }],
                "include": [{ "type": "Regex", "match": "[a-z]+" }, { "type": "Regex", "match": "+" }],
            } } } }),
            &[
                "spec.default.sidecar.profiles.exclude[0].match: must be a regular expression of RE2: unclosed group",
                "spec.default.sidecar.profiles.include[1].match: must be a regular expression of RE2: repetition operator missing expression",
            ],
        ),
        (
            json!({ "default": {
                "sidecar": { "profiles": {
                    "appendProfiles": [{ "name": "Some" }],
                    "include": [{ "type": "Suffix", "match": "a" }],
                    "exclude": [{}],
                } },
                "applications": [{}],
                "backends": [
                    { "type": "Graphite" },
                    { "type": "Prometheus", "prometheus": { "tls": { "mode": "Off" } } },
                    { "type": "OpenTelemetry", "openTelemetry": { "backendRef": { "kind": "MeshService" } } },
                ],
            } }),
            &[
                "spec.default.sidecar.profiles.appendProfiles[0].name: in body should be one of [All Basic None]",
                "spec.default.sidecar.profiles.include[0].type: in body should be one of [Prefix Regex Exact Contains]",
                "spec.default.sidecar.profiles.exclude[0].type: in body is required",
                "spec.default.sidecar.profiles.exclude[0].match: in body is required",
                "spec.default.applications[0].port: in body is required",
                "spec.default.backends[0].type: in body should be one of [Prometheus OpenTelemetry]",
                "spec.default.backends[1].prometheus.tls.mode: in body should be one of [Disabled ProvidedTLS ActiveMTLSBackend]",
                "spec.default.backends[2].openTelemetry.backendRef.kind: in body should be one of [MeshOpenTelemetryBackend]",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" } },
        "default": {
            "sidecar": {
                "profiles": {
                    "appendProfiles": [{ "name": "Basic" }],
                    "exclude": [{ "type": "Regex", "match": ".*_rq" }, { "type": "Contains", "match": "a" }],
                    "include": [{ "type": "Prefix", "match": "b" }, { "type": "Exact", "match": "c" }],
                },
                "includeUnused": true,
            },
            "applications": [{ "name": "cart", "path": "/stats", "address": "127.0.0.1", "port": 8080 }],
            "backends": [
                { "type": "Prometheus", "prometheus": {
                    "clientId": "main", "port": 5671, "path": "/m", "tls": { "mode": "ProvidedTLS" },
                } },
                { "type": "OpenTelemetry", "openTelemetry": {
                    "backendRef": { "kind": "MeshOpenTelemetryBackend", "labels": { "app": "otel" } },
                    "refreshInterval": "1m0s",
                } },
            ],
        },
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}

#[test]
fn what_is_left_out_has_its_default() {
    let spec = json!({ "default": {
        "applications": [{ "port": 1 }],
        "backends": [{ "type": "Prometheus", "prometheus": { "tls": {} } }],
    } });
    let full = json!({ "default": {
        "applications": [{ "path": "/metrics", "port": 1 }],
        "backends": [{ "type": "Prometheus", "prometheus": {
            "port": 5670, "path": "/metrics", "tls": { "mode": "Disabled" },
        } }],
    } });
    assert_eq!(written(KIND, spec), full);
    assert_eq!(written(KIND, json!({})), json!({ "default": {} }));
    assert_eq!(KIND.blank_status(), "{}");
}
