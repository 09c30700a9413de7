//! What a zone would become if it took everything from the global at the other end, found out
//! without a change: all is asked for on one more stream, judged, and let go.

use super::{
    calls::{Connection, GLOBAL_TO_ZONE, open},
    chain,
};
use crate::{
    dialect::Dialect,
    fetch::{Asking, Taken},
    incoming::Incoming,
    limit,
    memory::{Identity, Presented},
    metadata::{looks, presented},
    observe::{Report, Unobserved},
};
use delta::Extent;
use futures::StreamExt as _;
use parking_lot::Mutex;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use resource::ResourceKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{
    Backend,
    view::{Edit, KindId, Reader},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic_prost::ProstCodec;

/// What would become of a resource of the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It comes.
    Create,
    /// It becomes another one.
    Change,
    /// It goes.
    Delete,
}

/// What would become of the resources of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The global that was looked at, if it says which one it is.
    pub identity: Option<Identity>,
    /// What differs, by kind and name in the zone; all else stays as it is.
    pub steps: BTreeMap<(&'static str, ResourceKey), Step>,
}

/// Why a zone cannot say what would become of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// There is no connection with global.
    #[error("the zone is not connected with global")]
    NotConnected,
    /// Global did not show everything.
    #[error("global did not show everything in time")]
    TimedOut,
    /// The connection ended, or something is wrong with it.
    #[error("{0}")]
    Failed(String),
}

type Answer = Result<Difference, Unseen>;

/// Those who want to look, until a connection does it for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    waiting: Arc<Mutex<Vec<oneshot::Sender<Answer>>>>,
    asked: Arc<Notify>,
}

impl Looks {
    /// Waits until somebody looked.
    pub(super) async fn look(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().push(answer);
        self.asked.notify_one();
        match timeout(limit::LOOK, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unseen::NotConnected),
            Err(_) => Err(Unseen::TimedOut),
        }
    }

    /// Nobody can look now.
    pub(super) fn dismiss(&self) {
        self.waiting.lock().clear();
    }
}

impl<B: Backend + 'static> Connection<B> {
    /// Looks for those who ask, as long as the connection lasts.
    pub(super) async fn look_for(&self, metadata: &MetadataMap) {
        loop {
            self.looks.asked.notified().await;
            let waiting = std::mem::take(&mut *self.looks.waiting.lock());
            if waiting.iter().all(oneshot::Sender::is_closed) {
                continue;
            }
            let answer = self.look(metadata.clone()).await;
            for one in waiting {
                // Who does not wait any more needs no answer.
                one.send(answer.clone()).ok();
            }
        }
    }

    async fn look(&self, mut metadata: MetadataMap) -> Answer {
        looks(&mut metadata);
        let failed = |text: String| Unseen::Failed(text);
        let mut asking = Asking::looking(self.kinds.clone(), &self.settings.zone);
        let (requests, outgoing) = mpsc::channel(asking.capacity());
        for request in asking.requests(&self.settings.introduction) {
            requests.try_send(request).map_err(|error| failed(error.to_string()))?;
        }
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let outgoing = ReceiverStream::new(outgoing);
        let opened = open(&self.channel, GLOBAL_TO_ZONE, metadata, outgoing, codec).await;
        let (headers, mut responses, _) =
            opened.map_err(|status| failed(status.message().to_owned()))?.into_parts();
        let dialect = self.settings.dialect(&headers);
        asking.met(dialect, None).map_err(|forgotten| failed(forgotten.to_string()))?;
        let report = Report::new(Arc::new(Unobserved), self.settings.zone.clone());
        let mut seen =
            Seen::new(self, presented(&headers).map(|Presented { identity, .. }| identity));
        while !seen.is_complete() {
            // A plain global may say nothing of a kind of which it has nothing: nothing would change.
            let quiet = if dialect == Dialect::Plain { limit::LOOK_QUIET } else { limit::LOOK };
            let response = match timeout(quiet, responses.next()).await {
                Ok(Some(Ok(response))) => response,
                Ok(Some(Err(status))) => return Err(failed(status.message().to_owned())),
                Ok(None) => return Err(failed("global closed the stream".into())),
                Err(_) if dialect == Dialect::Plain && !seen.done.is_empty() => break,
                Err(_) => return Err(Unseen::TimedOut),
            };
            let reader = self.store.reader();
            let taken = asking.take(response, &reader).map_err(|ended| failed(chain(&ended)))?;
            let (answers, ready) = match taken {
                Taken::Refused(answer) => (vec![*answer], Vec::new()),
                Taken::Ready(ready) => (Vec::new(), ready),
                Taken::Held(held) => return Err(failed(held.to_string())),
            };
            let judged = ready.into_iter().map(|incoming| {
                let judged = asking.judge(&reader, &incoming);
                seen.note(&incoming, &judged.batch, &reader);
                asking.applied(&incoming, judged, reader.revision(), &report)
            });
            for answer in answers.into_iter().chain(judged.collect::<Vec<_>>()) {
                requests.try_send(answer).map_err(|error| failed(error.to_string()))?;
            }
        }
        Ok(Difference { identity: seen.identity, steps: seen.steps })
    }
}

/// What was seen so far.
struct Seen {
    identity: Option<Identity>,
    facts: crate::memory::Facts,
    names: BTreeMap<KindId, &'static str>,
    done: BTreeSet<KindId>,
    steps: BTreeMap<(&'static str, ResourceKey), Step>,
}

impl Seen {
    fn new<B>(connection: &Connection<B>, identity: Option<Identity>) -> Self {
        let asked = connection.kinds.iter().filter(|(_, kind)| kind.flow.requested_by_zones());
        let names = asked.map(|(id, kind)| (id, kind.name)).collect();
        let (done, steps) = Default::default();
        Self { identity, facts: connection.facts, names, done, steps }
    }

    fn is_complete(&self) -> bool {
        self.done.len() == self.names.len()
    }

    fn note(&mut self, incoming: &Incoming, batch: &[store::Item], reader: &Reader) {
        if self.identity.is_none() && incoming.kind == self.facts.id {
            let mut read = incoming.upserts.iter().flatten();
            let id = read.find_map(|it| self.facts.cluster_id_in(&it.key, &it.spec));
            self.identity = id.map(|id| Identity { id, epoch: None });
        }
        if incoming.extent != Extent::Part {
            self.done.insert(incoming.kind);
        }
        for item in batch {
            let Some(name) = self.names.get(&item.kind) else { continue };
            let (key, step) = match &item.edit {
                Edit::Delete(key) => (key, Step::Delete),
                Edit::Put(row) if reader.get(item.kind, &row.head.key).is_none() => {
                    (&row.head.key, Step::Create)
                }
                Edit::Put(row) => (&row.head.key, Step::Change),
            };
            self.steps.insert((name, key.clone()), step);
        }
    }
}
