//! What tokens say about who carries them.

use super::Refused;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use std::collections::BTreeMap;

/// The claims of one sort of token.
pub trait Claims: Serialize + DeserializeOwned {}

/// Says which dataplanes a proxy may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DataplaneClaims {
    /// The dataplane's name. Empty: any.
    #[serde(default)]
    pub name: String,
    /// Its mesh.
    pub mesh: String,
    /// Labels that it has, each with one of these values.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: BTreeMap<String, Vec<String>>,
    /// `dataplane`, `ingress`, … Empty: a dataplane.
    #[serde(default)]
    pub r#type: String,
    /// Its workload. Empty: any.
    #[serde(default)]
    pub workload: String,
}

/// What is known of the dataplane that a token is presented for.
#[derive(Clone, Copy, Debug)]
pub struct DataplaneFacts<'a> {
    /// Its mesh.
    pub mesh: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `dataplane` or `ingress`.
    pub r#type: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its workload, the value of the label `kuma.io/workload`.
    pub workload: Option<&'a str>,
}

impl DataplaneClaims {
    /// Whether the bearer may be this dataplane.
    pub fn admits(&self, facts: &DataplaneFacts<'_>) -> Result<(), Refused> {
        let same = |claim: &'static str, claimed: &str, needed: &str| {
            let same = claimed == needed;
            if same { Ok(()) } else { Err(Refused::other(claim, claimed, needed)) }
        };
        let same_if_set = |claim, claimed: &str, needed| {
            if claimed.is_empty() { Ok(()) } else { same(claim, claimed, needed) }
        };
        same("mesh", &self.mesh, facts.mesh)?;
        same_if_set("name", &self.name, facts.name)?;
        let claimed = if self.r#type.is_empty() { "dataplane" } else { &self.r#type };
        same("type", claimed, facts.r#type)?;
        same_if_set("workload", &self.workload, facts.workload.unwrap_or_default())?;
        for (label, allowed) in &self.tags {
            let value = facts.labels.get(label).map_or("", String::as_str);
            if !allowed.iter().any(|allowed| allowed == value) {
                return Err(Refused::Label { label: label.clone(), value: value.into() });
            }
        }
        Ok(())
    }
}

/// Says which zone a control plane or proxy may speak for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ZoneClaims {
    /// The zone.
    pub zone: String,
    /// What the bearer may be: `cp`, `ingress`, `egress`, …
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub scope: Vec<String>,
}

impl ZoneClaims {
    /// Whether the bearer may speak for `zone` as `scope`.
    pub fn admits(&self, zone: &str, scope: &str) -> Result<(), Refused> {
        if self.zone != zone {
            return Err(Refused::other("zone", &self.zone, zone));
        }
        if !self.scope.iter().any(|has| has == scope) {
            return Err(Refused::other("scope", &self.scope.join(","), scope));
        }
        Ok(())
    }
}

/// Says which user calls the REST API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UserClaims {
    /// The user.
    pub name: String,
    /// The user's groups.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub groups: Vec<String>,
}

impl Claims for DataplaneClaims {}
impl Claims for ZoneClaims {}
impl Claims for UserClaims {}

fn null_if_empty<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    if list.is_empty() { serializer.serialize_none() } else { list.serialize(serializer) }
}

/// Null is how a list that is not set is written.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
