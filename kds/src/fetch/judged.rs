//! What a response changes: decided on the rows of now, without I/O.

use super::{Asked, Asking};
use crate::{
    apply::{Applied, Batch, Named, Who, apply},
    incoming::Incoming,
    limit,
    quota::Fitted,
    refusal::Refusal,
};
use delta::Extent;
use resource::ResourceKey;
use store::{
    Item, Outcome,
    view::{Edit, KindId, Reader},
};

/// What a response means.
#[derive(Debug)]
pub(crate) struct Judged {
    /// To be committed.
    pub(crate) batch: Vec<Item>,
    /// Whether anything is.
    pub(super) commits: bool,
    pub(super) refused: Vec<Refusal>,
    pub(super) named: Named,
    pub(super) fitted: Fitted,
}

impl Asking {
    /// Works out what a response changes.
    pub(crate) fn judge(&self, reader: &Reader, incoming: &Incoming) -> Judged {
        let id = incoming.kind;
        let mut named = self.asked.get(&id).map(Asked::before).unwrap_or_default();
        let (_, rows) = reader.rows(id);
        let response = Batch {
            upserts: &incoming.upserts,
            removals: &incoming.removals,
            complete: (incoming.extent == Extent::Complete).then_some(&named),
        };
        let kind = self.kind(id);
        let mut applied = apply((id, &kind), &self.sender, &rows, response);
        let fitted = self.fit(reader, &rows, incoming, &mut applied);
        let Applied { mut batch, refused, named: now } = applied;
        if let Some(own) = self.own.as_ref().filter(|_| !batch.is_empty()) {
            let memory = own.without_place(kind.name);
            batch.extend(memory.and_then(|memory| own.facts.remember(&memory)));
        }
        named.unknown |= now.unknown;
        named.keys.extend(now.keys);
        let commits = !batch.is_empty();
        Judged { batch, commits, refused, named, fitted }
    }

    /// What the store did not take, to be refused like what is wrong. `written` says of what the
    /// outcomes are.
    pub(super) fn not_taken(
        &self,
        incoming: &Incoming,
        written: &[(KindId, ResourceKey)],
        outcomes: &[Outcome],
    ) -> Vec<Refusal> {
        let mut refused = Vec::new();
        for ((kind, key), outcome) in written.iter().zip(outcomes) {
            let Outcome::Refused { reason } = outcome else { continue };
            let mut received = incoming.upserts.iter().flatten();
            let received = received
                .find(|it| *kind == incoming.kind && self.sender.key(it.key.clone()) == *key);
            match received {
                Some(it) => {
                    refused.push(Refusal { name: it.name.clone(), reason: reason.to_string() });
                }
                None => {
                    tracing::warn!(zone = %self.zone, %key, %reason, "not taken by the store");
                }
            }
        }
        refused
    }

    /// Logs what was refused of a zone, by its first: the zone is told all of it.
    pub(super) fn say(&self, kind: &str, refused: &[Refusal]) {
        let (Who::Zone { .. }, [first, ..]) = (&self.sender.who, refused) else { return };
        let Some(unsaid) = self.repeats.say((&self.zone, kind)) else { return };
        let (name, reason, all) =
            (&first.name, limit::cut(&first.reason, limit::REASON), refused.len());
        tracing::warn!(zone = %self.zone, kind, ?name, ?reason, all, unsaid, "resources of a zone refused");
    }
}

/// What the items of a batch are about, in their order.
pub(super) fn written(batch: &[Item]) -> Vec<(KindId, ResourceKey)> {
    let key = |item: &Item| match &item.edit {
        Edit::Put(row) => row.head.key.clone(),
        Edit::Delete(key) => key.clone(),
    };
    batch.iter().map(|item| (item.kind, key(item))).collect()
}
