//! The steps that make one document of another, in the form of RFC 6902.

use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation,
    jsonptr::{PointerBuf, Token},
};
use serde_json::{Value, json};

/// An object of those of `fields` that there are.
pub(crate) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(name, field)| Some((name, field?))).collect()
}

/// Steps that were collected for a document.
#[derive(Debug)]
pub(crate) struct Edits<'a> {
    document: &'a Value,
    made: Vec<PointerBuf>,
    steps: Vec<PatchOperation>,
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().map(|token| Token::new(*token)))
}

impl<'a> Edits<'a> {
    pub(crate) const fn of(document: &'a Value) -> Self {
        Self { document, made: Vec::new(), steps: Vec::new() }
    }

    pub(crate) fn done(self) -> Patch {
        Patch(self.steps)
    }

    /// Sets a field of an object that may be missing itself.
    pub(crate) fn set(&mut self, object: &[&str], field: &str, value: Value) {
        self.ensure(object, json!({}));
        self.add(&[object, &[field]].concat(), value);
    }

    /// Puts a value into a list that may be missing, before the element that is there at `index`.
    pub(crate) fn insert(&mut self, list: &[&str], index: usize, value: Value) {
        self.ensure(list, json!([]));
        self.add(&[list, &[&index.to_string()]].concat(), value);
    }

    /// Puts a value behind all others of a list that may be missing.
    pub(crate) fn append(&mut self, list: &[&str], value: Value) {
        self.ensure(list, json!([]));
        self.add(&[list, &["-"]].concat(), value);
    }

    /// Puts a value in the place of one that is there.
    pub(crate) fn replace(&mut self, path: &[&str], value: Value) {
        let path = pointer(path);
        self.steps.push(PatchOperation::Replace(ReplaceOperation { path, value }));
    }

    /// Takes away a value that is there.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        self.steps.push(PatchOperation::Remove(RemoveOperation { path: pointer(path) }));
    }

    fn add(&mut self, path: &[&str], value: Value) {
        let path = pointer(path);
        self.steps.push(PatchOperation::Add(AddOperation { path, value }));
    }

    fn ensure(&mut self, path: &[&str], empty: Value) {
        let at = pointer(path);
        // A field that is null is none to Kubernetes.
        let there = self.document.pointer(at.as_str()).is_some_and(|value| !value.is_null());
        if !there && !self.made.contains(&at) {
            self.add(path, empty);
            self.made.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_once_and_names_are_escaped() {
        let mut document = json!({ "list": [1, 3], "none": null, "gone": 1 });
        let before = document.clone();
        let mut edits = Edits::of(&before);
        edits.set(&["none"], "a/b~c", 1.into());
        edits.set(&["none"], "d", 2.into());
        edits.insert(&["list"], 1, 2.into());
        edits.append(&["more"], 4.into());
        edits.append(&["more"], 5.into());
        edits.replace(&["list", "0"], 0.into());
        edits.remove(&["gone"]);
        json_patch::patch(&mut document, &edits.done()).unwrap();
        let expected = json!({
            "list": [0, 2, 3], "more": [4, 5], "none": { "a/b~c": 1, "d": 2 },
        });
        assert_eq!(document, expected);
    }
}
