//! Names and their addresses, without I/O.

use parking_lot::RwLock;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Names with the addresses that they have from now on.
    pub upserts: Vec<(Arc<str>, Arc<[IpAddr]>)>,
    /// Names that are gone.
    pub removals: Vec<Arc<str>>,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its addresses; maybe none of the family that was asked for.
    Addresses(Arc<[IpAddr]>),
    /// It has none itself, but names below it do, so it exists (RFC 8020).
    Above,
    /// Nothing, and there is no such name.
    Absent,
    /// Nothing yet: the table is not complete.
    Unknown,
}

/// A table of names. Names are compared without case, and written without a dot at the end.
///
/// A new table is not complete: what it does not hold is unknown, and must not be denied.
#[derive(Debug, Default)]
pub struct Records {
    table: RwLock<Table>,
    complete: AtomicBool,
    changes: AtomicU32,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<Arc<str>, Arc<[IpAddr]>>,
    /// How many names are below each name.
    below: HashMap<Arc<str>, usize>,
}

impl Records {
    /// Makes `change`, seen by lookups at once and as a whole.
    pub fn apply(&self, change: Change) {
        self.change(|table| table.apply(change));
    }

    /// From now on, what the table does not hold does not exist.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Replaces everything by `names`, which are complete.
    pub fn replace(&self, names: impl IntoIterator<Item = (Arc<str>, Arc<[IpAddr]>)>) {
        let (upserts, removals) = (names.into_iter().collect(), Vec::new());
        let mut table = Table::default();
        table.apply(Change { upserts, removals });
        self.change(|old| *old = table);
        self.complete();
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.write());
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// What is known of `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Found {
        let name = normal(name);
        let table = self.table.read();
        match table.names.get(&*name) {
            Some(addresses) => Found::Addresses(addresses.clone()),
            None if table.below.contains_key(&*name) => Found::Above,
            None if self.complete.load(Ordering::Acquire) => Found::Absent,
            None => Found::Unknown,
        }
    }

    /// How often the table changed.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().names.len()
    }

    /// Whether there are no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    fn apply(&mut self, Change { upserts, removals }: Change) {
        for name in removals {
            let name = normal(&name);
            if self.names.remove(&*name).is_some() {
                for above in above(&name) {
                    match self.below.get_mut(above) {
                        Some(count) if *count > 1 => *count -= 1,
                        _ => drop(self.below.remove(above)),
                    }
                }
            }
        }
        for (name, addresses) in upserts {
            let name = normal(&name);
            if self.names.insert(name.as_str().into(), addresses).is_none() {
                for above in above(&name) {
                    *self.below.entry(above.into()).or_default() += 1;
                }
            }
        }
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The names above `name`, the nearest first.
fn above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'))
        .map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Arc<[IpAddr]> {
        text.split(' ').filter_map(|address| address.parse().ok()).collect()
    }

    fn put(name: &str, text: &str) -> Change {
        Change { upserts: vec![(name.into(), addresses(text))], removals: Vec::new() }
    }

    fn remove(name: &str) -> Change {
        Change { upserts: Vec::new(), removals: vec![name.into()] }
    }

    fn complete() -> Records {
        let records = Records::default();
        records.complete();
        records
    }

    #[test]
    fn what_is_not_there_is_unknown_before_the_table_is_complete() {
        let records = Records::default();
        records.apply(put("a.x", "240.0.0.1"));
        assert_eq!(records.find("a.x"), Found::Addresses(addresses("240.0.0.1")));
        assert_eq!(records.find("b.x"), Found::Unknown);
        records.complete();
        assert_eq!(records.find("b.x"), Found::Absent);
    }

    #[test]
    fn a_name_is_found_in_any_case_with_and_without_its_dot() {
        let records = complete();
        records.apply(put("Cart.svc.East.mesh.local.", "240.0.0.1 fd00::1"));
        for name in ["cart.svc.east.mesh.local", "CART.SVC.EAST.MESH.LOCAL."] {
            assert_eq!(records.find(name), Found::Addresses(addresses("240.0.0.1 fd00::1")));
        }
        assert_eq!(records.find("art.svc.east.mesh.local"), Found::Absent);
        assert_eq!((records.len(), records.changes()), (1, 1));
    }

    #[test]
    fn a_name_exists_while_there_are_names_below_it() {
        let records = complete();
        let found = |name| records.find(name);
        records.apply(put("a.svc.east.mesh.local", "240.0.0.1"));
        records.apply(put("b.svc.east.mesh.local", "240.0.0.2"));
        records.apply(put("b.svc.east.mesh.local", "240.0.0.3"));
        records.apply(remove("a.svc.east.mesh.local"));
        records.apply(remove("a.svc.east.mesh.local"));
        assert_eq!(found("svc.east.mesh.local"), Found::Above);
        assert_eq!(found("b.svc.east.mesh.local"), Found::Addresses(addresses("240.0.0.3")));
        records.apply(remove("B.svc.east.mesh.local."));
        assert_eq!(found("svc.east.mesh.local"), Found::Absent);
        assert_eq!(found("local"), Found::Absent);
        assert!(records.is_empty());
    }

    #[test]
    fn everything_can_be_replaced() {
        let records = Records::default();
        records.apply(put("a.x", "240.0.0.1"));
        records.replace([("b.y".into(), addresses("240.0.0.2"))]);
        assert_eq!(records.find("a.x"), Found::Absent);
        assert_eq!(records.find("x"), Found::Absent);
        assert_eq!(records.find("b.y"), Found::Addresses(addresses("240.0.0.2")));
        assert_eq!(records.find("y"), Found::Above);
    }
}
