//! Which zones a resource is for that is limited to some; see [`resource::limit`].

use kinds::zone;
use resource::{
    Labels, Resource, ZoneName,
    limit::{Zones, is_limited, limits},
};
use store::{Kinds, view::Reader};

/// Whether a zone whose Zone has these labels is among those that a resource is limited to.
#[must_use]
pub fn is_among(zone: &Labels, resource: &Labels) -> bool {
    zone.contain(limits(resource))
}

/// The zones that a resource is limited to by its labels, as the Zones are now.
#[must_use]
pub fn zones(labels: &Labels, kinds: &Kinds, reader: &Reader) -> Option<Zones> {
    if !is_limited(labels) {
        return None;
    }
    let Some(id) = kinds.id_of(zone::KIND.name) else { return Some(Zones::from([])) };
    let (_, rows) = reader.rows(id);
    let among = rows.iter().filter(|row| is_among(&row.head.labels, labels));
    Some(among.filter_map(|row| ZoneName::new(&row.head.key.name).ok()).collect())
}

/// What a user writes, for the zones of now: it is not taken from them and given back.
pub(crate) fn limited(row: Resource, kinds: &Kinds, reader: &Reader) -> Resource {
    // Where it could not be, it was made without.
    if row.head.audience.only.is_none() {
        return row;
    }
    let only = zones(&row.head.labels, kinds, reader);
    row.shown_to(resource::Audience { only, ..row.head.audience.clone() })
}
