//! Whether the API server answers, is new enough, and has our time.

use super::{
    cluster::{Cluster, Refusal, some, text},
    report::Group,
};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// The oldest minor version of Kubernetes that has all that the chart uses.
const OLDEST: u32 = 30;
/// So much a clock may differ: dates of HTTP are whole seconds, and an answer takes a while.
const SKEW: Duration = Duration::from_secs(5);
/// A kubelet renews its Lease every 10 s, and has 40 s.
const RENEWED: Duration = Duration::from_secs(60);

pub(super) async fn look(cluster: &Cluster, now: Timestamp) -> Group {
    let mut group = Group::new("API server");
    let (version, date) = match cluster.version().await {
        Ok(answer) => answer,
        Err(refusal) => {
            let todo = "See whether `kubectl version` works; --kubeconfig and --kube-context say which cluster is meant.";
            group.fail("It answers", refusal.to_string(), todo);
            return group;
        }
    };
    group.fine("It answers");
    new_enough(&version, &mut group);
    // The cluster's clock is that of its API server.
    if let Some(date) = date {
        let check = "This machine has the same time";
        let skew = now.duration_since(date).unsigned_abs();
        if skew > SKEW {
            let found = format!("they differ by {}", seconds(skew));
            group.warn(
                check,
                found,
                "Have the clocks of both set by NTP: certificates and tokens are judged by them.",
            );
        } else {
            group.fine(check);
        }
    }
    nodes(cluster, date.unwrap_or(now), &mut group).await;
    group
}

fn new_enough(version: &Value, group: &mut Group) {
    let said = text(version, "/gitVersion");
    let number = |path| {
        let digits = text(version, path).chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse::<u32>().unwrap_or_default()
    };
    let check = format!("It is Kubernetes 1.{OLDEST} or newer");
    if (number("/major"), number("/minor")) >= (1, OLDEST) {
        group.fine(check);
    } else {
        group.fail(check, format!("it is {said}"), "Upgrade the cluster.");
    }
}

/// Compares the clocks of nodes by the Leases that their kubelets renew.
async fn nodes(cluster: &Cluster, now: Timestamp, group: &mut Group) {
    let check = "Nodes have the same time";
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let leases = match cluster.list(path).await {
        Ok(leases) => leases,
        // A cluster without nodes has none.
        Err(Refusal::Absent) => return,
        Err(refusal) => return group.unread(check, &refusal),
    };
    let (mut ahead, mut behind) = (Vec::new(), Vec::new());
    for lease in &leases {
        let Ok(renewed) = text(lease, "/spec/renewTime").parse::<Timestamp>() else { continue };
        let name = text(lease, "/metadata/name").to_owned();
        let age = now.duration_since(renewed);
        if age.is_negative() && age.unsigned_abs() > SKEW {
            ahead.push(name);
        } else if age.unsigned_abs() > RENEWED {
            behind.push(name);
        }
    }
    let todo = "Have their clocks set by NTP: certificates are not valid yet, or no more, where the time is another one.";
    if !ahead.is_empty() {
        group.fail(check, format!("the clocks of {} are ahead", some(&ahead)), todo);
    } else if !behind.is_empty() {
        group.warn(check, format!("{} are away, or their clocks are behind", some(&behind)), todo);
    } else {
        group.fine(check);
    }
}

fn seconds(duration: Duration) -> String {
    daemon::duration::print(Duration::from_secs(duration.as_secs()))
}
