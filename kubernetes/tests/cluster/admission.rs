//! The webhooks of the chart, answered by a control plane, in a real API server.
#![expect(clippy::indexing_slicing, reason = "what is not there fails a test")]
#![expect(clippy::print_stdout, reason = "what was measured is told")]

use crate::world::{self, Asked, PATIENCE, Zone};
use anyhow::{Context as _, Result, bail, ensure};
use apiserver::{ApiServer, Options};
use daemon::{Clock, Metrics, Tasks};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{Namespace, Pod, Secret, Service},
};
use kinds::labels::{Env, Place};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject},
    runtime::wait::await_condition,
};
use kubernetes::{
    admission::{Admission, Certificates},
    injection::SIDECAR,
    tokens::{Account, BoundPod, TokenError, Tokens},
};
use parking_lot::Mutex;
use resource::{Access, ZoneName};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Backend as _;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

const CHART: &str = include_str!("../../../deploy/helm/testdata/zone.golden.yaml");
const GOOD: &str = include_str!("../../../kinds/testdata/manifests/good.yaml");
const BAD: &str = include_str!("../../../kinds/testdata/manifests/bad.yaml");

fn documents(text: &str) -> Result<Vec<Value>> {
    let parts = text.split("\n---\n").skip(1);
    let all = parts.map(|part| Ok(serde_saphyr::from_str::<Value>(part)?));
    all.filter(|it| !matches!(it, Ok(Value::Null))).collect()
}

/// A control plane that answers the API server.
pub(crate) struct Answering {
    _zone: Zone,
    _tasks: Tasks,
    stop: CancellationToken,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts one, with the webhooks of the chart, and waits until the API server trusts it.
pub(crate) async fn answering(client: &Client, clock: &Clock) -> Result<Answering> {
    world::install(client).await?;
    world::namespace(client, "shop", true).await?;
    world::namespace(client, "plain", false).await?;
    let zone = Zone::start(client.clone()).await?;
    let mesh = |rows: &store::view::Rows| rows.iter().any(|row| &*row.head.key.name == "default");
    zone.until(kinds::mesh::KIND, mesh).await?;
    let config = kubernetes::Config::default();
    let certificates = Certificates::open(client.clone(), &config, &[], clock.clone()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (mut tasks, stop) = (Tasks::default(), CancellationToken::new());
    let name = ZoneName::new("east")?;
    let admission = Admission {
        client: client.clone(),
        config,
        place: Place::Zone { name, env: Env::Kubernetes },
        federated: false,
        apexes: Vec::new(),
        kinds: zone.kinds.clone(),
        reader: zone.store.reader(),
        metrics: Metrics::default(),
    };
    admission.spawn(listener, &certificates, &mut tasks, &stop);
    certificates.spawn(&mut tasks, &stop);
    webhooks(client, port).await?;
    Ok(Answering { _zone: zone, _tasks: tasks, stop })
}

/// Those of the chart. There is no network of services here, but a service can be another name.
async fn webhooks(client: &Client, port: u16) -> Result<()> {
    let service = json!({
        "metadata": { "name": "atoll-admission" },
        "spec": { "type": "ExternalName", "externalName": "127.0.0.1" },
    });
    let services = Api::<Service>::namespaced(client.clone(), "kuma-system");
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    for mut document in documents(CHART)? {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        if !kind.ends_with("WebhookConfiguration") {
            continue;
        }
        for webhook in document["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["clientConfig"]["service"]["port"] = port.into();
        }
        let plural = format!("{}s", kind.to_lowercase());
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        let request = http::Request::post(path).body(document.to_string().into_bytes())?;
        client.request::<Value>(request).await?;
        let api = ApiResource {
            group: "admissionregistration.k8s.io".into(),
            version: "v1".into(),
            api_version: "admissionregistration.k8s.io/v1".into(),
            kind,
            plural,
        };
        let api = Api::<DynamicObject>::all_with(client.clone(), &api);
        let trusts = |object: Option<&DynamicObject>| {
            let webhooks = object.and_then(|it| it.data["webhooks"].as_array());
            webhooks.is_some_and(|all| {
                all.iter().all(|it| it.pointer("/clientConfig/caBundle").is_some())
            })
        };
        timeout(PATIENCE, await_condition(api, "atoll", trusts)).await??;
    }
    Ok(())
}

fn pod(name: &str, annotations: Value) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "annotations": annotations },
        "spec": {
            "serviceAccountName": "cart",
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1000,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "app", "image": "cart",
                "livenessProbe": { "httpGet": { "port": 8080 } },
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    }))?)
}

