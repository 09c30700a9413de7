//! The task that feeds the tables.

use super::{
    change::{Change, Input},
    meshes::{Meshes, ProxyKey},
    tcp::Record,
    written,
};
use crate::identities::{self, Dirty};
use daemon::ready::Guard;
use futures::future::OptionFuture;
use jiff::{SignedDuration, Timestamp};
use resource::ResourceKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
};
use store::{
    Backend, Committed, Kinds, Outcome, StoreError,
    view::{Changes, Closed, KindId, KindSet, Revision},
};
use tokio_util::sync::CancellationToken;

/// Why the tables are not fed any more.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A kind that is needed is not kept in the store.
    #[error("the store has no kind {0}")]
    NoKind(&'static str),
    /// Nothing can be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing changes any more.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Kinds in the order in which their changes are looked at: trust and rules before those to whom
/// they apply, and where services are before that there are some.
pub(super) fn inputs(kinds: &Kinds) -> Result<Vec<(KindId, Input)>, Failed> {
    let policies = kinds::POLICIES.iter().map(|kind| (kind.kind.name, Input::Policy(kind)));
    let inputs = [(kinds::mesh::KIND.name, Input::Mesh)].into_iter().chain(policies).chain([
        (kinds::mesh_zone_address::KIND.name, Input::ZoneAddress),
        (kinds::dataplane::KIND.name, Input::Dataplane),
        (kinds::mesh_service::KIND.name, Input::Service),
        // Last: what was written before it is in the tables then.
        (kinds::beacon::KIND.name, Input::Beacon),
    ]);
    inputs
        .map(|(name, input)| Ok((kinds.id_of(name).ok_or(Failed::NoKind(name))?, input)))
        .collect()
}

type Writing<'a> = Pin<Box<dyn Future<Output = Result<Committed, StoreError>> + Send + 'a>>;

impl Meshes {
    /// Feeds the tables with what changes in `store`, and with whose certificates are `renewed`.
    /// `ready` is dropped when proxies are served. Ends with `shutdown`.
    pub async fn run<B: Backend>(
        self,
        store: &B,
        kinds: &Kinds,
        mut renewed: identities::Changes,
        ready: Guard,
        shutdown: CancellationToken,
    ) -> Result<(), Failed> {
        let mut feed = Feed::new(self.clone(), inputs(kinds)?);
        let mut watch = self.reader().watch(feed.inputs.iter().map(|(id, _)| *id).collect());
        let mut ready = Some(ready);
        let mut writing: Option<Writing<'_>> = None;
        let mut written: Vec<(ProxyKey, Record)> = Vec::new();
        feed.everything();
        loop {
            self.identify();
            if self.is_open() {
                drop(ready.take());
            }
            if writing.is_none() {
                written = self.unwritten();
                writing = self.write(store, &written, feed.outlived());
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(committed) = OptionFuture::from(writing.as_mut()) => {
                    writing = None;
                    self.settle(std::mem::take(&mut written), &committed?);
                }
                Dirty { trust, proxies } = renewed.next() => {
                    // Trust first: whoever shows a new certificate must be believed by then.
                    trust.iter().for_each(|mesh| self.retrust(mesh));
                    proxies.iter().for_each(|proxy| self.reidentify(proxy));
                }
                dirty = watch.dirty() => feed.look(dirty?),
                () = self.woken() => {}
            }
        }
    }

    fn write<'a, B: Backend>(
        &self,
        store: &'a B,
        records: &[(ProxyKey, Record)],
        outlived: Vec<store::Item>,
    ) -> Option<Writing<'a>> {
        let item = |(proxy, record): &(ProxyKey, Record)| {
            written::item(self.reader(), self.config(), self.zone(), proxy, record)
                .inspect_err(|error| tracing::warn!(proxy = %proxy.name, %error, "not written"))
                .ok()
        };
        let mut batch: Vec<store::Item> = records.iter().filter_map(item).collect();
        batch.extend(outlived);
        (!batch.is_empty()).then(|| Box::pin(store.commit(batch)) as Writing<'a>)
    }

    pub(super) fn settle(&self, records: Vec<(ProxyKey, Record)>, committed: &Committed) {
        for ((key, record), outcome) in records.into_iter().zip(&committed.outcomes) {
            let record = match outcome {
                Outcome::Done | Outcome::Unchanged => Some(record),
                Outcome::Refused { reason } => {
                    tracing::warn!(proxy = %key.name, %reason, "not taken by the store");
                    written::read(self.reader(), self.config(), &key.mesh, &key.name)
                }
                // Another replica serves the proxy now; what it wrote is what holds.
                Outcome::Conflict { .. } => {
                    written::read(self.reader(), self.config(), &key.mesh, &key.name)
                }
            };
            self.written(&key, record.unwrap_or_default());
        }
    }
}

