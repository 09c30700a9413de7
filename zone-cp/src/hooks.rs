//! What a zone adds to the writes of users.

use api::{Change, Hooks, Prepared, Problem};
use kinds::zone;
use resource::ZoneName;

/// Refuses a Zone of another name; everything else is for `next`.
pub(crate) struct OwnZone<H> {
    pub(crate) zone: ZoneName,
    pub(crate) next: H,
}

impl<H: Hooks> Hooks for OwnZone<H> {
    fn before<'a>(&'a self, change: &'a Change<'a>) -> Prepared<'a> {
        let own = &*change.key.name == self.zone.as_str();
        if change.kind.name == zone::KIND.name && change.after.is_some() && !own {
            let reason = format!("must be {}: this control plane has no other zone", self.zone);
            return Box::pin(async {
                Err(Problem::field("Could not process a resource", "name", reason))
            });
        }
        self.next.before(change)
    }
}