async fn create(client: &Client, namespace: &str, pod: &Pod) -> Result<Pod, kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    // The webhooks of a new configuration, or of one that trusts somebody else, are called as soon as
    // the API server has heard of it.
    api.create(&PostParams::default(), pod).await
}

fn has_sidecar(pod: &Pod) -> bool {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.into_iter().any(|container| container.name == SIDECAR)
}

/// Waits until the API server asks: it hears of webhooks as everybody else.
pub(crate) async fn asked(client: &Client) -> Result<()> {
    let mut said = String::new();
    let trying = async {
        for i in 0.. {
            let pod = pod(&format!("first-{i}"), json!({}))?;
            match create(client, "shop", &pod).await {
                Ok(pod) if has_sidecar(&pod) => break,
                Ok(_) => said = "it has no sidecar".into(),
                Err(error) => said = error.to_string(),
            }
        }
        Ok(())
    };
    let tried = timeout(PATIENCE, trying).await;
    tried.with_context(|| format!("no pod gets a sidecar: {said}"))?
}

pub(crate) fn pods_of_the_mesh_get_a_sidecar_and_no_others() -> Result<()> {
    world::run(Options::default(), async |server: ApiServer| {
        let counted = Asked::default();
        let client = world::client(&server, &counted).await?;
        let other = world::client(&server, &Asked::default()).await?;
        let answering = answering(&client, &Clock::system()).await?;
        asked(&other).await?;
        let before: usize = counted.lock().values().sum();
        for i in 0..20 {
            let created = create(&other, "shop", &pod(&format!("cart-{i}"), json!({}))?).await?;
            ensure!(has_sidecar(&created), "{created:?}");
            let probe = created.spec.context("spec")?.containers.remove(0).liveness_probe;
            ensure!(
                probe.context("probe")?.http_get.context("get")?.port
                    == k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(9001)
            );
        }
        let asked = counted.lock().values().sum::<usize>() - before;
        println!(
            "20 pods injected with {asked} requests of the control plane's controllers and webhooks"
        );
        let outside = create(&other, "plain", &pod("cart-1", json!({}))?).await?;
        ensure!(!has_sidecar(&outside));
        let wrong = pod("wrong", json!({ "kuma.io/sidecar-concurrency": "many" }))?;
        let refused = create(&other, "shop", &wrong).await.err().context("it was taken")?;
        let kube::Error::Api(status) = refused else { bail!("{refused}") };
        let expected =
            r#"metadata.annotations[kuma.io/sidecar-concurrency]: "many" is no number of threads"#;
        ensure!(status.code == 422 && status.message.contains(expected), "{status:?}");
        restricted(&other).await?;

        // Nobody answers any more.
        answering.stop.cancel();
        drop(answering);
        let outside = create(&other, "plain", &pod("cart-2", json!({}))?).await?;
        ensure!(!has_sidecar(&outside));
        let waiting = async {
            loop {
                match create(&other, "shop", &pod("late", json!({}))?).await {
                    Ok(_) => {
                        let pods = Api::<Pod>::namespaced(other.clone(), "shop");
                        pods.delete("late", &kube::api::DeleteParams::default().grace_period(0))
                            .await?;
                    }
                    Err(error) => return Ok::<_, anyhow::Error>(error.to_string()),
                }
            }
        };
        let refused = timeout(PATIENCE, waiting).await??;
        ensure!(refused.contains("failed calling webhook"), "{refused}");
        Ok(())
    })
}

/// Where nothing is redirected a pod is one of the strictest level; where something is, only the
/// container that sets that up is not.
async fn restricted(client: &Client) -> Result<()> {
    let namespace = json!({ "metadata": { "name": "strict", "labels": {
        "kuma.io/sidecar-injection": "enabled",
        "pod-security.kubernetes.io/enforce": "restricted",
    } } });
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let off = json!({ "kuma.io/transparent-proxying": "disabled" });
    let taken = create(client, "strict", &pod("cart-1", off)?).await?;
    ensure!(has_sidecar(&taken));
    let refused = create(client, "strict", &pod("cart-2", json!({}))?).await;
    let refused = refused.err().context("NET_ADMIN was taken")?.to_string();
    ensure!(refused.contains("kuma-init") && !refused.contains(SIDECAR), "{refused}");
    Ok(())
}

