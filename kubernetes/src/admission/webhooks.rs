//! Has the API server trust our certificate, where it is told to ask us.

use daemon::Backoff;
use futures::{StreamExt as _, stream::select_all};
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
    },
};
use kube::{
    Api, Client, Error, ResourceExt as _,
    api::{DynamicObject, PatchParams},
    core::ApiResource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// How long the API server has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which webhooks are ours.
#[derive(Clone)]
pub(super) struct Ours {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) service: String,
    /// The names of their configurations, of both kinds.
    pub(super) names: Vec<String>,
}

impl Ours {
    /// Keeps what they trust right, for ever: also if somebody applies them anew.
    pub(super) async fn keep(self, mut trusted: watch::Receiver<Arc<str>>) {
        let kinds = [
            ApiResource::erase::<MutatingWebhookConfiguration>(&()),
            ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        ];
        let apis = kinds.map(|kind| Api::<DynamicObject>::all_with(self.client.clone(), &kind));
        let all = apis.iter().enumerate();
        let all = all.flat_map(|(kind, api)| self.names.iter().map(move |name| (kind, api, name)));
        let mut events = select_all(all.map(|(kind, api, name)| {
            let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let events = watcher::watcher(api.clone(), only).default_backoff();
            events.map(move |event| (kind, event)).boxed()
        }));
        let mut there = BTreeMap::new();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut again = None;
        loop {
            tokio::select! {
                biased;
                Some((kind, event)) = events.next() => match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        there.insert((kind, object.name_any()), object);
                    }
                    Ok(Event::Delete(object)) => drop(there.remove(&(kind, object.name_any()))),
                    Ok(Event::Init | Event::InitDone) => {}
                    Err(error) => tracing::debug!(%error, "a watch begins anew"),
                },
                Ok(()) = trusted.changed() => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
            again = None;
            let bundle = trusted.borrow_and_update().clone();
            for ((kind, name), object) in &mut there {
                let Some(patch) = self.wrong(object, &bundle) else { continue };
                let Some(api) = apis.get(*kind) else { continue };
                match patched(api, name, patch).await {
                    Ok(Some(now)) => *object = now,
                    // The watch brings what it became.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(name, error, "a webhook does not trust us yet");
                        again = Some(Instant::now() + backoff.next(fastrand::f64()));
                    }
                }
            }
            if again.is_none() {
                backoff.made_progress();
            }
        }
    }

    /// What has to change in a configuration so that those of its webhooks that are ours trust
    /// `bundle`.
    fn wrong(&self, object: &DynamicObject, bundle: &str) -> Option<Patch> {
        let bundle = serde_json::to_value(ByteString(bundle.as_bytes().to_vec())).ok()?;
        let ours = |webhook: &Value| {
            let service = webhook.pointer("/clientConfig/service");
            let is = |field: &str, value: &str| {
                service.and_then(|it| it.get(field)).is_some_and(|it| it == value)
            };
            is("name", &self.service) && is("namespace", &self.namespace)
        };
        let webhooks = object.data.get("webhooks").and_then(Value::as_array)?.iter().enumerate();
        let wrong = webhooks.filter(|(_, webhook)| {
            ours(webhook) && webhook.pointer("/clientConfig/caBundle") != Some(&bundle)
        });
        let steps = wrong.map(|(i, _)| {
            let path = ["webhooks", &i.to_string(), "clientConfig", "caBundle"];
            let (path, value) = (PointerBuf::from_tokens(path), bundle.clone());
            PatchOperation::Add(AddOperation { path, value })
        });
        let steps: Vec<_> = steps.collect();
        // Else the webhooks may be others by now.
        let same = PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
            value: json!(object.resource_version()),
        });
        (!steps.is_empty()).then(|| Patch([same].into_iter().chain(steps).collect()))
    }
}

async fn patched(
    api: &Api<DynamicObject>,
    name: &str,
    patch: Patch,
) -> Result<Option<DynamicObject>, String> {
    let (params, patch) = (PatchParams::default(), kube::api::Patch::Json::<()>(patch));
    match timeout(PATIENCE, api.patch(name, &params, &patch)).await {
        Ok(Ok(object)) => Ok(Some(object)),
        Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => Ok(None),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API server does not answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Ours {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody"))
        });
        Ours {
            client: Client::new(service, "default"),
            namespace: "kuma-system".into(),
            service: "atoll-admission".into(),
            names: vec!["atoll".into()],
        }
    }

    #[tokio::test]
    async fn only_webhooks_of_ours_that_trust_somebody_else_change() {
        let webhook = |service: &str, bundle: Option<&str>| {
            let service = json!({ "name": service, "namespace": "kuma-system" });
            json!({ "name": "x", "clientConfig": { "service": service, "caBundle": bundle } })
        };
        let mut object = json!({
            "apiVersion": "v1", "kind": "x", "metadata": { "name": "atoll", "resourceVersion": "7" },
            "webhooks": [
                webhook("atoll-admission", Some("UEVN")),
                webhook("other", None),
                webhook("atoll-admission", None),
                webhook("atoll-admission", Some("b3RoZXI=")),
                {
                    "name": "of another one",
                    "clientConfig": {
                        "service": { "name": "atoll-admission", "namespace": "elsewhere" },
                    },
                },
            ],
        });
        let ours = ours();
        let read =
            |object: &Value| serde_json::from_value::<DynamicObject>(object.clone()).unwrap();
        let patch = ours.wrong(&read(&object), "PEM").unwrap();
        let expected = json!([
            { "op": "test", "path": "/metadata/resourceVersion", "value": "7" },
            { "op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "UEVN" },
            { "op": "add", "path": "/webhooks/3/clientConfig/caBundle", "value": "UEVN" },
        ]);
        assert_eq!(serde_json::to_value(&patch).unwrap(), expected);
        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(ours.wrong(&read(&object), "PEM"), None);
    }
}
