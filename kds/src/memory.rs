//! What a zone remembers of its global, and what it does not take from another one (decision 25).
//!
//! It is kept in the zone's store, in a row that never leaves, and committed together with what a
//! response changes: so a place that is remembered is always one that was applied.

use crate::{
    dialect::{parse_cursor, print_cursor},
    form::{hex, parse_hex},
};
use delta::{Cursor, Start, Versions};
use resource::{Kind, Labels, Peer, ResourceKey};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, sync::Arc};
use store::{
    Expected, Item, Kinds,
    view::{Edit, KindId, Reader},
};

/// Which global it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when it was set up.
    pub id: String,
    /// The history of its store; unknown of a plain one.
    pub epoch: Option<u64>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            Some(epoch) => write!(f, "{:?}, store {epoch:x}", self.id),
            None => write!(f, "{:?}", self.id),
        }
    }
}

/// Why nothing of a global is applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    /// It is another one.
    #[error("this is another global: {found}; the zone belongs to {remembered}")]
    Other {
        /// Ours.
        remembered: Identity,
        /// That one.
        found: Identity,
    },
    /// Its store was set back.
    #[error("global is at revision {found}, but was at {remembered}: its store was set back")]
    SetBack {
        /// The highest revision seen.
        remembered: u64,
        /// Its revision now.
        found: u64,
        /// Which global.
        identity: Identity,
    },
    /// It has none of what this zone has of a kind without which nothing works.
    #[error("global has none of the {kind} resources of this zone: all would be removed")]
    RemovesAll {
        /// The kind.
        kind: &'static str,
        /// Which global.
        identity: Identity,
    },
    /// It does not say which one it is.
    #[error("global does not say which one it is: it has no Config \"kuma-cluster-id\"")]
    NoIdentity,
}

impl Held {
    /// The global that an operator may confirm.
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Other { found: identity, .. }
            | Self::SetBack { identity, .. }
            | Self::RemovesAll { identity, .. } => Some(identity),
            Self::NoIdentity => None,
        }
    }
}

/// What a zone has of one kind: one state of it was complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// All that happened until here; unknown in the middle of a state that comes in parts, and of
    /// plain peers.
    pub cursor: Option<Cursor>,
    /// But for these.
    pub refused: Versions,
}

/// What a zone remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its global.
    pub identity: Identity,
    /// The highest revision seen.
    pub revision: u64,
    /// What it has, by kind.
    pub places: BTreeMap<String, Place>,
}

/// The kind of which facts about control planes are.
const KIND: &str = "Config";
const ROW: &str = "atoll-global";
const CLUSTER_ID: &str = "kuma-cluster-id";

/// Reads and writes facts about control planes.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The id of their kind.
    pub id: KindId,
    kind: Kind,
}

impl Facts {
    /// `None` if `kinds` has no kind for them.
    #[must_use]
    pub fn of(kinds: &Kinds) -> Option<Self> {
        let (id, kind) = kinds.iter().find(|(_, kind)| kind.name == KIND)?;
        Some(Self { id, kind: *kind })
    }

    fn read(&self, reader: &Reader, name: &str) -> Option<String> {
        let row = reader.get(self.id, &ResourceKey::global(name))?;
        self.text(&row.spec)
    }

    fn text(&self, spec: &[u8]) -> Option<String> {
        let json = self.kind.to_json(spec).ok()?;
        json.get("config").and_then(Value::as_str).map(str::to_owned)
    }

    /// The id of the cluster whose store this is.
    #[must_use]
    pub fn cluster_id(&self, reader: &Reader) -> Option<String> {
        self.read(reader, CLUSTER_ID).filter(|id| !id.is_empty())
    }

    /// The id of a cluster, if `received` tells it.
    #[must_use]
    pub fn cluster_id_in(&self, key: &ResourceKey, spec: &[u8]) -> Option<String> {
        let named = &*key.name == CLUSTER_ID;
        named.then(|| self.text(spec)).flatten().filter(|id| !id.is_empty())
    }

    /// What the zone whose store this is remembers.
    #[must_use]
    pub fn memory(&self, reader: &Reader) -> Option<Memory> {
        Memory::parse(&self.read(reader, ROW)?)
    }

