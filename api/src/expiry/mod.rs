//! What expires, and when: `GET /_expiry` and metrics.
//!
//! What is stored says it itself, all else is asked of those who hold it. Of what there can be a
//! million, an entry stands for all of a mesh: the one that ends first, and how many end soon.

mod held;
mod stored;

pub use self::held::TokenFile;

use self::stored::Stored;
use super::{
    Problem,
    access::User,
    asked::Asked,
    query::{Page, Query},
    state::Api,
};
use axum::{Json, extract::State as Of};
use daemon::{Clock, Metrics};
use http::StatusCode;
use jiff::Timestamp;
use kinds::labels::Place;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};
use resource::MeshName;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use store::{Backend, Kinds, view::Reader};

/// What ends within this time ends soon, unless it is said otherwise.
const SOON: Duration = Duration::from_hours(24 * 30);

/// What there is that expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Sort {
    /// The CA with which a control plane issues the certificates of a MeshIdentity.
    Authority,
    /// A CA in a MeshTrust.
    Trust,
    /// The certificate of a control plane's servers: REST, KDS, proxies.
    ServerCertificate,
    /// The CA of such a certificate, which others trust.
    ServerAuthority,
    /// A CA whose certificates let zones in.
    ClientAuthority,
    /// What a control plane shows its global, a token.
    OwnToken,
    /// What a control plane shows its global, a certificate.
    OwnCertificate,
    /// A CA by which a control plane knows its global.
    GlobalAuthority,
    /// The administrator's token that a control plane made for itself.
    AdminToken,
    /// What a zone showed last to come in, a token.
    ZoneToken,
    /// What a zone showed last to come in, a certificate.
    ZoneCertificate,
    /// The tokens of connected proxies.
    ProxyTokens,
    /// The certificates of proxies.
    ProxyCertificates,
}

impl Sort {
    /// As in metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Trust => "trust",
            Self::ServerCertificate => "server-certificate",
            Self::ServerAuthority => "server-authority",
            Self::ClientAuthority => "client-authority",
            Self::OwnToken => "own-token",
            Self::OwnCertificate => "own-certificate",
            Self::GlobalAuthority => "global-authority",
            Self::AdminToken => "admin-token",
            Self::ZoneToken => "zone-token",
            Self::ZoneCertificate => "zone-certificate",
            Self::ProxyTokens => "proxy-tokens",
            Self::ProxyCertificates => "proxy-certificates",
        }
    }
}

/// Who puts something else in its place in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Renewal {
    /// Whether that happens by itself.
    pub automatic: bool,
    /// Who, and how.
    pub by: String,
}

impl Renewal {
    /// A control plane does it.
    #[must_use]
    pub fn automatic(by: &str) -> Self {
        Self { automatic: true, by: by.into() }
    }

    /// A person has to do it.
    #[must_use]
    pub fn by(by: impl Into<String>) -> Self {
        Self { automatic: false, by: by.into() }
    }
}

/// Something that expires, or all of its sort in a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// What it is.
    pub sort: Sort,
    /// Which one; of several, the one that ends first.
    pub name: String,
    /// Its mesh.
    #[serde(serialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub mesh: Option<MeshName>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// When it ends, or the first of them.
    pub not_after: Timestamp,
    /// Who renews it.
    pub renewal: Renewal,
    /// How many there are, if it stands for several, and how many of them end soon.
    #[serde(flatten)]
    pub several: Option<Several>,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn named<S: Serializer>(mesh: &Option<MeshName>, serializer: S) -> Result<S::Ok, S::Error> {
    mesh.as_ref().map(MeshName::as_str).serialize(serializer)
}

/// How many an entry stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Several {
    /// All of them.
    pub count: usize,
    /// Those that end before the moment that was asked for.
    pub soon: usize,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum State {
    /// It has time, or is renewed by itself.
    Valid,
    /// It ends soon, and nothing renews it by itself.
    Soon,
    /// It ended.
    Ended,
}

impl Entry {
    /// Something of which there is one.
    #[must_use]
    pub fn one(sort: Sort, name: impl Into<String>, ends: Timestamp, renewal: Renewal) -> Self {
        let name = name.into();
        Self { sort, name, mesh: None, zone: None, not_after: ends, renewal, several: None }
    }

    /// The same, of a mesh.
    #[must_use]
    pub fn of_mesh(self, mesh: &MeshName) -> Self {
        Self { mesh: Some(mesh.clone()), ..self }
    }

    /// The same, of a zone.
    #[must_use]
    pub fn of_zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    fn state(&self, now: Timestamp, soon: Timestamp) -> State {
        match (self.not_after <= now, self.not_after <= soon, self.renewal.automatic) {
            (true, ..) => State::Ended,
            (false, true, false) => State::Soon,
            (false, false, _) | (false, true, true) => State::Valid,
        }
    }

    /// Who may not look into a mesh does not learn of it, and what is of no mesh is the
    /// administrator's.
    fn is_for(&self, user: &User) -> bool {
        user.is_admin() || self.mesh.as_ref().is_some_and(|mesh| user.reads_mesh(mesh))
    }
}

