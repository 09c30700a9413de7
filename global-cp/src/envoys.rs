//! Questions about Envoys, which their zones answer.

use api::{
    author::Author,
    inspect::{Envoys, Unanswered},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use kds::admin;
use kinds::zone_insight::{self, ZoneInsight};
use resource::{Resource, ResourceKey, ZoneName, inspect::What, label};
use serde_json::Value;
use store::view::Reader;

/// Asks proxies through the streams that their zones opened for it.
pub(crate) struct OfZones {
    pub(crate) author: Author,
    pub(crate) reader: Reader,
    pub(crate) zones: admin::Registry,
}

impl Envoys for OfZones {
    fn ask(&self, dataplane: &Resource, what: What) -> BoxFuture<'_, Result<Bytes, Unanswered>> {
        let addressed = self.addressed(dataplane, what);
        Box::pin(async move {
            let (zone, question) = addressed?;
            self.zones.ask(&zone, &question).await.map_err(|error| {
                let text = error.to_string();
                match error {
                    admin::Unanswered::NotConnected(_) | admin::Unanswered::Busy(_) => {
                        Unanswered::Away(text)
                    }
                    admin::Unanswered::TimedOut(_) => Unanswered::Late(text),
                    admin::Unanswered::Failed(_) | admin::Unanswered::NotUnderstood(_) => {
                        Unanswered::Failed(text)
                    }
                }
            })
        })
    }
}

impl OfZones {
    /// The zone of a Dataplane, and the question as that zone understands it.
    fn addressed(
        &self,
        dataplane: &Resource,
        what: What,
    ) -> Result<(ZoneName, admin::Question), Unanswered> {
        let head = &dataplane.head;
        let zone = head.labels.get(label::ZONE).and_then(|zone| ZoneName::new(zone).ok());
        let zone = zone.ok_or_else(|| {
            Unanswered::Failed(format!("Dataplane {} belongs to no zone", head.key))
        })?;
        let mut name = head.labels.get(label::DISPLAY_NAME).unwrap_or(&head.key.name).to_owned();
        if let Some(namespace) = head.labels.get(label::NAMESPACE)
            && self.stores_in_kubernetes(&zone)
        {
            name = format!("{name}.{namespace}");
        }
        let key = ResourceKey { mesh: head.key.mesh.clone(), name: name.into() };
        Ok((zone, admin::Question::about(kinds::dataplane::KIND.name, &key, what)))
    }

    /// Whether the names of a zone's resources end with their namespace, by its own word.
    fn stores_in_kubernetes(&self, zone: &ZoneName) -> bool {
        let key = ResourceKey::global(zone.as_str());
        let row = self.author.get(&self.reader, zone_insight::KIND, &key);
        let insight = row.and_then(|row| kinds::read::<ZoneInsight>(&row).ok());
        let config = insight.and_then(|insight| {
            let last = insight.0.subscriptions.last()?;
            serde_json::from_str::<Value>(&last.config).ok()
        });
        config.as_ref().and_then(|config| config.pointer("/store/type")?.as_str())
            == Some(label::ENV_KUBERNETES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinds::dataplane;
    use proto::kuma::system::v1alpha1::{KdsSubscription, ZoneInsight as Message};
    use resource::{AnySpec, Labels, MeshName, Peer};
    use serde_json::json;
    use std::sync::Arc;
    use store::{Backend as _, Expected, Kinds, Memory};
    use tokio::task::JoinSet;

    /// Of zones whose control planes say that they have these settings.
    async fn of_zones(zones: &[(&str, &str)]) -> (OfZones, JoinSet<()>) {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
        let clock = daemon::Clock::system();
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let author = Author { kinds: Arc::new(kinds), place: kinds::labels::Place::Global };
        for (zone, config) in zones {
            let subscription = KdsSubscription { config: (*config).into(), ..Default::default() };
            let insight = Message { subscriptions: vec![subscription], ..Default::default() };
            let (kind, key) = (zone_insight::KIND, ResourceKey::global(zone));
            let spec: AnySpec = Arc::new(ZoneInsight(insight));
            let item = author.write(kind, key, &spec, Expected::Anything).unwrap();
            let committed = store.commit(vec![item]).await.unwrap();
            store.wait_for(committed.revision).await.unwrap();
        }
        (OfZones { author, reader: store.reader(), zones: admin::Registry::default() }, tasks)
    }

    fn dataplane(name: &str, labels: &[(&str, &str)]) -> Resource {
        let key = ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name);
        let labels: Labels = labels.iter().copied().collect();
        let kind = dataplane::KIND;
        let spec = json!({"networking": {"address": "10.0.0.1", "inbound": [{"port": 80}]}});
        let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
        kind.resource(key, labels, spec, Bytes::new(), Peer::Zone).unwrap()
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_by_the_name_that_it_has_in_its_zone() {
        let (of_zones, _tasks) = of_zones(&[
            ("east", r#"{"store": {"type": "memory"}}"#),
            ("k8s", r#"{"store": {"type": "kubernetes"}, "unknown": 1}"#),
            ("odd", r#"{"store": 7}"#),
        ])
        .await;
        let what = What::Config { endpoints: false };
        let asked = |labels: &[(&str, &str)]| {
            let (zone, question) = of_zones.addressed(&dataplane("web-x7", labels), what)?;
            assert_eq!((&*question.kind, &*question.mesh), ("Dataplane", "shop"));
            Ok((zone.to_string(), question.name))
        };
        let web = (label::DISPLAY_NAME, "web");
        let namespace = (label::NAMESPACE, "front");
        for (zone, name) in [("east", "web"), ("k8s", "web.front"), ("odd", "web"), ("new", "web")]
        {
            let expected = Ok((zone.to_owned(), name.to_owned()));
            assert_eq!(asked(&[(label::ZONE, zone), web, namespace]), expected);
        }
        let unnamed = asked(&[(label::ZONE, "k8s")]);
        assert_eq!(unnamed, Ok(("k8s".to_owned(), "web-x7".to_owned())));
        let nowhere = Unanswered::Failed("Dataplane shop/web-x7 belongs to no zone".into());
        assert_eq!(asked(&[web]), Err(nowhere));
    }
}
