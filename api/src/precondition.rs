//! `If-Match` and `If-None-Match`: what must be there for a write to be done.

use super::Problem;
use http::{
    HeaderMap, StatusCode,
    header::{self, HeaderName},
};
use resource::Resource;

/// The entity tags of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    These(Vec<String>),
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            let malformed = || {
                let detail = format_args!("{name} must be * or quoted entity tags");
                Problem::new(StatusCode::BAD_REQUEST, "Bad Request", detail)
            };
            for tag in value.to_str().map_err(|_| malformed())?.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Some(Self::Any));
                }
                let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                tags.push(quoted.ok_or_else(malformed)?.to_owned());
            }
        }
        Ok((!tags.is_empty()).then_some(Self::These(tags)))
    }

    fn match_row(&self, row: Option<&Resource>) -> bool {
        match (self, row) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(row)) => tags.contains(&row.head.version.to_string()),
        }
    }
}

/// What a client demands of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Precondition {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
}

impl Precondition {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            matches: Tags::of(headers, &header::IF_MATCH)?,
            none_matches: Tags::of(headers, &header::IF_NONE_MATCH)?,
        })
    }

    pub(crate) fn check(&self, row: Option<&Resource>) -> Result<(), Problem> {
        let refuse = |detail: String| {
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, "Precondition Failed", detail))
        };
        if self.matches.as_ref().is_some_and(|tags| !tags.match_row(row)) {
            let there = row.map_or_else(
                || "nothing".into(),
                |row| format!("{:?}", row.head.version.to_string()),
            );
            return refuse(format!("{there} is stored, which If-Match does not name"));
        }
        if self.none_matches.as_ref().is_some_and(|tags| tags.match_row(row)) {
            return refuse("it is stored already".into());
        }
        Ok(())
    }
}
