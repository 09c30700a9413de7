//! Events beside the objects that they are about. Telling never holds up who tells: what cannot be
//! told in time is not, and that is logged.

use super::{
    complaint::{Complaint, Weight},
    metrics::Told,
};
use daemon::Clock;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use resource::{Kind, Labels, ResourceKey, label};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

/// Who tells.
const REPORTER: &str = "atoll.io/zone-cp";
/// How many may wait to be told.
const WAITING: usize = 1024;
/// So many are told at once, and after that one in each [`PAUSE`].
const BURST: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);
/// What the API server takes.
const NOTE: usize = 1024;
/// The same is not told again before this.
const AGAIN: Duration = Duration::from_mins(10);
/// So many are told apart.
const KNOWN: usize = 8192;

/// Names an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The version of its kind: `v1`, `kuma.io/v1alpha1`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for objects of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity, if it is known.
    pub uid: String,
}

impl Subject {
    /// The object that is the resource `key` of `kind`, which is neither a secret nor a setting.
    #[must_use]
    pub fn of_resource(
        kind: Kind,
        key: &ResourceKey,
        labels: &Labels,
        system_namespace: &str,
    ) -> Self {
        let namespaced = kind.custom.is_none_or(|custom| custom.namespaced);
        let namespace = labels.get(label::NAMESPACE).filter(|it| *it != system_namespace);
        let elsewhere = namespace.and_then(|namespace| {
            let name = key.name.strip_suffix(namespace)?.strip_suffix('.')?;
            Some((namespace, name))
        });
        let (namespace, name) = match elsewhere {
            _ if !namespaced => ("", &*key.name),
            Some(place) => place,
            None => (system_namespace, &*key.name),
        };
        Self {
            api_version: "kuma.io/v1alpha1".into(),
            kind: kind.name.into(),
            namespace: namespace.into(),
            name: name.into(),
            uid: String::new(),
        }
    }
}

/// Where events are told. Cloneable.
#[derive(Clone, Debug)]
pub struct Events {
    told: mpsc::Sender<(Subject, Complaint)>,
    known: Arc<Mutex<BTreeMap<u64, Instant>>>,
    hasher: RandomState,
    counted: Told,
}

/// Writes events down. It must run for them to be seen.
pub struct Writer {
    waiting: mpsc::Receiver<(Subject, Complaint)>,
    client: Client,
    /// Which process tells.
    instance: String,
    clock: Clock,
    counted: Told,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Events {
    /// Events that `instance`, the name of this process, tells.
    #[must_use]
    pub fn new(
        client: Client,
        instance: String,
        clock: Clock,
        metrics: &daemon::Metrics,
    ) -> (Self, Writer) {
        let (told, waiting) = mpsc::channel(WAITING);
        let (known, hasher, counted) = (Arc::default(), RandomState::new(), Told::new(metrics));
        let events = Self { told, known, hasher, counted: counted.clone() };
        (events, Writer { waiting, client, instance, clock, counted })
    }

    /// Tells `complaint` about `subject`; not again soon, if it was told already.
    pub fn tell(&self, subject: Subject, complaint: Complaint) {
        if !self.is_news(&subject, &complaint) {
            return;
        }
        let Subject { kind, namespace, name, .. } = &subject;
        let Complaint { reason, note, .. } = &complaint;
        tracing::info!(kind, namespace, name, reason, note, "told about an object");
        if self.told.try_send((subject, complaint)).is_err() {
            self.counted.count("dropped");
            tracing::warn!("there are more events than can be told: this one is only logged");
        }
    }

    fn is_news(&self, subject: &Subject, complaint: &Complaint) -> bool {
        let (key, now) = (self.hasher.hash_one((subject, complaint)), Instant::now());
        let mut known = self.known.lock();
        known.retain(|_, at| now.duration_since(*at) < AGAIN);
        let room = known.len() < KNOWN;
        room && known.insert(key, now).is_none()
    }
}

impl Writer {
    /// Writes events until `stop`, no more at a time than an API server bears.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut spent = 0_u32;
        let mut since = Instant::now();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = self.waiting.recv() => next,
            };
            let Some((subject, complaint)) = next else { return stop.cancelled().await };
            let pauses = since.elapsed().as_millis() / PAUSE.as_millis();
            spent = spent.saturating_sub(u32::try_from(pauses).unwrap_or(u32::MAX));
            if pauses > 0 {
                since = Instant::now();
            }
            if spent >= BURST {
                let pause = tokio::time::sleep_until(Instant::now() + PAUSE);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
            spent += 1;
            let writing = self.write(&subject, &complaint);
            if stop.run_until_cancelled(writing).await.is_none() {
                return;
            }
        }
    }

    async fn write(&self, subject: &Subject, complaint: &Complaint) {
        let event = event(subject, complaint, &self.instance, self.clock.now());
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        // It was logged; an event that cannot be written is nothing to wait for.
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            self.counted.count("failed");
            let (kind, name) = (&subject.kind, &subject.name);
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::debug!(kind, name, error, "an event was not written");
        } else {
            self.counted.count("written");
        }
    }
}

