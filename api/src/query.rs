//! What a list is asked for.

use super::{Problem, limits};
use http::{StatusCode, Uri};
use kinds::dataplane::{self, Dataplane};
use resource::{Kind, Labels, Resource};

const TITLE: &str = "Could not retrieve resources";

/// The query of a request, decoded, in the order it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == limits::QUERY_PARAMETERS {
                let detail =
                    format_args!("more than {} query parameters", limits::QUERY_PARAMETERS);
                return Err(Problem::new(StatusCode::BAD_REQUEST, "Bad Request", detail));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decoded(key), decoded(value)));
        }
        Ok(Self(pairs))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| &**value)
    }

    /// Whether a switch is on: `?key`, `?key=true` or `?key=1`.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        matches!(self.get(key), Some("" | "true" | "1"))
    }
}

/// Undoes percent-encoding; what is not UTF-8 then matches nothing.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                match (hex(ahead.next()), hex(ahead.next())) {
                    (Some(high), Some(low)) => {
                        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                        rest = ahead;
                    }
                    _ => bytes.push(b'%'),
                }
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) size: usize,
    pub(crate) offset: usize,
}

impl Page {
    pub(crate) fn of(query: &Query) -> Result<Self, Problem> {
        let bad_size = |reason: String| {
            Problem::new(StatusCode::BAD_REQUEST, TITLE, "Invalid page size")
                .with_field("size", reason)
        };
        let size = match query.get("size") {
            None => limits::PAGE_DEFAULT,
            Some(text) => {
                let size: i64 = text.parse().map_err(|_| bad_size("invalid format".into()))?;
                let size = usize::try_from(size).ok().filter(|size| *size > 0);
                size.ok_or_else(|| bad_size("must be greater than 0".into()))?
            }
        };
        if size > limits::PAGE_MAX {
            let max = limits::PAGE_MAX;
            return Err(bad_size(format!(
                "invalid page size of {size}. Maximum page size is {max}"
            )));
        }
        let offset = match query.get("offset") {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                let reason = "must be a number that is not negative";
                Problem::new(StatusCode::BAD_REQUEST, TITLE, "Invalid offset")
                    .with_field("offset", reason)
            })?,
        };
        Ok(Self { size, offset })
    }

    /// The address of the page after this one, with everything else that was asked for.
    pub(crate) fn next(self, base: &str, path: &str, query: &Query) -> String {
        let mut pairs: Vec<(String, String)> = query.0.clone();
        pairs.retain(|(key, _)| key != "offset" && key != "size");
        pairs.push(("offset".into(), self.offset.saturating_add(self.size).to_string()));
        pairs.push(("size".into(), self.size.to_string()));
        pairs.sort();
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{}={}", encoded(key), encoded(value)))
            .collect();
        format!("{base}{path}?{}", pairs.join("&"))
    }
}

/// Which resources of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// A part of the name.
    name: Option<String>,
    /// Labels, all of which must be there.
    labels: Vec<(String, String)>,
    /// For dataplanes.
    proxies: Proxies,
}

/// Which dataplanes of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Proxies {
    /// Labels, or tags of a gateway, each with a part of its value; all must be there.
    tags: Vec<(String, String)>,
    /// Whether they are gateways.
    gateway: Option<bool>,
}

impl Proxies {
    fn of(query: &Query) -> Result<Self, Problem> {
        let gateway = match query.get("gateway") {
            None => None,
            // There are no others than those that somebody else runs.
            Some("true" | "delegated") => Some(true),
            Some("false") => Some(false),
            Some(_) => {
                let reason = r#""gateway" must be one of ["true", "false", "delegated"]"#;
                return Err(Problem::field(TITLE, "gateway", reason));
            }
        };
        let tags = query.0.iter().filter(|(key, _)| key == "tag").map(|(_, tag)| {
            let pair = tag.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.ok_or_else(|| Problem::field(TITLE, "tag", "must be a key and a value: key:value"))
        });
        Ok(Self { tags: tags.collect::<Result<_, _>>()?, gateway })
    }

    const fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.gateway.is_none()
    }

    fn select(&self, row: &Resource) -> bool {
        if self.is_empty() {
            return true;
        }
        let Ok(dataplane) = kinds::read::<Dataplane>(row) else { return false };
        let has = |(key, part): &(String, String)| {
            let values = [row.head.labels.get(key), dataplane.gateway_tag(key)];
            values.into_iter().flatten().any(|value| value.contains(&**part))
        };
        self.gateway.is_none_or(|wanted| wanted == dataplane.is_gateway())
            && self.tags.iter().all(has)
    }
}

