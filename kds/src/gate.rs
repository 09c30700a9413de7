//! Lets nothing of a global through before it is known to be the zone's own.

use crate::{
    apply::{Named, Sender, removes_all},
    incoming::Incoming,
    memory::{Facts, Held, Identity, Memory, Presented, is_guarded},
};
use delta::Extent;
use resource::Kind;
use std::{collections::BTreeSet, mem};
use store::{
    Kinds,
    view::{KindId, Reader},
};

/// Keeps responses back until it is clear whose they are.
#[derive(Debug)]
pub struct Gate {
    facts: Facts,
    /// What the zone remembers, as long as nothing was applied.
    memory: Option<Memory>,
    found: Found,
    /// A global that an operator confirmed, whatever it takes away.
    confirmed: Option<Identity>,
    state: State,
}

/// What is known of the global at the other end.
#[derive(Debug)]
enum Found {
    /// It has not been told yet.
    Unknown,
    /// This.
    Known(Presented),
}

#[derive(Debug)]
enum State {
    /// These wait.
    Waiting { kept: Vec<Incoming>, missing: BTreeSet<KindId> },
    /// All is well.
    Open,
    /// Nothing gets through on this stream.
    Held,
}

impl Gate {
    /// A gate for a stream that asks for `asked`. A plain global says who it is among its resources.
    #[must_use]
    pub fn new(
        facts: Facts,
        memory: Option<Memory>,
        confirmed: Option<Identity>,
        asked: impl IntoIterator<Item = (KindId, Kind)>,
    ) -> Self {
        let missing = asked
            .into_iter()
            .filter(|(id, kind)| is_guarded(kind) || *id == facts.id)
            .map(|(id, _)| id)
            .collect();
        let state = State::Waiting { kept: Vec::new(), missing };
        Self { facts, memory, found: Found::Unknown, confirmed, state }
    }

    /// A global of ours said who it is with its first bytes.
    pub fn met(&mut self, presented: Presented) {
        self.found = Found::Known(presented);
        if let State::Waiting { missing, .. } = &mut self.state {
            missing.remove(&self.facts.id);
        }
    }

    /// Which global it is, as soon as that is known.
    #[must_use]
    pub const fn presented(&self) -> Option<&Presented> {
        match &self.found {
            Found::Known(presented) => Some(presented),
            Found::Unknown => None,
        }
    }

    /// Whether nothing gets through on this stream.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self.state, State::Held)
    }

    /// Whether a response about `kind` is kept back: there can be only one.
    #[must_use]
    pub fn keeps(&self, kind: KindId) -> bool {
        match &self.state {
            State::Waiting { kept, .. } => kept.iter().any(|incoming| incoming.kind == kind),
            State::Open | State::Held => false,
        }
    }

    /// What may be applied now that `incoming` is here, in order.
    pub fn pass(
        &mut self,
        incoming: Incoming,
        (kinds, sender, reader): (&Kinds, &Sender, &Reader),
    ) -> Result<Vec<Incoming>, Held> {
        let id = incoming.kind;
        let checked = self.check(&incoming, kinds, sender, reader);
        if let Err(held) = checked {
            self.state = State::Held;
            return Err(held);
        }
        match &mut self.state {
            State::Held => Ok(Vec::new()),
            State::Open => Ok(vec![incoming]),
            State::Waiting { kept, missing } => {
                kept.push(incoming);
                missing.remove(&id);
                if !missing.is_empty() {
                    return Ok(Vec::new());
                }
                let kept = mem::take(kept);
                self.state = State::Open;
                Ok(kept)
            }
        }
    }

    fn check(
        &mut self,
        incoming: &Incoming,
        kinds: &Kinds,
        sender: &Sender,
        reader: &Reader,
    ) -> Result<(), Held> {
        if matches!(self.state, State::Held) {
            return Ok(());
        }
        if incoming.kind == self.facts.id && matches!(self.found, Found::Unknown) {
            let mut read = incoming.upserts.iter().flatten();
            let id = read.find_map(|it| self.facts.cluster_id_in(&it.key, &it.spec));
            let identity = Identity { id: id.ok_or(Held::NoIdentity)?, epoch: None };
            self.found = Found::Known(Presented { identity, revision: 0 });
        }
        let Found::Known(presented) = &self.found else { return Ok(()) };
        if self.confirmed.as_ref() == Some(&presented.identity) {
            return Ok(());
        }
        if let Some(memory) = &self.memory {
            memory.accept(presented)?;
        }
        let waiting = match &self.state {
            State::Waiting { kept, .. } => &**kept,
            State::Open | State::Held => &[],
        };
        for incoming in waiting.iter().chain([incoming]) {
            let kind = kinds.iter().find(|(id, _)| *id == incoming.kind).map(|(_, kind)| kind);
            let Some(kind) = kind.filter(|kind| is_guarded(kind)) else { continue };
            let named =
                Named { keys: incoming.keys().cloned().collect(), unknown: incoming.has_unknown() };
            let all = incoming.extent == Extent::Complete
                && removes_all(kind, sender, &reader.rows(incoming.kind).1, &named);
            if all {
                let identity = presented.identity.clone();
                return Err(Held::RemovesAll { kind: kind.name, identity });
            }
        }
        Ok(())
    }
}