/// How long is known what was written down about a proxy that is gone: longer than its Envoy runs
/// on.
const OUTLIVES: SignedDuration = SignedDuration::from_hours(24);

/// Where the task is in the history of each kind.
pub(super) struct Feed {
    meshes: Meshes,
    inputs: Vec<(KindId, Input)>,
    cursors: BTreeMap<KindId, Revision>,
    /// Proxies that are gone, and when they are forgotten.
    gone: BTreeSet<(Timestamp, ProxyKey)>,
}

impl Feed {
    pub(super) fn new(meshes: Meshes, inputs: Vec<(KindId, Input)>) -> Self {
        meshes.feed_on(inputs.iter().map(|(id, _)| *id).collect());
        Self { meshes, inputs, cursors: BTreeMap::new(), gone: BTreeSet::new() }
    }

    pub(super) fn everything(&mut self) {
        let revision = self.meshes.reader().revision();
        let changes = self.inputs.clone().into_iter().flat_map(|(id, input)| self.all(id, input));
        let changes = changes.collect();
        self.meshes.apply(changes);
        for (written, proxy) in written::all(self.meshes.reader(), self.meshes.config()) {
            if !self.meshes.knows(&proxy) {
                self.is_gone(written, proxy);
            }
        }
        self.meshes.applied(revision);
    }

    fn is_gone(&mut self, since: Timestamp, proxy: ProxyKey) {
        self.gone.extend(since.checked_add(OUTLIVES).ok().map(|until| (until, proxy)));
    }

    /// What is written down about proxies that are gone for long.
    pub(super) fn outlived(&mut self) -> Vec<store::Item> {
        let (now, mut items) = (self.meshes.now(), Vec::new());
        while self.gone.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, proxy)) = self.gone.pop_first() else { break };
            if !self.meshes.knows(&proxy) {
                let (reader, config) = (self.meshes.reader(), self.meshes.config());
                items.extend(written::removal(reader, config, &proxy));
            }
        }
        items
    }

    pub(super) fn look(&mut self, dirty: KindSet) {
        let revision = self.meshes.reader().revision();
        let mut all = Vec::new();
        for (id, input) in self.inputs.clone() {
            if !dirty.iter().any(|dirty| dirty == id) {
                continue;
            }
            let since = self.cursors.get(&id).copied().unwrap_or_default();
            match self.meshes.reader().changes(id, since) {
                Changes::Keys { revision, changes } => {
                    self.cursors.insert(id, revision);
                    let changes = changes.into_iter();
                    all.extend(changes.map(|it| Change { input, key: it.key, now: it.now }));
                }
                Changes::Lost => all.extend(self.all(id, input)),
            }
        }
        for Change { input, key, now } in &all {
            if let (Input::Dataplane, Some(mesh), None) = (input, &key.mesh, now) {
                let proxy = ProxyKey { mesh: mesh.clone(), name: key.name.clone() };
                self.is_gone(self.meshes.now(), proxy);
            }
        }
        self.meshes.apply(all);
        self.meshes.applied(revision);
    }

    /// A kind as a whole, and what is gone of it.
    fn all(&mut self, id: KindId, input: Input) -> Vec<Change> {
        let (revision, rows) = self.meshes.reader().rows(id);
        self.cursors.insert(id, revision);
        let mut gone: BTreeSet<ResourceKey> = self.meshes.known(input).into_iter().collect();
        let mut changes = Vec::new();
        for row in rows.iter() {
            gone.remove(&row.head.key);
            let (key, now) = (row.head.key.clone(), Some(row.clone()));
            changes.push(Change { input, key, now });
        }
        changes.extend(gone.into_iter().map(|key| Change { input, key, now: None }));
        changes
    }
}
