//! Tells about objects of which the store can make no resource.

use super::{Complaint, Events, Subject};
use std::{collections::BTreeMap, sync::Arc};
use store_kubernetes::{ObjectRef, Problems};
use tokio_util::sync::CancellationToken;

/// Tells about each of `problems` as long as it is one, until `stop`.
pub async fn tell(problems: Problems, events: Events, stop: CancellationToken) {
    let mut changed = problems.watch();
    let mut told = BTreeMap::<ObjectRef, Arc<str>>::new();
    loop {
        // Before they are read: what comes later is another change.
        changed.borrow_and_update();
        let all = problems.all();
        for (object, reason) in
            all.iter().filter(|(object, reason)| told.get(object) != Some(reason))
        {
            events.tell(subject(object), Complaint::warning("NotTaken", reason));
        }
        told = all;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Ok(()) = changed.changed() => {}
            // Nobody finds any more.
            else => return stop.cancelled().await,
        }
    }
}

fn subject(object: &ObjectRef) -> Subject {
    let ObjectRef { api_version, kind, namespace, name, uid } = object.clone();
    Subject { api_version, kind, namespace: namespace.unwrap_or_default(), name, uid }
}
