//! What only a zone has: one global of its own.
//!
//! What the store knows of a place and what it holds go together: a batch that changes something of
//! a kind takes away the place that the store knows, and when nothing else is to do the new one is
//! written. If the process ends in between, the kind begins anew. To lag behind would not do: what
//! came and went since the place would stay.

use crate::{
    gate::Gate,
    incoming::Incoming,
    memory::{Facts, Memory, Place},
};
use delta::Extent;
use std::collections::BTreeMap;
use store::Item;

#[derive(Debug)]
pub(super) struct Own {
    pub(super) gate: Gate,
    pub(super) facts: Facts,
    /// What is remembered.
    pub(super) memory: Option<Memory>,
    /// What of that is in the store.
    pub(super) stored: Option<Memory>,
}

impl Own {
    /// What the store may still know when something of `kind` changes; `None` if it knows no place.
    pub(super) fn without_place(&self, kind: &str) -> Option<Memory> {
        let mut stored = self.stored.clone()?;
        let place = stored.places.get_mut(kind).filter(|place| **place != Place::default())?;
        *place = Place::default();
        Some(stored)
    }

    /// Remembers that of `kind` all but what `place` says was applied.
    pub(super) fn remember(&mut self, kind: &str, incoming: &Incoming, place: &Place) {
        let Some(presented) = self.gate.presented() else { return };
        // One that was set back, and confirmed, is remembered anew.
        let same = self.memory.take().filter(|memory| {
            memory.identity == presented.identity && memory.accept(presented).is_ok()
        });
        let mut memory = same.unwrap_or_else(|| Memory {
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
        self.memory = Some(memory);
    }

    /// Whether the store does not know all that is remembered.
    pub(super) fn unsaved(&self) -> bool {
        self.memory.is_some() && self.memory != self.stored
    }

    /// The step that saves what is remembered.
    pub(super) fn save(&mut self) -> Option<Item> {
        let memory = self.memory.as_ref().filter(|_| self.unsaved())?;
        let item = self.facts.remember(memory);
        self.stored = Some(memory.clone());
        item
    }
}