pub(crate) fn manifests_are_taken_or_refused_by_field() -> Result<()> {
    world::run(Options::default(), async |server: ApiServer| {
        let client = world::client(&server, &Asked::default()).await?;
        let answering = answering(&client, &Clock::system()).await?;
        asked(&client).await?;
        for document in documents(GOOD)? {
            let said = apply(&client, &document, "good").await?;
            let kind = document["kind"].as_str().unwrap_or_default();
            let kind = kinds::all().find(|it| it.name == kind).context("kind")?;
            if kind.access == Access::ReadOnly {
                let expected = format!("a {} is written by control planes only", kind.name);
                ensure!(said.contains(&expected), "{said}: {document}");
            } else if kind.name != "Mesh" {
                ensure!(said.is_empty(), "{said}: {document}");
            }
        }
        for document in documents(BAD)? {
            let said = apply(&client, &document, "bad").await?;
            ensure!(!said.is_empty() && !said.contains("failed calling"), "{said}: {document}");
        }
        // What no schema can know.
        let of_nobody = json!({
            "apiVersion": "kuma.io/v1alpha1", "kind": "MeshTimeout",
            "metadata": {
                "name": "of-nobody", "namespace": "shop",
                "labels": { "kuma.io/mesh": "nobody", "kuma.io/zone": "west" },
            },
            "spec": { "to": [{
                "targetRef": { "kind": "Mesh" }, "default": { "idleTimeout": "1s" },
            }] },
        });
        let expected = "admission webhook \"validate.kuma.io\" denied the request: \
            metadata.labels[kuma.io/mesh]: mesh \"nobody\" not found; \
            metadata.labels[kuma.io/zone]: kuma.io/zone label should have east value";
        let said = apply(&client, &of_nobody, "bad").await?;
        ensure!(said == expected, "{said}");
        drop(answering);
        Ok(())
    })
}

