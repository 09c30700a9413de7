//! What is known of the objects of one kind, and what of it the view shows. No I/O.
//!
//! What is written here comes back by the watch, and may have been overtaken by others before it
//! does: an object counts if it is newer than what is known, except that a complete list is right
//! about all that was not written while it was read.

use super::{
    object::Foreign,
    place::{ObjectName, Place},
    problems::{ObjectRef, Problem, Problems},
};
use jiff::Timestamp;
use kube::core::DynamicObject;
use resource::{Audience, Resource, ResourceKey, Version};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use store::view::{Edit, KindId, Reader};

/// An object as it was seen last.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) uid: Box<str>,
    /// What the API server wants back, to notice that somebody else wrote.
    pub(crate) version: Box<str>,
    pub(crate) foreign: Option<Box<Foreign>>,
    /// Its content, if that says more than was read.
    pub(crate) raw: Option<Box<Value>>,
    /// What was written here last, if the object is still that.
    pub(crate) asked: Option<(Version, Audience)>,
    /// Whether the view shows what it said before, or only that it is there.
    pub(crate) unreadable: bool,
    key: Option<ResourceKey>,
    created: Timestamp,
}

/// The edits that follow from something.
pub(crate) type Edits = Vec<(KindId, Edit)>;

#[derive(Debug, Default)]
struct Listing {
    seen: HashSet<ObjectName>,
    /// Newer than the list may be.
    written: HashSet<ObjectName>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) place: Place,
    id: KindId,
    reader: Reader,
    problems: Problems,
    objects: HashMap<ObjectName, Known>,
    /// Whose the rows are.
    owners: HashMap<ResourceKey, ObjectName>,
    /// Objects that want a row of another one.
    rivals: BTreeMap<ObjectName, Arc<Resource>>,
    /// What was deleted here, until everybody knows; and whether a list may still have it.
    gone: HashMap<Box<str>, bool>,
    listing: Option<Listing>,
    /// How far the watch is.
    heard: u64,
}

impl Shelf {
    pub(crate) fn new(place: Place, id: KindId, reader: Reader, problems: Problems) -> Self {
        Self {
            place,
            id,
            reader,
            problems,
            objects: HashMap::new(),
            owners: HashMap::new(),
            rivals: BTreeMap::new(),
            gone: HashMap::new(),
            listing: None,
            heard: 0,
        }
    }

    /// The object of a row.
    pub(crate) fn owner(&self, key: &ResourceKey) -> Option<(&ObjectName, &Known)> {
        let name = self.owners.get(key)?;
        Some((name, self.objects.get(name)?))
    }

    /// Remembers what the object of `key` was asked to be when it got a version, so that the same
    /// again is no question.
    pub(crate) fn asked(
        &mut self,
        key: &ResourceKey,
        asked: Option<((Version, Audience), Box<str>)>,
    ) {
        let known = self.owners.get(key).and_then(|name| self.objects.get_mut(name));
        if let Some(known) = known {
            let asked = asked.filter(|(_, version)| *version == known.version);
            known.asked = asked.map(|(asked, _)| asked);
        }
    }

    /// Whether an object of another resource is called so.
    pub(crate) fn is_taken(&self, name: &ObjectName, key: &ResourceKey) -> bool {
        self.objects.get(name).is_some_and(|known| known.key.as_ref() != Some(key))
    }

    /// A list of all objects begins.
    pub(crate) fn begin(&mut self) {
        self.listing = Some(Listing::default());
        self.gone.values_mut().for_each(|keep| *keep = false);
    }

    /// An object of the list.
    pub(crate) fn listed(&mut self, object: &DynamicObject) -> Edits {
        let name = ObjectName::of(&object.metadata);
        let listing = self.listing.get_or_insert_default();
        listing.seen.insert(name.clone());
        if listing.written.contains(&name) {
            return self.changed(object);
        }
        self.take(object, true)
    }

