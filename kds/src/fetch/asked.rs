//! How far a kind has come on one stream.

use crate::{
    apply::Named, dialect::Broken, incoming::Incoming, limit, memory::Place, refusal::Refusal,
};
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
    /// Set while more was refused than is remembered: it is at no place before it is told all anew.
    pub(super) lost: bool,
    /// Of the response that came last.
    pub(super) nonce: String,
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
        let (progress, nonce) = (Progress::First, String::new());
        Self { progress, start, place, since: Revision(0), lost: false, nonce }
    }

    /// What the parts before contained.
    pub(super) fn before(&self) -> Named {
        match &self.progress {
            Progress::Within(named) => named.clone(),
            Progress::First | Progress::Following => Named::default(),
        }
    }

    /// A state that comes in parts is not interrupted, and ends.
    pub(super) fn check(&self, incoming: &Incoming) -> Result<(), Broken> {
        let Progress::Within(named) = &self.progress else { return Ok(()) };
        let (found, most) = (named.keys.len() + incoming.upserts.len(), limit::PARTS);
        match incoming.extent {
            Extent::Delta => Err(Broken::Parts),
            Extent::Part | Extent::Complete if found > most => {
                Err(Broken::TooMuch { field: "resources", found, what: "in all parts", most })
            }
            Extent::Part | Extent::Complete => Ok(()),
        }
    }

    /// Whether a state goes on with resources that no part before had.
    pub(super) fn goes_on(&self, incoming: &Incoming, named: &Named) -> bool {
        let before = match &self.progress {
            Progress::Within(before) => before.keys.len(),
            Progress::First | Progress::Following => 0,
        };
        incoming.extent == Extent::Part && named.keys.len() > before
    }

    /// Whether something was refused that was not refused before, or the other way round.
    pub(super) fn refuses_other(&self, incoming: &Incoming, refused: &[Refusal]) -> bool {
        let before = &self.place.refused;
        let known = |name| before.get(name) == incoming.versions.get(name);
        let more = refused.iter().any(|refusal| !known(&refusal.name));
        !self.lost && (more || incoming.removed.iter().any(|name| before.contains_key(&**name)))
    }

    /// Moves to where we are once `incoming` was applied but for `refused`.
    pub(super) fn move_on(&mut self, incoming: &Incoming, refused: &[Refusal]) {
        let within = matches!(self.progress, Progress::Within(_));
        self.lost &= within || incoming.extent == Extent::Delta;
        let place = self.after(incoming, refused);
        self.lost |= place.refused.len() > limit::REFUSED;
        self.place = if self.lost { Place::default() } else { place };
    }

    /// Where we are once `incoming` was applied but for `refused`.
    fn after(&self, incoming: &Incoming, refused: &[Refusal]) -> Place {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkinds::TIMEOUT;
    use proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
    use resource::ResourceKey;
    use store::view::KindId;

    #[test]
    fn a_state_in_parts_has_an_end() {
        let key = |number: usize| ResourceKey::global(&number.to_string());
        let mut asked = Asked::new(Start::Fresh);
        let keys = (0..limit::PARTS - 1).map(key).collect();
        asked.progress = Progress::Within(Named { keys, unknown: false });
        let part = |count: usize| {
            let response = DeltaDiscoveryResponse {
                system_version_info: "part".into(),
                resources: vec![Resource::default(); count],
                ..DeltaDiscoveryResponse::default()
            };
            let dialect = crate::dialect::Dialect::Ours(crate::metadata::own_features());
            Incoming::read((KindId::FIRST, &TIMEOUT), response, dialect, false).unwrap()
        };
        assert_eq!(asked.check(&part(1)), Ok(()));
        let (field, most) = ("resources", limit::PARTS);
        let much = Broken::TooMuch { field, found: most + 1, what: "in all parts", most };
        assert_eq!(asked.check(&part(2)), Err(much));
    }
}
