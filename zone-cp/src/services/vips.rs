//! Virtual addresses.
//!
//! The first choice is a hash of the service's KRI, so a service normally has the same address in
//! every zone with the same range. Nothing may rely on that: ranges differ, and hashes collide.

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use resource::{Kri, ResourceKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How long an address that was freed is given to nobody else: longer than any name that still
/// leads to it is cached.
pub(super) const REST: SignedDuration = SignedDuration::from_mins(10);

/// How often another address is drawn before they are tried one after the other.
const DRAWS: u64 = 64;

/// The addresses that may be given.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u128,
    count: u128,
    v6: bool,
}

impl Range {
    /// Without the address of the network and the last one: no connection to these succeeds.
    fn of(net: IpNet) -> Self {
        let (first, last, v6) = match net {
            IpNet::V4(net) => {
                (u128::from(net.network().to_bits()), u128::from(net.broadcast().to_bits()), false)
            }
            IpNet::V6(net) => (net.network().to_bits(), net.broadcast().to_bits(), true),
        };
        Self { first: first.saturating_add(1), count: (last - first).saturating_sub(1), v6 }
    }

    fn get(self, index: u128) -> IpAddr {
        let address = self.first + index % self.count.max(1);
        if self.v6 {
            Ipv6Addr::from_bits(address).into()
        } else {
            Ipv4Addr::from_bits(u32::try_from(address).unwrap_or_default()).into()
        }
    }
}

/// A freed address.
#[derive(Debug)]
struct Rest {
    until: Timestamp,
    /// Whose it was: the same service may have it back at once.
    kri: String,
}

/// What a service has.
#[derive(Debug)]
struct Owned {
    kri: String,
    addresses: BTreeSet<IpAddr>,
}

/// Who has which address.
#[derive(Debug)]
pub(super) struct Vips {
    range: Range,
    held: BTreeMap<IpAddr, ResourceKey>,
    owners: BTreeMap<ResourceKey, Owned>,
    resting: BTreeMap<IpAddr, Rest>,
    by_time: BTreeSet<(Timestamp, IpAddr)>,
    /// Services for which there was no address left.
    lacking: BTreeSet<ResourceKey>,
}

impl Vips {
    pub(super) fn new(range: IpNet) -> Self {
        Self {
            range: Range::of(range),
            held: BTreeMap::new(),
            owners: BTreeMap::new(),
            resting: BTreeMap::new(),
            by_time: BTreeSet::new(),
            lacking: BTreeSet::new(),
        }
    }

    /// Notes that a service has an address already. False if another one has it.
    pub(super) fn hold(&mut self, address: IpAddr, owner: &ResourceKey, kri: &Kri) -> bool {
        if self.held.get(&address).is_some_and(|holder| holder != owner) {
            return false;
        }
        self.own(address, owner, &kri.to_string());
        true
    }

    /// Gives an address to a service that has none. `None` if all are taken; it is then listed in
    /// [`released`](Self::released) when one is free again.
    pub(super) fn give(&mut self, owner: &ResourceKey, kri: &Kri) -> Option<IpAddr> {
        if let Some(owned) = self.owners.get(owner) {
            return owned.addresses.first().copied();
        }
        let kri = kri.to_string();
        let given = self.find(&kri);
        match given {
            Some(address) => self.own(address, owner, &kri),
            None => {
                self.lacking.insert(owner.clone());
            }
        }
        given
    }

    fn own(&mut self, address: IpAddr, owner: &ResourceKey, kri: &str) {
        self.wake(address);
        self.lacking.remove(owner);
        self.held.insert(address, owner.clone());
        let new = || Owned { kri: kri.to_owned(), addresses: BTreeSet::new() };
        self.owners.entry(owner.clone()).or_insert_with(new).addresses.insert(address);
    }

    fn find(&self, kri: &str) -> Option<IpAddr> {
        let count = self.range.count;
        let free = |address: &IpAddr| {
            let rested = self.resting.get(address).is_none_or(|rest| rest.kri == kri);
            rested && !self.held.contains_key(address)
        };
        let hash = |draw| u128::from(xxh3_64_with_seed(kri.as_bytes(), draw));
        if count == 0 {
            return None;
        }
        let drawn = (0..DRAWS).map(|draw| self.range.get(hash(draw))).find(free);
        drawn.or_else(|| {
            // Among that many in a row one is free, if any is.
            let taken = self.held.len() + self.resting.len();
            let tried = count.min(u128::try_from(taken).unwrap_or(count) + 1);
            let start = hash(DRAWS) % count;
            (0..tried).map(|step| self.range.get(start + step)).find(free)
        })
    }

