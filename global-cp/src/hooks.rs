//! What global adds to the writes of users.

use crate::zones;
use api::{Change, Hooks, Prepared, Problem, mesh_defaults::MeshDefaults};
use http::StatusCode;
use kinds::zone;
use resource::label;
use store::{Expected, Item, view::Edit};

/// See [`Hooks`].
#[derive(Debug)]
pub(crate) struct GlobalHooks {
    pub(crate) meshes: MeshDefaults,
}

impl Hooks for GlobalHooks {
    fn before<'a>(&'a self, change: &'a Change<'a>) -> Prepared<'a> {
        if change.kind.name != zone::KIND.name {
            return self.meshes.before(change);
        }
        Box::pin(std::future::ready(match (change.before, change.after) {
            (None, Some(_)) => {
                Ok(vec![self.meshes.author.forget(&zones::removed_row(&change.key.name))])
            }
            (Some(_), None) => self.delete_zone(change),
            _ => Ok(Vec::new()),
        }))
    }
}

const DELETE: &str = "Could not delete a resource";

impl GlobalHooks {
    /// What a zone wrote goes with it, and it stays out until somebody makes it anew.
    fn delete_zone(&self, change: &Change<'_>) -> Result<Vec<Item>, Problem> {
        let (author, name) = (&self.meshes.author, &change.key.name);
        if zones::is_online(author, change.reader, name) {
            let reason =
                "unable to delete Zone, Zone CP is still connected, please shut it down first";
            return Err(Problem::conflict(DELETE, reason).with_field("zone", reason));
        }
        let remembered = author.remember(&zones::removed_row(name), "removed");
        let remembered = remembered.map_err(|error| {
            tracing::error!(zone = %name, %error, "the deletion of a zone cannot be remembered");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "Internal Server Error", "see the log")
        })?;
        let written = zones::written_by(&author.kinds, change.reader, name);
        let gone = written.map(|(kind, row)| Item {
            kind,
            expected: Expected::Version(row.head.version),
            edit: Edit::Delete(row.head.key.clone()),
        });
        Ok([remembered].into_iter().chain(gone).collect())
    }
}

/// Whether labels say that `zone` wrote the resource.
pub(crate) fn is_written_by(labels: &resource::Labels, zone: &str) -> bool {
    labels.get(label::ORIGIN) == Some(label::ORIGIN_ZONE) && labels.get(label::ZONE) == Some(zone)
}
