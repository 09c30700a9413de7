//! Tells about objects with which something is wrong for the store.

use super::{Complaint, Events, Subject};
use std::collections::BTreeMap;
use store_kubernetes::{ObjectRef, Problem, Problems};
use tokio_util::sync::CancellationToken;

/// Tells about each of `problems` as long as it is one, until `stop`.
pub async fn tell(problems: Problems, events: Events, stop: CancellationToken) {
    let mut changed = problems.watch();
    let mut told = BTreeMap::<ObjectRef, Problem>::new();
    loop {
        // Before they are read: what comes later is another change.
        changed.borrow_and_update();
        let all = problems.all();
        for (object, problem) in all.iter().filter(|(object, it)| told.get(object) != Some(it)) {
            let complaint = match problem {
                Problem::NotTaken(reason) => Complaint::warning("NotTaken", reason),
                Problem::UnknownFields(fields) => Complaint::warning(
                    "UnknownFields",
                    format_args!("nobody here knows these fields: {fields}"),
                ),
            };
            events.tell(subject(object), complaint);
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