    /// Takes back the addresses of a service that is gone, to rest from `now` on.
    pub(super) fn take_back(&mut self, owner: &ResourceKey, now: Timestamp) {
        self.lacking.remove(owner);
        let Some(Owned { kri, addresses }) = self.owners.remove(owner) else { return };
        let until = now.saturating_add(REST).unwrap_or(Timestamp::MAX);
        for address in addresses {
            self.held.remove(&address);
            self.resting.insert(address, Rest { until, kri: kri.clone() });
            self.by_time.insert((until, address));
        }
    }

    fn wake(&mut self, address: IpAddr) {
        if let Some(rest) = self.resting.remove(&address) {
            self.by_time.remove(&(rest.until, address));
        }
    }

    /// Frees what has rested. The services that lacked an address if there is one now.
    pub(super) fn released(&mut self, now: Timestamp) -> Vec<ResourceKey> {
        let mut any = false;
        while let Some((until, address)) = self.by_time.first().copied()
            && until <= now
        {
            self.wake(address);
            any = true;
        }
        if any { self.lacking.iter().cloned().collect() } else { Vec::new() }
    }

    /// When somebody who lacks an address may get one.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(until, _)| *until).filter(|_| !self.lacking.is_empty())
    }

    /// How many addresses are held, resting, lacking.
    pub(super) fn counts(&self) -> [usize; 3] {
        [self.held.len(), self.resting.len(), self.lacking.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vips(range: &str) -> Vips {
        Vips::new(range.parse().unwrap())
    }

    fn kri(name: &str) -> Kri {
        Kri { short: "msvc".into(), name: name.into(), ..Kri::default() }
    }

    fn give(vips: &mut Vips, name: &str) -> Option<String> {
        vips.give(&ResourceKey::global(name), &kri(name)).map(|address| address.to_string())
    }

    fn free(vips: &mut Vips, name: &str, now: Timestamp) {
        vips.take_back(&ResourceKey::global(name), now);
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_address_follows_from_the_name() {
        let (mut one, mut two) = (vips("241.0.0.0/8"), vips("241.0.0.0/8"));
        give(&mut two, "other");
        assert_eq!(give(&mut one, "cart"), give(&mut two, "cart"));
        assert_eq!(give(&mut vips("fd00:1::/64"), "cart").unwrap().get(..7), Some("fd00:1:"));
    }

    #[test]
    fn network_and_broadcast_are_not_given() {
        let mut vips = vips("127.0.0.0/30");
        let mut given = ["a", "b"].map(|name| give(&mut vips, name).unwrap());
        given.sort();
        assert_eq!(given, ["127.0.0.1", "127.0.0.2"]);
        assert_eq!(give(&mut vips, "c"), None);
        for tiny in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/128"] {
            assert_eq!(give(&mut Vips::new(tiny.parse().unwrap()), "a"), None, "{tiny}");
        }
    }

    #[test]
    fn a_freed_address_rests_but_its_service_may_return() {
        let mut vips = vips("127.0.0.0/30");
        let a = give(&mut vips, "a").unwrap();
        give(&mut vips, "b").unwrap();
        free(&mut vips, "a", at(0));
        assert_eq!(give(&mut vips, "c"), None);
        assert_eq!(vips.counts(), [1, 1, 1]);
        assert_eq!(vips.deadline(), Some(at(600)));
        assert_eq!(give(&mut vips, "a").as_ref(), Some(&a));

        free(&mut vips, "a", at(100));
        free(&mut vips, "b", at(200));
        assert_eq!(vips.released(at(699)), []);
        assert_eq!(vips.released(at(700)), [ResourceKey::global("c")]);
        assert_eq!(give(&mut vips, "c"), Some(a));
        assert_eq!(vips.counts(), [1, 1, 0]);
        assert_eq!(vips.deadline(), None, "nobody waits");
    }

    #[test]
    fn what_is_held_is_nobody_elses() {
        let mut vips = vips("127.0.0.0/30");
        let [one, two] = ["a", "b"].map(ResourceKey::global);
        let address = "10.9.9.9".parse().unwrap();
        assert!(vips.hold(address, &one, &kri("a")) && vips.hold(address, &one, &kri("a")));
        assert!(!vips.hold(address, &two, &kri("b")));
        assert_eq!(give(&mut vips, "a").as_deref(), Some("10.9.9.9"), "it has one");
        free(&mut vips, "b", at(0));
        assert_eq!(vips.counts(), [1, 0, 0]);
    }

    proptest! {
        #[test]
        fn as_long_as_there_is_one_it_is_given(names in prop::collection::btree_set("[a-z]{1,6}", 0..70)) {
            let mut vips = vips("10.0.0.0/26");
            let given: BTreeSet<_> = names.iter().filter_map(|name| give(&mut vips, name)).collect();
            prop_assert_eq!(given.len(), names.len().min(62));
        }
    }
}
