//! Patches of JSON documents, by RFC 6902.

use resource::Violations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a step of a patch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PatchOp {
    /// Puts a value somewhere.
    Add,
    /// Takes one away.
    Remove,
    /// Puts a value in the place of another.
    Replace,
    /// Moves one.
    Move,
    /// Copies one.
    Copy,
}

/// Where a step of a patch takes effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// What it does.
    pub(crate) op: PatchOp,
    /// Where.
    pub(crate) path: &'a str,
    /// Where it takes a value from.
    pub(crate) from: Option<&'a str>,
    /// Whether it brings a value.
    pub(crate) has_value: bool,
}

impl Step<'_> {
    /// Reports what is wrong with it at `place`.
    pub(crate) fn check(self, place: &str, violations: &mut Violations) {
        check_pointer(&format!("{place}.path"), self.path, violations);
        match self.op {
            PatchOp::Add | PatchOp::Replace if !self.has_value => {
                let name = if self.op == PatchOp::Add { "add" } else { "replace" };
                let place = format_args!("{place}.value");
                violations.add(place, format_args!("must be defined when op is {name}"));
            }
            PatchOp::Move | PatchOp::Copy => {
                let place = format!("{place}.from");
                match self.from {
                    Some(from) => check_pointer(&place, from, violations),
                    None => {
                        let name = if self.op == PatchOp::Move { "move" } else { "copy" };
                        violations.add(place, format_args!("must be defined when op is {name}"));
                    }
                }
            }
            PatchOp::Add | PatchOp::Replace | PatchOp::Remove => {}
        }
    }
}

fn check_pointer(place: &str, pointer: &str, violations: &mut Violations) {
    // After a tilde there is nothing but the 0 and 1 that it is written as an escape for.
    let escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !(pointer.is_empty() || pointer.starts_with('/')) || !escapes {
        violations.add(place, "must be a JSON pointer such as /spec/containers/0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(op: PatchOp, path: &str, from: Option<&str>, has_value: bool) -> String {
        let mut violations = Violations::default();
        Step { op, path, from, has_value }.check("p", &mut violations);
        violations.to_string()
    }

    #[test]
    fn a_step_has_what_it_needs() {
        for (found, expected) in [
            (wrong(PatchOp::Add, "/a~1b~0c/-", None, true), ""),
            (wrong(PatchOp::Remove, "", None, false), ""),
            (wrong(PatchOp::Move, "/a", Some("/b"), false), ""),
            (wrong(PatchOp::Add, "/a", None, false), "p.value: must be defined when op is add"),
            (
                wrong(PatchOp::Replace, "/a", None, false),
                "p.value: must be defined when op is replace",
            ),
            (wrong(PatchOp::Move, "/a", None, false), "p.from: must be defined when op is move"),
            (wrong(PatchOp::Copy, "/a", None, false), "p.from: must be defined when op is copy"),
            (
                wrong(PatchOp::Copy, "a", Some("/~2"), false),
                "p.path: must be a JSON pointer such as /spec/containers/0; \
                 p.from: must be a JSON pointer such as /spec/containers/0",
            ),
        ] {
            assert_eq!(found, expected);
        }
    }
}
