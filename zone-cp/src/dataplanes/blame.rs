//! What Envoy says of what it refuses, taken apart.

use super::limits;
use delta::Name;
use std::collections::BTreeMap;

/// What comes before the first line.
const OF_LISTENERS: &str = "Error adding/updating listener(s) ";

/// What Envoy says of each of the resources that it means by `text`: of listeners it has a line for
/// each, which begins with its name. Elsewhere those are meant that it names, or all of `sent` if it
/// names none, and all is said of each.
pub(super) fn blamed<'a>(
    sent: impl Iterator<Item = &'a Name>,
    text: &str,
) -> BTreeMap<Name, String> {
    let sent: Vec<&Name> = sent.collect();
    let lines = text.strip_prefix(OF_LISTENERS).into_iter().flat_map(str::lines);
    let lines: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
    let line = |name: &Name| lines.get(&**name).map(|said| (name.clone(), short(said)));
    let each: BTreeMap<Name, String> = sent.iter().filter_map(|name| line(name)).collect();
    if !each.is_empty() {
        return each;
    }
    let (text, named) = (short(text), |name: &&&Name| text.contains(&****name));
    let means_all = !sent.iter().any(|name| named(&name));
    let meant = sent.iter().filter(|name| means_all || named(name));
    meant.map(|&name| (name.clone(), text.clone())).collect()
}

fn short(text: &str) -> String {
    text.trim_end().chars().take(limits::PROBLEM).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed_of(sent: &[&str], text: &str) -> Vec<(String, String)> {
        let sent: Vec<Name> = sent.iter().map(|&name| name.into()).collect();
        let blamed = blamed(sent.iter(), text).into_iter();
        blamed.map(|(name, said)| (name.to_string(), said)).collect()
    }

    fn all(said: &[(&str, &str)]) -> Vec<(String, String)> {
        said.iter().map(|(name, said)| ((*name).to_owned(), (*said).to_owned())).collect()
    }

    #[test]
    fn each_listener_has_its_own_line() {
        let text = "Error adding/updating listener(s) cart_http2: cannot bind '241.0.0.1:80'\n\
                    shop: cannot bind '241.0.0.2:80': Address already in use\n";
        let expected = all(&[
            ("cart_http2", "cannot bind '241.0.0.1:80'"),
            ("shop", "cannot bind '241.0.0.2:80': Address already in use"),
        ]);
        assert_eq!(blamed_of(&["cart_http", "cart_http2", "shop", "web"], text), expected);
    }

    #[test]
    fn who_is_far_down_is_blamed_too() {
        let line = |n: usize| format!("listener-{n:04}: cannot bind\n");
        let text: String =
            [OF_LISTENERS.to_owned()].into_iter().chain((0..500).map(line)).collect();
        let expected = all(&[("listener-0499", "cannot bind")]);
        assert_eq!(blamed_of(&["listener-0499", "web"], &text), expected);
    }

    #[test]
    fn who_is_named_otherwise_is_blamed_with_all_that_is_said() {
        let text = "Error adding/updating cluster(s) cart: no such secret, shop: bad";
        let expected = all(&[("cart", text), ("shop", text)]);
        assert_eq!(blamed_of(&["cart", "shop", "web"], text), expected);
        assert_eq!(blamed_of(&["cart"], "no\n"), all(&[("cart", "no")]), "nobody is named");
    }
}
