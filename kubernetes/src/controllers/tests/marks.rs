//! What must be looked at again: what a change concerns, and nothing else.

use super::{namespace, pod, put, service, tables, with};
use crate::controllers::{
    tables::{Owner, Tables},
    watch::{Change, Step},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What is to be looked at.
fn due(tables: &mut Tables) -> Vec<String> {
    let none = BTreeSet::new();
    let next = || tables.next(&none);
    let name = |owner: Owner| match owner {
        Owner::Pod(id) => format!("pod {}", id.name),
        Owner::Service(id) => format!("service {}", id.name),
    };
    std::iter::from_fn(next).map(name).collect()
}

fn headless(name: &str) -> Value {
    with(service(name, "None"), [("/spec/clusterIPs", json!(["None"]))])
}

fn cart(name: &str) -> Value {
    pod(name, "cart", "10.1.0.1")
}

fn shop() -> Tables {
    let others = [pod("web-1", "web", "10.1.0.3"), service("web", "10.96.0.2")];
    let ours = [namespace("shop"), cart("cart-1"), cart("cart-2"), service("cart", "10.96.0.1")];
    let mut tables = tables(ours.into_iter().chain(others));
    assert_eq!(
        due(&mut tables),
        ["pod cart-1", "pod cart-2", "pod web-1", "service cart", "service web"]
    );
    tables
}

fn after(mut tables: Tables, object: Value) -> Vec<String> {
    tables.apply(put(object));
    due(&mut tables)
}

#[test]
fn a_change_concerns_what_is_selected() {
    let unready = json!([{ "type": "Ready", "status": "False" }]);
    let starting = with(cart("cart-1"), [("/status/conditions", unready)]);
    assert_eq!(after(shop(), cart("cart-1")), [""; 0]);
    assert_eq!(after(shop(), starting), ["pod cart-1"]);
    let moved = with(service("cart", "10.96.0.1"), [("/spec/selector", json!({ "app": "web" }))]);
    assert_eq!(after(shop(), moved), ["pod cart-1", "pod cart-2", "pod web-1", "service cart"]);
    let mesh = with(namespace("shop"), [("/metadata/labels/kuma.io~1mesh", json!("shop"))]);
    assert_eq!(after(shop(), mesh).len(), 5);
    let team = with(namespace("shop"), [("/metadata/labels/team", json!("a"))]);
    assert_eq!(after(shop(), team), [""; 0]);
}

#[test]
fn a_pod_concerns_its_headless_services() {
    let mut tables = shop();
    tables.apply(put(headless("cart")));
    assert_eq!(due(&mut tables), ["pod cart-1", "pod cart-2", "service cart"]);
    assert_eq!(after(tables, cart("cart-3")), ["pod cart-3", "service cart"]);
}

#[test]
fn what_a_new_list_lacks_is_gone() {
    let mut tables = shop();
    tables.apply(Change::Pod(Step::Begin));
    tables.apply(put(cart("cart-2")));
    assert_eq!(due(&mut tables), [""; 0], "it is not listed completely");
    tables.apply(put(cart("cart-3")));
    tables.apply(Change::Pod(Step::Complete));
    assert_eq!(due(&mut tables), ["pod cart-1", "pod cart-3", "pod web-1"]);
    assert!(
        tables
            .dataplane(&crate::controllers::cluster::Id {
                namespace: "shop".into(),
                name: "cart-1".into()
            })
            .shall
            .unwrap()
            .is_empty()
    );
}

#[test]
fn nothing_is_decided_before_everything_was_listed() {
    let mut tables = Tables::new(super::settings());
    tables.mark(Owner::Pod(crate::controllers::cluster::Id {
        namespace: "shop".into(),
        name: "cart-1".into(),
    }));
    for step in [Change::Pod(Step::Complete), Change::Service(Step::Complete)] {
        tables.apply(step);
    }
    assert_eq!(due(&mut tables), [""; 0]);
    tables.apply(Change::Namespace(Step::Complete));
    tables.apply(Change::Node(Step::Complete));
    assert_eq!(due(&mut tables), ["pod cart-1"]);
}
