//! The container that runs the proxy of a pod, and the volumes that it needs.

use super::{
    Config, Context,
    annotations::Wishes,
    config::{Resources, Spire},
    probes::Asked,
};
use daemon::duration;
use k8s_openapi::{
    api::core::v1::{
        CSIVolumeSource, Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
        HTTPGetAction, HostPathVolumeSource, ObjectFieldSelector, Probe, ProjectedVolumeSource,
        ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection,
        Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use std::collections::BTreeMap;

const TMP: &str = "kuma-sidecar-tmp";
const TOKEN: &str = "kuma-sidecar-token";
const TOKEN_FOLDER: &str = "/var/run/secrets/atoll";
const SPIRE: &str = "kuma-sidecar-spire";

/// Any address of the pod, of whichever family.
const ANYWHERE: &str = "[::]";

/// Everything that the container of a proxy depends on.
pub(super) struct Sidecar<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) wishes: &'a Wishes,
    pub(super) mesh: &'a str,
    pub(super) namespace: &'a str,
    pub(super) asked: &'a Asked,
    pub(super) native: bool,
}

/// What a container of ours may: as `user`, who is root only if it must be, with the capabilities `add`
/// and no others.
pub(super) fn confined(user: u32, add: &[&str]) -> SecurityContext {
    let add: Vec<String> = add.iter().map(|it| (*it).to_owned()).collect();
    SecurityContext {
        capabilities: Some(Capabilities {
            add: Some(add).filter(|add| !add.is_empty()),
            drop: Some(vec!["ALL".into()]),
        }),
        run_as_user: Some(user.into()),
        run_as_group: Some(user.into()),
        run_as_non_root: Some(user != 0),
        privileged: Some(false),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

impl Sidecar<'_> {
    pub(super) fn container(&self) -> Container {
        let settings = self.context.settings;
        let volume = self.wishes.token_volume.as_deref().unwrap_or(TOKEN);
        let mount = |name: &str, path: &str, read_only| VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            read_only: Some(read_only),
            ..VolumeMount::default()
        };
        let mut mounts = vec![mount(TMP, "/tmp", false), mount(volume, TOKEN_FOLDER, true)];
        mounts.extend(self.wishes.spire.then(|| mount(SPIRE, &settings.spire.mount_path, true)));
        Container {
            name: super::SIDECAR.into(),
            image: Some(settings.sidecar_image.clone()),
            image_pull_policy: pull_policy(settings),
            env: Some(self.env()),
            resources: resources(&settings.resources),
            restart_policy: self.native.then(|| "Always".into()),
            // The application of a pod waits for a sidecar that is one to Kubernetes.
            startup_probe: self.native.then(|| self.probe("/ready", 1, 120)),
            readiness_probe: Some(self.probe("/ready", 5, 3)),
            liveness_probe: Some(Probe {
                initial_delay_seconds: (!self.native).then_some(60),
                ..self.probe("/live", 10, 6)
            }),
            security_context: Some(confined(settings.uid, &[])),
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }
    }

    fn probe(&self, path: &str, period: i32, failures: i32) -> Probe {
        Probe {
            http_get: Some(HTTPGetAction {
                path: Some(path.into()),
                port: IntOrString::Int(self.context.settings.readiness_port.into()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(period),
            timeout_seconds: Some(3),
            failure_threshold: Some(failures),
            ..Probe::default()
        }
    }

    /// The settings of the program, with what the pod is called first: others refer to it.
    fn env(&self) -> Vec<EnvVar> {
        let of_pod = |name: &str, path: &str| EnvVar {
            name: name.into(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: path.into(),
                    ..ObjectFieldSelector::default()
                }),
                ..EnvVarSource::default()
            }),
        };
        let mut env = vec![
            of_pod("POD_NAME", "metadata.name"),
            of_pod("POD_NAMESPACE", "metadata.namespace"),
        ];
        let more = &self.wishes.env;
        let ours = self.settings().into_iter().filter(|(name, _)| !more.contains_key(*name));
        let ours = ours.map(|(name, value)| (name.to_owned(), value));
        let more = more.iter().map(|(name, value)| (name.clone(), value.clone()));
        env.extend(ours.chain(more).map(|(name, value)| EnvVar {
            name,
            value: Some(value),
            value_from: None,
        }));
        env
    }

    fn settings(&self) -> BTreeMap<&'static str, String> {
        let Context { settings, system_namespace, ca, apexes, .. } = self.context;
        let zone = match settings.control_plane.as_str() {
            "" => format!("https://{}.{system_namespace}.svc:5678", crate::SERVICE),
            address => address.to_owned(),
        };
        let at = |port: u16| format!("{ANYWHERE}:{port}");
        // As the resource that the control plane makes of the pod is named.
        let name = if self.namespace == *system_namespace {
            "$(POD_NAME)"
        } else {
            "$(POD_NAME).$(POD_NAMESPACE)"
        };
        let mut env = BTreeMap::from([
            ("ATOLL_MESH", self.mesh.to_owned()),
            ("ATOLL_NAME", name.to_owned()),
            ("ATOLL_ZONE_ADDRESS", zone),
            ("ATOLL_ZONE_CA", (*ca).to_owned()),
            ("ATOLL_TOKEN_FILE", format!("{TOKEN_FOLDER}/token")),
            // A folder that only we can enter: that of the volume is everybody's.
            ("ATOLL_WORKDIR", "/tmp/proxy".to_owned()),
            ("ATOLL_READINESS_ADDRESS", at(settings.readiness_port)),
            ("ATOLL_ENVOY_DRAIN_TIME", duration::print(self.wishes.drain_time)),
        ]);
        if self.wishes.spire {
            env.insert("ATOLL_SPIRE_SOCKET_PATH", settings.spire.socket());
        }
        if self.wishes.concurrency != 0 {
            env.insert("ATOLL_ENVOY_CONCURRENCY", self.wishes.concurrency.to_string());
        }
        let intercepted = &self.wishes.transparent_proxy;
        if intercepted.enabled {
            let redirect = &intercepted.redirect;
            let families = intercepted.ip_family_mode.as_str();
            let to = |port: u16| port.to_string();
            env.extend([
                ("ATOLL_TRANSPARENT_PROXY_ENABLED", "true".to_owned()),
                ("ATOLL_TRANSPARENT_PROXY_REDIRECT_INBOUND_PORT", to(redirect.inbound_port())),
                ("ATOLL_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_PORT", to(redirect.outbound_port())),
                ("ATOLL_TRANSPARENT_PROXY_REDIRECT_DNS_PORT", to(redirect.dns_port())),
                ("ATOLL_TRANSPARENT_PROXY_IP_FAMILY_MODE", families.to_owned()),
            ]);
            if !apexes.is_empty() {
                env.insert("ATOLL_DNS_APEXES", serde_json::json!(apexes).to_string());
            }
        }
        if !self.asked.is_empty() {
            let asked = serde_json::Value::Object(self.asked.clone()).to_string();
            // Kubernetes would put another variable in the place of `$(NAME)`.
            env.insert("ATOLL_APPLICATION_PROBES_PROBES", asked.replace("$(", "$$("));
            env.insert("ATOLL_APPLICATION_PROBES_LISTEN", at(self.wishes.probe_port));
        }
        env
    }

    /// Those that the pod does not have.
    pub(super) fn volumes(&self) -> Vec<Volume> {
        let settings = self.context.settings;
        let tmp = Volume {
            name: TMP.into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        let token = VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                audience: Some(settings.token_audience.clone()),
                expiration_seconds: i64::try_from(settings.token_expiration.as_secs()).ok(),
                path: "token".into(),
            }),
            ..VolumeProjection::default()
        };
        let token = self.wishes.token_volume.is_none().then(|| Volume {
            name: TOKEN.into(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![token]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        });
        let spire = self.wishes.spire.then(|| spire(&settings.spire));
        [Some(tmp), token, spire].into_iter().flatten().collect()
    }
}

/// Where the socket of the node's SPIRE agent is.
fn spire(settings: &Spire) -> Volume {
    let by_driver = settings.host_path.is_empty();
    Volume {
        name: SPIRE.into(),
        csi: by_driver.then(|| CSIVolumeSource {
            driver: settings.driver.clone(),
            read_only: Some(true),
            ..CSIVolumeSource::default()
        }),
        host_path: (!by_driver).then(|| HostPathVolumeSource {
            path: settings.host_path.clone(),
            type_: Some("Directory".into()),
        }),
        ..Volume::default()
    }
}

pub(super) fn pull_policy(settings: &Config) -> Option<String> {
    Some(settings.image_pull_policy.clone()).filter(|policy| !policy.is_empty())
}

pub(super) fn resources(given: &Resources) -> Option<ResourceRequirements> {
    let quantities = |of: &BTreeMap<String, String>| {
        let of = of.iter().map(|(name, value)| (name.clone(), Quantity(value.clone())));
        Some(of.collect::<BTreeMap<_, _>>()).filter(|of| !of.is_empty())
    };
    Some(ResourceRequirements {
        requests: quantities(&given.requests),
        limits: quantities(&given.limits),
        ..ResourceRequirements::default()
    })
}
