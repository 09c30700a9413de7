//! Envoy accepts what is generated: every golden as one configuration, and the bootstrap.
//!
//! Envoy validates what stands in one file, so what it would ask for is put where it asks.

use identity::{Authority, TrustDomain};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use xds::{
    bootstrap::{Bootstrap, ControlPlane, Token},
    names::SPIRE_AGENT,
};

#[test]
fn envoy_accepts_every_golden() {
    let envoy = envoy();
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generate/testdata");
    let mut paths: Vec<_> =
        fs::read_dir(goldens).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let resources: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let refused = validate(&envoy, folder.path(), &whole(&resources).to_string());
        assert_eq!(refused, None, "{}", path.display());
    }
}

#[test]
fn envoy_accepts_the_bootstrap_of_a_name_and_of_an_address() {
    let envoy = envoy();
    for host in ["cp.west.example", "127.0.0.1"] {
        let rendered = bootstrap(host).render();
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in &rendered.files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        assert_eq!(validate(&envoy, folder.path(), &rendered.bootstrap), None, "{host}");
    }
}

fn bootstrap(host: &str) -> Bootstrap {
    Bootstrap {
        mesh: "shop".parse().unwrap(),
        name: "web-1".into(),
        workload: Some("web".into()),
        zone: "west".parse().unwrap(),
        dataplane: r#"{"type":"Dataplane","mesh":"shop","name":"web-1"}"#.into(),
        control_plane: ControlPlane {
            host: host.into(),
            server_name: host.into(),
            port: 5678,
            ca_pem: authority("west").certificate_pem().into(),
        },
        readiness: Some("127.1.0.5:29902".parse().unwrap()),
        features: Vec::new(),
        metadata: Default::default(),
        admin_socket: None,
        spire_socket: Some("/run/spire/sockets/socket".into()),
        version: "0.1.0".into(),
        max_heap_mib: 512,
        token: Token::File("a.b.c".to_owned().into()),
    }
}

/// A test of the test: a refusal is seen.
#[test]
fn envoy_refuses_what_is_wrong() {
    let listeners = json!({"static_resources": {"listeners": [{"name": "x", "addres": {}}]}});
    let folder = tempfile::tempdir().unwrap();
    let refused = validate(&envoy(), folder.path(), &listeners.to_string()).unwrap();
    assert!(refused.contains("addres"), "{refused}");
}

/// The Envoy that we test with, fetched if need be.
fn envoy() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/envoy.sh");
    let output = Command::new(&script).output().unwrap_or_else(|error| {
        panic!("{} does not run: {error}", script.display());
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no Envoy, and none can be fetched: {said}");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// What Envoy says against `bootstrap`, started in `folder`.
fn validate(envoy: &Path, folder: &Path, bootstrap: &str) -> Option<String> {
    fs::write(folder.join("bootstrap.yaml"), bootstrap).unwrap();
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "error", "-c", "bootstrap.yaml"])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (!output.status.success()).then(|| String::from_utf8_lossy(&said).into_owned())
}

/// A golden as a configuration that asks for nothing.
fn whole(resources: &Value) -> Value {
    let mut fixed = json!({
        "listeners": resources.get("listeners").unwrap_or(&json!([])),
        "clusters": resources.get("clusters").unwrap_or(&json!([])),
        "secrets": resources.get("secrets").unwrap_or(&json!([])),
    });
    let pems = Pems::new();
    answer(&mut fixed, resources, &pems);
    fixed["clusters"].as_array_mut().unwrap().push(spire_agent());
    let mut layers = vec![json!({"name": "none", "static_layer": {}})];
    for runtime in resources.get("runtime").and_then(Value::as_array).into_iter().flatten() {
        layers.push(json!({"name": runtime["name"], "static_layer": runtime["layer"]}));
    }
    // Whoever asks for something says who it is.
    let node = json!({"id": "shop.web-1", "cluster": "web"});
    json!({"node": node, "static_resources": fixed, "layered_runtime": {"layers": layers}})
}

/// The cluster that a proxy knows from its start.
fn spire_agent() -> Value {
    let started: Value = serde_json::from_str(&bootstrap("127.0.0.1").render().bootstrap).unwrap();
    let clusters = started["static_resources"]["clusters"].as_array().unwrap();
    clusters.iter().find(|it| it["name"] == SPIRE_AGENT).unwrap().clone()
}

/// Puts into `value` what it would ask for.
fn answer(value: &mut Value, resources: &Value, pems: &Pems) {
    match value {
        Value::Object(fields) => {
            answer_object(fields, resources);
            fields.values_mut().for_each(|field| answer(field, resources, pems));
        }
        Value::Array(values) => {
            values.iter_mut().for_each(|value| answer(value, resources, pems));
        }
        Value::String(text) => pems.put(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn answer_object(fields: &mut Map<String, Value>, resources: &Value) {
    let find = |list: &str, field: &str, name: &Value| -> Value {
        let list = resources[list].as_array().unwrap_or_else(|| panic!("no {list}"));
        let found = list.iter().find(|one| one[field] == *name);
        found.unwrap_or_else(|| panic!("{name} is not among {list:?}")).clone()
    };
    // A secret without a source is one of the file's; a SPIRE agent's is asked for.
    if fields.get("sds_config").is_some_and(|source| source.get("ads").is_some()) {
        fields.remove("sds_config");
    }
    if let Some(rds) = fields.remove("rds") {
        let routes = find("routes", "name", &rds["route_config_name"]);
        fields.insert("route_config".into(), routes);
    }
    if fields.remove("config_discovery").is_some() {
        let mut extension = find("extensions", "name", &fields["name"]);
        fields.insert("typed_config".into(), extension["typed_config"].take());
    }
    if let Some(eds) = fields.remove("eds_cluster_config") {
        let name = eds.get("service_name").unwrap_or_else(|| &fields["name"]);
        let mut endpoints = find("endpoints", "cluster_name", name);
        endpoints["cluster_name"] = fields["name"].clone();
        fields.insert("type".into(), json!("STATIC"));
        fields.insert("load_assignment".into(), endpoints);
    }
}

fn authority(zone: &str) -> Authority {
    let domain = TrustDomain::new(&format!("shop.{zone}.mesh.local")).unwrap();
    Authority::generate(&domain, Timestamp::UNIX_EPOCH).unwrap()
}

/// Certificates in place of those that a golden only names.
struct Pems([(&'static str, String); 4]);

impl Pems {
    fn new() -> Self {
        let (east, west) = (authority("east"), authority("west"));
        let id = "spiffe://shop.east.mesh.local/workload/cart".parse().unwrap();
        let svid = east.issue(&id, Timestamp::UNIX_EPOCH, Duration::from_secs(86_400)).unwrap();
        Self([
            ("CHAIN", svid.chain_pem),
            ("KEY", svid.key_pem.to_string()),
            ("CA of east\n", east.certificate_pem().into()),
            ("CA of west\n", west.certificate_pem().into()),
        ])
    }

    fn put(&self, text: &mut String) {
        for (name, pem) in &self.0 {
            if text == name {
                text.clone_from(pem);
            }
        }
    }
}
