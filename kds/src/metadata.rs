//! What the ends of a connection say in gRPC metadata.

use crate::{
    dialect::Dialect,
    limit,
    memory::{Identity, Presented},
};
use resource::{Feature, Features, ZoneName};
use store::view::Revision;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// The name of the zone; a claim, to be compared with its credential.
pub const CLIENT_ID: &str = "client-id";
/// The features of a zone that global looks at before the first message, each a field of its own.
pub const FEATURES: &str = "features";
/// The zone's names carry a hash of their origin.
pub const HASH_SUFFIX: &str = "hash-suffix";
/// The zone asks whether global is there.
pub const ZONE_PING_HEALTH: &str = "zone-ping-health";
/// A zone token, as bearer.
pub const AUTHORIZATION: &str = "authorization";

const OURS: &str = "atoll-features";
const ID: &str = "atoll-global-id";
const EPOCH: &str = "atoll-epoch";
const REVISION: &str = "atoll-revision";
const HELD: &str = "atoll-held-bin";
const LOOK: &str = "atoll-look";
const HOME: &str = "atoll-home";

const BEACON: &str = "atoll-beacon";

const NAMED: [(Feature, &str); 4] = [
    (Feature::Beacon, "atoll-beacon"),
    (Feature::Propagation, "atoll-propagation"),
    (Feature::Resume, "atoll-resume"),
    (Feature::Split, "atoll-split"),
];

/// The features of ours that both ends of a connection have to announce.
#[must_use]
pub fn own_features() -> Features {
    NAMED.iter().fold(Features::default(), |all, (feature, _)| all.with(*feature))
}

/// How the peer that sent `metadata` speaks.
#[must_use]
pub fn dialect(metadata: &MetadataMap) -> Dialect {
    let mut values = metadata.get_all(OURS).iter().peekable();
    if values.peek().is_none() {
        return Dialect::Plain;
    }
    let names = values.filter_map(|value| value.to_str().ok());
    let names: Vec<&str> = names.flat_map(|names| names.split(',').map(str::trim)).collect();
    let known = NAMED.iter().filter(|(_, name)| names.contains(name));
    Dialect::Ours(known.fold(Features::default(), |all, (feature, _)| all.with(*feature)))
}

/// Announces those `features` that are ours. Who announces none is taken for a plain peer.
pub fn announce(metadata: &mut MetadataMap, features: Features) {
    let named = NAMED.iter().filter(|(feature, _)| features.has(*feature));
    let names: Vec<&str> = named.map(|(_, name)| *name).collect();
    metadata.remove(OURS);
    if !names.is_empty() {
        insert(metadata, OURS, &names.join(","));
    }
}

/// Says which global this is.
pub fn present(metadata: &mut MetadataMap, presented: &Presented) {
    insert(metadata, ID, &presented.identity.id);
    if let Some(epoch) = presented.identity.epoch {
        insert(metadata, EPOCH, &format!("{epoch:x}"));
    }
    insert(metadata, REVISION, &presented.revision.to_string());
}

/// Which global sent `metadata`, if it is one of ours.
#[must_use]
pub fn presented(metadata: &MetadataMap) -> Option<Presented> {
    let get = |key| metadata.get(key).and_then(|value| value.to_str().ok());
    let epoch = u64::from_str_radix(get(EPOCH)?, 16).ok()?;
    let identity = Identity { id: get(ID)?.to_owned(), epoch: Some(epoch) };
    Some(Presented { identity, revision: get(REVISION)?.parse().ok()? })
}

/// Says why a zone applies nothing of this global.
pub fn hold(metadata: &mut MetadataMap, why: &str) {
    let why = limit::cut(why, limit::REASON);
    metadata.insert_bin(HELD, MetadataValue::from_bytes(why.as_bytes()));
}

/// Why the zone that sent `metadata` applies nothing of this global, if so.
#[must_use]
pub fn held(metadata: &MetadataMap) -> Option<String> {
    let why = metadata.get_bin(HELD)?.to_bytes().ok()?;
    Some(limit::cut(&String::from_utf8_lossy(&why), limit::REASON).to_owned())
}

/// Says where a zone keeps its resources.
pub fn live_at(metadata: &mut MetadataMap, home: &str) {
    insert(metadata, HOME, home);
}

/// Where the zone that sent `metadata` keeps its resources, if it says so. Elsewhere is another zone,
/// whatever its name is.
#[must_use]
pub fn home(metadata: &MetadataMap) -> Option<String> {
    let home = metadata.get(HOME)?.to_str().ok()?;
    Some(limit::cut(home, limit::NAME).to_owned())
}

/// Says, in an answer to a health check, which beacon of global its view has.
pub fn shine(metadata: &mut MetadataMap, beacon: Revision) {
    insert(metadata, BEACON, &beacon.0.to_string());
}

