//! Which pod callers get to: the Service of the control plane selects a label that the one which
//! works sets on its own pod (decision 17).

use daemon::{Backoff, Repeats};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// The label of the pod that works; its value is `true`.
pub const ACTIVE: &str = "atoll.io/active";

/// How long the API server has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pod of this process.
#[derive(Clone)]
pub struct OwnPod {
    api: Api<Pod>,
    name: String,
}

impl std::fmt::Debug for OwnPod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnPod").field("name", &self.name).finish_non_exhaustive()
    }
}

impl OwnPod {
    /// The pod called `name` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name }
    }

    /// Sets or takes away the label. Tries again until the API server takes it.
    pub async fn mark(&self, active: bool) {
        let value = if active { json!("true") } else { json!(null) };
        let patch = Patch::Merge(json!({ "metadata": { "labels": { ACTIVE: value } } }));
        let params = PatchParams::default();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let repeats = Repeats::default();
        loop {
            let why = match timeout(PATIENCE, self.api.patch(&self.name, &params, &patch)).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_elapsed) => "no answer in time".into(),
            };
            if let Some(unsaid) = repeats.say(&why) {
                let pod = &self.name;
                tracing::warn!(pod, active, why, unsaid, "who works is not shown on the pod");
            }
            sleep_until(Instant::now() + backoff.next(fastrand::f64())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    const URL: &str = "/api/v1/namespaces/kuma-system/pods/atoll-zone-cp-0";

    #[tokio::test(start_paused = true)]
    async fn the_label_comes_and_goes_also_by_a_server_that_was_away() {
        let fake = Fake::new();
        fake.put(json!({
            "kind": "Pod",
            "metadata": {
                "name": "atoll-zone-cp-0", "namespace": "kuma-system", "labels": { "a": "b" },
            },
        }));
        let pod = OwnPod::new(fake.client(), "kuma-system", "atoll-zone-cp-0".into());
        let labels = || fake.object(URL).unwrap()["metadata"]["labels"].clone();
        pod.mark(false).await;
        assert_eq!(labels(), json!({ "a": "b" }));
        fake.set_down(true);
        let heals = async {
            sleep_until(Instant::now() + Duration::from_secs(30)).await;
            fake.set_down(false);
        };
        tokio::join!(pod.mark(true), heals);
        assert_eq!(labels(), json!({ "a": "b", ACTIVE: "true" }));
        pod.mark(false).await;
        assert_eq!(labels(), json!({ "a": "b" }));
    }
}
