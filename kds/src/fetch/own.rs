//! What only a zone has: one global of its own.

use crate::{
    gate::Gate,
    incoming::Incoming,
    memory::{Facts, Memory, Place},
};
use delta::Extent;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Own {
    pub(super) gate: Gate,
    pub(super) facts: Facts,
    pub(super) memory: Option<Memory>,
    /// Whether the store knows less than `memory`. It may: what is remembered was applied before,
    /// so a zone that forgets the last of it is sent that again.
    pub(super) unsaved: bool,
}

impl Own {
    /// Remembers that of `kind` all but what `place` says was applied.
    pub(super) fn remember(&mut self, kind: &str, incoming: &Incoming, place: &Place) {
        let Some(presented) = self.gate.presented() else { return };
        let known = self.memory.as_ref();
        // One that was set back, and confirmed, is remembered anew.
        let same = known.filter(|memory| {
            memory.identity == presented.identity && memory.accept(presented).is_ok()
        });
        let mut memory = same.cloned().unwrap_or_else(|| Memory {
            identity: presented.identity.clone(),
            revision: presented.revision,
            places: BTreeMap::new(),
        });
        let seen = incoming.cursor.map_or(0, |cursor| cursor.revision);
        memory.revision = memory.revision.max(presented.revision).max(seen);
        if incoming.extent == Extent::Part {
            // It has what it had, but it is at no place.
            if let Some(place) = memory.places.get_mut(kind) {
                *place = Place::default();
            }
        } else if incoming.cursor.is_some() {
            memory.places.insert(kind.into(), place.clone());
        } else {
            memory.places.insert(kind.into(), Place::default());
        }
        if known != Some(&memory) {
            self.unsaved = true;
            self.memory = Some(memory);
        }
    }
}
