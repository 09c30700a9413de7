//! Questions of the zone's own API about Envoys.

use crate::dataplanes::Questions;
use api::inspect::{Envoys, Unanswered};
use bytes::Bytes;
use futures::future::BoxFuture;
use kds::admin::{Answerer as _, Question};
use kinds::dataplane;
use resource::{Resource, inspect::What};

impl Envoys for Questions {
    fn ask(&self, dataplane: &Resource, what: What) -> BoxFuture<'_, Result<Bytes, Unanswered>> {
        let question = Question::about(dataplane::KIND.name, &dataplane.head.key, what);
        let answer = self.answer(question);
        Box::pin(async move { answer.await.map_err(Unanswered::Failed) })
    }
}
