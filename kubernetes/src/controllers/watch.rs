//! What becomes of the objects of a cluster, as one stream.

use super::cluster::{Id, Namespace, Node, Pod, Service};
use daemon::Repeats;
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1 as api;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, sync::Arc};

/// What became of the objects of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step<T> {
    /// All of them are listed from now on.
    Begin,
    /// This one is so.
    Put(Id, T),
    /// This one is gone.
    Gone(Id),
    /// All of them were listed.
    Complete,
}

/// What became of something.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Pod(Step<Pod>),
    Service(Step<Service>),
    Namespace(Step<Namespace>),
    Node(Step<Node>),
}

/// How many changes are taken in together.
const TOGETHER: usize = 512;

/// Everything there is, and what becomes of it. Never ends: a server that is away is asked again.
pub(super) fn all(client: &Client) -> BoxStream<'static, Vec<Change>> {
    let said = Arc::<Repeats>::default();
    let pods = one::<api::Pod, Pod>(Api::all(client.clone()), &said).map(Change::Pod);
    let services = one::<api::Service, Service>(Api::all(client.clone()), &said);
    let namespaces = one::<api::Namespace, Namespace>(Api::all(client.clone()), &said);
    let nodes = one::<api::Node, Node>(Api::all(client.clone()), &said);
    let all = [
        pods.boxed(),
        services.map(Change::Service).boxed(),
        namespaces.map(Change::Namespace).boxed(),
        nodes.map(Change::Node).boxed(),
    ];
    stream::select_all(all).ready_chunks(TOGETHER).boxed()
}

fn one<K, T>(api: Api<K>, said: &Arc<Repeats>) -> impl Stream<Item = Step<T>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    T: From<K> + Send + 'static,
{
    let said = said.clone();
    let plural = K::plural(&());
    watcher::watcher(api, watcher::Config::default()).default_backoff().filter_map(move |event| {
        let step = match event {
            Ok(event) => Some(step(event)),
            Err(error) => {
                if let Some(unsaid) = said.say(&*plural) {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(%plural, error, unsaid, "watching is interrupted");
                }
                None
            }
        };
        std::future::ready(step)
    })
}

fn step<K: Resource, T: From<K>>(event: Event<K>) -> Step<T> {
    match event {
        Event::Init => Step::Begin,
        Event::InitApply(object) | Event::Apply(object) => Step::Put(id(&object), object.into()),
        Event::Delete(object) => Step::Gone(id(&object)),
        Event::InitDone => Step::Complete,
    }
}

fn id<K: Resource>(object: &K) -> Id {
    Id { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}
