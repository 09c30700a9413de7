//! Which resources were refused, and why: for people as text, for our own peers as a list.

use crate::limit::{NACK, NACK_LIST, REASON, REASONS, cut};
use delta::Name;
use prost::Message;
use prost_types::{Any, Struct, Value, value::Kind};
use proto::google::rpc::Status;
use std::{collections::BTreeSet, fmt};

/// A resource that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Its name in transit; empty if the whole response was refused.
    pub name: Name,
    /// What is wrong, with the field.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "{}: {}", self.name.escape_debug(), self.reason)
    }
}

/// What a NACK says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// For people.
    pub text: String,
    /// Each resource; empty from a peer that does not say.
    pub list: Vec<Refusal>,
}

impl Refusals {
    /// Says all of `refused`, each on a line of its own.
    #[must_use]
    pub fn of(refused: &[Refusal]) -> Self {
        let line = |reason: &str| cut(reason, REASON).replace(['\r', '\n'], " ");
        let list: Vec<Refusal> = refused
            .iter()
            .map(|refusal| Refusal { name: refusal.name.clone(), reason: line(&refusal.reason) })
            .collect();
        let mut lines: Vec<String> = list.iter().take(REASONS).map(Refusal::to_string).collect();
        if list.len() > REASONS {
            lines.push(format!("and {} more", list.len() - REASONS));
        }
        Self { text: lines.join("\n"), list }
    }

    /// The names, if the peer says them.
    #[must_use]
    pub fn names(&self) -> Option<BTreeSet<Name>> {
        let names: BTreeSet<Name> = self.list.iter().map(|refusal| refusal.name.clone()).collect();
        (!names.is_empty() && !names.contains("")).then_some(names)
    }

    /// As the protocol carries it: its presence is the NACK, its code stays 0. The list is among
    /// the details, which plain peers do not read.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let reason = |refusal: &Refusal| {
            let reason = Value { kind: Some(Kind::StringValue(refusal.reason.clone())) };
            (refusal.name.to_string(), reason)
        };
        let list = Struct { fields: self.list.iter().map(reason).collect() };
        let list = Any { type_url: LIST.into(), value: list.encode_to_vec() };
        // Who gets none takes all of the response for refused.
        let details = [list].into_iter().filter(|list| list.value.len() <= NACK_LIST).collect();
        Status { code: 0, message: self.text.clone(), details }
    }

    /// Reads a NACK, and not more of it than anybody needs.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let list = status.details.iter().find(|detail| detail.type_url == LIST);
        let list = list.and_then(|list| Struct::decode(&*list.value).ok()).unwrap_or_default();
        let refusal = |(name, reason): (String, Value)| Refusal {
            name: name.into(),
            reason: match reason.kind {
                Some(Kind::StringValue(reason)) => cut(&reason, REASON).into(),
                _ => String::new(),
            },
        };
        let list = list.fields.into_iter().map(refusal).collect();
        Self { text: cut(&status.message, NACK).into(), list }
    }
}

const LIST: &str = "type.googleapis.com/google.protobuf.Struct";

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, reason: &str) -> Refusal {
        Refusal { name: name.into(), reason: reason.into() }
    }

    #[test]
    fn a_nack_names_each_resource_on_a_line_of_its_own() {
        let refused = [refusal("a.default", "spec.port: too\nlarge"), refusal("b.default", "no")];
        let refusals = Refusals::of(&refused);
        assert_eq!(refusals.text, "a.default: spec.port: too large\nb.default: no");
        assert_eq!(Refusals::from_status(&refusals.to_status()), refusals);
        let names = ["a.default".into(), "b.default".into()];
        assert_eq!(refusals.names(), Some(names.into()));
    }

    #[test]
    fn a_long_nack_is_cut_for_people_and_whole_for_programs() {
        let refused: Vec<_> = (0..100).map(|i| refusal(&format!("{i}."), "no")).collect();
        let refusals = Refusals::of(&refused);
        assert_eq!(refusals.text.lines().count(), 33);
        assert!(refusals.text.ends_with("and 68 more"), "{}", refusals.text);
        assert_eq!(refusals.list, refused);
    }

    #[test]
    fn a_plain_nack_names_nothing() {
        let status = Status { message: "user error".into(), ..Status::default() };
        let refusals = Refusals::from_status(&status);
        assert_eq!((refusals.names(), &*refusals.text), (None, "user error"));
        let whole = Refusals::of(&[refusal("", "kind Mesh was not asked for")]);
        assert_eq!(whole.names(), None);
    }

    #[test]
    fn as_many_as_are_spelled_out_are_all() {
        let refused: Vec<_> = (0..REASONS).map(|i| refusal(&format!("{i}."), "no")).collect();
        assert_eq!(Refusals::of(&refused).text.lines().last(), Some("31.: no"));
    }

    #[test]
    fn nobody_reads_more_of_a_nack_than_people_do() {
        let long = "x".repeat(NACK + 1);
        let of = Refusals::of(&[refusal("a.", &long)]);
        assert_eq!(of.list, [refusal("a.", &"x".repeat(REASON))]);
        // As somebody else may write it.
        let said = Refusals { text: long.clone(), list: vec![refusal("a.", &long)] };
        let read = Refusals::from_status(&said.to_status());
        assert_eq!((read.text.len(), read.list), (NACK, of.list));
    }
}
