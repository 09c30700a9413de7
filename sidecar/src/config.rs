//! What can be set.

use daemon::{Log, config::Problems};
use proxy::{
    ApplicationProbes, Settings, TransparentProxy,
    config::{Dns, EnvoySettings, Existing, Readiness, Spire, Zone},
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
    /// The mesh of a Dataplane that the control plane has already, as it has that of each pod.
    pub mesh: String,
    /// The name of that Dataplane.
    pub name: String,
    /// Whether Envoy binds a listener on each VIP, for applications that call services by name.
    pub bind_vips: bool,
    /// What `atoll install transparent-proxy` redirects to it, for applications that know of nothing.
    pub transparent_proxy: TransparentProxy,
    /// How Envoy is run.
    pub envoy: EnvoySettings,
    /// Where Envoy runs; unset: a folder named after the Dataplane among the temporary ones.
    pub workdir: Option<String>,
    /// Where it says whether it is ready.
    pub readiness: Readiness,
    /// The names of the mesh, answered beside the application.
    pub dns: Dns,
    /// What a kubelet asks the application through it.
    pub application_probes: ApplicationProbes,
    /// The SPIRE agent beside it.
    pub spire: Spire,
}

impl Config {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            zone: self.zone.clone(),
            token_file: self.token_file.clone(),
            dataplane: self.dataplane.clone(),
            resource: self.resource.clone(),
            existing: Existing { mesh: self.mesh.clone(), name: self.name.clone() },
            bind_vips: self.bind_vips,
            transparent_proxy: self.transparent_proxy.clone(),
            advertised: None,
            envoy: self.envoy.clone(),
            workdir: self.workdir.clone(),
            readiness: self.readiness.clone(),
            dns: self.dns.clone(),
            application_probes: self.application_probes.clone(),
            spire: self.spire.clone(),
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
    fn a_dataplane_may_stand_in_the_settings() {
        let file = "
zone: {address: 'https://zone.example', caFile: ca.crt}
tokenFile: token
bindVips: true
resource: {type: Dataplane, mesh: shop, name: web-1, networking: {address: 127.1.0.5}}
envoy: {drainTime: 1s}
";
        let config: Config = load(Some(file), []).unwrap();
        assert_eq!(config.resource.unwrap().pointer("/networking/address").unwrap(), "127.1.0.5");
        let config: Config =
            load(Some(file), [("ATOLL_ENVOY_PATH".into(), "/opt/envoy".into())]).unwrap();
        assert_eq!((config.envoy.path.as_str(), config.bind_vips), ("/opt/envoy", true));
    }

    #[test]
    fn one_switch_is_for_a_machine_that_redirects() {
        let file = "
zone: {address: 'https://zone.example', caFile: ca.crt}
tokenFile: token
dataplane: web.yaml
transparentProxy: {enabled: true}
";
        let config: Config = load(Some(file), []).unwrap();
        let expected = TransparentProxy {
            enabled: true,
            redirect_outbound_port: 15001,
            redirect_inbound_port: 15006,
            redirect_dns_port: 15053,
            ip_family_mode: proxy::Families::Dualstack,
        };
        assert_eq!(config.settings().transparent_proxy, expected);
        let vips = [("ATOLL_BIND_VIPS".into(), "true".into())];
        let error = load::<Config>(Some(file), vips).unwrap_err().to_string();
        let expected = "bindVips: must not be set together with transparentProxy.enabled";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn without_settings_it_says_what_is_missing() {
        let error = load::<Config>(None, []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid configuration: dataplane: must be set, or resource; tokenFile: must be set; \
             zone.caFile: must be set: without it anybody could be the control plane"
        );
    }
    /// As the control plane of a Kubernetes zone puts them into a pod; it has a test that these are
    /// they.
    #[test]
    fn the_settings_that_a_pod_gets_are_taken() {
        let env = include_str!("../../kubernetes/src/injection/testdata/sidecar.env.yaml");
        let env: std::collections::BTreeMap<String, String> = serde_saphyr::from_str(env).unwrap();
        let env = env.into_iter().map(|(name, value)| match &*name {
            // Kubernetes puts names in the place of `$(POD_NAME)`.
            "ATOLL_NAME" => (name, "cart-1.shop".to_owned()),
            _ => (name, value),
        });
        let config: Config = load(None, env).unwrap();
        assert_eq!((config.mesh.as_str(), config.name.as_str()), ("default", "cart-1.shop"));
        assert!(config.transparent_proxy.enabled);
        let asked = &config.application_probes.probes;
        let paths: Vec<_> = asked.keys().map(String::as_str).collect();
        let expected = [
            "/app/livenessProbe",
            "/app/preStop",
            "/app/readinessProbe",
            "/app/startupProbe",
            "/cache/livenessProbe",
            "/logs/startupProbe",
        ];
        assert_eq!(paths, expected);
        let live = proxy::How::Http {
            path: "/live?full=1".into(),
            tls: false,
            headers: vec![
                ("Host".into(), "cart.example".into()),
                ("X-Key".into(), "$(KEY)".into()),
            ],
        };
        assert_eq!(asked.get("/app/livenessProbe").map(|it| &it.how), Some(&live));
    }
}
