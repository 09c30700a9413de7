//! The task that keeps resources as the cluster says: one piece of work for each object at a time,
//! many objects at once.

use super::{
    Parts,
    complaint::Complaint,
    events::{Events, Subject},
    metrics::Metrics,
    rows::{Ids, Plan, Row, Shelf, owner},
    tables::{Owner, Tables},
    watch,
};
use anyhow::Context as _;
use daemon::Backoff;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use resource::Labels;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use store::{
    Backend as _, Committed, Local, Outcome, StoreError,
    view::{Feed, Update},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How many objects are written at once.
const AT_ONCE: usize = 64;
/// What was refused may be taken later, although nothing changed here: a quota was raised.
const FIRST_RETRY: Duration = Duration::from_secs(10);
const LAST_RETRY: Duration = Duration::from_mins(5);

type Written = (Owner, Result<Committed, StoreError>);

struct Controllers {
    tables: Tables,
    shelf: Shelf,
    store: Local,
    events: Events,
    /// What there is of each object, as the store told.
    owned: BTreeMap<Owner, BTreeSet<Row>>,
    busy: BTreeSet<Owner>,
    writing: FuturesUnordered<BoxFuture<'static, Written>>,
    /// What was said last about each object.
    told: BTreeMap<Owner, Complaint>,
    refused: BTreeSet<Owner>,
    backoff: Backoff,
    retry: Option<Instant>,
    metrics: Metrics,
}

/// Keeps the resources of what is in the cluster until `stop`. For the one control plane of a zone
/// that works.
pub async fn run(parts: Parts, stop: CancellationToken) -> anyhow::Result<()> {
    let Parts { client, store, kinds, settings, events, metrics } = parts;
    let (ids, reader) = (Ids::of(&kinds)?, store.reader());
    let mut feed = Feed::of(&reader, ids.set());
    let mut changes = watch::all(&client);
    let mut it = Controllers {
        tables: Tables::new(settings),
        shelf: Shelf { ids, reader },
        store,
        events,
        owned: BTreeMap::new(),
        busy: BTreeSet::new(),
        writing: FuturesUnordered::new(),
        told: BTreeMap::new(),
        refused: BTreeSet::new(),
        backoff: Backoff::new(FIRST_RETRY, LAST_RETRY),
        retry: None,
        metrics: Metrics::new(&metrics),
    };
    loop {
        it.work();
        it.count();
        // Cancel safe: each returns what it took in the same step.
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            Some(written) = it.writing.next(), if !it.writing.is_empty() => it.written(written)?,
            updates = feed.next() => match updates {
                Ok(updates) => updates.iter().for_each(|update| it.hear(update)),
                Err(_closed) => return Ok(()),
            },
            Some(changes) = changes.next() => {
                changes.into_iter().for_each(|change| it.tables.apply(change));
            }
            () = until(it.retry) => it.try_again(),
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Controllers {
    /// Begins with as much as may be done at once.
    fn work(&mut self) {
        while self.writing.len() < AT_ONCE
            && let Some(owner) = self.tables.next(&self.busy)
        {
            let none = BTreeSet::new();
            let owned = self.owned.get(&owner).unwrap_or(&none);
            let Plan { items, complaint } = self.shelf.plan(&owner, owned, &self.tables);
            if items.is_empty() {
                self.is_well(&owner);
            }
            self.tell(&owner, complaint);
            if items.is_empty() {
                continue;
            }
            self.busy.insert(owner.clone());
            let store = self.store.clone();
            self.writing.push(
                async move {
                    let committed = store.commit(items).await;
                    if let Ok(committed) = &committed {
                        // A store that closes meanwhile is noticed by who reads it next.
                        store.wait_for(committed.revision).await.ok();
                    }
                    (owner, committed)
                }
                .boxed(),
            );
        }
    }

    fn count(&self) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.behind.set(count(self.tables.marked() + self.busy.len()));
        self.metrics.refused.set(count(self.refused.len()));
    }

    /// What became of a piece of work.
    fn written(&mut self, (owner, committed): Written) -> anyhow::Result<()> {
        let committed = committed.context("writing what is in the cluster")?;
        self.busy.remove(&owner);
        let mut is_refused = false;
        for outcome in committed.outcomes {
            match outcome {
                Outcome::Done => self.metrics.wrote("done"),
                Outcome::Unchanged => self.metrics.wrote("unchanged"),
                // Somebody else wrote meanwhile.
                Outcome::Conflict { .. } => {
                    self.metrics.wrote("conflict");
                    self.tables.mark(owner.clone());
                }
                Outcome::Refused { reason } => {
                    self.metrics.wrote("refused");
                    is_refused = true;
                    self.tell(&owner, Some(Complaint::warning("Refused", reason)));
                }
            }
        }
        if is_refused {
            self.refused.insert(owner);
            let retry = || Instant::now() + self.backoff.next(fastrand::f64());
            self.retry = Some(self.retry.unwrap_or_else(retry));
        } else {
            self.is_well(&owner);
        }
        Ok(())
    }

    /// Nothing of `owner` is refused any more.
    fn is_well(&mut self, owner: &Owner) {
        if self.refused.remove(owner) && self.refused.is_empty() {
            self.backoff.made_progress();
            self.retry = None;
        }
    }

    fn try_again(&mut self) {
        self.retry = None;
        std::mem::take(&mut self.refused).into_iter().for_each(|owner| self.tables.mark(owner));
    }

    /// What became of a row of the store.
    fn hear(&mut self, update: &Update) {
        let ids = self.shelf.ids;
        if update.kind == ids.mesh {
            if update.before.is_none() != update.now.is_none() {
                self.tables.mark_all();
            }
            return;
        }
        let place = &self.tables.settings().place;
        let of = |labels: &Labels| owner(update.kind, labels, ids, place);
        let before = update.before.as_ref().and_then(|head| of(&head.labels));
        let now = update.now.as_ref().and_then(|row| of(&row.head.labels));
        let row = (update.kind, update.key.clone());
        if let Some(owner) = before {
            if let Some(rows) = self.owned.get_mut(&owner) {
                rows.remove(&row);
                if rows.is_empty() {
                    self.owned.remove(&owner);
                }
            }
            self.tables.mark(owner);
        }
        if let Some(owner) = now {
            self.owned.entry(owner.clone()).or_default().insert(row);
            self.tables.mark(owner);
        }
    }

    /// Says what is wrong with an object, once while it is so.
    fn tell(&mut self, owner: &Owner, complaint: Option<Complaint>) {
        let Some(complaint) = complaint else {
            // What is refused stays so until it is taken.
            if !self.refused.contains(owner) {
                self.told.remove(owner);
            }
            return;
        };
        if self.told.get(owner) == Some(&complaint) {
            return;
        }
        let Some(uid) = self.tables.uid(owner) else { return };
        let (kind, id) = match owner {
            Owner::Pod(id) => ("Pod", id),
            Owner::Service(id) => ("Service", id),
        };
        let subject = Subject {
            api_version: "v1".into(),
            kind: kind.into(),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            uid: uid.into(),
        };
        self.events.tell(subject, complaint.clone());
        self.told.insert(owner.clone(), complaint);
    }
}
