//! The server names by which other zones ask for the ports of a destination.

use crate::mesh_service::{self, MeshService};
use resource::{Kind, Resource};
use xds::names::{InvalidSni, Sni};

/// The server name of each port, by port, or why it has none; empty for kinds that are no
/// destinations.
#[must_use]
pub fn snis(kind: &Kind, row: &Resource) -> Vec<(u32, Result<Sni, InvalidSni>)> {
    if kind.name != mesh_service::KIND.name {
        return Vec::new();
    }
    let Ok(service) = crate::read::<MeshService>(row) else { return Vec::new() };
    let kri = kind.kri(&row.head);
    let mut ports: Vec<_> = service.ports.iter().collect();
    ports.sort_by_key(|port| port.port);
    ports.into_iter().map(|port| (port.port, Sni::of(&kri.with_section(port.section())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use resource::{MeshName, Peer, ResourceKey};

    #[test]
    fn each_port_has_a_name_by_its_name_or_number() {
        let spec = r#"{"selector":{},"ports":[{"port":90},{"name":"A_B","port":91},{"name":"http","port":80}]}"#;
        let key = ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), "cart");
        let labels = [("kuma.io/zone", "east")].into_iter().collect();
        let kind = mesh_service::KIND;
        let row = kind.resource(key, labels, spec.into(), "".into(), Peer::Global).unwrap();
        let snis = snis(&kind, &row).into_iter();
        let snis: Vec<_> =
            snis.map(|(port, sni)| (port, sni.ok().map(|sni| sni.to_string()))).collect();
        assert_eq!(
            snis,
            [
                (80, Some("sni.msvc.shop.east.cart.http".into())),
                (90, Some("sni.msvc.shop.east.cart.90".into())),
                (91, None),
            ]
        );
    }
}
