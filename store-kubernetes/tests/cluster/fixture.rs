//! One API server for all tests, which they use one after the other.

use anyhow::{Context as _, Result};
use apiserver::ApiServer;
use daemon::{Clock, Metrics};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, DynamicObject},
};
use libtest_mimic::Trial;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{future::Future, path::Path, sync::Arc, time::Duration};
use store::{Backend as _, Kinds, Local, Writing, view::KindId};
use store_kubernetes::{Problems, Settings};

pub(crate) const SYSTEM: &str = "kuma-system";

static SERVER: Mutex<Option<ApiServer>> = Mutex::new(None);

/// A test of the server, which is made empty before.
pub(crate) fn trial(name: &str, test: fn(&mut Cluster<'_>) -> Result<()>) -> Trial {
    apiserver::trial(name, move || {
        let mut server = SERVER.lock();
        if server.is_none() {
            *server = Some(ApiServer::start()?);
        }
        let server = server.as_mut().context("a server")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let client = runtime.block_on(client(&server.kubeconfig()))?;
        let mut cluster = Cluster { server, client, runtime: Arc::new(runtime) };
        let made = cluster.clone_client();
        cluster.run(async move { made.make_empty().await })?;
        test(&mut cluster)
    })
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// The cluster that a test uses.
pub(crate) struct Cluster<'a> {
    pub(crate) server: &'a mut ApiServer,
    client: Client,
    runtime: Arc<tokio::runtime::Runtime>,
}

/// Somebody else in the cluster.
#[derive(Clone)]
pub(crate) struct Other {
    pub(crate) client: Client,
}

impl Cluster<'_> {
    pub(crate) fn runtime(&self) -> Arc<tokio::runtime::Runtime> {
        self.runtime.clone()
    }

    pub(crate) fn clone_client(&self) -> Other {
        Other { client: self.client.clone() }
    }

    pub(crate) fn run<T>(&self, test: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(100), test).await.context("it hangs")?
        })
    }

    /// Lets `test` use a store of `kinds`.
    pub(crate) fn with_store<T, F: Future<Output = Result<T>>>(
        &self,
        kinds: Kinds,
        test: impl FnOnce(Opened) -> F,
    ) -> Result<T> {
        self.run(async {
            let (store, writing) = self.clone_client().open(kinds).await?;
            tokio::select! {
                biased;
                result = test(store) => result,
                ended = writing => anyhow::bail!("the writer ended: {ended:?}"),
            }
        })
    }
}

/// A store and what belongs to it.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) store: Local,
    pub(crate) problems: Problems,
    pub(crate) metrics: Metrics,
    pub(crate) other: Other,
}

impl Opened {
    /// Waits until the view is as it should be.
    pub(crate) async fn until<T>(&self, mut seen: impl FnMut(&Local) -> Option<T>) -> T {
        let mut reader = self.store.reader();
        loop {
            let revision = reader.revision();
            if let Some(seen) = seen(&self.store) {
                return seen;
            }
            let next = store::view::Revision(revision.0 + 1);
            reader.wait_for(next).await.expect("the view is open");
        }
    }

