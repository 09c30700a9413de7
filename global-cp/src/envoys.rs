//! Questions about Envoys, which their zones answer.

use api::{
    author::Author,
    inspect::{Envoys, Format, Unanswered, What},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use kds::admin;
use kinds::zone_insight::{self, ZoneInsight};
use resource::{Resource, ResourceKey, ZoneName, label};
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
                    admin::Unanswered::Failed(_) => Unanswered::Failed(text),
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
        Ok((zone, admin::Question::about(kinds::dataplane::KIND.name, &key, asked(what))))
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

/// What is asked, as it is asked of a zone.
const fn asked(what: What) -> admin::What {
    const fn format(format: Format) -> admin::Format {
        match format {
            Format::Text => admin::Format::Text,
            Format::Json => admin::Format::Json,
        }
    }
    match what {
        What::Config { endpoints } => admin::What::Config { endpoints },
        What::Stats { format: written, used_only } => {
            admin::What::Stats { format: format(written), used_only }
        }
        What::Clusters { format: written } => admin::What::Clusters { format: format(written) },
    }
}
