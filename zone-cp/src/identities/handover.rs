//! From one authority or trust domain to the next: what was goes on until others know what takes its
//! place.

use super::plan::{Member, Planner};
use identity::Authority;
use std::sync::Arc;

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

    /// Whether global has the MeshTrust of this name.
    pub(super) fn is_relayed(&mut self, name: &str) -> bool {
        let Some(written) = self.memory.written.get(name) else { return true };
        if self.view.relayed.is_none_or(|until| *written <= until) {
            return true;
        }
        self.waits = self.waits.max(Some(*written));
        false
    }
}
