//! What this process says about itself.

use api::About;
use kds::global::Settings;
use proto::kuma::system::v1alpha1::KumaCpVersion;

/// To users.
pub(crate) fn about() -> About {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hostname = hostname.trim().to_owned();
    // Two processes on one machine, or one after the other, are not the same instance.
    let mut suffix = uuid::Uuid::new_v4().simple().to_string();
    suffix.truncate(4);
    About {
        version: env!("CARGO_PKG_VERSION").into(),
        instance_id: format!("{hostname}-{suffix}"),
        hostname,
        gui: String::new(),
    }
}

/// To zones.
pub(crate) fn settings(about: &About) -> Settings {
    let version = KumaCpVersion { version: about.version.clone(), ..KumaCpVersion::default() };
    Settings { instance: about.instance_id.clone(), version, ..Settings::default() }
}
