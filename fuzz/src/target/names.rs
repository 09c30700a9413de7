//! Names in texts: KRIs, and names in transit.

use super::Target;
use anyhow::{Result, ensure};
use kds::transit::{InvalidTransitName, TransitKey, hashed_name, transit_name};
use resource::{Kri, MeshName, NameRule, ResourceKey, ZoneName};

/// What is printed is what was read.
pub(crate) struct Kris;

impl Target for Kris {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seeds = [
            "kri_mt_default_east_ns_a_",
            "kri_msvc_default___backend_http",
            "kri_hg___kuma-system_all_",
            "kri_mexts_mesh-1_east__a.b_80_81",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
    }

    fn run(&mut self, input: &[u8]) -> Result<String> {
        let text = String::from_utf8_lossy(input);
        let Ok(kri) = text.parse::<Kri>() else { return Ok("no KRI".into()) };
        ensure!(kri.to_string() == text, "{kri} was read from {text:?}");
        let whole = kri.with_section("");
        ensure!(whole.to_string().parse::<Kri>() == Ok(whole), "{kri}");
        let json = serde_json::to_string(&kri)?;
        ensure!(serde_json::from_str::<Kri>(&json)? == kri, "{json}");
        let Kri { mesh, zone, namespace, section, .. } = &kri;
        let empty = [mesh, zone, namespace, section].map(String::is_empty);
        Ok(format!("kri {empty:?}"))
    }
}

/// A name in transit is that of one resource, and a hashed one is a name.
pub(crate) struct Transits;

impl Target for Transits {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seeds = ["a.default", "a.", "a.b.c.mesh-1", "all-6v8x5dxdwzz9f448."];
        seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
    }

    fn run(&mut self, input: &[u8]) -> Result<String> {
        let text = String::from_utf8_lossy(input);
        let key = match text.parse::<TransitKey>() {
            Ok(key) => ResourceKey::from(key),
            Err(InvalidTransitName::NoMesh(_)) => return Ok("no mesh".into()),
            Err(InvalidTransitName::Mesh(_)) => return Ok("a bad mesh".into()),
        };
        ensure!(transit_name(&key) == text, "{key} was read from {text:?}");
        let zone = text.get(..4).and_then(|zone| ZoneName::new(zone).ok());
        let origin = [zone.as_ref().map(ZoneName::as_str), None];
        let hashed = hashed_name(key.mesh.as_ref(), &key.name, origin);
        let well = NameRule::Subdomain.check(&key.name).is_ok();
        if well {
            NameRule::Subdomain.check(&hashed)?;
        }
        let away = ResourceKey { mesh: key.mesh.clone(), name: hashed.into() };
        let again = transit_name(&away).parse::<TransitKey>().map(ResourceKey::from);
        ensure!(again.as_ref() == Ok(&away), "{again:?} is not {away}");
        let mesh = key.mesh.as_ref().map(MeshName::as_str).is_some();
        Ok(format!("key {mesh} {well}"))
    }
}
