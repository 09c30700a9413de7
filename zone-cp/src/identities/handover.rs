//! From one authority or trust domain to the next: what was goes on until others know what takes its
//! place.

use super::plan::{Member, Planner};
use identity::Authority;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// How long proxies of other zones have for learning of an authority that global has. Nobody waits
/// for the new one, so this is much more than a change takes to them (decision 8).
pub(super) const MARGIN: SignedDuration = SignedDuration::from_secs(5);

impl Planner<'_> {
    /// Lets it go on as it was.
    pub(super) fn keep(&mut self, member: &mut Member) {
        let Some(last) = self.memory.last_good.get(&member.name) else { return };
        if last.domain == member.domain {
            member.authority.clone_from(&last.authority);
        } else {
            *member = last.clone();
        }
        let kept = member.domain.clone().ok().zip(member.authority.clone());
        self.kept.extend(kept);
    }

    /// Whether another authority issued until now that still can, or another trust domain was used.
    pub(super) fn replaces(&self, member: &Member, authority: &Arc<Authority>) -> bool {
        let Some(last) = self.memory.last_good.get(&member.name) else { return false };
        let Some(before) = &last.authority else { return false };
        let other = last.domain != member.domain || !Arc::ptr_eq(before, authority);
        other && self.view.now < before.not_after()
    }

    /// Whether others know the authority of `member`, so that it may take the place of the last one.
    pub(super) fn is_known(&mut self, member: &Member) -> bool {
        if !self.is_relayed(&member.name) {
            return false;
        }
        // The MeshTrust has no room for two trust domains: others believe the old one no more.
        if self.memory.last_good.get(&member.name).is_some_and(|it| it.domain != member.domain) {
            return true;
        }
        let now = self.view.now;
        let since = *self.memory.relayed.entry(member.name.clone()).or_insert(now);
        let known = since.saturating_add(MARGIN).unwrap_or(Timestamp::MAX);
        if now < known {
            self.again = self.again.into_iter().chain([known]).min();
            return false;
        }
        self.memory.relayed.remove(&member.name);
        true
    }

    /// Whether global has the MeshTrust of this name.
    fn is_relayed(&mut self, name: &str) -> bool {
        let Some(written) = self.memory.written.get(name) else { return true };
        if self.view.relayed.is_none_or(|until| *written <= until) {
            return true;
        }
        self.waits = self.waits.max(Some(*written));
        false
    }
}