fn event(subject: &Subject, complaint: &Complaint, instance: &str, now: jiff::Timestamp) -> Event {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    // Those of objects of the whole cluster stand here.
    let namespace = given(&subject.namespace).unwrap_or_else(|| "default".into());
    let stem: String = subject.name.chars().take(220).collect();
    let hash = xxh3_64(format!("{instance}{complaint:?}{}", now.as_nanosecond()).as_bytes());
    let note: String = complaint.note.chars().take(NOTE / 4).collect();
    let note = if complaint.note.len() <= NOTE { complaint.note.clone() } else { note };
    Event {
        metadata: ObjectMeta {
            namespace: Some(namespace),
            name: Some(format!("{stem}.{hash:016x}")),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(REPORTER.into()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        action: Some("Reconcile".into()),
        reason: Some(complaint.reason.into()),
        regarding: Some(ObjectReference {
            api_version: given(&subject.api_version),
            kind: given(&subject.kind),
            namespace: given(&subject.namespace),
            name: given(&subject.name),
            uid: given(&subject.uid),
            ..ObjectReference::default()
        }),
        note: Some(note),
        type_: Some(
            match complaint.weight {
                Weight::Normal => "Normal",
                Weight::Warning => "Warning",
            }
            .into(),
        ),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use resource::MeshName;

    fn subject(name: &str) -> Subject {
        let (namespace, name) = ("shop".into(), name.into());
        Subject { kind: "Pod".into(), api_version: "v1".into(), namespace, name, uid: "1".into() }
    }

    #[test]
    fn a_resource_is_found_where_it_is_kept() {
        let mesh = MeshName::new("default").unwrap();
        let place = |kind: Kind, key: ResourceKey, namespace: &str| {
            let labels = [(label::NAMESPACE, namespace)].into_iter().collect();
            let it = Subject::of_resource(kind, &key, &labels, "kuma-system");
            format!("{} {}/{}", it.kind, it.namespace, it.name)
        };
        let timeout = kinds::mesh_timeout::KIND.kind;
        let named = |name: &str| ResourceKey::in_mesh(&mesh, name);
        for (key, namespace, expected) in [
            (named("slow.shop"), "shop", "MeshTimeout shop/slow"),
            (named("slow"), "kuma-system", "MeshTimeout kuma-system/slow"),
            // A copy of another zone.
            (named("slow-vxw5"), "shop", "MeshTimeout kuma-system/slow-vxw5"),
        ] {
            assert_eq!(place(timeout, key, namespace), expected);
        }
        let mesh = place(kinds::mesh::KIND, ResourceKey::global("default"), "");
        assert_eq!(mesh, "Mesh /default");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_told_once_and_much_is_told_slowly() {
        let fake = Fake::new();
        let clock = Clock::since(jiff::Timestamp::UNIX_EPOCH);
        let (events, writer) =
            Events::new(fake.client(), "zone-cp-0".into(), clock, &daemon::Metrics::default());
        for name in (0..60).map(|i| format!("pod-{i}")) {
            events.tell(subject(&name), Complaint::warning("Why", "because"));
            events.tell(subject(&name), Complaint::warning("Why", "because"));
        }
        let began = Instant::now();
        let stop = CancellationToken::new();
        let all = async {
            while fake.objects("/events/").len() < 60 {
                tokio::time::sleep_until(Instant::now() + PAUSE).await;
            }
            let took = began.elapsed();
            assert!(took >= PAUSE * 9, "it took {took:?}");
            tokio::time::sleep_until(Instant::now() + PAUSE * 100).await;
            assert_eq!(fake.objects("/events/").len(), 60);
            stop.cancel();
        };
        tokio::join!(writer.run(stop.clone()), all);
        let event = fake.objects("/events/pod-7.").remove(0);
        assert_eq!(event["regarding"]["uid"], "1");
        assert_eq!(event["type"], "Warning");
    }

    #[test]
    fn a_long_name_and_a_long_note_are_cut_to_what_is_taken() {
        let complaint = Complaint::warning("Why", "\u{e9}".repeat(2000));
        let now = jiff::Timestamp::UNIX_EPOCH;
        let event = event(&subject(&"x".repeat(253)), &complaint, "zone-cp-0", now);
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert!(event.note.unwrap().len() <= NOTE);
    }
}
