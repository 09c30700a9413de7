//! What this process says about itself to zones.

use api::About;
use kds::{global::Settings, quota::Quotas};
use proto::kuma::system::v1alpha1::KumaCpVersion;
use std::sync::Arc;

/// To be sent to each.
pub(crate) fn settings(about: &About, quotas: Quotas) -> Settings {
    let version = KumaCpVersion { version: about.version.clone(), ..KumaCpVersion::default() };
    let (instance, quotas) = (about.instance_id.clone(), Arc::new(quotas));
    Settings { instance, version, quotas, ..Settings::default() }
}