/// One entry for each mesh, of many things that end: their mesh, name and end.
pub fn by_mesh<'a>(
    sort: Sort,
    renewal: &Renewal,
    soon: Timestamp,
    all: impl Iterator<Item = (&'a MeshName, &'a str, Timestamp)>,
) -> Vec<Entry> {
    let mut meshes = BTreeMap::<&MeshName, (&str, Timestamp, Several)>::new();
    for (mesh, name, ends) in all {
        let (first, soonest, several) =
            meshes.entry(mesh).or_insert_with(|| (name, ends, Several::default()));
        if ends < *soonest {
            (*first, *soonest) = (name, ends);
        }
        several.count += 1;
        several.soon += usize::from(ends <= soon);
    }
    let entry = |(mesh, (name, ends, several))| Entry {
        several: Some(several),
        ..Entry::one(sort, name, ends, renewal.clone()).of_mesh(mesh)
    };
    meshes.into_iter().map(entry).collect()
}

/// Holds what expires and is not stored.
pub trait Holder: Send + Sync {
    /// All of it. Of several in one entry those are counted that end until `soon`.
    fn entries(&self, soon: Timestamp) -> Vec<Entry>;
}

/// Knows everything that expires at a control plane.
pub struct Expiry {
    stored: Stored,
    holders: Vec<Arc<dyn Holder>>,
    clock: Clock,
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry").finish_non_exhaustive()
    }
}

impl Expiry {
    /// What is stored, and what `holders` hold.
    #[must_use]
    pub fn new(
        (kinds, place): (&Kinds, &Place),
        reader: Reader,
        clock: Clock,
        holders: Vec<Arc<dyn Holder>>,
    ) -> Arc<Self> {
        Arc::new(Self { stored: Stored::new(kinds, place, reader), holders, clock })
    }

    /// Publishes how long the first of each sort still has.
    pub fn publish(self: &Arc<Self>, metrics: &Metrics) {
        metrics.collect(Soonest(self.clone()));
    }

    /// All of it, what ends first before.
    fn all(&self, soon: Timestamp) -> Vec<Entry> {
        let held = self.holders.iter().flat_map(|holder| holder.entries(soon));
        let mut all: Vec<Entry> = self.stored.entries().iter().cloned().chain(held).collect();
        let place = |entry: &Entry| (entry.sort, entry.mesh.clone(), entry.zone.clone());
        all.sort_by(|a, b| {
            let by_end = a.not_after.cmp(&b.not_after);
            by_end.then_with(|| place(a).cmp(&place(b))).then_with(|| a.name.cmp(&b.name))
        });
        all
    }
}

/// `GET /_expiry`
pub(crate) async fn of<B: Backend>(
    Of(api): Of<Arc<Api<B>>>,
    asked: Asked,
) -> Result<Json<Value>, Problem> {
    let page = Page::of(&asked.query)?;
    let within = within(&asked.query)?;
    let Some(expiry) = &api.given.expiry else {
        let detail = "this control plane does not know it";
        return Err(Problem::new(StatusCode::NOT_FOUND, TITLE, detail));
    };
    let now = expiry.clock.now();
    let soon = now.saturating_add(within).unwrap_or(Timestamp::MAX);
    let mut all = expiry.all(soon);
    all.retain(|entry| entry.is_for(&asked.user));
    let items = all.iter().skip(page.offset).take(page.size);
    let items: Vec<Shown<'_>> =
        items.map(|entry| Shown { entry, state: entry.state(now, soon) }).collect();
    let more = page.offset.saturating_add(page.size) < all.len();
    let next = more.then(|| page.next(&asked.base, &asked.path, &asked.query));
    Ok(Json(json!({ "total": all.len(), "items": items, "next": next })))
}

const TITLE: &str = "Could not look at what expires";

fn within(query: &Query) -> Result<Duration, Problem> {
    match query.get("within") {
        None => Ok(SOON),
        Some(text) => {
            daemon::duration::parse(text).map_err(|error| Problem::field(TITLE, "within", error))
        }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    state: State,
}

/// How long the first of each sort still has, counted when somebody asks.
#[derive(Debug)]
struct Soonest(Arc<Expiry>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSort {
    sort: &'static str,
}

impl Collector for Soonest {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(expiry) = self;
        let now = expiry.clock.now();
        let mut first = BTreeMap::<Sort, Timestamp>::new();
        // In order of their ends.
        for entry in expiry.all(now) {
            first.entry(entry.sort).or_insert(entry.not_after);
        }
        let help = "Time until the first of a sort of things expires; negative if it has";
        let none = ConstGauge::new(0.0_f64).metric_type();
        let mut family = encoder.encode_descriptor("expiry_seconds", help, None, none)?;
        for (sort, ends) in first {
            let left = ConstGauge::new(ends.duration_since(now).as_secs_f64());
            left.encode(family.encode_family(&OfSort { sort: sort.name() })?)?;
        }
        Ok(())
    }
}