    /// What was not in the list, which is of `version`, is gone.
    pub(crate) fn complete(&mut self, version: &str) -> Edits {
        self.heard = number(version);
        let Some(Listing { seen, written }) = self.listing.take() else { return Vec::new() };
        self.gone.retain(|_, keep| *keep);
        let missing = self.objects.keys();
        let missing = missing.filter(|name| !seen.contains(*name) && !written.contains(*name));
        let missing: Vec<ObjectName> = missing.cloned().collect();
        missing.iter().flat_map(|name| self.forget(name)).collect()
    }

    /// There are no objects of this kind.
    pub(crate) fn clear(&mut self) -> Edits {
        let all: Vec<ObjectName> = self.objects.keys().cloned().collect();
        (self.listing, self.gone) = (None, HashMap::new());
        all.iter().flat_map(|name| self.forget(name)).collect()
    }

    /// Somebody wrote an object.
    pub(crate) fn changed(&mut self, object: &DynamicObject) -> Edits {
        self.heard = self.heard.max(version(object));
        self.take(object, false)
    }

    /// We wrote an object, or looked at it for that.
    pub(crate) fn written(&mut self, object: &DynamicObject) -> Edits {
        let name = ObjectName::of(&object.metadata);
        if !self.objects.contains_key(&name) && version(object) <= self.heard {
            // The watch was there, and went on to where it is gone.
            return Vec::new();
        }
        if let Some(listing) = &mut self.listing {
            listing.written.insert(name);
        }
        self.take(object, false)
    }

    /// Somebody deleted an object.
    pub(crate) fn removed(&mut self, object: &DynamicObject) -> Edits {
        self.heard = self.heard.max(version(object));
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        self.gone.remove(uid);
        let name = ObjectName::of(&object.metadata);
        let known = self.objects.get(&name).is_some_and(|known| &*known.uid == uid);
        if known { self.forget(&name) } else { Vec::new() }
    }

    /// We deleted an object, or found it gone.
    pub(crate) fn deleted(&mut self, name: &ObjectName, uid: &str) -> Edits {
        if self.objects.get(name).is_none_or(|known| &*known.uid != uid) {
            return Vec::new();
        }
        self.gone.insert(uid.into(), true);
        self.forget(name)
    }

    fn reference(&self, name: &ObjectName, uid: &str) -> ObjectRef {
        ObjectRef {
            api_version: self.place.api.api_version.clone(),
            kind: self.place.api.kind.clone(),
            namespace: name.namespace.as_ref().map(ToString::to_string),
            name: name.name.to_string(),
            uid: uid.to_owned(),
        }
    }