    /// The step that remembers `memory`.
    #[must_use]
    pub fn remember(&self, memory: &Memory) -> Option<Item> {
        let spec = self.kind.from_json(json!({ "config": memory.print() })).ok()?;
        let spec = self.kind.encode(&spec).ok()?;
        let (key, none) = (ResourceKey::global(ROW), bytes::Bytes::new());
        let row = self.kind.resource(key, Labels::default(), spec, none, Peer::Global).ok()?;
        let edit = Edit::Put(Arc::new(row));
        Some(Item { kind: self.id, expected: Expected::Anything, edit })
    }
}

impl Memory {
    /// Where to begin with `kind` on a new stream of one of ours.
    #[must_use]
    pub fn start(&self, kind: &str) -> Start {
        let place = self.places.get(kind).and_then(|place| Some((place.cursor?, &place.refused)));
        place.map_or(Start::Fresh, |(cursor, refused)| Start::Resume {
            cursor,
            refused: refused.clone(),
        })
    }

    /// What was refused is judged anew: the program may be another one now, which takes it.
    pub fn judge_anew(&mut self) {
        for place in self.places.values_mut().filter(|place| !place.refused.is_empty()) {
            *place = Place::default();
        }
    }

    /// Whether one state of each of `kinds` was complete.
    pub fn has_all<'a>(&self, kinds: impl IntoIterator<Item = &'a str>) -> bool {
        kinds.into_iter().all(|kind| self.places.contains_key(kind))
    }

    fn print(&self) -> String {
        let place = |place: &Place| {
            let refused = place.refused.iter();
            let refused: BTreeMap<&str, String> =
                refused.map(|(name, version)| (&**name, hex(*version))).collect();
            json!({ "at": place.cursor.map(print_cursor), "refused": refused })
        };
        let places: BTreeMap<&str, Value> =
            self.places.iter().map(|(kind, at)| (&**kind, place(at))).collect();
        json!({
            "id": self.identity.id,
            "epoch": self.identity.epoch,
            "revision": self.revision,
            "kinds": places,
        })
        .to_string()
    }

    fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let id = json.get("id")?.as_str()?.to_owned();
        let epoch = json.get("epoch").and_then(Value::as_u64);
        let place = |value: &Value| {
            let refused = value.get("refused")?.as_object()?.iter();
            let refused =
                refused.map(|(name, hex)| Some((name.as_str().into(), parse_hex(hex.as_str()?)?)));
            let cursor = match value.get("at")?.as_str() {
                Some(at) => Some(parse_cursor(at)?),
                None => None,
            };
            Some(Place { cursor, refused: refused.collect::<Option<_>>()? })
        };
        let kinds = json.get("kinds")?.as_object()?.iter();
        Some(Self {
            identity: Identity { id, epoch },
            revision: json.get("revision")?.as_u64()?,
            // A place that cannot be read is forgotten: the kind begins anew.
            places: kinds.filter_map(|(kind, at)| Some((kind.clone(), place(at)?))).collect(),
        })
    }
}

/// What a global of ours says in the metadata of its responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// Which one it is.
    pub identity: Identity,
    /// The revision of its store.
    pub revision: u64,
}

impl Memory {
    /// Whether a global that says it is `found` may go on where ours was.
    pub fn accept(&self, found: &Presented) -> Result<(), Held> {
        let other = self.identity.id != found.identity.id
            // A global that became one of ours, or is no longer: its id tells who it is.
            || (self.identity.epoch.is_some()
                && found.identity.epoch.is_some()
                && self.identity.epoch != found.identity.epoch);
        if other {
            let remembered = self.identity.clone();
            return Err(Held::Other { remembered, found: found.identity.clone() });
        }
        if found.identity.epoch.is_some() && found.revision < self.revision {
            let (remembered, identity) = (self.revision, found.identity.clone());
            return Err(Held::SetBack { remembered, found: found.revision, identity });
        }
        Ok(())
    }
}

/// Whether a kind is one without which a zone is empty: it is written by global alone, and other
/// resources belong to it.
#[must_use]
pub fn is_guarded(kind: &Kind) -> bool {
    kind.scope == resource::Scope::Global && !kind.flow.written_in_zones()
}
