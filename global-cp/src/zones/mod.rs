//! Zones: which there are, and what is known about their connections.

mod freshness;
mod insight;
mod observer;
mod propagation;
mod proxies;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    freshness::Freshness, observer::Insights, propagation::Propagation, proxies::WithProxies,
};

use crate::hooks::is_written_by;
use api::author::Author;
use kinds::zone_insight::{self, ZoneInsight};
use resource::{Resource, ResourceKey};
use std::sync::Arc;
use store::{
    Kinds,
    view::{KindId, Reader},
};

/// The row that says that a zone was deleted, and may not come back by itself.
pub(crate) fn removed_row(zone: &str) -> String {
    format!("atoll-removed-zone-{zone}")
}

/// Whether a zone is connected, as far as is written down.
pub(crate) fn is_online(author: &Author, reader: &Reader, zone: &str) -> bool {
    let row = author.get(reader, zone_insight::KIND, &ResourceKey::global(zone));
    let insight = row.and_then(|row| kinds::read::<ZoneInsight>(&row).ok());
    insight.is_some_and(|insight| insight.is_online())
}

/// Everything that a zone wrote.
pub(crate) fn written_by(
    kinds: &Kinds,
    reader: &Reader,
    zone: &str,
) -> impl Iterator<Item = (KindId, Arc<Resource>)> {
    let rows = kinds.iter().flat_map(|(id, _)| {
        let (_, rows) = reader.rows(id);
        let of_zone = rows.iter().filter(|row| is_written_by(&row.head.labels, zone));
        of_zone.map(|row| (id, row.clone())).collect::<Vec<_>>()
    });
    rows.collect::<Vec<_>>().into_iter()
}
