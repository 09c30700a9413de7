//! Remembers the few forms of one thing.

use parking_lot::RwLock;

/// Values by a small key, each made once. Meant for a handful of keys, so it is a list.
#[derive(Debug)]
pub struct Memo<K, V>(RwLock<Vec<(K, V)>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(RwLock::new(Vec::new()))
    }
}

impl<K: Clone, V: Clone> Clone for Memo<K, V> {
    fn clone(&self) -> Self {
        Self(RwLock::new(self.0.read().clone()))
    }
}

impl<K: PartialEq, V: Clone> Memo<K, V> {
    /// The value for `key`. When several threads ask at once, one makes it and the others wait:
    /// that is cheaper than making it several times.
    pub fn get_or_make(&self, key: K, make: impl FnOnce() -> V) -> V {
        let find = |known: &[(K, V)]| known.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone());
        if let Some(value) = find(&self.0.read()) {
            return value;
        }
        let mut known = self.0.write();
        if let Some(value) = find(&known) {
            return value;
        }
        let value = make();
        // Most things have one form; the default growth would reserve four.
        known.reserve_exact(1);
        known.push((key, value.clone()));
        value
    }
}