impl Filter {
    /// For a list of `kind`. `route` names it where a filter is refused.
    pub(crate) fn of(query: &Query, route: &str, kind: &Kind) -> Result<Self, Problem> {
        let mut filter = Self { name: query.get("name").map(str::to_owned), ..Self::default() };
        if kind.name == dataplane::KIND.name {
            filter.proxies = Proxies::of(query)?;
        }
        let filters = query.0.iter().filter_map(|(key, value)| {
            let inner = key.strip_prefix("filter[")?;
            Some((
                key,
                inner.strip_suffix(']').and_then(|inner| inner.strip_prefix("labels.")),
                value,
            ))
        });
        for (key, label, value) in filters {
            let Some(label) = label.filter(|label| !label.is_empty()) else {
                let field = format_args!("{route}.{key}");
                return Err(Problem::field(TITLE, field, "filters are only supported on labels"));
            };
            filter.labels.push((label.into(), value.clone()));
        }
        Ok(filter)
    }

    /// Whether it lets everything through.
    pub(crate) const fn is_empty(&self) -> bool {
        self.name.is_none() && self.labels.is_empty() && self.proxies.is_empty()
    }

    /// The part that names must have.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Whether it looks at nothing but names.
    pub(crate) const fn is_by_name(&self) -> bool {
        self.labels.is_empty() && self.proxies.is_empty()
    }

    pub(crate) fn selects(&self, row: &Resource) -> bool {
        let labels: &Labels = &row.head.labels;
        row.head.key.name.contains(self.name())
            && labels.contain(self.labels.iter().map(|(key, value)| (&**key, &**value)))
            && self.proxies.select(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinds::mesh_timeout;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn a_query_is_decoded() {
        let pairs = [("filter[labels.a/b]", "x y"), ("bad", "%zz%"), ("on", "")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(query("filter%5Blabels.a%2Fb%5D=x+y&bad=%zz%&&on"), Query(pairs.into()));
        assert!(query("on").is_set("on") && !query("on=no").is_set("on"));
    }

    #[test]
    fn a_page_has_a_size_within_bounds() {
        let page = |text: &str| Page::of(&query(text)).map_err(|problem| problem.to_string());
        assert_eq!(page(""), Ok(Page { size: 100, offset: 0 }));
        assert_eq!(page("size=1000&offset=7"), Ok(Page { size: 1000, offset: 7 }));
        let title = "Could not retrieve resources: Invalid";
        for (text, refusal) in [
            ("size=0", "page size; size: must be greater than 0"),
            ("size=-1", "page size; size: must be greater than 0"),
            ("size=x", "page size; size: invalid format"),
            ("size=1001", "page size; size: invalid page size of 1001. Maximum page size is 1000"),
            ("offset=-1", "offset; offset: must be a number that is not negative"),
            ("offset=x", "offset; offset: must be a number that is not negative"),
        ] {
            assert_eq!(page(text).unwrap_err(), format!("{title} {refusal}"));
        }
    }

    #[test]
    fn the_next_page_is_asked_for_with_the_same_filters() {
        let query = query("filter%5Blabels.team%5D=b&size=1");
        let page = Page::of(&query).unwrap();
        assert_eq!(
            page.next("http://127.0.0.1:5681", "/meshes/default/meshtimeouts", &query),
            "http://127.0.0.1:5681/meshes/default/meshtimeouts?filter%5Blabels.team%5D=b&offset=1&size=1"
        );
    }

    #[test]
    fn filters_are_for_labels_only() {
        let filter = |text: &str| {
            Filter::of(&query(text), "/meshtimeouts", &mesh_timeout::KIND.kind)
                .map_err(|p| p.to_string())
        };
        assert_eq!(
            filter("name=l&filter[labels.team]=a&nonsense=1"),
            Ok(Filter {
                name: Some("l".into()),
                labels: vec![("team".into(), "a".into())],
                ..Filter::default()
            })
        );
        for bad in ["filter[name]", "filter[labels.]", "filter[labels.x"] {
            assert_eq!(
                filter(&format!("{bad}=l1")).unwrap_err(),
                format!(
                    "Could not retrieve resources: Resource is not valid; /meshtimeouts.{bad}: filters are only supported on labels"
                )
            );
        }
    }
}
