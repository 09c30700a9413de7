//! A stored resource: what it is called, what it says, who may see it.

use super::{Features, Memo, ResourceKey, ZoneName, limit::Zones};
use bytes::Bytes;
use jiff::Timestamp;
use std::{collections::BTreeMap, fmt, sync::Arc};
use xxhash_rust::xxh3::Xxh3;

/// Hash of what a resource says. Computed when it is written, never when it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u128);

impl Version {
    /// The version as it stands on the wire, where it is opaque.
    #[must_use]
    pub const fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The version of bytes that are not a resource of their own, such as a generated message.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes))
    }

    /// Reads what [`Display`](fmt::Display) wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Labels, sorted by key.
///
/// One text and where its parts end. A million resources have labels: as strings of their own they
/// would be most of the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl Labels {
    /// The value of the label `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        let mut part = move |end: &u32| {
            let end = *end as usize;
            self.text.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()
        };
        let (pairs, _) = self.ends.as_chunks::<2>();
        pairs.iter().map(move |[key, value]| (part(key), part(value)))
    }
}

impl Labels {
    /// The same labels with `key` set to `value`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.iter().filter(|(k, _)| *k != key).chain([(key, value)]).collect()
    }

    /// The same labels without `key`.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        self.iter().filter(|(k, _)| *k != key).collect()
    }

    /// Whether every label of `wanted` is there with the same value.
    pub fn contain<'a>(&self, wanted: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
        wanted.into_iter().all(|(key, value)| self.get(key) == Some(value))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(labels: I) -> Self {
        let labels: BTreeMap<&str, &str> = labels.into_iter().collect();
        let (mut text, mut ends) = (String::new(), Vec::new());
        for part in labels.into_iter().flat_map(<[&str; 2]>::from) {
            text.push_str(part);
            ends.push(u32::try_from(text.len()).expect("labels are shorter than a message"));
        }
        Self { text: text.into(), ends: ends.into() }
    }
}

/// Who may see a resource besides those who wrote it.
///
/// Derived when the resource is written, from its kind, labels and spec and from the state of the
/// zone it came from. Whatever decides about visibility is folded in here: an offer then compares,
/// and a change of visibility is a change of the resource, with an entry in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// The zone that wrote it and is not told what it said; `None` if global wrote it.
    pub owner: Option<ZoneName>,
    /// What a peer must understand to see it.
    pub needs: Features,
    /// Hidden from every peer, e.g. because its zone is disabled.
    pub hidden: bool,
    /// The zones that it is limited to; `None` if it is for all.
    pub only: Option<Zones>,
}

/// What is known about the form in which a resource leaves, also after it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Its name there.
    pub key: ResourceKey,
    /// Hash of its labels and of its spec there.
    pub version: Version,
}

/// When a resource was written first and last, by the store that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it was created here.
    pub created: Timestamp,
    /// When it changed last here.
    pub modified: Timestamp,
}

/// Everything about a resource but its spec and status: what is needed to say who saw it under
/// which name, also after it is gone.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its name here.
    pub key: ResourceKey,
    /// What is said about it.
    pub labels: Labels,
    /// Hash of labels, spec and status: what a zone sends up.
    pub version: Version,
    /// Hash of labels and spec: what is offered where the status is left out.
    pub offered: Version,
    /// Who may see it.
    pub audience: Audience,
    /// When it was written.
    pub times: Times,
    /// Set where it leaves in another form than it is held in; see [`Export`](crate::Export).
    pub exported: Option<Arc<Exported>>,
    /// Whether this program cannot read the spec, which an other version of it wrote. Then nobody
    /// can say what of it may leave, but who has it already is told when it goes.
    pub unreadable: bool,
    /// Its names in transit, by the features that decide about them.
    pub names: Memo<Features, Arc<str>>,
}

/// A resource as a view holds it. Immutable: a change makes another one.
///
/// The spec stays encoded. It was decoded when it came in, to validate it, and is decoded again by
/// the few that read specs; most resources are only passed on.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Everything but spec and status.
    pub head: Arc<Head>,
    /// The spec, as its kind encodes it.
    pub spec: Bytes,
    /// The status as JSON; empty if none was reported.
    pub status: Bytes,
    /// What goes on the wire, by the features that decide about it. Made for the first peer that
    /// needs the form, shared with all others.
    pub forms: Memo<Features, Bytes>,
}

