//! How far a kind has come on one stream.

use crate::{apply::Named, dialect::Broken, incoming::Incoming, memory::Place, refusal::Refusal};
use delta::{Extent, Name, Start, Versions};
use std::collections::BTreeSet;
use store::view::Revision;

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) progress: Progress,
    pub(super) start: Start,
    /// Where the peer and we are.
    pub(super) place: Place,
    /// When that became so in our store.
    pub(super) since: Revision,
}

#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing came yet.
    First,
    /// A part of everything came, with these.
    Within(Named),
    /// Everything came.
    Following,
}

impl Asked {
    pub(super) fn new(start: Start) -> Self {
        let place = match &start {
            Start::Resume { cursor, refused } => {
                Place { cursor: Some(*cursor), refused: refused.clone() }
            }
            Start::Fresh | Start::Versions(_) => Place::default(),
        };
        Self { progress: Progress::First, start, place, since: Revision(0) }
    }

    /// What the parts before contained.
    pub(super) fn before(&self) -> Named {
        match &self.progress {
            Progress::Within(named) => named.clone(),
            Progress::First | Progress::Following => Named::default(),
        }
    }

    /// A state that comes in parts is not interrupted.
    pub(super) fn check(&self, incoming: &Incoming) -> Result<(), Broken> {
        match (&self.progress, incoming.extent) {
            (Progress::Within(_), Extent::Delta) => Err(Broken::Parts),
            (Progress::Within(_), Extent::Part | Extent::Complete)
            | (Progress::First | Progress::Following, _) => Ok(()),
        }
    }

    /// Where we are once `incoming` was applied but for `refused`.
    pub(super) fn after(&self, incoming: &Incoming, refused: &[Refusal]) -> Place {
        let begins = !matches!(self.progress, Progress::Within(_));
        // A state that begins is judged anew.
        let mut all = if begins && incoming.extent != Extent::Delta {
            Versions::new()
        } else {
            self.place.refused.clone()
        };
        for name in &incoming.removed {
            all.remove(name.as_str());
        }
        let refused: BTreeSet<&Name> = refused.iter().map(|refusal| &refusal.name).collect();
        for (name, version) in &incoming.versions {
            if refused.contains(name) {
                all.insert(name.clone(), *version);
            } else {
                all.remove(name);
            }
        }
        // In the middle of everything it is at no place.
        Place { cursor: incoming.cursor, refused: all }
    }
}
