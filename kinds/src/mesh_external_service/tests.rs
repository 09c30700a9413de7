use super::*;
use serde_json::{Value, json};

fn violations(spec: Value) -> Vec<String> {
    match KIND.from_json(spec) {
        Ok(_) => Vec::new(),
        Err(resource::RejectedSpec::Invalid { violations, .. }) => {
            violations.iter().map(ToString::to_string).collect()
        }
        Err(malformed) => panic!("{malformed:?}"),
    }
}

fn with_tls(tls: Value) -> Vec<String> {
    violations(json!({ "match": { "port": 443 }, "tls": tls }))
}

fn full() -> Value {
    let inline = json!({ "type": "InsecureInline", "insecureInline": { "value": "x" } });
    let secret = json!({ "type": "Secret", "secretRef": { "kind": "Secret", "name": "ca" } });
    json!({
        "match": { "type": "HostnameGenerator", "port": 443, "protocol": "http2" },
        "endpoints": [
            { "address": "api.psp.example", "port": 443 },
            { "address": "203.0.113.9", "port": 8443, "priority": 128 },
        ],
        "tls": {
            "enabled": true,
            "version": { "min": "TLS12", "max": "TLS13" },
            "allowRenegotiation": false,
            "verification": {
                "mode": "SkipCA",
                "serverName": "api.psp.example",
                "subjectAltNames": [{ "type": "Prefix", "value": "api." }],
                "caCert": secret,
                "clientCert": inline,
                "clientKey": secret,
            },
        },
    })
}

#[test]
fn an_endpoint_can_be_dialled() {
    assert_eq!(violations(full()), [""; 0]);
    assert_eq!(violations(json!({ "match": { "port": 65535 } })), [""; 0]);
    let endpoints = json!([
        { "address": "", "port": 0 },
        { "address": "a b", "port": 65536, "priority": 129 },
        { "address": "unix:///run/a", "port": 1, "priority": -1 },
    ]);
    let wrong = violations(json!({ "match": { "port": 0 }, "endpoints": endpoints }));
    let least = "in body should be greater than or equal to";
    let most = "in body should be less than or equal to";
    let address = "address has to be a valid IP or hostname";
    assert_eq!(
        wrong,
        [
            format!("spec.match.port: {least} 1"),
            "spec.endpoints[0].address: in body should be at least 1 chars long".into(),
            format!("spec.endpoints[0].port: {least} 1"),
            format!("spec.endpoints[1].address: {address}"),
            format!("spec.endpoints[1].port: {most} 65535"),
            format!("spec.endpoints[1].priority: {most} 128"),
            format!("spec.endpoints[2].address: {address}"),
            format!("spec.endpoints[2].priority: {least} 0"),
        ]
    );
}

