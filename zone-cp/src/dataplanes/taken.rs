//! How an Envoy takes what it is sent.

use super::{insight::Counts, limits};
use delta::{Name, Update};
use std::collections::{BTreeMap, BTreeSet};
use xds::{Type, ads::Refusal};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) counts: Counts,
    /// What it refused and has not taken since.
    pub(super) refused: BTreeMap<(Type, Name), String>,
    /// The inbounds that it has listeners for.
    pub(super) inbounds: BTreeSet<Name>,
    /// It answered about listeners, so that what is not there is not served.
    pub(super) answered: bool,
}

impl Taken {
    /// Envoy took what was sent, but for what it refused. Returns whether that is news.
    pub(super) fn heard(&mut self, kind: Type, update: &Update, refusal: &Refusal) -> bool {
        let count = self.counts.of(kind);
        if refusal.reasons.is_empty() {
            count.acked += 1;
        } else {
            count.refused += 1;
        }
        if kind == Type::Listener {
            self.served(update, refusal);
        }
        let mut news = false;
        for name in names(update).filter(|name| !refusal.untold.contains(*name)) {
            let entry = (kind, name.clone());
            news |= match refusal.reasons.get(name) {
                None => self.refused.remove(&entry).is_some(),
                Some(reason) => {
                    let text: String = reason.chars().take(limits::PROBLEM).collect();
                    self.refused.insert(entry, text.clone()).is_none_or(|before| before != text)
                }
            };
        }
        news
    }

    /// Envoy has what was sent of its inbounds, but for what it refused: then it has what it had. One
    /// whose socket cannot be bound is not where callers look for it, whatever Envoy had before.
    fn served(&mut self, update: &Update, refusal: &Refusal) {
        self.answered = true;
        for name in update.upserts.iter().map(|item| &item.name).filter(|name| is_inbound(name)) {
            if refusal.cannot_bind(name) {
                self.inbounds.remove(name);
            } else if !refusal.reasons.contains_key(name) && !refusal.untold.contains(name) {
                self.inbounds.insert(name.clone());
            }
        }
        for name in update.removals.iter().filter(|name| !refusal.reasons.contains_key(*name)) {
            self.inbounds.remove(name);
        }
    }
}

/// Whether a listener is that of an inbound.
pub(super) fn is_inbound(name: &str) -> bool {
    name.starts_with(&xds::names::inbound(""))
}

fn names(update: &Update) -> impl Iterator<Item = &Name> {
    update.upserts.iter().map(|item| &item.name).chain(update.removals.iter())
}
