//! What the API server asks, and what it is answered.

use super::super::injection::Refusal;
use crate::edits::object;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use resource::Violations;
use serde::Deserialize;
use serde_json::{Value, json};

/// The only version that is spoken.
const VERSION: &str = "admission.k8s.io/v1";

/// A document that asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    #[serde(default)]
    api_version: String,
    request: Option<Request>,
}

/// What somebody wants to do to an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) kind: GroupKind,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) operation: Operation,
    #[serde(default)]
    pub(super) sub_resource: Option<String>,
    #[serde(default)]
    pub(super) user_info: User,
    #[serde(default)]
    pub(super) object: Value,
    #[serde(default)]
    pub(super) old_object: Value,
}

/// What an object is.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct GroupKind {
    #[serde(default)]
    pub(super) group: String,
    #[serde(default)]
    pub(super) kind: String,
}

/// Who does it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct User {
    #[serde(default)]
    pub(super) username: String,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Review {
    /// Reads a document.
    pub(super) fn read(body: &[u8]) -> Result<Request, String> {
        let review: Self = serde_json::from_slice(body)
            .map_err(|error| format!("this is no AdmissionReview: {error}"))?;
        if review.api_version != VERSION {
            return Err(format!("apiVersion: must be {VERSION}, is {:?}", review.api_version));
        }
        review.request.ok_or_else(|| "request: must be set".to_owned())
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) refusal: Option<Refused>,
    pub(super) patch: Option<json_patch::Patch>,
    pub(super) warnings: Vec<String>,
}

/// Why it is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    message: String,
    /// Field and reason of each cause.
    causes: Vec<(String, String)>,
}

impl Refused {
    /// Whatever the object says: nobody may do this here.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, message: message.into(), causes: Vec::new() }
    }

    /// Something is wrong with the object.
    pub(super) fn invalid(violations: &Violations) -> Self {
        let causes = violations.iter().map(|it| (it.path.clone(), it.reason.clone())).collect();
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { status, message: violations.to_string(), causes }
    }

    /// It is none of what was expected.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), causes: Vec::new() }
    }

    /// Not now.
    pub(super) fn later(message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, message: message.into(), causes: Vec::new() }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    fn reason(&self) -> &'static str {
        match self.status {
            StatusCode::FORBIDDEN => "Forbidden",
            StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            _ => "BadRequest",
        }
    }

    fn to_status(&self) -> Value {
        let causes = self.causes.iter().map(|(field, message)| {
            json!({ "reason": "FieldValueInvalid", "field": field, "message": message })
        });
        let causes: Vec<Value> = causes.collect();
        let fields = [
            ("status", Some("Failure".into())),
            ("code", Some(self.status.as_u16().into())),
            ("reason", Some(self.reason().into())),
            ("message", Some(self.message.as_str().into())),
            ("details", (!causes.is_empty()).then(|| json!({ "causes": causes }))),
        ];
        object(fields)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { status, message, causes: vec![(refusal.field, refusal.reason)] }
    }
}

impl From<Refused> for Verdict {
    fn from(refused: Refused) -> Self {
        Self { refusal: Some(refused), ..Self::default() }
    }
}

impl Verdict {
    /// What the API server is sent.
    pub(super) fn answer(&self, uid: &str) -> Value {
        let patch = self.patch.as_ref().filter(|patch| !patch.is_empty());
        let patch = patch.map(|patch| serde_json::to_vec(patch).unwrap_or_default());
        let response = object([
            ("uid", Some(uid.into())),
            ("allowed", Some(self.refusal.is_none().into())),
            ("status", self.refusal.as_ref().map(Refused::to_status)),
            ("patchType", patch.as_ref().map(|_| "JSONPatch".into())),
            ("patch", patch.map(|patch| STANDARD.encode(patch).into())),
            // Longer ones are cut, and too many are left out, by the API server.
            ("warnings", (!self.warnings.is_empty()).then(|| json!(self.warnings))),
        ]);
        json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_review_says_why() {
        let read = |text: &str| Review::read(text.as_bytes()).unwrap_err();
        assert!(read("{").starts_with("this is no AdmissionReview: EOF"));
        assert_eq!(read("{}"), r#"apiVersion: must be admission.k8s.io/v1, is """#);
        assert_eq!(read(r#"{"apiVersion": "admission.k8s.io/v1"}"#), "request: must be set");
        let without = r#"{"apiVersion": "admission.k8s.io/v1", "request": {"uid": "1"}}"#;
        assert!(read(without).contains("missing field `operation`"));
        let least = r#"{"apiVersion": "admission.k8s.io/v1", "request": {"uid": "1", "operation": "DELETE"}}"#;
        let request = Review::read(least.as_bytes()).unwrap();
        assert_eq!((request.operation, request.object), (Operation::Delete, Value::Null));
    }

    #[test]
    fn a_refusal_lists_each_field() {
        let mut violations = Violations::default();
        violations.add("spec.to[0]", "must be set");
        violations.add("spec.x", "is unknown");
        let verdict = Verdict::from(Refused::invalid(&violations));
        let status = json!({
            "status": "Failure", "code": 422, "reason": "Invalid",
            "message": "spec.to[0]: must be set; spec.x: is unknown",
            "details": { "causes": [
                { "reason": "FieldValueInvalid", "field": "spec.to[0]", "message": "must be set" },
                { "reason": "FieldValueInvalid", "field": "spec.x", "message": "is unknown" },
            ] },
        });
        let expected = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": { "uid": "u", "allowed": false, "status": status },
        });
        assert_eq!(verdict.answer("u"), expected);
        let allowed = Verdict { warnings: vec!["w".into()], ..Verdict::default() };
        let expected = json!({ "uid": "u", "allowed": true, "warnings": ["w"] });
        assert_eq!(allowed.answer("u")["response"], expected);
    }
}