    /// How many requests of a verb were made, whatever came of them.
    pub(crate) fn requests(&self, verb: &str) -> u64 {
        let text = self.metrics.encode().expect("metrics are text");
        let lines = text.lines().filter(|line| line.starts_with("store_kubernetes_requests_total"));
        let lines = lines.filter(|line| line.contains(&format!("verb=\"{verb}\"")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// How many requests changed something or looked at an object.
    pub(crate) fn all_requests(&self) -> u64 {
        ["create", "update", "delete", "get"].iter().map(|verb| self.requests(verb)).sum()
    }
}

impl Other {
    pub(crate) async fn open(&self, kinds: Kinds) -> Result<(Opened, Writing)> {
        let (problems, metrics) = (Problems::default(), Metrics::default());
        let settings = Settings {
            system_namespace: SYSTEM.into(),
            problems: problems.clone(),
            metrics: metrics.clone(),
        };
        let opening = store_kubernetes::open(self.client.clone(), settings, kinds, Clock::system());
        let (store, writing) = opening.await?;
        Ok((Opened { store, problems, metrics, other: self.clone() }, writing))
    }

    async fn make_empty(&self) -> Result<()> {
        for namespace in [SYSTEM, "shop"] {
            let object = json!({ "metadata": { "name": namespace } });
            self.apply("v1", "Namespace", "namespaces", None, object).await?;
        }
        for (kind, plural) in [("Sample", "samples"), ("Dataplane", "dataplanes")] {
            self.define(&definition(kind, plural)).await?;
            self.delete_all("kuma.io/v1alpha1", kind, plural).await?;
        }
        self.delete_all("v1", "Secret", "secrets").await?;
        self.delete_all("v1", "ConfigMap", "configmaps").await?;
        self.delete_all("v1", "ResourceQuota", "resourcequotas").await?;
        let extras = self.api(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            None,
        );
        extras.delete("extras.kuma.io", &DeleteParams::default()).await.ok();
        Ok(())
    }

    /// Makes a definition and waits until it is followed.
    pub(crate) async fn define(&self, definition: &Value) -> Result<()> {
        let (version, kind) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        self.apply(version, kind, "customresourcedefinitions", None, definition.clone()).await?;
        let names = &definition["spec"]["names"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api =
            self.api("kuma.io/v1alpha1", &text(&names["kind"]), &text(&names["plural"]), None);
        while api.list(&ListParams::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub(crate) fn api(
        &self,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource {
            group: group.into(),
            version: short.into(),
            api_version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    pub(crate) fn samples(&self, namespace: &str) -> Api<DynamicObject> {
        self.api("kuma.io/v1alpha1", "Sample", "samples", Some(namespace))
    }

    async fn apply(
        &self,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: Option<&str>,
        mut object: Value,
    ) -> Result<()> {
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let params = PatchParams::apply("test").force();
        self.api(version, kind, plural, namespace)
            .patch(&name, &params, &Patch::Apply(object))
            .await?;
        Ok(())
    }

    async fn delete_all(&self, version: &str, kind: &str, plural: &str) -> Result<()> {
        let all = self.api(version, kind, plural, None).list(&ListParams::default()).await?;
        for object in all.items {
            let namespace = object.metadata.namespace.as_deref();
            if !matches!(namespace, Some(SYSTEM | "shop") | None) {
                continue;
            }
            let api = self.api(version, kind, plural, namespace);
            let name = object.metadata.name.as_deref().unwrap_or_default();
            if object.metadata.finalizers.is_some() {
                let free = json!({ "metadata": { "finalizers": null } });
                api.patch(name, &PatchParams::default(), &Patch::Merge(free)).await.ok();
            }
            api.delete(name, &DeleteParams::default()).await.ok();
        }
        Ok(())
    }
}

/// An object as somebody else makes it.
pub(crate) async fn make(api: &Api<DynamicObject>, object: Value) -> Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object)?;
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// Changes an object as somebody else.
pub(crate) async fn change(
    api: &Api<DynamicObject>,
    name: &str,
    patch: Value,
) -> Result<DynamicObject> {
    Ok(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
}

/// A sample as somebody writes it.
pub(crate) fn sample(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "kuma.io/v1alpha1",
        "kind": "Sample",
        "metadata": { "name": name },
        "spec": { "value": value },
    })
}

/// A definition that takes everything.
pub(crate) fn definition(kind: &str, plural: &str) -> Value {
    let anything = json!({ "x-kubernetes-preserve-unknown-fields": true, "type": "object" });
    json!({
        "metadata": { "name": format!("{plural}.kuma.io") },
        "spec": {
            "group": "kuma.io",
            "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": anything },
            }],
        },
    })
}

/// The id of a kind.
pub(crate) fn id(kinds: &Kinds, name: &str) -> KindId {
    kinds.id_of(name).expect("one of the kinds")
}
