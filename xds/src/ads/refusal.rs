//! What Envoy says when it refuses something, taken apart by resource.

use delta::{Name, Update};
use std::collections::{BTreeMap, BTreeSet};

/// How much of what Envoy says is read. It says a little more than half of it at most.
const TEXT: usize = 8192;
/// Ends what Envoy says if it had more to say.
const TRUNCATED: &str = "...(truncated)";
/// Says that a socket cannot be bound: somebody else has the address, or nobody has it here yet.
const CANNOT_BIND: &str = "cannot bind";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// What Envoy says, as it says it.
    pub text: String,
    /// What it refused, each with its own reason.
    pub reasons: BTreeMap<Name, String>,
    /// What it did not come to, because its text is full: it may have refused these or not.
    pub untold: BTreeSet<Name>,
}

impl Refusal {
    /// What `text` says about an update. Envoy names what it refused, each with a reason. If it names
    /// nothing, it means all of it.
    pub(super) fn of(update: &Update, mut text: String) -> Self {
        let is_full = text.trim_end().ends_with(TRUNCATED) || text.len() > TEXT;
        text.truncate(text.floor_char_boundary(TEXT));
        let upserts = || update.upserts.iter().map(|item| &item.name);
        let all = || upserts().chain(update.removals.iter());
        let known: BTreeSet<&str> = all().map(|name| &**name).collect();
        let mut reasons = told(&text, &known);
        let mut untold = BTreeSet::new();
        if reasons.is_empty() {
            reasons.extend(all().map(|name| (name.clone(), text.clone())));
        } else if is_full {
            // It goes through them in the order in which they were sent.
            let last = upserts().rposition(|name| reasons.contains_key(name));
            untold.extend(upserts().skip(last.map_or(0, |last| last + 1)).cloned());
        }
        Self { text, reasons, untold }
    }

    /// Whether `name` was refused for a reason that may pass by itself: its socket cannot be bound.
    #[must_use]
    pub fn cannot_bind(&self, name: &Name) -> bool {
        self.reasons.get(name).is_some_and(|reason| reason.contains(CANNOT_BIND))
    }
}

/// The reasons that are given as `name: reason`, one after the other.
fn told(text: &str, known: &BTreeSet<&str>) -> BTreeMap<Name, String> {
    let mut found: Vec<(&str, usize, usize)> = Vec::new();
    let mut at = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let end = at + word.len();
        if let Some(name) = word.trim_end().strip_suffix(':')
            && known.contains(name)
        {
            found.push((name, at, end));
        }
        at = end;
    }
    let ends = found.iter().skip(1).map(|(_, at, _)| *at).chain([text.len()]);
    let mut reasons = BTreeMap::new();
    for ((name, _, begins), ends) in found.iter().zip(ends) {
        let reason = text.get(*begins..ends).unwrap_or_default();
        let reason = reason.trim().trim_end_matches(',');
        // Of several the first: a later one may be part of somebody else's reason.
        reasons.entry(Name::from(*name)).or_insert_with(|| reason.to_owned());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use delta::{Item, Nonce, Version};

    fn update(names: &[&str]) -> Update {
        let item = |name: &&str| Item {
            name: (*name).into(),
            version: Version([1; 16]),
            bytes: Bytes::new(),
        };
        let upserts = names.iter().map(item).collect();
        Update { nonce: Nonce(1), upserts, removals: [].into() }
    }

    fn of(names: &[&str], text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let Refusal { reasons, untold, .. } = Refusal::of(&update(names), text.into());
        let reasons = reasons.into_iter().map(|(name, reason)| (name.to_string(), reason));
        (reasons.collect(), untold.iter().map(|name| name.to_string()).collect())
    }

    fn reasons(reasons: &[(&str, &str)]) -> Vec<(String, String)> {
        reasons.iter().map(|(name, reason)| ((*name).into(), (*reason).into())).collect()
    }

    const IN_USE: &str = "cannot bind '127.0.0.1:80': Address already in use";

    #[test]
    fn each_has_its_own_reason() {
        let text = format!(
            "Error adding/updating listener(s) in_http2: {IN_USE}\nkri_x: partial wildcards: none\n"
        );
        let refused = reasons(&[("in_http2", IN_USE), ("kri_x", "partial wildcards: none")]);
        let names = ["in_http", "in_http2", "kri_x"];
        assert_eq!(of(&names, &text), (refused, vec![]), "and in_http is not in_http2");
        let text = "Error adding/updating cluster(s) a: no such, b: nor that";
        let refused = reasons(&[("a", "no such"), ("b", "nor that")]);
        assert_eq!(of(&["a", "b"], text), (refused, vec![]));
    }

    #[test]
    fn who_names_nothing_means_all_of_it() {
        let refused = reasons(&[("a", "no: b is bad"), ("b", "no: b is bad")]);
        assert_eq!(of(&["a", "b"], "no: b is bad"), (refused, vec![]));
    }

    #[test]
    fn what_a_text_that_is_full_does_not_come_to_is_open() {
        let text = format!("Error adding/updating listener(s) b: {IN_USE}\nc: can...(truncated)");
        let refused = reasons(&[("b", IN_USE), ("c", "can...(truncated)")]);
        assert_eq!(of(&["a", "b", "c", "d", "e"], &text), (refused, vec!["d".into(), "e".into()]));
        let endless = format!("a: {}", "x".repeat(2 * TEXT));
        assert_eq!(of(&["a", "b"], &endless).1, ["b"]);
        assert_eq!(Refusal::of(&update(&["a"]), endless).text.len(), TEXT);
    }

    #[test]
    fn only_a_socket_that_cannot_be_bound_may_pass_by_itself() {
        let text = format!("a: {IN_USE}\nb: unknown filter\n");
        let refusal = Refusal::of(&update(&["a", "b", "c"]), text);
        let passing = ["a", "b", "c"].map(|name| refusal.cannot_bind(&name.into()));
        assert_eq!(passing, [true, false, false]);
    }
}
