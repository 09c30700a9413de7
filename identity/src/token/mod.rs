//! Tokens of zones, dataplanes and users: JWTs signed with RS256.

mod claims;
mod key;
#[cfg(test)]
mod tests;

pub use self::{
    claims::{Claims, DataplaneClaims, DataplaneFacts, UserClaims, ZoneClaims},
    key::{InvalidKey, KeySet, SigningKey},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

const ALGORITHM: &str = "RS256";

/// The longest token that is looked at.
const MAX_LENGTH: usize = 16 * 1024;

/// Clocks of verifiers may be this much behind.
const SKEW: i64 = 5;

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not a JWT.
    #[error("the token is malformed")]
    Malformed,
    /// It is signed in another way than RS256, or not at all.
    #[error("the token's algorithm {0:?} is not RS256")]
    Algorithm(String),
    /// No key has its serial number.
    #[error("no key has the token's serial number {0:?}")]
    UnknownKey(String),
    /// The signature is not that of the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// It was valid until then.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
    /// It will be valid from then on.
    #[error("the token is not valid before {0}")]
    NotYetValid(Timestamp),
    /// Its ID is on the list.
    #[error("the token {0:?} is revoked")]
    Revoked(String),
    /// It says other things than this sort of token says.
    #[error("the token has not the claims of its sort")]
    Claims,
    /// It is for somebody else.
    #[error("the token is for {claim} {claimed:?}, not {needed:?}")]
    Other {
        /// What differs.
        claim: &'static str,
        /// What the token says.
        claimed: String,
        /// What it would have to say.
        needed: String,
    },
    /// It demands another value of a label.
    #[error("the token does not allow the value {value:?} of the label {label:?}")]
    Label {
        /// The label.
        label: String,
        /// Its value on the dataplane.
        value: String,
    },
}

impl Refused {
    fn other(claim: &'static str, claimed: &str, needed: &str) -> Self {
        Self::Other { claim, claimed: claimed.into(), needed: needed.into() }
    }
}

/// Why a token cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// There is no private key.
    #[error("there is no signing key")]
    NoKey,
    /// The claims cannot be written.
    #[error("the claims cannot be written")]
    Claims,
}

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<C> {
    /// What it says.
    pub claims: C,
    /// Its ID, by which it can be revoked.
    pub id: String,
    /// Until when it is valid.
    pub expires: Timestamp,
}

/// IDs of tokens that are not accepted any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations(BTreeSet<String>);

impl Revocations {
    /// Reads IDs separated by commas.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(Into::into).collect())
    }
}

/// Exactly these members, in this order.
#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

/// A token's own claims come first.
#[derive(Serialize)]
struct Body<'a, C> {
    #[serde(flatten)]
    claims: &'a C,
    #[serde(flatten)]
    standard: Standard,
}

#[derive(Serialize, Deserialize)]
struct Standard {
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(default)]
    iat: i64,
    #[serde(default)]
    jti: String,
}

/// When a token ends that is our own: it is read and not verified.
#[must_use]
pub fn ending(token: &str) -> Option<Timestamp> {
    if token.len() > MAX_LENGTH {
        return None;
    }
    let body = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let standard: Standard = serde_json::from_slice(&body).ok()?;
    Timestamp::from_second(standard.exp).ok()
}

/// Makes a token that is valid for `valid_for`.
pub fn mint<C: Claims>(
    keys: &KeySet,
    claims: &C,
    now: Timestamp,
    valid_for: Duration,
) -> Result<String, MintError> {
    let kid = keys.signing_serial().ok_or(MintError::NoKey)?.to_string();
    let from = now.as_second().saturating_sub(SKEW);
    let life = i64::try_from(valid_for.as_secs()).unwrap_or(i64::MAX);
    let until = now.as_second().saturating_add(life).min(Timestamp::MAX.as_second());
    let standard = Standard { exp: until, nbf: from, iat: from, jti: Uuid::new_v4().to_string() };
    let header = encode(&Header { alg: ALGORITHM, kid: &kid, typ: "JWT" })?;
    let body = encode(&Body { claims, standard })?;
    let message = format!("{header}.{body}");
    let signature = keys.sign(message.as_bytes()).ok_or(MintError::NoKey)?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn encode(part: &impl Serialize) -> Result<String, MintError> {
    let json = serde_json::to_vec(part).map_err(|_| MintError::Claims)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Accepts a token, or says why not. What its claims admit is asked of them afterwards.
pub fn verify<C: Claims>(
    keys: &KeySet,
    token: &str,
    now: Timestamp,
    revoked: &Revocations,
) -> Result<Accepted<C>, Refused> {
    let body = verified_body(keys, token)?;
    let standard: Standard = serde_json::from_slice(&body).map_err(|_| Refused::Claims)?;
    let instant = |second| Timestamp::from_second(second).map_err(|_| Refused::Claims);
    let (from, expires) = (instant(standard.nbf)?, instant(standard.exp)?);
    if now < from {
        return Err(Refused::NotYetValid(from));
    }
    if expires <= now {
        return Err(Refused::Expired(expires));
    }
    if revoked.0.contains(&standard.jti) {
        return Err(Refused::Revoked(standard.jti));
    }
    let claims = serde_json::from_slice(&body).map_err(|_| Refused::Claims)?;
    Ok(Accepted { claims, id: standard.jti, expires })
}

/// Nothing of a token's body is looked at before its signature.
fn verified_body(keys: &KeySet, token: &str) -> Result<Vec<u8>, Refused> {
    if token.len() > MAX_LENGTH {
        return Err(Refused::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
    let (header, body) = message.split_once('.').ok_or(Refused::Malformed)?;
    let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed);
    let shown: Shown = serde_json::from_slice(&decode(header)?).map_err(|_| Refused::Malformed)?;
    if shown.alg != ALGORITHM {
        return Err(Refused::Algorithm(shown.alg));
    }
    let serial = shown.kid.parse().ok().filter(|serial: &u32| serial.to_string() == shown.kid);
    let key = serial.and_then(|serial| keys.verifying(serial));
    let key = key.ok_or(Refused::UnknownKey(shown.kid))?;
    key.verify_sig(message.as_bytes(), &decode(signature)?).map_err(|_| Refused::Signature)?;
    decode(body)
}