/// Which beacon the view of the global that sent `metadata` has, if it has beacons.
#[must_use]
pub fn shines(metadata: &MetadataMap) -> Option<Revision> {
    metadata.get(BEACON)?.to_str().ok()?.parse().ok().map(Revision)
}

/// Says that nothing of what comes on a stream is applied, whatever its answers say.
pub fn looks(metadata: &mut MetadataMap) {
    insert(metadata, LOOK, "true");
}

/// Whether the zone that sent `metadata` only looks.
#[must_use]
pub fn is_look(metadata: &MetadataMap) -> bool {
    metadata.contains_key(LOOK)
}

/// What a zone says with each call if it announces all features of ours.
#[must_use]
pub fn of_zone(zone: &ZoneName, version: &str, token: Option<&str>) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    insert(&mut metadata, CLIENT_ID, zone.as_str());
    insert(&mut metadata, "kds-version", "v3");
    insert(&mut metadata, "zone-version", "v3");
    insert(&mut metadata, "version", version);
    for feature in [ZONE_PING_HEALTH, HASH_SUFFIX] {
        metadata.append(FEATURES, MetadataValue::from_static(feature));
    }
    if let Some(token) = token {
        insert(&mut metadata, AUTHORIZATION, &format!("Bearer {token}"));
    }
    announce(&mut metadata, own_features());
    metadata
}

/// Whether a zone announced `feature` before its first message.
#[must_use]
pub fn has(metadata: &MetadataMap, feature: &str) -> bool {
    metadata.get_all(FEATURES).iter().any(|value| value == feature)
}

/// Sets a field; what cannot stand in one is left out.
fn insert(metadata: &mut MetadataMap, key: &'static str, value: &str) {
    if let Ok(value) = value.parse::<MetadataValue<Ascii>>() {
        metadata.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_announces_itself_as_the_protocol_has_it() {
        let zone = ZoneName::new("east").unwrap();
        let metadata = of_zone(&zone, "1.2.3", Some("t"));
        let all = metadata.clone().into_headers();
        let mut all: Vec<String> =
            all.iter().map(|(key, value)| format!("{key}: {}", value.to_str().unwrap())).collect();
        all.sort();
        assert_eq!(
            all,
            [
                "atoll-features: atoll-beacon,atoll-propagation,atoll-resume,atoll-split",
                "authorization: Bearer t",
                "client-id: east",
                "features: hash-suffix",
                "features: zone-ping-health",
                "kds-version: v3",
                "version: 1.2.3",
                "zone-version: v3",
            ]
        );
        assert_eq!(dialect(&metadata), Dialect::Ours(own_features()));
        assert_eq!(dialect(&MetadataMap::new()), Dialect::Plain);
        assert_eq!((has(&metadata, HASH_SUFFIX), has(&metadata, "hash")), (true, false));
    }

    #[test]
    fn who_announces_no_feature_of_ours_is_a_plain_peer() {
        let mut metadata = of_zone(&ZoneName::new("east").unwrap(), "1.2.3", None);
        let some = Features::default().with(Feature::Split).with(Feature::HashSuffix);
        announce(&mut metadata, some);
        assert_eq!(dialect(&metadata), Dialect::Ours(Features::default().with(Feature::Split)));
        announce(&mut metadata, Features::default());
        assert_eq!(dialect(&metadata), Dialect::Plain);
    }

    #[test]
    fn a_zone_says_why_it_takes_nothing() {
        let mut metadata = MetadataMap::new();
        assert_eq!(held(&metadata), None);
        hold(&mut metadata, "another global: \"größer\"");
        assert_eq!(held(&metadata).as_deref(), Some("another global: \"größer\""));
        hold(&mut metadata, &"ü".repeat(limit::REASON));
        assert_eq!(held(&metadata), Some("ü".repeat(limit::REASON / 2)), "as much as people read");
    }

    #[test]
    fn a_global_says_which_beacon_it_has() {
        let mut metadata = MetadataMap::new();
        assert_eq!(shines(&metadata), None);
        shine(&mut metadata, Revision(7));
        assert_eq!(shines(&metadata), Some(Revision(7)));
        metadata.insert(BEACON, MetadataValue::from_static("x"));
        assert_eq!(shines(&metadata), None);
    }

    #[test]
    fn a_global_says_which_one_it_is() {
        let mut metadata = MetadataMap::new();
        assert_eq!(presented(&metadata), None);
        let identity = Identity { id: "c1".into(), epoch: Some(u64::MAX) };
        let global = Presented { identity, revision: 7 };
        present(&mut metadata, &global);
        assert_eq!(presented(&metadata), Some(global));
        metadata.insert(REVISION, MetadataValue::from_static("-1"));
        assert_eq!(presented(&metadata), None);
    }
}
