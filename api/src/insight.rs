//! `/global-insight`: how many there are of everything, and how they do.

use super::{asked::Asked, state::Api};
use axum::{Json, extract::State};
use jiff::Timestamp;
use kinds::{
    dataplane::{self, Dataplane, Presence},
    dataplane_insight::{self, DataplaneInsight},
    mesh, mesh_external_service,
    mesh_service::{self, MeshService},
    zone,
    zone_insight::{self, ZoneInsight},
};
use parking_lot::Mutex;
use resource::{Access, Flow, Kind, Resource, Scope, label};
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::{
    Backend,
    view::{Revision, Rows},
};

/// What was counted last, and when: it holds until something is written.
#[derive(Debug, Default)]
pub(crate) struct Insight(Mutex<Option<(Revision, Value)>>);

/// How many are how well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    offline: usize,
    online: usize,
    partially_degraded: usize,
    total: usize,
}

impl Tally {
    pub(crate) const fn add(&mut self, presence: Presence) {
        self.total += 1;
        *self.of(presence) += 1;
    }

    /// One of those that were added goes.
    pub(crate) const fn remove(&mut self, presence: Presence) {
        self.total = self.total.saturating_sub(1);
        let of = self.of(presence);
        *of = of.saturating_sub(1);
    }

    pub(crate) const fn total(self) -> usize {
        self.total
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.total == 0
    }

    const fn of(&mut self, presence: Presence) -> &mut usize {
        match presence {
            Presence::Offline => &mut self.offline,
            Presence::PartiallyDegraded => &mut self.partially_degraded,
            Presence::Online => &mut self.online,
        }
    }

    /// Where nothing but being there or not is known.
    fn plain(self) -> Value {
        json!({"online": self.online, "total": self.total})
    }
}

/// `GET /global-insight`
pub(crate) async fn global<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    _asked: Asked,
) -> Json<Value> {
    let revision = api.reader.revision();
    let mut last = api.insight.0.lock();
    match &*last {
        Some((at, counted)) if *at == revision => Json(counted.clone()),
        _ => {
            let counted = count(&api, api.given.clock.now());
            *last = Some((revision, counted.clone()));
            Json(counted)
        }
    }
}

fn count<B: Backend>(api: &Api<B>, now: Timestamp) -> Value {
    let rows = |kind: Kind| api.kind(kind.name).map(|(id, _)| api.reader.rows(id).1);
    let rows = |kind: Kind| rows(kind).unwrap_or_default();
    let proxies = Proxies::count(&rows(dataplane::KIND), &rows(dataplane_insight::KIND));
    let mut services = Tally::default();
    for row in rows(mesh_service::KIND).iter() {
        services.add(service(row));
    }
    let (mut zones, insights) = (Tally::default(), rows(zone_insight::KIND));
    for row in rows(zone::KIND).iter() {
        let insight = insights.get(&row.head.key);
        let insight = insight.and_then(|row| kinds::read::<ZoneInsight>(row).ok());
        let online = insight.is_some_and(|insight| insight.is_online());
        zones.add(if online { Presence::Online } else { Presence::Offline });
    }
    let kinds = || api.given.kinds.iter().map(|(id, kind)| (kind, api.reader.rows(id).1.len()));
    let policies: usize = kinds().filter(|(kind, _)| kind.targets.is_some()).map(|(_, n)| n).sum();
    let resources: BTreeMap<&str, Value> = kinds()
        .filter(|(kind, n)| *n > 0 && is_counted(kind))
        .map(|(kind, n)| (kind.name, json!({"total": n})))
        .collect();
    json!({
        "createdAt": now,
        "dataplanes": {"gatewayDelegated": proxies.gateways, "standard": proxies.standard},
        "meshes": {"total": rows(mesh::KIND).len()},
        "policies": {"total": policies},
        "resources": resources,
        "services": {
            "external": {"total": rows(mesh_external_service::KIND).len()},
            "gatewayDelegated": proxies.gateways,
            "internal": services,
        },
        "zones": {
            "controlPlanes": zones.plain(),
            "zoneEgresses": proxies.egresses.plain(),
            "zoneIngresses": proxies.ingresses.plain(),
        },
    })
}

/// What users write, and what is made of it.
fn is_counted(kind: &Kind) -> bool {
    let known = matches!(kind.access, Access::ReadOnly);
    !known && (kind.scope == Scope::Mesh || kind.flow == Flow::BothWays)
}

#[derive(Clone, Copy, Debug, Default)]
struct Proxies {
    gateways: Tally,
    standard: Tally,
    ingresses: Tally,
    egresses: Tally,
}

impl Proxies {
    fn count(dataplanes: &Rows, insights: &Rows) -> Self {
        let mut proxies = Self::default();
        for row in dataplanes.iter() {
            let Ok(dataplane) = kinds::read::<Dataplane>(row) else { continue };
            let insight = insights.get(&row.head.key);
            let insight = insight.and_then(|row| kinds::read::<DataplaneInsight>(row).ok());
            let presence = dataplane.presence(insight.is_some_and(|insight| insight.is_online()));
            let sort =
                if dataplane.is_gateway() { &mut proxies.gateways } else { &mut proxies.standard };
            sort.add(presence);
            let labels = &row.head.labels;
            if labels.get(label::LISTENER_ZONE_INGRESS) == Some(label::ENABLED) {
                proxies.ingresses.add(presence);
            }
            if labels.get(label::LISTENER_ZONE_EGRESS) == Some(label::ENABLED) {
                proxies.egresses.add(presence);
            }
        }
        proxies
    }
}

/// A service does as its proxies do, as far as its zone told.
fn service(row: &Resource) -> Presence {
    let proxies = kinds::status::<MeshService>(row).unwrap_or_default().dataplane_proxies;
    if proxies.healthy == 0 {
        Presence::Offline
    } else if proxies.healthy < proxies.total {
        Presence::PartiallyDegraded
    } else {
        Presence::Online
    }
}
