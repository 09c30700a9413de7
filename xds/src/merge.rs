//! Merging of settings: what a later policy says replaces what an earlier one said, field by field.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Fields whose lists grow instead of being replaced.
const APPEND: &str = "append";

/// Applies `patch` to `target` as RFC 7396 says, but for lists named `append…`, which go on at the
/// end.
pub(crate) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        match (fields.get_mut(&name), value) {
            (_, Value::Null) => drop(fields.remove(&name)),
            (Some(Value::Array(list)), Value::Array(more)) if name.starts_with(APPEND) => {
                list.extend(more);
            }
            (Some(field), value) => merge(field, value),
            (None, value) => merge(fields.entry(name).or_insert(Value::Null), value),
        }
    }
}

/// The settings of all of `confs`, later ones before earlier ones. Where they do not fit together,
/// which no kind should make possible, the last one counts alone.
#[must_use]
pub(crate) fn merged<'a, C>(confs: impl IntoIterator<Item = &'a Value>) -> C
where
    C: DeserializeOwned + Default,
{
    let (mut all, mut last) = (Value::Object(Map::new()), None);
    for conf in confs {
        merge(&mut all, conf.clone());
        last = Some(conf);
    }
    let alone = || last.and_then(|conf| C::deserialize(conf).ok()).unwrap_or_default();
    C::deserialize(&all).unwrap_or_else(|_| alone())
}

/// Settings as JSON, in which they are merged.
pub(crate) fn json(conf: &impl Serialize) -> Value {
    serde_json::to_value(conf).expect("settings came from JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(mut target: Value, patch: Value) -> Value {
        merge(&mut target, patch);
        target
    }

    #[test]
    fn fields_are_replaced_one_by_one() {
        // The examples of RFC 7396, appendix A, that are not about lists of our own.
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (target, patch, result) in cases {
            assert_eq!(patched(target, patch), result);
        }
    }

    #[test]
    fn lists_to_append_to_go_on() {
        let (one, two) = (json!({"appendMatch": [1], "list": [1]}), json!({"appendMatch": [2]}));
        assert_eq!(patched(one, two), json!({"appendMatch": [1, 2], "list": [1]}));
        assert_eq!(patched(json!({}), json!({"appendMatch": [1]})), json!({"appendMatch": [1]}));
    }

    #[test]
    fn what_does_not_fit_together_is_the_last_alone() {
        #[derive(Debug, Default, PartialEq, serde::Deserialize)]
        enum One {
            #[default]
            None,
            A(u8),
            B(u8),
        }
        let (a, b) = (json!({"A": 1}), json!({"B": 2}));
        assert_eq!(merged::<One>([&a]), One::A(1));
        assert_eq!(merged::<One>([&a, &b]), One::B(2));
        assert_eq!(merged::<One>([]), One::None);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<u8>().prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..3).prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(target in value(), patch in value()) {
            let once = patched(target, patch.clone());
            prop_assert_eq!(patched(once.clone(), patch), once);
        }

        #[test]
        fn what_a_patch_says_is_so_afterwards(target in value(), patch in value()) {
            prop_assert!(says(&patched(target, patch.clone()), &patch));
        }
    }

    fn says(result: &Value, patch: &Value) -> bool {
        let (Value::Object(patch), Some(result)) = (patch, result.as_object()) else {
            return result == patch;
        };
        patch.iter().all(|(name, value)| match result.get(name) {
            Some(field) => says(field, value),
            None => value.is_null(),
        })
    }
}
