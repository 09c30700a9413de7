//! The server names under which a destination's ports are reached from other zones.

use resource::{Kind, Resource};
use serde::Serialize;

/// One port's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sni {
    port: u32,
    sni: String,
}

/// The names of a destination's ports, by port.
pub(crate) fn of(kind: &Kind, row: &Resource) -> Vec<Sni> {
    let snis = kinds::snis(kind, row).into_iter();
    snis.filter_map(|(port, sni)| Some(Sni { port, sni: sni.ok()?.to_string() })).collect()
}

/// What the author of a destination should know: ports that other zones cannot ask for.
pub(crate) fn warnings(kind: &Kind, row: &Resource) -> Vec<String> {
    let snis = kinds::snis(kind, row).into_iter();
    let name = kind.name;
    snis.filter_map(|(port, sni)| {
        sni.err()
            .map(|error| format!("{name} port {port} cannot be called from other zones: {error}"))
    })
    .collect()
}
