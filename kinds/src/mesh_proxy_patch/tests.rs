use super::*;
use crate::tests::{violations, written};
use serde_json::json;

fn changes(changes: serde_json::Value) -> Vec<String> {
    let found = violations(KIND, json!({ "default": { "appendModifications": changes } }));
    let short = |it: &String| it.replace("spec.default.appendModifications", "");
    found.iter().map(short).collect()
}

const LUA: &str = r#"
name: envoy.filters.http.lua
typedConfig:
  "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
  inlineCode: function envoy_on_request(request) end
"#;

#[test]
fn a_change_has_what_it_needs() {
    let step = json!([{ "op": "remove", "path": "/name" }]);
    for (change, expected) in [
        (
            json!({ "cluster": { "operation": "Add", "value": "name: a\nconnectTimeout: 5s" } }),
            &[][..],
        ),
        (json!({ "cluster": { "operation": "Remove" } }), &[]),
        (json!({ "listener": { "operation": "Patch", "jsonPatches": step } }), &[]),
        (json!({ "httpFilter": { "operation": "AddFirst", "value": LUA } }), &[]),
        (
            json!({ "networkFilter": { "operation": "AddBefore", "match": { "name": "a" }, "value": "name: b" } }),
            &[],
        ),
        (
            json!({ "virtualHost": { "operation": "Patch", "match": { "name": "a" }, "value": "domains: ['*']" } }),
            &[],
        ),
        (
            json!({}),
            &[
                "[0]: must have exactly one defined: cluster, listener, networkFilter, httpFilter, virtualHost; it has 0",
            ],
        ),
        (
            json!({ "cluster": { "operation": "Remove" }, "listener": { "operation": "Remove", "value": "" } }),
            &[
                "[0]: must have exactly one defined: cluster, listener, networkFilter, httpFilter, virtualHost; it has 2",
                "[0].listener.value: must not be defined",
            ],
        ),
        (
            json!({ "listener": { "operation": "Add", "match": {} } }),
            &["[0].listener.match: must not be defined", "[0].listener.value: must be defined"],
        ),
        (
            json!({ "cluster": { "operation": "Patch", "value": "name: a", "jsonPatches": step } }),
            &["[0].cluster: must have only one defined: value, jsonPatches"],
        ),
        (
            json!({ "cluster": { "operation": "Patch", "jsonPatches": [] } }),
            &["[0].cluster: must have exactly one defined: value, jsonPatches"],
        ),
        (
            json!({ "httpFilter": { "operation": "Patch", "match": {}, "jsonPatches": step } }),
            &["[0].httpFilter.match.name: must be defined"],
        ),
        (
            json!({ "httpFilter": { "operation": "AddBefore" } }),
            &[
                "[0].httpFilter.match.name: must be defined: the filter before which it is added",
                "[0].httpFilter.value: must be defined",
            ],
        ),
        (
            json!({ "networkFilter": { "operation": "AddAfter", "match": {}, "value": "name: a" } }),
            &["[0].networkFilter.match.name: must be defined: the filter after which it is added"],
        ),
        (
            json!({ "virtualHost": { "operation": "Add", "match": { "name": "a" }, "value": "name: a" } }),
            &["[0].virtualHost.match.name: must not be defined"],
        ),
    ] {
        assert_eq!(changes(json!([change])), expected, "{change}");
    }
}

#[test]
fn a_step_has_what_it_needs() {
    for (change, expected) in [
        (
            json!({ "cluster": { "operation": "Patch", "jsonPatches": [
                { "op": "add", "path": "/a", "value": null },
                { "op": "add", "path": "/a" },
                { "op": "move", "path": "a" },
            ] } }),
            &[
                "[0].cluster.jsonPatches[1].value: must be defined when op is add",
                "[0].cluster.jsonPatches[2].path: must be a JSON pointer such as /spec/containers/0",
                "[0].cluster.jsonPatches[2].from: must be defined when op is move",
            ][..],
        ),
        (
            json!({ "cluster": { "operation": "AddFirst" }, "virtualHost": { "operation": "Add" } }),
            &[
                "[0].cluster.operation: in body should be one of [Add Remove Patch]",
                "[0].virtualHost.match: in body is required",
            ],
        ),
        (
            json!({ "httpFilter": { "operation": "Add", "jsonPatches": [{ "op": "test" }] } }),
            &[
                "[0].httpFilter.operation: in body should be one of [Remove Patch AddFirst AddBefore AddAfter AddLast]",
                "[0].httpFilter.jsonPatches[0].path: in body is required",
                "[0].httpFilter.jsonPatches[0].op: in body should be one of [add remove replace move copy]",
            ],
        ),
    ] {
        assert_eq!(changes(json!([change])), expected, "{change}");
    }
}

#[test]
fn there_is_something_to_change() {
    let none = "spec.default.appendModifications: must not be empty";
    for spec in [json!({ "default": {} }), json!({ "default": { "appendModifications": [] } })] {
        assert_eq!(violations(KIND, spec), [none]);
    }
    assert_eq!(violations(KIND, json!({})), ["spec.default: in body is required"]);
}

#[test]
fn an_object_is_one_of_envoy() {
    let add = |kind: &str, yaml: &str| {
        let found = changes(json!([{ kind: { "operation": "AddLast", "value": yaml } }]));
        let start = format!("[0].{kind}.value: native Envoy resource is not valid: ");
        found.into_iter().map(|it| it.replace(&start, "")).collect::<Vec<_>>()
    };
    assert_eq!(add("httpFilter", "name: a"), [""; 0]);
    assert_eq!(add("httpFilter", "nome: a"), ["unrecognized field name 'nome'"]);
    let router = |field: &str| {
        format!(
            "name: a\ntypedConfig:\n  '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n  {field}: true"
        )
    };
    assert_eq!(add("httpFilter", &router("startChildSpan")), [""; 0]);
    assert_eq!(add("httpFilter", &router("startSpan")), ["unrecognized field name 'startSpan'"]);
    for text in ["", "[", "- a", "a", "name: [a]", "{".repeat(10_000).as_str()] {
        assert_eq!(add("networkFilter", text).len(), 1, "{text}");
    }
    let deep = format!("name: {}{}", "[".repeat(100), "]".repeat(100));
    assert_eq!(add("networkFilter", &deep).len(), 1);
}

#[test]
fn the_json_is_that_of_the_field() {
    let spec = json!({
        "targetRef": { "kind": "Dataplane", "labels": { "app": "cart" } },
        "default": { "appendModifications": [
            { "cluster": {
                "match": { "origin": "inbound", "name": "a" },
                "operation": "Patch",
                "jsonPatches": [
                    { "op": "replace", "path": "/connectTimeout", "value": "5s" },
                    { "op": "copy", "path": "/a", "from": "/b" },
                    { "op": "add", "path": "/c", "value": null },
                ],
            } },
            { "listener": {
                "match": { "origin": "outbound", "name": "a", "tags": { "b": "c" } },
                "operation": "Remove",
            } },
            { "networkFilter": {
                "match": { "origin": "x", "name": "a", "listenerName": "b", "listenerTags": { "c": "d" } },
                "operation": "AddAfter",
                "value": "name: e",
            } },
            { "httpFilter": { "operation": "AddFirst", "value": LUA } },
            { "virtualHost": {
                "match": { "origin": "x", "name": "a", "routeConfigurationName": "b" },
                "operation": "Patch",
                "value": "name: c",
            } },
        ] },
    });
    assert_eq!(written(KIND, spec.clone()), spec);
}
