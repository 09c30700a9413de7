//! Requests to the API of a control plane.

use crate::connection::{Connection, Target};
use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// A control plane's API.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    http: reqwest::Client,
}

impl Client {
    /// A client of the control plane that `connection` means. Connects with the first request.
    pub(crate) fn new(connection: &Connection) -> Result<Self> {
        Self::of(connection.resolve()?)
    }

    pub(crate) fn of(target: Target) -> Result<Self> {
        // Set already when several clients are made.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let certificates = match &target.ca {
            Some(pem) => reqwest::Certificate::from_pem_bundle(pem.as_bytes()).context("CA")?,
            None => Vec::new(),
        };
        let http = reqwest::Client::builder()
            .tls_certs_only(certificates)
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { target, http })
    }

    /// The authorities of its certificate, as PEM.
    pub(crate) fn ca(&self) -> Option<&str> {
        self.target.ca.as_deref()
    }

    /// What the API answers to a GET of `path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let (_, body) = self.request(Method::GET, path, None).await?;
        Ok(serde_json::from_str(&body)?)
    }

    /// Every item of a list, page by page.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let (mut items, mut offset) = (Vec::new(), 0_usize);
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{mark}size=1000&offset={offset}")).await?;
            let more = page.get("items").and_then(Value::as_array).context("not a list")?;
            items.extend(more.iter().cloned());
            if page.get("next").is_none_or(Value::is_null) || more.is_empty() {
                return Ok(items);
            }
            offset += more.len();
        }
    }

    /// Sends a request. An answer that is no success is an error that says what the API said.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, String)> {
        let mut tokens = self.target.tokens.iter();
        let mut token = tokens.next();
        let response = loop {
            let response = self.send(method.clone(), path, body, token).await?;
            // On a machine with several control planes the next one may be meant.
            match tokens.next() {
                Some(next) if response.status() == StatusCode::UNAUTHORIZED => token = Some(next),
                _ => break response,
            }
        };
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{}", refusal(status, &text));
        }
        Ok((status, text))
    }
}

impl Client {
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&String>,
    ) -> Result<reqwest::Response> {
        let address = &self.target.address;
        let mut request = self.http.request(method, format!("{address}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.with_context(|| format!("no answer from {address}"))
    }
}

/// What went wrong, with every violation on a line of its own.
fn refusal(status: StatusCode, body: &str) -> String {
    let Ok(error) = serde_json::from_str::<Value>(body) else {
        return format!("{status}: {}", body.trim());
    };
    let text = |value: &Value, field: &str| {
        value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut message = text(&error, "title");
    let detail = text(&error, "detail");
    if !detail.is_empty() && detail != message {
        message = format!("{message}: {detail}");
    }
    for violation in error.get("invalid_parameters").and_then(Value::as_array).into_iter().flatten()
    {
        message += &format!("\n  {}: {}", text(violation, "field"), text(violation, "reason"));
    }
    format!("{message} ({})", status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_every_violation() {
        let body = r#"{"type":"/std-errors","status":400,"title":"Could not process a resource",
            "detail":"Resource is not valid","invalid_parameters":[
            {"field":"spec.to[0]","reason":"must not be empty"},{"field":"name","reason":"bad"}]}"#;
        assert_eq!(
            refusal(StatusCode::BAD_REQUEST, body),
            "Could not process a resource: Resource is not valid\n  spec.to[0]: must not be empty\n  \
             name: bad (400)"
        );
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, "nope\n"), "502 Bad Gateway: nope");
    }
}