impl Resource {
    /// A resource as it is written. Its times are given by the store.
    #[must_use]
    pub fn new(
        key: ResourceKey,
        labels: Labels,
        spec: Bytes,
        status: Bytes,
        audience: Audience,
    ) -> Self {
        let offered = version(&labels, &[&spec]);
        let version = if status.is_empty() { offered } else { version(&labels, &[&spec, &status]) };
        // Copied: what came in may be a small part of a large buffer, or a buffer half empty.
        let (spec, status) = (Bytes::copy_from_slice(&spec), Bytes::copy_from_slice(&status));
        let (names, times) = (Memo::default(), Times::default());
        let (exported, unreadable) = (None, false);
        let head =
            Head { key, labels, version, offered, audience, times, exported, unreadable, names };
        Self { head: Arc::new(head), spec, status, forms: Memo::default() }
    }

    /// The same resource, which leaves as `key` with `spec`.
    #[must_use]
    pub fn exported_as(mut self, key: ResourceKey, spec: &[u8]) -> Self {
        let version = version(&self.head.labels, &[spec]);
        Arc::make_mut(&mut self.head).exported = Some(Arc::new(Exported { key, version }));
        self
    }

    /// The same resource, whose spec this program cannot read.
    #[must_use]
    pub fn unreadable(mut self) -> Self {
        Arc::make_mut(&mut self.head).unreadable = true;
        self
    }

    /// The same content for another audience.
    #[must_use]
    pub fn shown_to(&self, audience: Audience) -> Self {
        let head = Head { audience, names: Memo::default(), ..(*self.head).clone() };
        Self { head: Arc::new(head), ..self.clone() }
    }

    /// The same spec and labels with another status, which the same peers see.
    #[must_use]
    pub fn with_status(&self, status: Bytes) -> Self {
        let head = &self.head;
        let (key, labels) = (head.key.clone(), head.labels.clone());
        let audience = head.audience.clone();
        let mut new = Self::new(key, labels, self.spec.clone(), status, audience);
        let changed = Arc::make_mut(&mut new.head);
        (changed.times, changed.exported) = (head.times, head.exported.clone());
        changed.unreadable = head.unreadable;
        new
    }

    /// The same resource, written at `times`.
    #[must_use]
    pub fn written(mut self, times: Times) -> Self {
        Arc::make_mut(&mut self.head).times = times;
        self
    }
}

fn version(labels: &Labels, content: &[&[u8]]) -> Version {
    let mut hash = Xxh3::new();
    // Lengths first: without them, moving a byte from one label to the next keeps the hash.
    let mut add = |bytes: &[u8]| {
        hash.update(&bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    for (key, value) in labels.iter() {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    for part in content {
        add(part);
    }
    Version(hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_in_order() {
        let labels = Labels::from_iter([("b", ""), ("a", "1"), ("c", "\u{e9}=\0")]);
        let back: Vec<_> = labels.iter().collect();
        assert_eq!(back, [("a", "1"), ("b", ""), ("c", "\u{e9}=\0")]);
        assert_eq!((labels.get("c"), labels.get("d")), (Some("\u{e9}=\0"), None));
    }

    #[test]
    fn a_version_tells_labels_apart() {
        let of = |labels: [(&str, &str); 1], spec: &[u8]| {
            version(&labels.into_iter().collect(), &[spec])
        };
        assert_eq!(of([("a", "bc")], b"x"), of([("a", "bc")], b"x"));
        assert_ne!(of([("a", "bc")], b"x"), of([("ab", "c")], b"x"));
        assert_ne!(of([("a", "bc")], b"x"), of([("a", "b")], b"cx"));
    }

    #[test]
    fn a_status_changes_the_version_but_not_what_is_offered() {
        let of = |status: &'static str| {
            let (labels, audience) = (Labels::default(), Audience::default());
            Resource::new(ResourceKey::global("a"), labels, "x".into(), status.into(), audience)
        };
        let (one, two) = (of("1"), of("").with_status("2".into()));
        assert_eq!(one.head.offered, two.head.offered);
        assert_ne!(one.head.version, two.head.version);
        assert_eq!(of("1").head.version, of("2").with_status("1".into()).head.version);
        assert_eq!(Version::parse(&one.head.version.to_string()), Some(one.head.version));
    }

    #[test]
    fn labels_are_replaced_and_removed_by_key() {
        let labels = Labels::from_iter([("a", "1"), ("c", "3")]);
        let changed = labels.with("b", "2").with("a", "9").without("c");
        assert_eq!(changed.iter().collect::<Vec<_>>(), [("a", "9"), ("b", "2")]);
        assert!(changed.contain([("a", "9")]) && !changed.contain([("a", "9"), ("c", "3")]));
    }
}
