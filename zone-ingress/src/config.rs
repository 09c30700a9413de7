//! What can be set.

use daemon::{Log, config::Problems};
use proxy::{
    ApplicationProbes, Settings, TransparentProxy,
    config::{Advertised, Dns, EnvoySettings, Existing, Readiness, Spire, Zone},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// The settings of the program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// How it logs.
    pub log: Log,
    /// The control plane of its zone.
    pub zone: Zone,
    /// The file that holds the dataplane token.
    pub token_file: String,
    /// The file that holds the Dataplane.
    pub dataplane: Option<String>,
    /// The Dataplane itself, if there is no file.
    pub resource: Option<Value>,
    /// The mesh of a Dataplane that the control plane has already, as it has that of each pod. It
    /// knows where other zones reach that, too.
    pub mesh: String,
    /// The name of that Dataplane.
    pub name: String,
    /// Where other zones reach it.
    pub advertised: Advertised,
    /// How Envoy is run.
    pub envoy: EnvoySettings,
    /// Where Envoy runs; unset: a folder named after the Dataplane among the temporary ones.
    pub workdir: Option<String>,
    /// Where it says whether it is ready.
    pub readiness: Readiness,
}

impl Config {
    pub(crate) fn settings(&self) -> Settings {
        let existing = Existing { mesh: self.mesh.clone(), name: self.name.clone() };
        let known = existing.is_set() && self.advertised == Advertised::default();
        Settings {
            zone: self.zone.clone(),
            token_file: self.token_file.clone(),
            dataplane: self.dataplane.clone(),
            resource: self.resource.clone(),
            existing,
            bind_vips: false,
            transparent_proxy: TransparentProxy::default(),
            advertised: (!known).then(|| self.advertised.clone()),
            envoy: self.envoy.clone(),
            workdir: self.workdir.clone(),
            readiness: self.readiness.clone(),
            dns: Dns::default(),
            application_probes: ApplicationProbes::default(),
            // It ends no TLS.
            spire: Spire::default(),
        }
    }
}

impl daemon::Config for Config {
    fn check(&self, problems: &mut Problems) {
        problems.at("log", |problems| self.log.check(problems));
        self.settings().check(problems);
    }

    fn log(&self) -> Log {
        self.log.clone()
    }

    fn stop_within(&self) -> Duration {
        self.settings().stop_within()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::config::load;

    #[test]
    fn without_settings_it_says_what_is_missing() {
        let error = load::<Config>(None, []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid configuration: advertised.address: must be set; dataplane: must be set, or \
             resource; tokenFile: must be set; zone.caFile: must be set: without it anybody could be \
             the control plane"
        );
    }

    #[test]
    fn the_public_address_may_come_from_the_environment() {
        let file = "
zone: {address: 'https://zone.example', caFile: ca.crt}
tokenFile: token
dataplane: ingress.yaml
";
        let env = [("ATOLL_ADVERTISED_ADDRESS".into(), "203.0.113.10".into())];
        let config: Config = load(Some(file), env).unwrap();
        let advertised = Advertised { address: "203.0.113.10".into(), port: 0 };
        assert_eq!(config.advertised, advertised);
    }
    #[test]
    fn a_control_plane_that_has_its_dataplane_knows_its_address() {
        let file = "
zone: {address: 'https://zone.example', ca: PEM}
tokenFile: token
";
        let named = [("ATOLL_MESH".into(), "shop".into()), ("ATOLL_NAME".into(), "in-7f9".into())];
        let config: Config = load(Some(file), named.clone()).unwrap();
        assert_eq!(config.settings().advertised, None);
        let file = format!("{file}advertised: {{address: 203.0.113.10}}");
        let error = load::<Config>(Some(&file), named).unwrap_err().to_string();
        let expected = "advertised: must not be set together with name: the control plane knows it";
        assert!(error.ends_with(expected), "{error}");
    }
}
