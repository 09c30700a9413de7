//! Which proxies a change of a resource concerned, and with what.
//!
//! Kept for the last changes only, and by what a change marks anyway: it costs what that costs.

use super::marks::{Marked, ProxyId};
use delta::Name;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use xds::Type;

/// Of how many resources of a mesh is kept what their last change did.
const RESOURCES: usize = 256;
/// And how many names in all.
const NAMES: usize = 100_000;

/// A resource of the mesh: its kind and name.
pub(super) type Cause = (&'static str, Name);

/// What a change is to one proxy.
#[derive(Debug)]
pub(super) struct Concern {
    /// The stream that was told.
    pub(super) stream: ProxyId,
    /// With that mark.
    pub(super) mark: u64,
    /// Of what.
    pub(super) names: BTreeSet<(Type, Name)>,
    /// Something has to be written down before more is told.
    pub(super) unwritten: bool,
}

/// What the last change of a resource did.
#[derive(Debug)]
pub(super) struct Effect {
    /// When.
    pub(super) at: Timestamp,
    /// To whom.
    pub(super) concerns: BTreeMap<Name, Concern>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Effects {
    by_cause: BTreeMap<Cause, Effect>,
    /// Those that are kept, the oldest change first; some twice.
    order: VecDeque<Cause>,
    names: usize,
}

impl Effects {
    /// `cause` changed now, and this is what it did.
    pub(super) fn set(&mut self, cause: Cause, effect: Effect) {
        self.forget(&cause);
        self.names += size(&effect.concerns);
        self.by_cause.insert(cause.clone(), effect);
        self.order.retain(|other| *other != cause);
        self.order.push_back(cause);
        while self.order.len() > RESOURCES || self.names > NAMES {
            let Some(oldest) = self.order.pop_front() else { return };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, cause: &Cause) {
        if let Some(before) = self.by_cause.remove(cause) {
            self.names = self.names.saturating_sub(size(&before.concerns));
        }
    }

    /// What the last change of a resource did; `None` if that is not kept.
    pub(super) fn of(&self, cause: &Cause) -> Option<&Effect> {
        self.by_cause.get(cause)
    }

    /// What is kept.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Cause, &Effect)> {
        self.by_cause.iter()
    }

    /// What had to be written down for a proxy was, and told as `marked` with the mark of each
    /// stream; more has to be if `again`.
    pub(super) fn written(
        &mut self,
        proxy: &Name,
        marked: &Marked,
        mark: impl Fn(&ProxyId) -> u64,
        again: bool,
    ) {
        for Effect { concerns, .. } in self.by_cause.values_mut() {
            let Some(concern) = concerns.get_mut(proxy).filter(|concern| concern.unwritten) else {
                continue;
            };
            let before = concern.names.len();
            if let Some(names) = marked.get(&concern.stream) {
                concern.names.extend(names.iter().cloned());
                concern.mark = mark(&concern.stream);
            }
            concern.unwritten = again;
            self.names += concern.names.len() - before;
        }
    }
}

fn size(concerns: &BTreeMap<Name, Concern>) -> usize {
    concerns.values().map(|concern| 1 + concern.names.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(number: usize) -> Cause {
        ("MeshTimeout", number.to_string().into())
    }

    fn concern(names: usize) -> Effect {
        let names = (0..names).map(|name| (Type::Route, name.to_string().into())).collect();
        let concern = Concern { stream: ProxyId(1), mark: 1, names, unwritten: false };
        Effect { at: Timestamp::UNIX_EPOCH, concerns: [("web".into(), concern)].into() }
    }

    #[test]
    fn the_last_changes_are_kept_within_bounds() {
        let mut effects = Effects::default();
        for number in 0..RESOURCES + 10 {
            effects.set(cause(number), concern(1));
            effects.set(cause(0), concern(2));
        }
        let kept = |effects: &Effects, number| effects.of(&cause(number)).is_some();
        assert_eq!(
            [0, 1, 10, 11, 12].map(|it| kept(&effects, it)),
            [true, false, false, true, true]
        );
        assert_eq!(effects.names, 3 + 2 * (RESOURCES - 1));
        effects.set(cause(1), concern(NAMES - 1));
        assert_eq!([0, 1].map(|number| kept(&effects, number)), [false, true]);
        assert_eq!((effects.order.len(), effects.names), (1, NAMES));
    }
}
