//! The server names by which other zones ask for the ports of a destination.

use crate::{
    mesh_external_service::MeshExternalService, mesh_multi_zone_service::MeshMultiZoneService,
    mesh_service::MeshService,
};
use resource::{Kind, RejectedSpec, Resource, Spec};
use xds::names::{InvalidSni, Sni};

/// The server name of each port, by port, or why it has none; empty for kinds that are no
/// destinations.
#[must_use]
pub fn snis(kind: &Kind, row: &Resource) -> Vec<(u32, Result<Sni, InvalidSni>)> {
    let mut ports = ports(kind, row).unwrap_or_default();
    ports.sort_by_key(|(port, _)| *port);
    let kri = kind.kri(&row.head);
    ports.into_iter().map(|(port, section)| (port, Sni::of(&kri.with_section(&section)))).collect()
}

/// The number and section of each port.
fn ports(kind: &Kind, row: &Resource) -> Result<Vec<(u32, String)>, RejectedSpec> {
    let ports = if kind.name == MeshService::KIND {
        let service = crate::read::<MeshService>(row)?;
        service.ports.iter().map(|port| (port.port, port.section().into_owned())).collect()
    } else if kind.name == MeshMultiZoneService::KIND {
        let service = crate::read::<MeshMultiZoneService>(row)?;
        service.ports.iter().map(|port| (port.port, port.section().into_owned())).collect()
    } else if kind.name == MeshExternalService::KIND {
        let port = crate::read::<MeshExternalService>(row)?.r#match.port;
        u32::try_from(port).map(|port| (port, port.to_string())).into_iter().collect()
    } else {
        Vec::new()
    };
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mesh_external_service, mesh_multi_zone_service, mesh_service};
    use resource::{MeshName, Peer, ResourceKey};

    fn snis_of(kind: Kind, zone: Option<&str>, spec: &'static str) -> Vec<(u32, Option<String>)> {
        let key = ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), "cart");
        let labels = zone.map(|zone| ("kuma.io/zone", zone)).into_iter().collect();
        let row = kind.resource(key, labels, spec.into(), "".into(), Peer::Global).unwrap();
        let snis = snis(&kind, &row).into_iter();
        snis.map(|(port, sni)| (port, sni.ok().map(|sni| sni.to_string()))).collect()
    }

    #[test]
    fn each_port_has_a_name_by_its_name_or_number() {
        let spec = r#"{"selector":{},"ports":[{"port":90},{"name":"A_B","port":91},{"name":"http","port":80}]}"#;
        assert_eq!(
            snis_of(mesh_service::KIND, Some("east"), spec),
            [
                (80, Some("sni.msvc.shop.east.cart.http".into())),
                (90, Some("sni.msvc.shop.east.cart.90".into())),
                (91, None),
            ]
        );
    }

    #[test]
    fn services_of_several_zones_and_outside_the_mesh_have_names_too() {
        let multi = r#"{"selector":{"meshService":{"matchLabels":{"a":"b"}}},"ports":[{"name":"http","port":80}]}"#;
        assert_eq!(
            snis_of(mesh_multi_zone_service::KIND, None, multi),
            [(80, Some("sni.mzsvc.shop.cart.http".into()))]
        );
        let external = r#"{"match":{"port":443}}"#;
        assert_eq!(
            snis_of(mesh_external_service::KIND, Some("east"), external),
            [(443, Some("sni.extsvc.shop.east.cart.443".into()))]
        );
        assert_eq!(snis_of(crate::workload::KIND, None, "{}"), []);
    }
}
