//! Answers that refuse.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use resource::{RejectedSpec, Violations};
use serde::Serialize;
use std::fmt;
use store::StoreError;

/// What a refused request is told. Its shape is that of Kuma's errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    title: String,
    detail: String,
    parameters: Vec<(String, String)>,
}

/// What nobody may be told more about.
const NOT_VALID: &str = "Resource is not valid";

impl Problem {
    /// A refusal with `status`, saying what could not be done and why.
    #[must_use]
    pub fn new(status: StatusCode, title: &str, detail: impl fmt::Display) -> Self {
        Self { status, title: title.into(), detail: detail.to_string(), parameters: Vec::new() }
    }

    /// The request breaks rules: each with its place.
    #[must_use]
    pub fn invalid(title: &str, violations: &Violations) -> Self {
        let parameters = violations.iter().map(|v| (v.path.clone(), v.reason.clone())).collect();
        Self { parameters, ..Self::new(StatusCode::BAD_REQUEST, title, NOT_VALID) }
    }

    /// One field breaks a rule.
    #[must_use]
    pub fn field(title: &str, field: impl fmt::Display, reason: impl fmt::Display) -> Self {
        let mut violations = Violations::default();
        violations.add(field, reason);
        Self::invalid(title, &violations)
    }

    /// A spec was refused.
    #[must_use]
    pub fn rejected(title: &str, rejected: &RejectedSpec) -> Self {
        match rejected {
            RejectedSpec::Invalid { violations, .. } => Self::invalid(title, violations),
            RejectedSpec::Malformed { kind, source } => Self::new(
                StatusCode::BAD_REQUEST,
                "Bad Request",
                format_args!("invalid {kind} object: {source}"),
            ),
        }
    }

    /// The same refusal with one more field that it is about.
    #[must_use]
    pub fn with_field(mut self, field: &str, reason: impl fmt::Display) -> Self {
        self.parameters.push((field.into(), reason.to_string()));
        self
    }

    /// There is nothing of this name.
    #[must_use]
    pub fn not_found(title: &str, detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, title, detail)
    }

    /// Something else is there, or came in between.
    #[must_use]
    pub fn conflict(title: &str, detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, title, detail)
    }

    /// The user is known and may not.
    #[must_use]
    pub fn denied(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Access Denied", detail)
    }

    /// The status it answers with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)?;
        for (field, reason) in &self.parameters {
            write!(f, "; {field}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // The client learns that it may try again; what is wrong with the disk is for the log.
        tracing::error!(error = %chain(&error), "the store refused a write");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Service unavailable",
            "the store is not available",
        )
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    status: u16,
    title: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    invalid_parameters: Vec<InvalidParameter<'a>>,
    // Older clients read these two instead.
    details: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause<'a>>,
}

#[derive(Serialize)]
struct InvalidParameter<'a> {
    field: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Cause<'a> {
    field: &'a str,
    message: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, title, detail, parameters } = &self;
        let parameters = || parameters.iter().map(|(field, reason)| (&**field, &**reason));
        let body = Body {
            r#type: "/std-errors",
            status: status.as_u16(),
            title,
            detail,
            details: detail,
            invalid_parameters: parameters()
                .map(|(field, reason)| InvalidParameter { field, reason })
                .collect(),
            causes: parameters().map(|(field, message)| Cause { field, message }).collect(),
        };
        let challenge =
            (*status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
        (*status, challenge, Json(body)).into_response()
    }
}
