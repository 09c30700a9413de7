use super::*;
use k8s_openapi::api::core::v1::Probe;
use proptest::prelude::*;
use serde_json::json;
use std::{fs, path::Path};

/// What stands beside a pod in a file of `testdata`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    pod: Value,
    #[serde(default)]
    namespace: Option<BTreeMap<String, String>>,
    #[serde(default)]
    settings: Value,
    #[serde(default)]
    patches: BTreeMap<String, ContainerPatch>,
    #[serde(default)]
    config_maps: BTreeMap<String, String>,
}

impl Case {
    fn of(pod: Value) -> Self {
        Self {
            pod,
            namespace: None,
            settings: Value::Null,
            patches: BTreeMap::new(),
            config_maps: BTreeMap::new(),
        }
    }

    fn settings(&self) -> Config {
        let mut settings = serde_json::to_value(Config::default()).unwrap();
        json_patch::merge(&mut settings, &self.settings);
        serde_json::from_value(settings).unwrap_or_default()
    }

    fn injected(&self) -> Result<Decision, Refusal> {
        let labels = self.namespace.clone();
        let labels = labels
            .unwrap_or_else(|| BTreeMap::from([(INJECTION.to_owned(), "enabled".to_owned())]));
        let name = self.pod.pointer("/metadata/namespace").and_then(Value::as_str);
        let name = name.unwrap_or("shop").to_owned();
        let namespace = Namespace { name, labels, annotations: BTreeMap::new() };
        let context = Context {
            settings: &self.settings(),
            system_namespace: "kuma-system",
            ca: "-----BEGIN CERTIFICATE-----\n",
            apexes: &[],
            patch: &|_, name| self.patches.get(name).cloned().map(Arc::new),
            config_map: &|name| self.config_maps.get(name).cloned(),
            has_mesh: &|mesh| mesh.as_str() != "missing",
        };
        inject(&self.pod, &namespace, &context)
    }

