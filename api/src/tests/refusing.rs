//! A store that is elsewhere, and what it does not take.

use super::*;
use store::{Attached, Committed, Contents, Outcome, view::Loaded};

impl Cp {
    /// One whose store is elsewhere and takes nothing any more.
    async fn refusing(reason: &'static str) -> Self {
        let Self { store, kinds, _tasks: mut tasks, .. } = Self::at(global()).await;
        let reader = store.reader();
        let rows = |(id, _)| {
            let (revision, rows) = reader.rows(id);
            Loaded { rows, revision }
        };
        let contents =
            Contents { kinds: kinds.iter().map(rows).collect(), revision: reader.revision() };
        let Attached { store, mut asked, view } = store::attach(contents, 7);
        let there = store.reader();
        tasks.spawn(async move {
            while let Some((batch, waiting)) = asked.next().await {
                let refused = |_| Outcome::Refused { reason: reason.into() };
                let outcomes = batch.iter().map(refused).collect();
                waiting.answer(Ok(Committed { revision: there.revision(), outcomes }));
            }
            drop(view);
        });
        Self::on(global(), (store, Arc::unwrap_or_clone(kinds)), tasks, (None, None, None))
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_take_is_refused_in_its_words() {
    let cp = Cp::refusing("exceeded quota: objects").await;
    let path = format!("{TIMEOUTS}/t1");
    let (status, text, _) = cp.put(&path, timeout("t1", &[])).await.refusal();
    let expected = (422, "Resource is not accepted: exceeded quota: objects");
    assert_eq!((status, &*text), expected);
    let (status, ..) = cp.delete("/meshes/shop").await.refusal();
    assert_eq!(status, 422);
}
