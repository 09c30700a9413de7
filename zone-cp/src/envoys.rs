//! Questions of the zone's own API about Envoys.

use crate::dataplanes::Questions;
use api::inspect::{Envoys, Format, Unanswered, What};
use bytes::Bytes;
use futures::future::BoxFuture;
use kds::admin::{self, Answerer as _, Question};
use kinds::dataplane;
use resource::Resource;

impl Envoys for Questions {
    fn ask(&self, dataplane: &Resource, what: What) -> BoxFuture<'_, Result<Bytes, Unanswered>> {
        let question = Question::about(dataplane::KIND.name, &dataplane.head.key, asked(what));
        let answer = self.answer(question);
        Box::pin(async move { answer.await.map_err(Unanswered::Failed) })
    }
}

/// What is asked, as global asks it.
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
