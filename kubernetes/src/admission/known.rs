//! What is known of the cluster where the API server asks: no question of its costs it a request.

use crate::injection::Namespace;
use daemon::Tasks;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Object};
use kube::{
    Api, Client, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long a question waits for the news that it may depend on.
const PATIENCE: Duration = Duration::from_secs(3);
/// The part of a ConfigMap that says something about transparent proxying.
const CONFIG: &str = "config.yaml";

/// Namespaces, and the ConfigMaps of the system namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    namespaces: Watched<Namespace>,
    config_maps: Watched<String>,
}

impl Known {
    /// Hears of everything until `stop`.
    pub(super) fn watch(
        &self,
        client: &Client,
        system_namespace: &str,
        tasks: &mut Tasks,
        stop: &CancellationToken,
    ) {
        let all = Api::<PartialObjectMeta<Object>>::all(client.clone());
        let namespaces = watcher::watcher(all, watcher::Config::default());
        let namespace = |object: PartialObjectMeta<Object>| {
            let (labels, annotations) = (object.metadata.labels, object.metadata.annotations);
            let name = object.metadata.name.unwrap_or_default();
            let (labels, annotations) =
                (labels.unwrap_or_default(), annotations.unwrap_or_default());
            (name.clone(), Some(Namespace { name, labels, annotations }))
        };
        let maps = Api::<ConfigMap>::namespaced(client.clone(), system_namespace);
        let maps = watcher::watcher(maps, watcher::Config::default());
        let map =
            |object: ConfigMap| (object.name_any(), object.data.unwrap_or_default().remove(CONFIG));
        let heard = self.namespaces.clone().hear(namespaces, namespace);
        tasks.spawn("admission.namespaces", until(stop.clone(), heard));
        let heard = self.config_maps.clone().hear(maps, map);
        tasks.spawn("admission.configMaps", until(stop.clone(), heard));
    }

    /// A namespace that is as `expected`, as soon as that is known; else as it is.
    pub(super) async fn namespace(
        &self,
        name: &str,
        expected: impl Fn(&Namespace) -> bool,
    ) -> Option<Namespace> {
        let mut all = self.namespaces.0.subscribe();
        let is_so = |all: &All<Namespace>| all.get(name).is_some_and(&expected);
        // The API server knows more: it has asked because of a label that we may not have heard of.
        drop(timeout(PATIENCE, all.wait_for(is_so)).await);
        all.borrow().get(name).cloned()
    }

    /// What a ConfigMap says about transparent proxying.
    pub(super) fn config_map(&self, name: &str) -> Option<String> {
        self.config_maps.0.borrow().get(name).cloned()
    }

    #[cfg(test)]
    pub(super) fn tell(&self, namespace: Namespace) {
        self.namespaces.0.send_modify(|all| {
            all.insert(namespace.name.clone(), namespace);
        });
    }
}

type All<T> = BTreeMap<String, T>;

/// Objects by name.
#[derive(Debug)]
struct Watched<T>(Arc<watch::Sender<All<T>>>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(All::new())))
    }
}

impl<T> Watched<T> {
    /// `read` takes an object apart: its name, and what of it counts.
    async fn hear<K>(
        self,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
        read: impl Fn(K) -> (String, Option<T>),
    ) {
        let mut events = Box::pin(events.default_backoff());
        let mut listed = All::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = All::new(),
                Ok(Event::InitApply(object)) => put(&mut listed, read(object)),
                // What was there and is not listed is gone.
                Ok(Event::InitDone) => drop(self.0.send_replace(std::mem::take(&mut listed))),
                Ok(Event::Apply(object)) => self.0.send_modify(|all| put(all, read(object))),
                Ok(Event::Delete(object)) => {
                    let (name, _) = read(object);
                    self.0.send_modify(|all| put(all, (name, None)));
                }
                Err(error) => tracing::debug!(%error, "a watch begins anew"),
            }
        }
    }
}

fn put<T>(all: &mut All<T>, (name, counts): (String, Option<T>)) {
    match counts {
        Some(counts) => drop(all.insert(name, counts)),
        None => drop(all.remove(&name)),
    }
}

async fn until(stop: CancellationToken, part: impl Future<Output = ()>) -> anyhow::Result<()> {
    stop.run_until_cancelled(part).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn namespace(name: &str) -> Namespace {
        Namespace { name: name.into(), ..Namespace::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_waits_for_news_of_its_namespace_and_not_for_ever() {
        let known = Known::default();
        let tells = async {
            tokio::time::sleep_until(tokio::time::Instant::now() + PATIENCE / 2).await;
            known.tell(namespace("late"));
        };
        let asked = known.namespace("late", |_| true);
        let (found, ()) = tokio::join!(asked, tells);
        assert_eq!(found, Some(namespace("late")));
        assert_eq!(known.namespace("never", |_| true).await, None);
    }

    #[tokio::test]
    async fn what_is_not_listed_any_more_is_gone() {
        let watched = Watched::<String>::default();
        let read = |(name, value): (&str, &str)| (name.to_owned(), Some(value.to_owned()));
        let events = [
            Event::Init,
            Event::InitApply(("a", "1")),
            Event::InitApply(("b", "1")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(("b", "2")),
            Event::InitDone,
        ];
        watched.clone().hear(stream::iter(events.map(Ok)), read).await;
        let expected = All::from([("b".to_owned(), "2".to_owned())]);
        assert_eq!(*watched.0.borrow(), expected);
    }
}