    fn take(&mut self, object: &DynamicObject, complete: bool) -> Edits {
        let (meta, name) = (&object.metadata, ObjectName::of(&object.metadata));
        let uid = meta.uid.as_deref().unwrap_or_default();
        let version = meta.resource_version.as_deref().unwrap_or_default();
        if let Some(keep) = self.gone.get_mut(uid) {
            *keep |= complete;
            return Vec::new();
        }
        if let Some(known) = self.objects.get(&name)
            && (*known.version == *version
                || !complete && number(version) <= number(&known.version))
        {
            return Vec::new();
        }
        // Whoever deleted it meant it: what others have to do before it goes is not ours to wait for.
        if meta.deletion_timestamp.is_some() {
            self.gone.insert(uid.into(), true);
            return self.forget(&name);
        }
        let key = match self.place.key(object) {
            Ok(key) => Some(key),
            Err(unreadable) => {
                self.problems.set(self.reference(&name, uid), unreadable.into());
                None
            }
        };
        let before = self.objects.get(&name);
        let mut edits = match before {
            // What it was before may stay, but not what another object was.
            Some(known) if &*known.uid != uid || key.is_some() && known.key != key => {
                self.forget(&name)
            }
            Some(_) | None => Vec::new(),
        };
        let before = self.objects.remove(&name);
        let known = Known {
            uid: uid.into(),
            version: version.into(),
            foreign: Foreign::of(meta),
            raw: None,
            asked: None,
            unreadable: true,
            key: key.clone().or_else(|| before.and_then(|known| known.key)),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0),
        };
        self.objects.insert(name.clone(), known);
        if let Some(key) = key {
            let fresh = !edits.is_empty();
            edits.extend(self.show(&name, &key, object, fresh));
        }
        edits
    }

    /// Shows what an object says, as far as it can be read. `fresh`: what was shown of it is going.
    fn show(
        &mut self,
        name: &ObjectName,
        key: &ResourceKey,
        object: &DynamicObject,
        fresh: bool,
    ) -> Edits {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let reference = self.reference(name, uid);
        let read = self.place.read(key, object);
        let row = match &read {
            Ok(row) => Arc::new(row.clone()),
            Err(_) => Arc::new(self.place.placeholder(key, object)),
        };
        let rival = self.owners.get(key).filter(|owner| *owner != name).cloned();
        if let Some(owner) = rival {
            if self.created(name) >= self.created(&owner) {
                let reason = format!("{owner} is older and has the same name in the mesh");
                self.problems.set(reference, Problem::NotTaken(reason.into()));
                self.rivals.insert(name.clone(), row);
                return Vec::new();
            }
            let uid = self.objects.get(&owner).map_or("", |known| &*known.uid);
            let reason = format!("{name} is older and has the same name in the mesh");
            self.problems.set(self.reference(&owner, uid), Problem::NotTaken(reason.into()));
            let shown = self.reader.get(self.id, key);
            self.rivals.extend(shown.map(|shown| (owner, shown)));
            self.owners.remove(key);
        }
        self.rivals.remove(name);
        let had = self.owners.insert(key.clone(), name.clone()).is_some();
        let problem = match &read {
            Ok(_) => self.place.unknown_fields(object),
            Err(unreadable) => Some(unreadable.clone().into()),
        };
        match problem {
            None => self.problems.clear(&reference),
            Some(problem) => self.problems.set(reference, problem),
        }
        if let Some(known) = self.objects.get_mut(name) {
            known.unreadable = read.is_err();
            known.raw = read.as_ref().ok().and_then(|row| self.place.more(row, object));
        }
        let shown = self.reader.get(self.id, key).filter(|_| !fresh);
        let same = shown.is_some_and(|shown| {
            // The last good content stays.
            had && read.is_err()
                || (shown.head.version, shown.head.unreadable)
                    == (row.head.version, row.head.unreadable)
        });
        if same { Vec::new() } else { vec![(self.id, Edit::Put(row))] }
    }

    fn created(&self, name: &ObjectName) -> Timestamp {
        self.objects.get(name).map_or(Timestamp::MAX, |known| known.created)
    }

    /// An object is not there any more. Who wanted its row has it now.
    fn forget(&mut self, name: &ObjectName) -> Edits {
        let Some(known) = self.objects.remove(name) else { return Vec::new() };
        self.problems.clear(&self.reference(name, &known.uid));
        self.rivals.remove(name);
        let Some(key) = known.key.filter(|key| self.owners.get(key) == Some(name)) else {
            return Vec::new();
        };
        self.owners.remove(&key);
        let rivals = self.rivals.iter().filter(|(_, row)| row.head.key == key);
        let next = rivals.map(|(name, _)| name).min_by_key(|name| self.created(name));
        let Some(next) = next.cloned() else { return vec![(self.id, Edit::Delete(key))] };
        let Some(row) = self.rivals.remove(&next) else { return Vec::new() };
        let uid = self.objects.get(&next).map_or("", |known| &*known.uid);
        self.problems.clear(&self.reference(&next, uid));
        self.owners.insert(key, next);
        vec![(self.id, Edit::Put(row))]
    }
}

/// Versions of objects of one kind are numbers that grow.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().map_or(0, number)
}