/// What is said of an object that is created; nothing if it is taken.
async fn apply(client: &Client, document: &Value, suffix: &str) -> Result<String> {
    let kind = document["kind"].as_str().context("kind")?;
    let kind = kinds::all().find(|it| it.name == kind).context("kind")?;
    let mut object: DynamicObject = serde_json::from_value(document.clone())?;
    if object.namespace().is_some_and(|name| !["kuma-system", "shop"].contains(&&*name)) {
        object.metadata.namespace = Some("shop".into());
    }
    let zone = kind.name == "Zone";
    let name = if zone { "east".into() } else { format!("{}-{suffix}", object.name_any()) };
    object.metadata.name = Some(name);
    object.metadata.annotations = None;
    let api = ApiResource {
        group: "kuma.io".into(),
        version: "v1alpha1".into(),
        api_version: "kuma.io/v1alpha1".into(),
        kind: kind.name.into(),
        plural: kind.plural.into(),
    };
    let namespaced = kind.custom.is_some_and(|it| it.namespaced);
    let api: Api<DynamicObject> = match object.namespace().filter(|_| namespaced) {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &api),
        None => Api::all_with(client.clone(), &api),
    };
    match api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await {
        Ok(_) => Ok(String::new()),
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn a_certificate_is_renewed_while_pods_are_made() -> Result<()> {
    world::run(Options::default(), async |server: ApiServer| {
        let client = world::client(&server, &Asked::default()).await?;
        let offset = Arc::new(Mutex::new(SignedDuration::from_hours(-61 * 24)));
        let shown = offset.clone();
        let clock = Clock::of(move || Timestamp::now() + *shown.lock());
        let answering = answering(&client, &clock).await?;
        asked(&client).await?;
        let secrets = Api::<Secret>::namespaced(client.clone(), "kuma-system");
        let certificate = async || -> Result<Option<Vec<u8>>> {
            let secret = secrets.get("atoll-zone-cp-tls").await?;
            Ok(secret.data.unwrap_or_default().remove("tls.crt").map(|it| it.0))
        };
        let before = certificate().await?;
        // Time passes; something that happens to the Secret has the control plane look at its clock.
        *offset.lock() = SignedDuration::ZERO;
        let touched = json!({ "metadata": { "annotations": { "touched": "yes" } } });
        let (params, touched) = (PatchParams::default(), Patch::Merge(touched));
        secrets.patch("atoll-zone-cp-tls", &params, &touched).await?;
        let mut made = 0;
        let making = async {
            while certificate().await? == before || made < 30 {
                let pod = pod(&format!("cart-{made}"), json!({}))?;
                ensure!(has_sidecar(&create(&client, "shop", &pod).await?));
                made += 1;
            }
            Ok(())
        };
        timeout(PATIENCE, making).await.context("it is not renewed")??;

        // Somebody breaks it, and somebody applies the chart anew.
        let webhooks = Api::<ValidatingWebhookConfiguration>::all(client.clone());
        let none = json!([{ "op": "remove", "path": "/webhooks/0/clientConfig/caBundle" }]);
        let none: json_patch::Patch = serde_json::from_value(none)?;
        let (params, none) = (PatchParams::default(), Patch::Json::<()>(none));
        webhooks.patch("atoll", &params, &none).await?;
        let trusts = |it: Option<&ValidatingWebhookConfiguration>| {
            let mut all = it.into_iter().flat_map(|it| it.webhooks.iter().flatten());
            all.all(|it| it.client_config.ca_bundle.is_some())
        };
        timeout(PATIENCE, await_condition(webhooks, "atoll", trusts)).await??;
        secrets.delete("atoll-zone-cp-tls", &kube::api::DeleteParams::default()).await?;
        let there = |it: Option<&Secret>| it.is_some_and(|it| it.data.is_some());
        timeout(PATIENCE, await_condition(secrets.clone(), "atoll-zone-cp-tls", there)).await??;
        let created = create(&client, "shop", &pod("last", json!({}))?).await?;
        ensure!(has_sidecar(&created));
        println!("{made} pods were made while the certificate was renewed");
        drop(answering);
        Ok(())
    })
}

pub(crate) fn a_token_is_that_of_its_pod_and_for_us() -> Result<()> {
    world::run(Options::default(), async |server: ApiServer| {
        let client = world::client(&server, &Asked::default()).await?;
        world::namespace(&client, "shop", false).await?;
        let post = async |path: &str, body: Value| -> Result<Value> {
            let path = format!("/api/v1/namespaces/shop/{path}");
            let request = http::Request::post(path).body(body.to_string().into_bytes())?;
            Ok(client.request::<Value>(request).await?)
        };
        post("serviceaccounts", json!({ "metadata": { "name": "cart" } })).await?;
        let pod = serde_json::to_value(pod("cart-1", json!({}))?)?;
        let pod = post("pods", pod).await?;
        let uid = pod["metadata"]["uid"].as_str().context("uid")?.to_owned();
        let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": "cart-1", "uid": uid });
        let token = async |audience: &str, bound: &Value| -> Result<String> {
            let spec = json!({ "audiences": [audience], "boundObjectRef": bound });
            let made = post("serviceaccounts/cart/token", json!({ "spec": spec })).await?;
            Ok(made["status"]["token"].as_str().context("token")?.to_owned())
        };
        let tokens = Tokens::new(client.clone(), "atoll", Clock::system());
        let good = token("atoll", &bound).await?;
        let account = tokens.account(&good).await?;
        let expected = Account {
            namespace: "shop".into(),
            name: "cart".into(),
            pod: Some(BoundPod { name: "cart-1".into(), uid: uid.clone() }),
            expires: account.expires,
        };
        ensure!(*account == expected, "{account:?}");
        let elsewhere = tokens.account(&token("kube", &bound).await?).await;
        ensure!(matches!(elsewhere, Err(TokenError::Refused(_))), "{elsewhere:?}");
        let of_nobody = tokens.account(&token("atoll", &Value::Null).await?).await?;
        ensure!(of_nobody.pod.is_none(), "{of_nobody:?}");
        let pods = Api::<Pod>::namespaced(client.clone(), "shop");
        pods.delete("cart-1", &kube::api::DeleteParams::default().grace_period(0)).await?;
        tokens.account(&good).await?;
        // The API server remembers for some seconds what it said itself.
        let forgotten = async {
            loop {
                tokens.forget(&uid);
                if let Err(gone) = tokens.account(&good).await {
                    return gone;
                }
            }
        };
        let gone = timeout(PATIENCE, forgotten).await.context("the token is still good")?;
        ensure!(matches!(gone, TokenError::Refused(_)), "{gone:?}");
        Ok(())
    })
}
