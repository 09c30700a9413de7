//! What global adds to the writes of users.

use crate::{author::Author, defaults, zones};
use api::{Change, Hooks, Prepared, Problem};
use http::StatusCode;
use kinds::{dataplane, mesh, zone};
use resource::{MeshName, ResourceKey, label};
use store::{Expected, Item, view::Edit};

/// See [`Hooks`].
#[derive(Debug)]
pub(crate) struct GlobalHooks {
    pub(crate) author: Author,
}

impl Hooks for GlobalHooks {
    fn before<'a>(&'a self, change: &'a Change<'a>) -> Prepared<'a> {
        Box::pin(async move {
            let name = change.kind.name;
            match (change.before, change.after) {
                (None, Some(row)) if name == mesh::KIND.name => {
                    // Checked when the row was made.
                    let Ok(mesh) = MeshName::new(&change.key.name) else { return Ok(Vec::new()) };
                    let made = defaults::with_new_mesh(&self.author, &mesh, row).await;
                    made.map_err(|error| internal(&error))
                }
                (Some(_), None) if name == mesh::KIND.name => self.delete_mesh(change),
                (None, Some(_)) if name == zone::KIND.name => {
                    Ok(vec![self.author.forget(&zones::removed_row(&change.key.name))])
                }
                (Some(_), None) if name == zone::KIND.name => self.delete_zone(change),
                _ => Ok(Vec::new()),
            }
        })
    }
}

const DELETE: &str = "Could not delete a resource";

fn internal(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "defaults of a mesh cannot be made");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", "see the log")
}

impl GlobalHooks {
    fn delete_mesh(&self, change: &Change<'_>) -> Result<Vec<Item>, Problem> {
        let Ok(mesh) = MeshName::new(&change.key.name) else { return Ok(Vec::new()) };
        let (_, rows) = change.reader.rows(self.author.id(dataplane::KIND));
        let first = rows.after(Some(&ResourceKey::in_mesh(&mesh, ""))).next();
        if first.is_some_and(|row| row.head.key.mesh.as_ref() == Some(&mesh)) {
            let reason = "unable to delete mesh, there are still some dataplanes attached";
            return Err(Problem::conflict(DELETE, reason).with_field("mesh", reason));
        }
        Ok(vec![self.author.forget(&defaults::offered_row(mesh.as_str()))])
    }

    /// What a zone wrote goes with it, and it stays out until somebody makes it anew.
    fn delete_zone(&self, change: &Change<'_>) -> Result<Vec<Item>, Problem> {
        let name = &change.key.name;
        if zones::is_online(&self.author, change.reader, name) {
            let reason =
                "unable to delete Zone, Zone CP is still connected, please shut it down first";
            return Err(Problem::conflict(DELETE, reason).with_field("zone", reason));
        }
        let remembered = self.author.remember(&zones::removed_row(name), "removed");
        let remembered = remembered.map_err(|error| internal(&error))?;
        let written = zones::written_by(&self.author.kinds, change.reader, name);
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
