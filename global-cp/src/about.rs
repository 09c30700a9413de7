//! What this process says about itself to zones.

use api::About;
use kds::{global::Settings, quota::Quota};
use proto::kuma::system::v1alpha1::KumaCpVersion;

/// To be sent to each.
pub(crate) fn settings(about: &About, quota: Quota) -> Settings {
    let version = KumaCpVersion { version: about.version.clone(), ..KumaCpVersion::default() };
    Settings { instance: about.instance_id.clone(), version, quota, ..Settings::default() }
}