    /// The pod as it becomes, with warnings; or why it stays.
    fn outcome(&self) -> (Value, Vec<String>) {
        match self.injected() {
            Ok(Decision::Inject { patch, warnings }) => {
                let mut pod = self.pod.clone();
                json_patch::patch(&mut pod, &patch).unwrap();
                (pod, warnings)
            }
            Ok(Decision::Leave(reason)) => (Value::Null, vec![format!("left alone: {reason}")]),
            Err(refusal) => (Value::Null, vec![format!("refused: {refusal}")]),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test, and `make` says so by a variable")]
fn bless() -> bool {
    std::env::var("BLESS").is_ok()
}

fn testdata() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/injection/testdata"))
}

fn compare(path: &Path, made: &str) {
    if bless() {
        fs::write(path, made).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "{} is now\n{made}", path.display());
}

#[test]
fn pods_become_what_is_kept() {
    let mut seen = 0;
    for file in fs::read_dir(testdata()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".input.yaml") else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let case: Case = serde_saphyr::from_str(&text).unwrap();
        let (mut pod, said) = case.outcome();
        let mut made: String = said.iter().map(|line| format!("# {line}\n")).collect();
        if !pod.is_null() {
            let read: Pod = serde_json::from_value(pod.clone()).unwrap();
            assert!(read.spec.unwrap().containers.len() + 1 > 1);
            pod.sort_all_objects();
            made += &serde_saphyr::to_string(&pod).unwrap();
        }
        compare(&testdata().join(format!("{name}.golden.yaml")), &made);
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

fn pod(metadata: Value, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": "cart-1", "labels": { "app": "cart" } },
        "spec": { "containers": [{ "name": "app", "image": "cart" }] },
    });
    json_patch::merge(&mut pod, &json!({ "metadata": metadata, "spec": spec }));
    pod
}

#[test]
fn whoever_is_left_alone_has_a_reason() {
    let labelled = |value: &str| json!({ "labels": { INJECTION: value } });
    let of = |metadata, spec, namespace: Option<&str>| {
        let mut case = Case::of(pod(metadata, spec));
        case.namespace = Some(
            namespace.map(|value| (INJECTION.to_owned(), value.to_owned())).into_iter().collect(),
        );
        match case.injected().unwrap() {
            Decision::Leave(reason) => Some(reason),
            Decision::Inject { .. } => None,
        }
    };
    let sidecar = json!({ "initContainers": [{ "name": SIDECAR, "restartPolicy": "Always" }] });
    let mirrored = json!({ "annotations": { "kubernetes.io/config.mirror": "1" } });
    for (metadata, spec, namespace, expected) in [
        (json!({}), json!({}), Some("enabled"), None),
        (json!({}), json!({}), Some("true"), None),
        (labelled("enabled"), json!({}), None, None),
        (json!({ "labels": { ZONE_PROXY: "ingress" } }), json!({}), None, None),
        (json!({}), json!({}), None, Some(Reason::Unasked)),
        (json!({}), json!({}), Some("disabled"), Some(Reason::Unasked)),
        (labelled("disabled"), json!({}), Some("enabled"), Some(Reason::Disabled)),
        (labelled("false"), json!({}), Some("enabled"), Some(Reason::Disabled)),
        (json!({}), sidecar, Some("enabled"), Some(Reason::Has)),
        (json!({}), json!({ "hostNetwork": true }), Some("enabled"), Some(Reason::HostNetwork)),
        (json!({}), json!({ "os": { "name": "windows" } }), Some("enabled"), Some(Reason::Windows)),
        (mirrored, json!({}), Some("enabled"), Some(Reason::Static)),
    ] {
        assert_eq!(of(metadata.clone(), spec.clone(), namespace), expected, "{metadata} {spec}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_pod_that_cannot_be_in_the_mesh_is_told_why() {
    let annotated = |key: &str, value: &str| json!({ "annotations": { key: value } });
    let app = |more: Value| {
        let mut app = json!({ "name": "app" });
        json_patch::merge(&mut app, &more);
        json!({ "containers": [app] })
    };
    for (metadata, spec, expected) in [
        (
            json!({ "labels": { INJECTION: "yes" } }),
            json!({}),
            r#"metadata.labels[kuma.io/sidecar-injection]: "yes" is neither enabled nor disabled"#,
        ),
        (
            annotated("kuma.io/mesh", "No"),
            json!({}),
            "metadata.annotations[kuma.io/mesh]: \"No\" is not a DNS label: at most 63 of a-z, 0-9 \
             and '-', starting with a letter and not ending with '-'",
        ),
        (
            annotated("kuma.io/sidecar-concurrency", "many"),
            json!({}),
            r#"metadata.annotations[kuma.io/sidecar-concurrency]: "many" is no number of threads"#,
        ),
        (
            annotated("kuma.io/sidecar-drain-time", "30"),
            json!({}),
            r#"metadata.annotations[kuma.io/sidecar-drain-time]: "30" has no unit (ms, s, m, h, d)"#,
        ),
        (
            annotated("kuma.io/sidecar-env-vars", "A=1;B"),
            json!({}),
            r#"metadata.annotations[kuma.io/sidecar-env-vars]: "B" has no ="#,
        ),
        (
            annotated("kuma.io/init-first", "maybe"),
            json!({}),
            r#"metadata.annotations[kuma.io/init-first]: "maybe" is neither enabled nor disabled"#,
        ),
        (
            annotated("kuma.io/gateway", "DELEGATED"),
            json!({}),
            r#"metadata.annotations[kuma.io/gateway]: "DELEGATED" is neither enabled nor disabled"#,
        ),
        (
            annotated("kuma.io/container-patches", "a, b"),
            json!({}),
            "metadata.annotations[kuma.io/container-patches]: there is no ContainerPatch \"a\" in the \
             system namespace",
        ),
        (
            annotated("kuma.io/service-account-token-volume", "token"),
            json!({}),
            "metadata.annotations[kuma.io/service-account-token-volume]: the pod has no volume \
             \"token\"",
        ),
        (
            annotated("kuma.io/envoy-admin-port", "x"),
            json!({}),
            r#"metadata.annotations[kuma.io/envoy-admin-port]: "x" is no port"#,
        ),
        (
            annotated("kuma.io/reachable-backends", "[]"),
            json!({}),
            "metadata.annotations[kuma.io/reachable-backends]: invalid type: sequence, expected a map \
             at line 1 column 0",
        ),
        (
            annotated("k8s.kuma.io/spire-support", "yes"),
            json!({}),
            "metadata.annotations[k8s.kuma.io/spire-support]: \"yes\" is neither enabled nor disabled",
        ),
        (
            annotated("traffic.kuma.io/exclude-inbound-ports", "22,x"),
            json!({}),
            "metadata.annotations[traffic.kuma.io/exclude-inbound-ports]: \"x\" is no port from 1 to \
             65535",
        ),
        (
            annotated("traffic.kuma.io/exclude-outbound-ips", "10.0.0.0/40"),
            json!({}),
            "metadata.annotations[traffic.kuma.io/exclude-outbound-ips]: \"10.0.0.0/40\" is no \
             address, and no network such as 10.0.0.0/8",
        ),
        (
            annotated("traffic.kuma.io/exclude-outbound-ports-for-uids", "sctp:1:2"),
            json!({}),
            "metadata.annotations[traffic.kuma.io/exclude-outbound-ports-for-uids]: \"sctp\" is \
             neither tcp nor udp",
        ),
        (
            annotated("traffic.kuma.io/exclude-ports", "22"),
            json!({}),
            "metadata.annotations[traffic.kuma.io/exclude-ports]: there is no such annotation",
        ),
        (
            annotated(
                "traffic.kuma.io/transparent-proxy-config",
                "redirect: {outbound: {prot: 1}}",
            ),
            json!({}),
            "metadata.annotations[traffic.kuma.io/transparent-proxy-config]: unknown field `prot`, \
             expected one of `enabled`, `port`, `excludePorts`, `excludePortsForIPs`, \
             `excludePortsForUIDs`",
        ),
        (
            annotated("traffic.kuma.io/transparent-proxy-configmap-name", "tp"),
            json!({}),
            "metadata.annotations[traffic.kuma.io/transparent-proxy-configmap-name]: there is no \
             ConfigMap \"tp\" with config.yaml in the system namespace",
        ),
        (
            json!({}),
            app(json!({ "securityContext": { "runAsUser": 5678 } })),
            "spec.containers[0].securityContext.runAsUser: is the user of the sidecar, whose traffic \
             is not redirected",
        ),
        (
            json!({}),
            app(json!({ "ports": [{ "containerPort": 80 }, { "containerPort": 15006 }] })),
            "spec.containers[0].ports[1].containerPort: 15006 is a port of the sidecar",
        ),
        (
            json!({}),
            json!({ "securityContext": { "runAsUser": 5678 }, "containers": [{ "name": "app" }] }),
            "spec.containers[0].securityContext.runAsUser: is the user of the sidecar, whose traffic \
             is not redirected",
        ),
        (
            json!({}),
            json!({
                "containers": [{ "name": "app" }],
                "initContainers": [
                    { "name": "once", "ports": [{ "containerPort": 15006 }] },
                    {
                        "name": "proxy", "restartPolicy": "Always",
                        "ports": [{ "containerPort": 15001 }],
                    },
                ],
            }),
            "spec.initContainers[1].ports[0].containerPort: 15001 is a port of the sidecar",
        ),
        (
            json!({ "name": "a".repeat(249) }),
            json!({}),
            "metadata.name: must have at most 248 bytes in a mesh, with its namespace",
        ),
    ] {
        let refused = Case::of(pod(metadata.clone(), spec)).injected();
        assert_eq!(refused.unwrap_err().to_string(), expected, "{metadata}");
    }
    assert!(Case::of(json!({ "spec": 1 })).injected().is_err());
    assert!(Case::of(json!({ "metadata": {} })).injected().is_err());
}

#[test]
fn a_container_may_have_another_user_than_its_pod_says() {
    let spec = json!({
        "securityContext": { "runAsUser": 5678 },
        "containers": [{ "name": "app", "securityContext": { "runAsUser": 1000 } }],
    });
    assert!(matches!(Case::of(pod(json!({}), spec)).injected(), Ok(Decision::Inject { .. })));
}

#[test]
fn what_has_no_effect_is_doubted() {
    let warnings = |transparent: &str| {
        let said = json!({
            "kuma.io/gateway": "enabled", "kuma.io/transparent-proxying": transparent,
        });
        Case::of(pod(json!({ "annotations": said }), json!({}))).outcome().1
    };
    let none = "kuma.io/gateway has no effect where nothing is redirected";
    assert!(warnings("disabled").contains(&none.to_owned()));
    assert!(!warnings("enabled").contains(&none.to_owned()));
}

#[test]
fn annotations_that_nobody_reads_are_warned_of() {
    let warnings =
        |said: Value| Case::of(pod(json!({ "annotations": said }), json!({}))).outcome().1;
    let said = json!({
        "kuma.io/sidecar-concurency": "2", "kuma.io/sidecar-concurrency": "2",
        "k8s.kuma.io/later": "1", "example.org/note": "x", "kuma.io/gateway": "disabled",
    });
    let expected = [
        "nobody reads the annotation k8s.kuma.io/later",
        "nobody reads the annotation kuma.io/sidecar-concurency",
    ];
    assert_eq!(warnings(said), expected);
}

/// The variables of the sidecar, and the arguments of what redirects.
fn settings_of(metadata: Value, spec: Value, config_maps: &[(&str, &str)]) -> (Value, String) {
    let mut case = Case::of(pod(metadata, spec));
    case.config_maps = config_maps.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let (pod, _) = case.outcome();
    let init = pod.pointer("/spec/initContainers").and_then(Value::as_array).unwrap();
    let all = init.iter().chain(pod.pointer("/spec/containers").and_then(Value::as_array).unwrap());
    let named = |name: &str| all.clone().find(|it| it["name"] == name).unwrap().clone();
    (named(SIDECAR)["env"].clone(), named(INIT)["args"].to_string())
}

#[test]
fn what_a_pod_says_of_a_variable_stands_there_once() {
    let said = json!({ "annotations": { "kuma.io/sidecar-env-vars": "ATOLL_WORKDIR=/elsewhere" } });
    let (env, _) = settings_of(said, json!({}), &[]);
    let env = env.as_array().unwrap().iter().filter(|it| it["name"] == "ATOLL_WORKDIR");
    let values: Vec<_> = env.map(|it| it["value"].clone()).collect();
    assert_eq!(values, [json!("/elsewhere")]);
}

#[test]
fn what_a_pod_says_itself_goes_before_a_config_map() {
    let said = json!({ "annotations": {
        "traffic.kuma.io/transparent-proxy-config": "redirect: {outbound: {port: 15101}}",
        "traffic.kuma.io/transparent-proxy-configmap-name": "tp",
    } });
    let map = "redirect: {outbound: {port: 15201}, inbound: {port: 15206}}";
    let (_, args) = settings_of(said, json!({}), &[("tp", map)]);
    assert!(args.contains("15101") && args.contains("15206") && !args.contains("15201"), "{args}");
}

#[test]
fn a_probe_asks_the_port_that_it_names() {
    let spec = json!({ "containers": [{
        "name": "app",
        "ports": [
            { "name": "admin", "containerPort": 9000 }, { "name": "http", "containerPort": 8080 },
        ],
        "readinessProbe": { "httpGet": { "port": "http" } },
    }] });
    let (env, _) = settings_of(json!({}), spec, &[]);
    let probes = "ATOLL_APPLICATION_PROBES_PROBES";
    let asked = env.as_array().unwrap().iter().find(|it| it["name"] == probes).unwrap();
    let asked: Value = serde_json::from_str(asked["value"].as_str().unwrap()).unwrap();
    assert_eq!(asked["/app/readinessProbe"]["port"], 8080);
}

#[test]
fn a_patch_that_cannot_be_applied_says_which_step_fails() {
    let refused = |steps: Value| {
        let annotated = json!({ "annotations": { "kuma.io/container-patches": "mine" } });
        let mut case = Case::of(pod(annotated, json!({})));
        let patch = serde_json::from_value(json!({ "sidecarPatch": steps })).unwrap();
        case.patches.insert("mine".into(), patch);
        case.injected().unwrap_err().to_string()
    };
    let at = "metadata.annotations[kuma.io/container-patches]";
    let missing = json!([{ "op": "remove", "path": "/nothing" }]);
    assert_eq!(refused(missing), format!("{at}: mine: sidecarPatch[0]: path is invalid"));
    let renamed = json!([{ "op": "replace", "path": "/name", "value": "\"other\"" }]);
    assert_eq!(refused(renamed), format!("{at}: the name of kuma-sidecar must stay"));
    let wrong = json!([{ "op": "add", "path": "/env", "value": "5" }]);
    assert!(refused(wrong).starts_with(&format!("{at}: kuma-sidecar is no container: ")));
}

/// The settings that the program `sidecar` gets, which has a test that it takes them.
#[test]
fn the_settings_of_a_sidecar_are_those_that_are_kept() {
    let text = fs::read_to_string(testdata().join("probes.input.yaml")).unwrap();
    let (pod, _) = serde_saphyr::from_str::<Case>(&text).unwrap().outcome();
    let read: Pod = serde_json::from_value(pod).unwrap();
    let init = read.spec.unwrap().init_containers.unwrap();
    let sidecar = init.iter().find(|it| it.name == SIDECAR).unwrap();
    let env: BTreeMap<_, _> = sidecar
        .env
        .iter()
        .flatten()
        .filter_map(|it| Some((it.name.clone(), it.value.clone()?.replace("$$(", "$("))))
        .collect();
    compare(&testdata().join("sidecar.env.yaml"), &serde_saphyr::to_string(&env).unwrap());
}

fn probe() -> impl Strategy<Value = Option<Value>> {
    let action = prop_oneof![
        Just(json!({ "httpGet": { "port": 8080, "path": "/x" } })),
        Just(
            json!({ "httpGet": { "port": "web", "httpHeaders": [{ "name": "a", "value": "$(b)" }] } })
        ),
        Just(json!({ "tcpSocket": { "port": 90 } })),
        Just(json!({ "grpc": { "port": 91, "service": null } })),
        Just(json!({ "exec": { "command": ["true"] } })),
    ];
    proptest::option::of(action)
}

prop_compose! {
    fn container(name: &'static str)(
        liveness in probe(),
        readiness in probe(),
        always in any::<bool>(),
        ports in any::<bool>(),
    ) -> Value {
        let mut container = json!({ "name": name, "image": "i", "futureField": { "a": 1 } });
        for (field, probe) in [("livenessProbe", liveness), ("readinessProbe", readiness)] {
            if let Some(probe) = probe {
                container[field] = probe;
            }
        }
        if ports {
            container["ports"] = json!([{ "name": "web", "containerPort": 8080 }]);
        }
        if always && name == "init" {
            container["restartPolicy"] = "Always".into();
        }
        container
    }
}

prop_compose! {
    fn pods()(
        containers in proptest::collection::vec(container("app"), 1..3),
        init in proptest::option::of(proptest::collection::vec(container("init"), 0..3)),
        annotations in proptest::option::of(proptest::sample::subsequence(vec![
            ("kuma.io/init-first", "enabled"),
            ("kuma.io/gateway", "enabled"),
            ("kuma.io/transparent-proxying", "disabled"),
            ("traffic.kuma.io/exclude-inbound-ports", "8080"),
            ("kuma.io/sidecar-env-vars", "A=1"),
        ], 0..5)),
    ) -> Value {
        let annotations: Option<BTreeMap<_, _>> = annotations.map(|it| it.into_iter().collect());
        json!({
            "metadata": { "generateName": "a-", "annotations": annotations },
            "spec": { "containers": containers, "initContainers": init, "volumes": null },
        })
    }
}

/// Everything of a container but what its sidecar asks for the kubelet.
fn without_probes(container: &Value) -> Value {
    let mut container = container.clone();
    for field in ["livenessProbe", "readinessProbe"] {
        container.as_object_mut().unwrap().remove(field);
    }
    container
}

proptest! {
    #[test]
    fn twice_is_once_and_the_application_stays(pod in pods(), native in any::<bool>()) {
        let mut case = Case::of(pod);
        case.settings = json!({ "nativeSidecars": native });
        let (injected, _) = case.outcome();
        let read: Pod = serde_json::from_value(injected.clone()).unwrap();
        let spec = read.spec.unwrap();
        for list in ["containers", "initContainers"] {
            let of = |pod: &Value| -> Vec<Value> {
                let all = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
                let all = all.into_iter().flatten();
                let theirs = all.filter(|it| ![SIDECAR, INIT].contains(&it["name"].as_str().unwrap()));
                theirs.map(without_probes).collect()
            };
            prop_assert_eq!(of(&injected), of(&case.pod));
        }
        let commands = |probe: &Option<Probe>| probe.iter().all(|it| it.exec.is_some() || it.http_get.is_some() || it.tcp_socket.is_some() || it.grpc.is_some());
        prop_assert!(spec.containers.iter().all(|it| commands(&it.liveness_probe)));
        case.pod = injected;
        prop_assert_eq!(case.injected(), Ok(Decision::Leave(Reason::Has)));
    }
}
