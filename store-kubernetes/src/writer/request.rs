//! One request, and what follows from its answer.

use crate::{
    metrics::Metrics,
    object::{MANAGER, chain},
    place::ObjectName,
    watch::{Failure, within},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
    core::{ApiResource, DynamicObject},
};
use resource::Resource;
use std::{sync::Arc, time::Duration};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked of the API server.
#[derive(Debug)]
pub(super) enum Ask {
    Create { at: ObjectName, write: Box<Write> },
    Replace { at: ObjectName, write: Box<Write> },
    Delete { at: ObjectName, uid: String, version: Option<String> },
    Read { at: ObjectName, uid: String },
}

/// What is written.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) object: DynamicObject,
    /// As it will be read.
    pub(super) row: Arc<Resource>,
}

/// What the API server answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// So it is now.
    Object(Box<DynamicObject>),
    Deleted,
}

/// What a failure means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays so, because of this.
    Refused(String),
    /// Somebody else wrote.
    Overtaken,
    /// There is no such object.
    Absent,
    /// It may be otherwise later.
    Later,
    /// Nothing can be asked for so long at least.
    Away(Duration),
}

impl Ask {
    pub(super) const fn at(&self) -> &ObjectName {
        match self {
            Self::Create { at, .. }
            | Self::Replace { at, .. }
            | Self::Delete { at, .. }
            | Self::Read { at, .. } => at,
        }
    }

    const fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Replace { .. } => "update",
            Self::Delete { .. } => "delete",
            Self::Read { .. } => "get",
        }
    }

    pub(super) async fn send(
        &self,
        client: Client,
        api: &ApiResource,
        metrics: &Metrics,
    ) -> Result<Answer, Failure> {
        let api: Api<DynamicObject> = match &self.at().namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, api),
            None => Api::all_with(client, api),
        };
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let object = |object: DynamicObject| Answer::Object(object.into());
        let answer = match self {
            Self::Create { write, .. } => {
                within(PATIENCE, api.create(&params, &write.object)).await.map(object)
            }
            Self::Replace { at, write } => {
                within(PATIENCE, api.replace(&at.name, &params, &write.object)).await.map(object)
            }
            Self::Delete { at, uid, version } => {
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: version.clone(),
                });
                within(PATIENCE, api.delete(&at.name, &params)).await.map(|_| Answer::Deleted)
            }
            Self::Read { at, .. } => within(PATIENCE, api.get(&at.name)).await.map(object),
        };
        metrics.requested(self.verb(), answer.as_ref().err());
        answer
    }

    pub(super) fn judge(&self, failure: &Failure) -> Verdict {
        let Some(status) = failure.status() else { return Verdict::Away(Duration::ZERO) };
        let details = status.details.as_ref();
        let wish = details.map_or(0, |details| details.retry_after_seconds);
        // Without a name the path is not known: there is no definition, or not yet.
        let named = details.is_some_and(|details| !details.name.is_empty());
        match (status.code, self) {
            (409, _) => Verdict::Overtaken,
            (404, Self::Create { .. }) if named => Verdict::Refused(status.message.clone()),
            (404, _) if named => Verdict::Absent,
            (404 | 408, _) => Verdict::Later,
            (401 | 429 | 503 | 504, _) => Verdict::Away(Duration::from_secs(wish.into())),
            (400..500, _) => Verdict::Refused(status.message.clone()),
            _ => Verdict::Later,
        }
    }
}

/// A failure for a log.
pub(super) fn told(failure: &Failure) -> String {
    match failure.status() {
        Some(status) => format!("{} {}", status.code, status.message.trim()),
        None => chain(failure),
    }
}
