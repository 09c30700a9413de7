//! The row in which a zone remembers where it is in the history of its global.
//!
//! It changes with every beacon, but to resume from an older place is safe: that alone is written
//! only when something else is. What it was is written last, so that what is remembered is there.

use resource::{Kind, Resource, ResourceKey};
use serde_json::Value;

const KIND: &str = "Config";
const ROW: &str = "atoll-global";

/// Whether it is that row.
pub(super) fn is_memory(kind: &str, key: &ResourceKey) -> bool {
    kind == KIND && &*key.name == ROW
}

/// Whether only places differ.
pub(super) fn only_moves(kind: &Kind, before: &Resource, after: &Resource) -> bool {
    let before = fixed(kind, before);
    before.is_some() && before == fixed(kind, after)
}

/// What is remembered but for places.
fn fixed(kind: &Kind, row: &Resource) -> Option<Value> {
    let json = kind.to_json(&row.spec).ok()?;
    let mut json: Value = serde_json::from_str(json.get("config")?.as_str()?).ok()?;
    let memory = json.as_object_mut()?;
    memory.remove("revision");
    for place in memory.get_mut("kinds")?.as_object_mut()?.values_mut() {
        place.as_object_mut()?.remove("at");
    }
    Some(json)
}
