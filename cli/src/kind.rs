//! Kinds by the names that people use for them.

use anyhow::{Result, bail};
use resource::{Kind, Scope};

/// The kinds that the API serves: control planes keep others for themselves, without a path.
fn served() -> impl Iterator<Item = Kind> {
    kinds::all().filter(|kind| !kind.path.is_empty())
}

/// The served kind called `name`: by its name, plural, path or abbreviation, in any case.
pub(crate) fn find(name: &str) -> Result<Kind> {
    let wanted = name.to_lowercase();
    let named = |kind: &Kind| {
        [kind.name, kind.plural, kind.path, kind.short].iter().any(|n| n.to_lowercase() == wanted)
    };
    if let Some(kind) = served().find(|kind| !wanted.is_empty() && named(kind)) {
        return Ok(kind);
    }
    let known: Vec<&str> = served().map(|kind| kind.path).collect();
    bail!("the API serves no kind {name:?}; there are: {}", known.join(", "))
}

/// The path of all resources of `kind`, of one mesh where it has meshes.
pub(crate) fn list_path(kind: &Kind, mesh: Option<&str>) -> String {
    match (kind.scope, mesh) {
        (Scope::Mesh, Some(mesh)) => format!("/meshes/{mesh}/{}", kind.path),
        (Scope::Mesh | Scope::Global, _) => format!("/{}", kind.path),
    }
}

/// The path of the resource `name`. Kinds with meshes are looked for in `default` unless another
/// mesh is named.
pub(crate) fn path(kind: &Kind, mesh: Option<&str>, name: &str) -> String {
    let mesh = match kind.scope {
        Scope::Mesh => Some(mesh.unwrap_or("default")),
        Scope::Global => None,
    };
    format!("{}/{name}", list_path(kind, mesh))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_several_names() {
        for name in ["MeshTimeout", "meshtimeouts", "MT", "meshtimeout"] {
            assert_eq!(find(name).unwrap().name, "MeshTimeout");
        }
        assert!(find("").is_err());
    }

    #[test]
    fn only_kinds_that_the_api_serves_are_found_and_offered() {
        for unserved in ["pod", "config", "configs"] {
            let error = find(unserved).unwrap_err().to_string();
            let start = format!("the API serves no kind {unserved:?}; there are: ");
            let offered = error.strip_prefix(&start).expect("the kinds are named");
            for name in offered.split(", ") {
                assert_eq!(find(name).unwrap().path, name);
            }
        }
        for kind in served() {
            for name in [kind.name, kind.plural, kind.path, kind.short] {
                assert!(name.is_empty() || find(name).unwrap().name == kind.name, "{name}");
            }
        }
    }

    #[test]
    fn a_path_names_the_mesh_where_there_is_one() {
        let (timeout, zone) = (find("mt").unwrap(), find("zone").unwrap());
        assert_eq!(path(&timeout, None, "a"), "/meshes/default/meshtimeouts/a");
        assert_eq!(path(&timeout, Some("shop"), "a"), "/meshes/shop/meshtimeouts/a");
        assert_eq!(path(&zone, Some("shop"), "a"), "/zones/a");
        assert_eq!(list_path(&timeout, None), "/meshtimeouts");
    }
}
