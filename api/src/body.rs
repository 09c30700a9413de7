//! Bodies of requests: read within bounds, JSON or YAML by their content type.

use super::{Problem, limits};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Format::Yaml),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported Media Type",
            "content-type must be application/json or application/yaml",
        )),
    }
}

/// The document in a request's body. `what` names it where it is malformed.
pub(crate) async fn document(
    headers: &HeaderMap,
    body: Body,
    what: &str,
) -> Result<Value, Problem> {
    let format = format(headers)?;
    let bytes = bytes(body).await?;
    let malformed = |reason: String| {
        let detail = format_args!("invalid {what} object: {reason}");
        Problem::new(StatusCode::BAD_REQUEST, "Bad Request", detail)
    };
    let document: Value = match format {
        Format::Json => {
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?
        }
        Format::Yaml => {
            let text = std::str::from_utf8(&bytes).map_err(|error| malformed(error.to_string()))?;
            yaml(text).map_err(malformed)?
        }
    };
    if depth(&document) > limits::BODY_DEPTH {
        return Err(malformed(format!("nested more than {} deep", limits::BODY_DEPTH)));
    }
    Ok(document)
}

fn yaml(text: &str) -> Result<Value, String> {
    // A snippet could show a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + below.unwrap_or(0)
}

async fn bytes(body: Body) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(limits::BODY_TIME, to_bytes(body, limits::BODY)).await;
    let Ok(read) = read else {
        let detail = "the body did not arrive in time";
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Request Timeout", detail));
    };
    read.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if too_large {
            let detail = format_args!("a body may have {} bytes", limits::BODY);
            Problem::new(StatusCode::BAD_REQUEST, "Bad Request", detail)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "Bad Request", "the body ended early")
        }
    })
}

/// Refuses unless JSON, whole or by lines, may be answered.
pub(crate) fn check_accept(headers: &HeaderMap) -> Result<(), Problem> {
    let mut accepted = headers.get_all(header::ACCEPT).iter().peekable();
    if accepted.peek().is_none() {
        return Ok(());
    }
    let json = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let known = ["application/json", "application/x-ndjson", "application/*", "*/*"];
        let matches = parts.next().is_some_and(|range| known.contains(&range));
        matches && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    };
    let ranges =
        accepted.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if ranges.map(str::trim).any(json) {
        Ok(())
    } else {
        let detail = "available representations: application/json";
        Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "Not Acceptable", detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))])
    }

    async fn read(content_type: &'static str, body: impl Into<Body>) -> Result<Value, String> {
        let headers = with(header::CONTENT_TYPE, content_type);
        let read = document(&headers, body.into(), "MeshTimeout").await;
        read.map_err(|problem| problem.to_string())
    }

    #[tokio::test]
    async fn a_body_is_read_as_what_it_says_it_is() {
        let document = serde_json::json!({"a": [1, {"b": "c"}]});
        let yaml = "a:\n- 1\n- b: c\n";
        assert_eq!(
            read("application/json; charset=utf-8", document.to_string()).await,
            Ok(document.clone())
        );
        assert_eq!(read("Application/YAML", yaml).await, Ok(document));
        assert!(
            read("application/json", yaml)
                .await
                .unwrap_err()
                .starts_with("Bad Request: invalid MeshTimeout object: ")
        );
        assert_eq!(
            read("text/plain", "{}").await.unwrap_err(),
            "Unsupported Media Type: content-type must be application/json or application/yaml"
        );
    }

    #[tokio::test]
    async fn a_body_has_bounds() {
        let large = format!("\"{}\"", "x".repeat(limits::BODY - 2));
        assert!(read("application/json", large.clone()).await.is_ok());
        assert_eq!(
            read("application/json", large + " ").await.unwrap_err(),
            "Bad Request: a body may have 1048576 bytes"
        );
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(read("application/json", deep(limits::BODY_DEPTH)).await.is_ok());
        assert_eq!(
            read("application/json", deep(limits::BODY_DEPTH + 1)).await.unwrap_err(),
            "Bad Request: invalid MeshTimeout object: nested more than 64 deep"
        );
    }

    #[tokio::test]
    async fn a_yaml_bomb_is_refused() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (this, last) in ["b", "c", "d", "e", "f", "g", "h", "i"]
            .iter()
            .zip(["a", "b", "c", "d", "e", "f", "g", "h"])
        {
            bomb += &format!(
                "{this}: &{this} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n"
            );
        }
        assert!(read("application/yaml", bomb).await.unwrap_err().starts_with("Bad Request"));
    }

    #[test]
    fn json_is_answered_to_those_who_take_it() {
        let accepted =
            |value| check_accept(&with(header::ACCEPT, value)).map_err(|problem| problem.status());
        assert!(check_accept(&HeaderMap::new()).is_ok());
        for good in ["application/json", "*/*", "application/json;q=0.5, application/yaml"] {
            assert_eq!(accepted(good), Ok(()), "{good}");
        }
        for bad in ["application/yaml", "text/html", "application/json;q=0"] {
            assert_eq!(accepted(bad), Err(StatusCode::NOT_ACCEPTABLE), "{bad}");
        }
    }
}
