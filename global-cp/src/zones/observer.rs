//! Keeps the ZoneInsights.
//!
//! What happens on streams is noted in memory. That a zone came or went is written down at once,
//! counters every few seconds: they are not worth a durable write each.

use super::insight::{State, Urgency, close_all};
use anyhow::Result;
use api::author::Author;
use daemon::Clock;
use kds::observe::{Event, Observer, StreamId};
use kinds::{
    zone,
    zone_insight::{self, ZoneInsight},
};
use parking_lot::Mutex;
use resource::{AnySpec, ResourceKey, ZoneName};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{
    Backend, Expected, Item,
    view::{Edit, Reader},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long counters wait.
const COUNTERS: Duration = Duration::from_secs(2);

/// Notes what happens on the streams of zones.
pub(crate) struct Insights {
    author: Author,
    reader: Reader,
    instance: String,
    clock: Clock,
    zones: Mutex<BTreeMap<ZoneName, Noted>>,
    urgent: Notify,
    counted: Notify,
}

struct Noted {
    state: State,
    due: Urgency,
}

impl Insights {
    pub(crate) fn new(author: Author, reader: Reader, instance: String, clock: Clock) -> Self {
        let (zones, urgent, counted) = Default::default();
        Self { author, reader, instance, clock, zones, urgent, counted }
    }

    /// What is written down about a zone.
    fn written(&self, zone: &ZoneName) -> State {
        let key = ResourceKey::global(zone.as_str());
        let Some(row) = self.author.get(&self.reader, zone_insight::KIND, &key) else {
            return State::default();
        };
        let insight = kinds::read::<ZoneInsight>(&row).map(|insight| insight.0.clone());
        let status = kinds::status::<ZoneInsight>(&row).unwrap_or_default();
        State::new(insight.unwrap_or_default(), status.held)
    }

    /// Ends what was open in an earlier life of this process: nobody will tell any more.
    pub(crate) async fn close_all(&self, backend: &impl Backend) -> Result<()> {
        let (_, rows) = self.reader.rows(self.author.id(zone_insight::KIND));
        let mut batch = Vec::new();
        for row in rows.iter() {
            let Ok(insight) = kinds::read::<ZoneInsight>(row) else { continue };
            let mut insight = insight.0.clone();
            if close_all(&mut insight, self.clock.now()) {
                batch.push(self.item(row.head.key.clone(), insight, None)?);
            }
        }
        if !batch.is_empty() {
            let committed = backend.commit(batch).await?;
            backend.wait_for(committed.revision).await?;
        }
        Ok(())
    }

    fn item(
        &self,
        key: ResourceKey,
        insight: proto::kuma::system::v1alpha1::ZoneInsight,
        held: Option<String>,
    ) -> Result<Item> {
        let spec: AnySpec = Arc::new(ZoneInsight(insight));
        let mut item = self.author.write(zone_insight::KIND, key, &spec, Expected::Anything)?;
        if let Edit::Put(row) = &mut item.edit {
            let status = serde_json::to_vec(&zone_insight::Status { held })?;
            *row = Arc::new(row.with_status(status.into()));
        }
        Ok(item)
    }

    fn is_there(&self, key: &ResourceKey) -> bool {
        self.author.get(&self.reader, zone::KIND, key).is_some()
    }

    /// Writes down what is noted, until `stop`, and once more then.
    pub(crate) async fn run(
        self: Arc<Self>,
        backend: impl Backend,
        stop: CancellationToken,
    ) -> Result<()> {
        // While nothing changes nothing wakes this task.
        let mut counters = None;
        loop {
            let least = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    return self.write(&backend, Urgency::Later).await;
                }
                () = self.urgent.notified() => Urgency::Now,
                () = until(counters) => Urgency::Later,
                () = self.counted.notified() => {
                    counters.get_or_insert_with(|| Instant::now() + COUNTERS);
                    continue;
                }
            };
            if least == Urgency::Later {
                counters = None;
            }
            self.write(&backend, least).await?;
        }
    }

    /// Writes down what is at least so urgent.
    async fn write(&self, backend: &impl Backend, least: Urgency) -> Result<()> {
        let (mut batch, mut written) = (Vec::new(), Vec::new());
        for (zone, noted) in self.zones.lock().iter_mut().filter(|(_, noted)| noted.due >= least) {
            noted.due = Urgency::None;
            let key = ResourceKey::global(zone.as_str());
            // A zone that was deleted must not leave an insight behind.
            if self.is_there(&key) {
                let State { insight, held, .. } = &noted.state;
                batch.push(self.item(key.clone(), insight.clone(), held.clone())?);
                written.push(key);
            }
        }
        if !batch.is_empty() {
            let committed = backend.commit(batch).await?;
            // What is forgotten must be there when it is read again.
            backend.wait_for(committed.revision).await?;
        }
        self.forget_deleted(backend, written).await?;
        self.forget_idle();
        Ok(())
    }

    /// A zone may have been deleted while its insight was on its way: then that is all there is.
    async fn forget_deleted(&self, backend: &impl Backend, keys: Vec<ResourceKey>) -> Result<()> {
        let gone = keys.into_iter().filter(|key| !self.is_there(key));
        let batch: Vec<Item> =
            gone.map(|key| self.author.delete(zone_insight::KIND, key)).collect();
        if !batch.is_empty() {
            backend.commit(batch).await?;
        }
        Ok(())
    }

    /// What has nothing open and nothing due is as it is written down.
    fn forget_idle(&self) {
        self.zones.lock().retain(|_, noted| noted.due > Urgency::None || noted.state.is_open());
    }
}

/// Waits for a time, or forever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Observer for Insights {
    fn observe(&self, stream: StreamId, zone: &ZoneName, event: Event<'_>) {
        let mut zones = self.zones.lock();
        let noted = zones
            .entry(zone.clone())
            .or_insert_with(|| Noted { state: self.written(zone), due: Urgency::None });
        let names = (&*self.instance, || Uuid::new_v4().to_string());
        let urgency = noted.state.apply(stream, &event, names, self.clock.now());
        let before = noted.due;
        noted.due = before.max(urgency);
        match urgency {
            Urgency::Now => self.urgent.notify_one(),
            Urgency::Later if before == Urgency::None => self.counted.notify_one(),
            Urgency::Later | Urgency::None => {}
        }
    }
}
