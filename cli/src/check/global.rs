//! Whether something comes from global.

use super::{
    cluster::{Cluster, text},
    control_plane::{NAME, active, pods},
    report::Group,
};
use serde_json::Value;
use std::time::Duration;

/// A beacon of global comes every 10 s.
const FRESH: Duration = Duration::from_secs(20);

pub(super) async fn look(cluster: &Cluster) -> Group {
    let mut group = Group::new("Global");
    let check = "Something comes from it";
    let address = match cluster.own("/api/v1", "configmaps", NAME).await {
        Ok(settings) => address(&settings),
        Err(refusal) => {
            group.unread(check, &refusal);
            return group;
        }
    };
    let Some(address) = address else {
        group.fine("There is none: the zone stands alone");
        return group;
    };
    let todo = format!(
        "See whether {address} is reached from the cluster, and what the log of the control plane says of it. \
         `kubectl --namespace {} exec deployment/{NAME} -- atoll zone status` says how it stands.",
        cluster.namespace
    );
    let pods = pods(cluster).await.unwrap_or_default();
    let Some(pod) = active(&pods) else {
        group.fail(check, "no control plane is ready", todo);
        return group;
    };
    match cluster.asked(text(pod, "/metadata/name"), "/metrics").await {
        Err(refusal) => group.unread(check, &refusal),
        Ok(metrics) => match age(&metrics) {
            Some(age) if age <= FRESH => group.fine(check),
            Some(age) => {
                let age = daemon::duration::print(Duration::from_secs(age.as_secs()));
                group.fail(check, format!("nothing for {age}"), todo);
            }
            // Kuma's global has no beacons.
            None => group.warn(check, "nothing has come yet, or it is Kuma's global", todo),
        },
    }
    group
}

/// Where global is, as the settings of the control plane say it.
fn address(settings: &Value) -> Option<String> {
    let settings: Value = serde_saphyr::from_str(text(settings, "/data/settings.yaml")).ok()?;
    Some(text(&settings, "/global/address")).filter(|it| !it.is_empty()).map(ToOwned::to_owned)
}

/// Since when the newest beacon is in the store of the zone.
fn age(metrics: &str) -> Option<Duration> {
    let line = metrics
        .lines()
        .find(|line| line.starts_with("freshness_seconds{") && line.contains("stage=\"Zone\""))?;
    let number = line.rsplit(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(number).ok()
}