#[test]
fn what_the_schema_forbids_is_answered_with_its_place() {
    assert_eq!(violations(json!({})), ["spec.match: in body is required"]);
    let source = json!({ "type": "Vault", "secretRef": { "kind": "GlobalSecret", "name": "a" } });
    let found = violations(json!({
        "match": { "type": "Host", "protocol": "mysql" },
        "endpoints": [{ "port": 1 }],
        "tls": {
            "version": { "min": "1.2" },
            "verification": {
                "mode": "None",
                "subjectAltNames": [{ "type": "Regex" }],
                "caCert": source,
            },
        },
    }));
    let mut expected = vec![
        "spec.match.port: in body is required",
        "spec.match.type: in body should be one of [HostnameGenerator]",
        "spec.match.protocol: in body should be one of [tcp grpc http http2]",
        "spec.endpoints[0].address: in body is required",
        "spec.tls.version.min: in body should be one of [TLSAuto TLS10 TLS11 TLS12 TLS13]",
        "spec.tls.verification.mode: in body should be one of [SkipSAN SkipCA Secured SkipAll]",
        "spec.tls.verification.subjectAltNames[0].type: in body should be one of [Exact Prefix]",
        "spec.tls.verification.subjectAltNames[0].value: in body is required",
        "spec.tls.verification.caCert.type: in body should be one of [File Secret EnvVar InsecureInline]",
        "spec.tls.verification.caCert.secretRef.kind: in body should be one of [Secret]",
    ];
    let mut found = found;
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn the_control_plane_reads_no_files_for_an_author() {
    let file = json!({ "type": "File", "file": { "path": "/etc/shadow" } });
    let variable = json!({ "type": "EnvVar", "envVar": { "name": "HOME" } });
    let verification = json!({
        "caCert": file, "clientCert": variable, "clientKey": { "type": "Secret" },
    });
    let expected = [
        "spec.tls.verification.caCert.type: must be one of Secret, InsecureInline",
        "spec.tls.verification.clientCert.type: must be one of Secret, InsecureInline",
        "spec.tls.verification.clientKey.secretRef.name: must be set when type is Secret",
    ];
    assert_eq!(with_tls(json!({ "verification": verification })), expected);
    let with_extension = json!({
        "match": { "port": 1 },
        "extension": { "type": "x" },
        "tls": { "verification": verification },
    });
    assert_eq!(violations(with_extension), expected);
}

#[test]
fn versions_and_names_and_keys_fit_together() {
    let inline = json!({ "type": "InsecureInline", "insecureInline": { "value": "x" } });
    assert_eq!(
        with_tls(json!({
            "version": { "min": "TLS13", "max": "TLS12" },
            "verification": { "serverName": "a b", "clientCert": inline },
        })),
        [
            "spec.tls.version.min: min version must be lower than max",
            "spec.tls.verification.serverName: must be a valid DNS name",
            "spec.tls.verification.clientKey: must be defined when clientCert is defined",
        ]
    );
    assert_eq!(
        with_tls(json!({ "verification": { "clientKey": inline } })),
        ["spec.tls.verification.clientCert: must be defined when clientKey is defined"]
    );
}

#[test]
fn an_extension_knows_what_its_endpoints_are() {
    let with = |kind: &str| {
        violations(json!({
            "match": { "port": 1 },
            "extension": { "type": kind, "config": { "a": [1] } },
            "endpoints": [{ "address": "lambda:a b", "port": 1 }],
            "tls": { "version": { "min": "TLS13", "max": "TLS12" } },
        }))
    };
    assert_eq!(with("lambda"), [""; 0]);
    assert_eq!(with(""), ["spec.extension.type: must not be empty"]);
}

#[test]
fn the_json_is_that_of_the_field() {
    let read = KIND.from_json(full()).unwrap();
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), full());
}

#[test]
fn what_is_not_said_gets_its_default() {
    let spec = json!({
        "match": { "port": 80 },
        "tls": { "version": {}, "verification": { "subjectAltNames": [{ "value": "a" }] } },
    });
    let read = KIND.from_json(spec).unwrap();
    let expected = json!({
        "match": { "type": "HostnameGenerator", "port": 80, "protocol": "tcp" },
        "tls": {
            "enabled": false,
            "version": { "min": "TLSAuto", "max": "TLSAuto" },
            "allowRenegotiation": false,
            "verification": {
                "mode": "Secured",
                "subjectAltNames": [{ "type": "Exact", "value": "a" }],
            },
        },
    });
    assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), expected);
}

#[test]
fn a_service_on_the_wire_is_read_and_written_as_it_is() {
    let wire = r#"{"match":{"type":"HostnameGenerator","port":443,"protocol":"http"},"endpoints":[{"address":"127.0.0.3","port":443}]}"#;
    let read = KIND.decode(wire.as_bytes()).unwrap();
    assert_eq!(KIND.encode(&read).unwrap(), wire);
    assert_eq!(KIND.blank_status(), r#"{"vip":{}}"#);
}

#[test]
fn a_status_keeps_its_form() {
    let status = r#"{"vip":{"ip":"242.0.0.1"},"addresses":[{"hostname":"psp.extsvc.mesh.local","origin":"HostnameGenerator","hostnameGeneratorRef":{"coreName":"local"}}],"hostnameGenerators":[{"hostnameGeneratorRef":{"coreName":"local"},"conditions":[{"type":"Generated","status":"True","reason":"Generated","message":""}]}]}"#;
    let read: Status = serde_json::from_str(status).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), status);
}
