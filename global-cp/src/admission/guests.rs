//! What was admitted, by what, and what ends it.

use identity::tls::Fingerprint;
use jiff::Timestamp;
use parking_lot::Mutex;
use resource::ZoneName;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// So many credentials of a zone are known at once; of more, the one that was shown least recently
/// ends what it opened.
pub(super) const CREDENTIALS: usize = 64;

/// So many Zones are made for zones that only `*` in `kds.plainZones` lets in, which may be names
/// that somebody made up. A Zone that a user wrote does not count.
pub(super) const INVENTED: usize = 1024;

/// By what a zone was admitted. It is not to be printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Credential {
    /// This token.
    Token(Arc<str>),
    /// This certificate.
    Certificate(Option<Fingerprint>),
    /// A setting that lets it in without any.
    Setting,
}

/// Whoever was admitted: the calls of a zone that showed the same end together.
#[derive(Default)]
pub(super) struct Guests {
    all: Mutex<All>,
    sooner: Notify,
}

#[derive(Default)]
struct All {
    zones: BTreeMap<ZoneName, BTreeMap<Credential, Guest>>,
    /// Nothing expires before.
    soonest: Option<Timestamp>,
    /// How often somebody was admitted.
    admitted: u64,
}

struct Guest {
    until: Option<Timestamp>,
    /// When, among all admissions, it was shown last.
    shown: u64,
    ends: CancellationToken,
}

impl Guests {
    /// What ends a call of `zone`, and whether nothing was admitted by this credential before.
    pub(super) fn admit(
        &self,
        zone: &ZoneName,
        credential: &Credential,
        until: Option<Timestamp>,
    ) -> (CancellationToken, bool) {
        let mut all = self.all.lock();
        all.admitted += 1;
        let shown = all.admitted;
        let of_zone = all.zones.entry(zone.clone()).or_default();
        if let Some(guest) = of_zone.get_mut(credential) {
            // It may be about to be refused, and is cancelled then.
            if !guest.ends.is_cancelled() {
                guest.shown = shown;
                return (guest.ends.clone(), false);
            }
        }
        let ends = CancellationToken::new();
        of_zone.insert(credential.clone(), Guest { until, shown, ends: ends.clone() });
        bound(of_zone);
        if until.is_some_and(|until| all.soonest.is_none_or(|soonest| until < soonest)) {
            all.soonest = until;
            self.sooner.notify_one();
        }
        (ends, true)
    }

    /// When the first of them expires.
    pub(super) fn soonest(&self) -> Option<Timestamp> {
        self.all.lock().soonest
    }

    /// What each zone showed last, and when that ends.
    pub(super) fn endings(&self) -> Vec<(ZoneName, Credential, Timestamp)> {
        let all = self.all.lock();
        let last = |(zone, of_zone): (&ZoneName, &BTreeMap<Credential, Guest>)| {
            let (credential, guest) = of_zone.iter().max_by_key(|(_, guest)| guest.shown)?;
            Some((zone.clone(), credential.clone(), guest.until?))
        };
        all.zones.iter().filter_map(last).collect()
    }

    /// Of how many zones something is known.
    #[cfg(test)]
    pub(super) fn zones(&self) -> usize {
        self.all.lock().zones.len()
    }

    /// Waits until one that expires sooner was admitted. Cancel safe.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// Ends what has expired.
    pub(super) fn expire(&self, now: Timestamp) {
        let mut all = self.all.lock();
        all.retain(|_, guest| guest.until.is_none_or(|until| now < until));
        let ends = all.zones.values().flat_map(BTreeMap::values);
        all.soonest = ends.filter_map(|guest| guest.until).min();
    }

    /// Ends all of a zone.
    pub(super) fn dismiss(&self, zone: &ZoneName) {
        let mut all = self.all.lock();
        for guest in all.zones.remove(zone).into_iter().flat_map(BTreeMap::into_values) {
            guest.ends.cancel();
        }
    }

    /// Ends all but what `still` says.
    pub(super) fn keep(&self, still: impl Fn(&Credential) -> bool) {
        self.all.lock().retain(|credential, _| still(credential));
    }
}

fn bound(of_zone: &mut BTreeMap<Credential, Guest>) {
    if of_zone.len() <= CREDENTIALS {
        return;
    }
    let oldest = of_zone.iter().min_by_key(|(_, guest)| guest.shown);
    if let Some(gone) =
        oldest.map(|(credential, _)| credential.clone()).and_then(|it| of_zone.remove(&it))
    {
        gone.ends.cancel();
    }
}

impl All {
    fn retain(&mut self, keep: impl Fn(&Credential, &Guest) -> bool) {
        self.zones.retain(|_, of_zone| {
            of_zone.retain(|credential, guest| {
                let keep = keep(credential, guest);
                if !keep {
                    guest.ends.cancel();
                }
                keep
            });
            !of_zone.is_empty()
        });
    }
}
