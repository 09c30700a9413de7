//! A cluster with a zone's store and controllers in it.

use anyhow::{Context as _, Result, bail};
use apiserver::{ApiServer, Options};
use daemon::{Clock, Metrics};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod, Service, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use kubernetes::controllers::{self, Events, Parts, Settings};
use parking_lot::Mutex;
use resource::{Kind, MeshName, Peer, Resource, ResourceKey, ZoneName};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Backend as _, Kinds, Local, view::KindId};
use tokio::{runtime::Runtime, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

/// So long something may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often something was asked, by verb and sort of object.
pub(crate) type Asked = Arc<Mutex<BTreeMap<String, usize>>>;

/// Runs a test on a cluster of its own.
pub(crate) fn run<F: Future<Output = Result<()>>>(
    options: Options,
    test: impl FnOnce(ApiServer) -> F,
) -> Result<()> {
    let server = ApiServer::start_with(options)?;
    Runtime::new()?.block_on(test(server))
}

/// A client that counts what it asks.
pub(crate) async fn client(server: &ApiServer, asked: &Asked) -> Result<Client> {
    let file = Kubeconfig::read_from(server.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let asked = asked.clone();
    let count = move |request: http::Request<kube::client::Body>| {
        *asked.lock().entry(sort(request.method(), request.uri())).or_default() += 1;
        request
    };
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapRequestLayer::new(count)).build())
}

/// Verb and plural of what is asked for.
fn sort(method: &http::Method, uri: &http::Uri) -> String {
    let watches = uri.query().is_some_and(|query| query.contains("watch=true"));
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let rest = parts.iter().skip(if parts.first() == Some(&"api") { 2 } else { 3 });
    let mut rest: Vec<&str> = rest.copied().collect();
    if rest.first() == Some(&"namespaces") && rest.len() > 2 {
        rest.drain(..2);
    }
    let plural = rest.first().copied().unwrap_or_default();
    let status = rest.get(2).map(|part| format!("/{part}")).unwrap_or_default();
    let verb = if watches { "WATCH" } else { method.as_str() };
    format!("{verb} {plural}{status}")
}

/// A zone that runs.
pub(crate) struct Zone {
    pub(crate) store: Local,
    pub(crate) kinds: Arc<Kinds>,
    stop: CancellationToken,
    _tasks: JoinSet<Result<()>>,
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Zone {
    pub(crate) async fn start(client: Client) -> Result<Self> {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
        let clock = Clock::system();
        let problems = store_kubernetes::Problems::default();
        let settings = store_kubernetes::Settings {
            system_namespace: "kuma-system".into(),
            problems: problems.clone(),
            metrics: Metrics::default(),
        };
        let opening =
            store_kubernetes::open(client.clone(), settings, kinds.clone(), clock.clone());
        let (store, writing) = opening.await?;
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(async move { Ok(writing.await?) });
        let metrics = Metrics::default();
        let (events, writer) = Events::new(client.clone(), "zone-cp-0".into(), clock, &metrics);
        let kinds = Arc::new(kinds);
        let settings = Settings::of(ZoneName::new("east")?, &kubernetes::Config::default());
        let telling = controllers::tell_problems(problems, events.clone(), stop.clone());
        let (store_of, kinds_of) = (store.clone(), kinds.clone());
        let parts = Parts { client, store: store_of, kinds: kinds_of, settings, events, metrics };
        tasks.spawn(controllers::run(parts, stop.clone()));
        tasks.spawn(async move {
            telling.await;
            Ok(())
        });
        let stopped = stop.clone();
        tasks.spawn(async move {
            writer.run(stopped).await;
            Ok(())
        });
        Ok(Self { store, kinds, stop, _tasks: tasks })
    }

    fn id(&self, kind: Kind) -> Result<KindId> {
        self.kinds.id_of(kind.name).context(kind.name)
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> Result<Option<Arc<Resource>>> {
        let key = ResourceKey::in_mesh(&MeshName::new("default")?, name);
        Ok(self.store.reader().get(self.id(kind)?, &key))
    }

    /// Waits until `done` says so of the rows of `kind`.
    pub(crate) async fn until(
        &self,
        kind: Kind,
        mut done: impl FnMut(&store::view::Rows) -> bool,
    ) -> Result<()> {
        let (reader, id) = (self.store.reader(), self.id(kind)?);
        let mut watch = reader.watch([id].into_iter().collect());
        let waiting = async {
            while !done(&reader.rows(id).1) {
                watch.dirty().await?;
            }
            Ok(())
        };
        match timeout(PATIENCE, waiting).await {
            Ok(done) => done,
            Err(_) => bail!("{} rows of {} and no more", reader.rows(id).1.len(), kind.name),
        }
    }
}

/// Puts the definitions of our kinds there, and what a zone has at its start.
pub(crate) async fn install(client: &Client) -> Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for document in kinds::all().filter_map(|kind| kinds::crd::definition(&kind)) {
        let definition: CustomResourceDefinition = serde_json::from_value(document)?;
        api.create(&PostParams::default(), &definition).await?;
    }
    for name in kinds::all().filter(|kind| kind.custom.is_some()).map(|kind| kind.plural) {
        established(&api, &format!("{name}.kuma.io")).await?;
    }
    namespace(client, "kuma-system", false).await?;
    let mesh = json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "Mesh", "metadata": { "name": "default" },
    });
    let request =
        http::Request::post("/apis/kuma.io/v1alpha1/meshes").body(mesh.to_string().into_bytes())?;
    client.request::<Value>(request).await?;
    Ok(())
}

