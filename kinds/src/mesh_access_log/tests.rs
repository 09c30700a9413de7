use super::*;
use crate::tests::{violations, written};
use serde_json::json;

#[test]
fn every_violation_has_its_path() {
    let mesh = json!({ "kind": "Mesh" });
    let to =
        |backends| json!({ "to": [{ "targetRef": mesh, "default": { "backends": backends } }] });
    let route = json!({ "kind": "MeshHTTPRoute", "labels": { "a": "b" } });
    for (spec, expected) in [
        (to(json!([])), &[][..]),
        (json!({ "to": [{ "targetRef": route, "default": { "backends": [] } }] }), &[]),
        (json!({}), &["spec: at least one of 'to' or 'rules' has to be defined"]),
        (
            json!({ "rules": [{ "matches": [{}] }], "to": [{ "targetRef": mesh, "default": {} }] }),
            &[
                "spec: 'to' must be empty when 'rules' is defined",
                "spec.to[0].default.backends: must be defined",
                "spec.rules[0].matches[0]: at least one of spiffeID, sni must be set",
                "spec.rules[0].default.backends: must be defined",
            ],
        ),
        (
            to(json!([{ "type": "File" }, { "type": "Tcp" }, { "type": "OpenTelemetry" }])),
            &[
                "spec.to[0].default.backends[0].file: must be defined",
                "spec.to[0].default.backends[1].tcp: must be defined",
                "spec.to[0].default.backends[2].openTelemetry: must be defined",
            ],
        ),
        (
            to(json!([{ "type": "Syslog" }, { "type": "File", "file": { "format": {} } }])),
            &[
                "spec.to[0].default.backends[0].type: in body should be one of [Tcp File OpenTelemetry]",
                "spec.to[0].default.backends[1].file.path: in body is required",
                "spec.to[0].default.backends[1].file.format.type: in body is required",
            ],
        ),
        (
            to(json!([
                { "type": "File", "file": { "path": "access.log", "format": { "type": "Plain" } } },
                { "type": "Tcp", "tcp": { "address": "log", "format": { "type": "Json" } } },
                { "type": "Tcp", "tcp": { "address": "log:1", "format": { "type": "Plain", "plain": "" } } },
                { "type": "Tcp", "tcp": { "address": "log:1", "format": { "type": "Json", "json": [] } } },
                { "type": "Tcp", "tcp": { "address": "http://log:1", "format": { "type": "Json", "json": [
                    { "key": "a", "value": "%START_TIME%" },
                    { "key": "", "value": "" },
                    { "key": "a", "value": "\"" },
                ] } } },
            ])),
            &[
                "spec.to[0].default.backends[0].file.format.plain: must be defined",
                "spec.to[0].default.backends[0].file.path: must be an absolute path",
                "spec.to[0].default.backends[1].tcp.format.json: must be defined",
                "spec.to[0].default.backends[1].tcp.address: must be a host and a port",
                "spec.to[0].default.backends[2].tcp.format.plain: must not be empty",
                "spec.to[0].default.backends[3].tcp.format.json: must not be empty",
                "spec.to[0].default.backends[4].tcp.format.json[1].key: must not be empty",
                "spec.to[0].default.backends[4].tcp.format.json[1].value: must not be empty",
                "spec.to[0].default.backends[4].tcp.format.json[2]: is not a valid JSON object",
                "spec.to[0].default.backends[4].tcp.address: must be a host and a port",
            ],
        ),
        (
            to(json!([{ "type": "OpenTelemetry", "openTelemetry": { "attributes": [
                { "key": "", "value": "" },
                { "key": "otel.name", "value": "" },
                { "key": "a..b", "value": "" },
                { "key": "a_b.c1", "value": "" },
                { "key": "A", "value": "" },
                { "key": "a.", "value": "" },
            ] } }])),
            &[
                "spec.to[0].default.backends[0].openTelemetry.backendRef: must be defined",
                "spec.to[0].default.backends[0].openTelemetry.attributes[0].key: must be defined",
                "spec.to[0].default.backends[0].openTelemetry.attributes[1].key: must not begin with 'otel.', which OpenTelemetry keeps for itself",
                "spec.to[0].default.backends[0].openTelemetry.attributes[2].key: must begin with a lower case letter, have lower case letters, digits and single dots or underscores between them, and not end with one",
                "spec.to[0].default.backends[0].openTelemetry.attributes[4].key: must begin with a lower case letter, have lower case letters, digits and single dots or underscores between them, and not end with one",
                "spec.to[0].default.backends[0].openTelemetry.attributes[5].key: must begin with a lower case letter, have lower case letters, digits and single dots or underscores between them, and not end with one",
            ],
        ),
    ] {
        assert_eq!(violations(KIND, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" }, "sectionName": "http" },
        "rules": [{
            "matches": [{ "sni": { "type": "Exact", "value": "a" } }],
            "default": { "backends": [
                { "type": "Tcp", "tcp": {
                    "address": "127.0.0.1:5000",
                    "format": { "type": "Json", "json": [{ "key": "a", "value": "b" }], "omitEmptyValues": true },
                } },
                { "type": "File", "file": {
                    "path": "/tmp/access.log",
                    "format": { "type": "Plain", "plain": "[%START_TIME%]", "omitEmptyValues": false },
                } },
                { "type": "OpenTelemetry", "openTelemetry": {
                    "attributes": [{ "key": "mesh", "value": "%KUMA_MESH%" }],
                    "body": { "kvlistValue": { "values": [] } },
                    "backendRef": { "kind": "MeshOpenTelemetryBackend", "labels": { "app": "otel" } },
                } },
            ] },
        }],
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}

#[test]
fn fields_without_a_value_are_kept_unless_it_is_said() {
    let format = |format| {
        json!({ "to": [{ "targetRef": { "kind": "Mesh" }, "default": { "backends": [
            { "type": "File", "file": { "path": "/a", "format": format } },
        ] } }] })
    };
    let full = json!({ "type": "Plain", "plain": "a", "omitEmptyValues": false });
    assert_eq!(written(KIND, format(json!({ "type": "Plain", "plain": "a" }))), format(full));
}

#[test]
fn nothing_reported_is_an_empty_object() {
    assert_eq!(KIND.blank_status(), "{}");
}
