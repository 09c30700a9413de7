//! How much a zone may have: what is more waits for room.

use super::Asking;
use crate::{
    apply::{Applied, Who},
    ended::StreamEnded,
    incoming::Incoming,
    observe::{Event, Report},
    quota::{Fitted, Quota, Quotas, Room, fit},
    received::Received,
};
use resource::Kind;
use store::{
    Backend,
    view::{Reader, Rows},
};

impl Asking {
    /// Takes what waited for room, as far as there is some now.
    pub(super) async fn try_again<B: Backend>(
        &mut self,
        store: &B,
        report: &Report,
    ) -> Result<(), StreamEnded> {
        for incoming in self.waiting.again() {
            let (judged, revision) = self.store(store, &incoming).await?;
            self.waiting.note(&incoming, false, &judged.fitted.over);
            let still: Vec<_> = judged.refused.iter().map(|refusal| &refusal.name).collect();
            if let Some(asked) = self.asked.get_mut(&incoming.kind) {
                let taken = incoming.upserts.iter().flatten();
                for received in taken.filter(|received| !still.contains(&&received.name)) {
                    asked.place.refused.remove(&received.name);
                }
                asked.since = revision;
            }
            let (kind, resources) = (self.kind(incoming.kind).name, incoming.upserts.len());
            report.tell(Event::Applied {
                kind,
                resources,
                complete: false,
                until: None,
                refused: &judged.refused,
            });
        }
        Ok(())
    }

    /// Holds back what is more than the zone may have.
    pub(super) fn fit(
        &self,
        reader: &Reader,
        rows: &Rows,
        incoming: &Incoming,
        applied: &mut Applied,
    ) -> Fitted {
        let Who::Zone { name: zone, .. } = &self.sender.who else { return Fitted::default() };
        if *self.quotas == Quotas::NONE {
            return Fitted::default();
        }
        let (id, kind) = (incoming.kind, self.kind(incoming.kind));
        let is_own = |kind: &Kind| kind.flow.only_with().is_some();
        let own = self.kinds.iter().filter(|(_, kind)| is_own(kind));
        let all =
            own.fold(reader.usage(zone), |all, (id, _)| all.minus(reader.usage_of_kind(zone, id)));
        let used = [all, reader.usage_of_kind(zone, id)];
        let quotas = match is_own(&kind) {
            true => [Quota::NONE, Quota::OWN],
            false => [self.quotas.all, self.quotas.of(kind.name)],
        };
        let kind = kind.name;
        let room = Room { zone, kind, used, quotas };
        let name = |it: &Received| (self.sender.key(it.key.clone()), it.name.clone());
        let names = incoming.upserts.iter().flatten().map(name).collect();
        fit(room, rows, applied, &names)
    }
}