async fn established(api: &Api<CustomResourceDefinition>, name: &str) -> Result<()> {
    let condition = kube::runtime::conditions::is_crd_established();
    timeout(PATIENCE, kube::runtime::wait::await_condition(api.clone(), name, condition)).await??;
    Ok(())
}

/// Creates a namespace; its pods are in the mesh if `injects`.
pub(crate) async fn namespace(client: &Client, name: &str, injects: bool) -> Result<()> {
    let value = if injects { "enabled" } else { "disabled" };
    let labels = json!({ "kuma.io/sidecar-injection": value });
    let object = serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } }))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
    Ok(())
}

pub(crate) async fn service(client: &Client, namespace: &str, app: &str) -> Result<()> {
    let object = serde_json::from_value(json!({
        "metadata": { "name": app },
        "spec": {
            "selector": { "app": app },
            "ports": [{ "name": "web", "port": 80, "targetPort": "http", "appProtocol": "http" }],
        },
    }))?;
    let api = Api::<Service>::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Creates a pod as the injector leaves it.
pub(crate) async fn pod(client: &Client, namespace: &str, name: &str, app: &str) -> Result<()> {
    let object = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": { "app": app },
            "annotations": { "kuma.io/sidecar-injected": "true" },
        },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                { "name": "app", "image": "app", "ports": [{ "name": "http", "containerPort": 8080 }] },
                { "name": "kuma-sidecar", "image": "sidecar" },
            ],
        },
    }))?;
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let pod = api.create(&PostParams::default(), &object).await?;
    debug_assert_eq!(pod.name_any(), name);
    Ok(())
}

/// Says of a pod what its kubelet would.
pub(crate) async fn status(
    client: &Client,
    (namespace, name): (&str, &str),
    ip: &str,
    ready: bool,
) -> Result<()> {
    let ready = if ready { "True" } else { "False" };
    let status = json!({ "status": {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{ "ip": ip }],
        "conditions": [{ "type": "Ready", "status": ready }],
    } });
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Waits until pods can be made in a namespace.
pub(crate) async fn account(client: &Client, namespace: &str) -> Result<()> {
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let is_there = |it: Option<&ServiceAccount>| it.is_some();
    let waiting = kube::runtime::wait::await_condition(api, "default", is_there);
    timeout(PATIENCE, waiting).await.context("no service account")??;
    Ok(())
}
