//! Which services select a proxy, and which proxies a service selects, without looking at all.

use super::hostnames::Name;
use kinds::mesh_service::Selector;
use resource::{Labels, label};
use std::collections::{BTreeMap, BTreeSet};

type Pair = (String, String);

/// An index from both sides. It may name too many, never too few.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    proxies: BTreeMap<Pair, BTreeSet<Name>>,
    by_label: BTreeMap<Pair, BTreeSet<Name>>,
    by_name: BTreeMap<String, BTreeSet<Name>>,
    selecting_all: BTreeSet<Name>,
}

fn pairs(labels: &Labels) -> impl Iterator<Item = Pair> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn insert<K: Ord>(table: &mut BTreeMap<K, BTreeSet<Name>>, key: K, name: &Name) {
    table.entry(key).or_default().insert(name.clone());
}

fn remove<K: Ord>(table: &mut BTreeMap<K, BTreeSet<Name>>, key: &K, name: &Name) {
    if let Some(names) = table.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            table.remove(key);
        }
    }
}

impl Selection {
    pub(crate) fn add_proxy(&mut self, name: &Name, labels: &Labels) {
        pairs(labels).for_each(|pair| insert(&mut self.proxies, pair, name));
    }

    pub(crate) fn remove_proxy(&mut self, name: &Name, labels: &Labels) {
        pairs(labels).for_each(|pair| remove(&mut self.proxies, &pair, name));
    }

    pub(crate) fn add_service(&mut self, name: &Name, selector: &Selector) {
        match key(selector) {
            Some(Key::Proxy(proxy)) => insert(&mut self.by_name, proxy, name),
            Some(Key::Label(pair)) => insert(&mut self.by_label, pair, name),
            Some(Key::All) => {
                self.selecting_all.insert(name.clone());
            }
            None => {}
        }
    }

    pub(crate) fn remove_service(&mut self, name: &Name, selector: &Selector) {
        match key(selector) {
            Some(Key::Proxy(proxy)) => remove(&mut self.by_name, &proxy, name),
            Some(Key::Label(pair)) => remove(&mut self.by_label, &pair, name),
            Some(Key::All) => {
                self.selecting_all.remove(name);
            }
            None => {}
        }
    }

    /// The services that may select the proxy `name` with `labels`.
    pub(crate) fn services(&self, name: &str, labels: &Labels) -> BTreeSet<Name> {
        let by_label = pairs(labels).filter_map(|pair| self.by_label.get(&pair));
        let others = [self.by_name.get(name), Some(&self.selecting_all)];
        by_label.chain(others.into_iter().flatten()).flatten().cloned().collect()
    }

    /// The proxies that `selector` may select, the fewest that one of its labels leaves; `None` if
    /// that can be any.
    pub(crate) fn proxies(&self, selector: &Selector) -> Option<BTreeSet<Name>> {
        if let Some(proxy) = &selector.dataplane_ref {
            return Some([Name::from(&*proxy.name)].into());
        }
        let Some(labels) = &selector.dataplane_labels else { return Some(BTreeSet::new()) };
        let sets = labels
            .match_labels
            .iter()
            .map(|(key, value)| self.proxies.get(&(key.clone(), value.clone())));
        let fewest = sets.min_by_key(|set| set.map_or(0, BTreeSet::len))?;
        Some(fewest.cloned().unwrap_or_default())
    }
}

enum Key {
    Proxy(String),
    Label(Pair),
    All,
}

/// Where a service stands in the index.
fn key(selector: &Selector) -> Option<Key> {
    if let Some(proxy) = &selector.dataplane_ref {
        return Some(Key::Proxy(proxy.name.clone()));
    }
    let labels = &selector.dataplane_labels.as_ref()?.match_labels;
    // That of the workload wherever there is one: the others may be those of all proxies, as that of
    // a namespace is.
    let workload = labels.get_key_value(label::WORKLOAD);
    let own = || labels.iter().find(|(key, _)| *key != label::NAMESPACE);
    let pair = workload.or_else(own).or_else(|| labels.first_key_value());
    Some(pair.map_or(Key::All, |(key, value)| Key::Label((key.clone(), value.clone()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinds::{LabelSelector, mesh_service::DataplaneRef};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn selector(pairs: &[(&str, &str)]) -> Selector {
        let match_labels = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Selector { dataplane_labels: Some(LabelSelector { match_labels }), ..Selector::default() }
    }

    #[test]
    fn every_service_that_selects_a_proxy_is_found() {
        let mut index = Selection::default();
        let by_name = Selector {
            dataplane_ref: Some(DataplaneRef { name: "cart-1".into() }),
            ..Selector::default()
        };
        let several = selector(&[("kuma.io/workload", "cart"), ("a", "b")]);
        let services = [
            ("name", &by_name),
            ("several", &several),
            ("all", &selector(&[])),
            ("none", &Selector::default()),
        ];
        for (name, selector) in services {
            index.add_service(&name.into(), selector);
        }
        let cart = labels(&[("kuma.io/workload", "cart"), ("a", "c")]);
        let names = |index: &Selection| {
            index.services("cart-1", &cart).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&index), ["all", "name", "several"]);
        for (name, selector) in services {
            index.remove_service(&name.into(), selector);
        }
        assert_eq!(names(&index), [""; 0]);
        assert!(index.by_label.is_empty() && index.by_name.is_empty());
    }

    #[test]
    fn the_rarest_label_leaves_the_fewest_proxies() {
        let mut index = Selection::default();
        for (name, app) in [("cart-1", "cart"), ("cart-2", "cart"), ("web-1", "web")] {
            index.add_proxy(&name.into(), &labels(&[("app", app), ("env", "x")]));
        }
        let found = |index: &Selection, selector: &Selector| {
            let names = index.proxies(selector)?;
            Some(names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let web = selector(&[("app", "web"), ("env", "x")]);
        assert_eq!(found(&index, &web), Some(vec!["web-1".into()]));
        assert_eq!(found(&index, &selector(&[("app", "none")])), Some(vec![]));
        assert_eq!(found(&index, &selector(&[])), None);
        assert_eq!(found(&index, &Selector::default()), Some(vec![]));
        index.remove_proxy(&"web-1".into(), &labels(&[("app", "web"), ("env", "x")]));
        assert_eq!(found(&index, &web), Some(vec![]));
    }
}
