//! How a pod gets its sidecar: a function of the pod and of what is known, without I/O.

mod annotations;
mod config;
mod interception;
mod patches;
mod probes;
mod sidecar;
#[cfg(test)]
mod tests;

pub use self::{
    config::{Config, Resources},
    interception::{
        Direction, Dns, Families, ForUsers, Network, PortRange, Redirect, TransparentProxy,
    },
};

use self::{
    annotations::{GATEWAY, TOKEN_VOLUME, Wishes},
    patches::Patches,
    probes::{Asked, Rewrite},
    sidecar::Sidecar,
};
use crate::edits::Edits;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kinds::container_patch::ContainerPatch;
use resource::{MeshName, label};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// The container that runs the proxy.
pub const SIDECAR: &str = "kuma-sidecar";
/// The container that sets up the redirection of traffic.
pub const INIT: &str = "kuma-init";
/// The label, of a namespace or a pod, that says whether pods get a sidecar.
pub const INJECTION: &str = "kuma.io/sidecar-injection";
/// The label of a pod that is a proxy of its zone, and of no application.
pub const ZONE_PROXY: &str = "k8s.kuma.io/zone-proxy-type";
/// The annotation of a pod that has its sidecar.
pub const INJECTED: &str = "kuma.io/sidecar-injected";
/// The annotation of such a pod that says whether its traffic is redirected.
pub const INTERCEPTED: &str = "kuma.io/transparent-proxying";
/// The annotation that says where what comes to a pod is redirected to; 0 if it is not.
pub const INBOUND_PORT: &str = "kuma.io/transparent-proxying-inbound-port";
/// The annotation that says where what a pod opens is redirected to.
pub const OUTBOUND_PORT: &str = "kuma.io/transparent-proxying-outbound-port";
/// The annotation that says which addresses are redirected.
pub const FAMILIES: &str = "kuma.io/transparent-proxying-ip-family-mode";

/// The longest name of a resource.
const LONGEST: usize = 253;

/// What is known where pods are injected.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// How sidecars are.
    pub settings: &'a Config,
    /// The namespace of the control plane.
    pub system_namespace: &'a str,
    /// What sidecars trust the control plane by, as PEM.
    pub ca: &'a str,
    /// The domains of the mesh's names, if they are not the usual ones.
    pub apexes: &'a [String],
    /// Finds a ContainerPatch of the system namespace: of a mesh, or of any.
    pub patch: &'a dyn Fn(&MeshName, &str) -> Option<Arc<ContainerPatch>>,
    /// Finds what a ConfigMap of the system namespace says about transparent proxying.
    pub config_map: &'a dyn Fn(&str) -> Option<String>,
    /// Whether there is such a mesh.
    pub has_mesh: &'a dyn Fn(&MeshName) -> bool,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("settings", self.settings).finish_non_exhaustive()
    }
}

/// A namespace as far as it says something about its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It gets a sidecar.
    Inject {
        /// How it changes.
        patch: json_patch::Patch,
        /// What its user should know.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Leave(Reason),
}

/// Why a pod gets no sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It has one.
    #[error("it has a sidecar already")]
    Has,
    /// Nobody asked for one.
    #[error("neither it nor its namespace has the label {INJECTION}: enabled")]
    Unasked,
    /// It wants none.
    #[error("it has the label {INJECTION}: disabled")]
    Disabled,
    /// Its network is its node's.
    #[error("it uses the network of its node (hostNetwork), whose traffic is not its own")]
    HostNetwork,
    /// It is no program of Linux.
    #[error("sidecars run on Linux only")]
    Windows,
    /// A node runs it by itself, and the API server only shows it.
    #[error("it is a static pod, which its node runs as it is")]
    Static,
}

impl Reason {
    /// Whether who made the pod should hear of it.
    #[must_use]
    pub const fn surprises(self) -> bool {
        match self {
            Self::HostNetwork | Self::Windows | Self::Static => true,
            Self::Has | Self::Unasked | Self::Disabled => false,
        }
    }
}

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refusal {
    /// Where in the pod.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
}

fn refusal(field: impl Into<String>, reason: impl fmt::Display) -> Refusal {
    Refusal { field: field.into(), reason: reason.to_string() }
}

/// Decides what becomes of a pod, and how it changes.
pub fn inject(
    document: &Value,
    namespace: &Namespace,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let pod: Pod = serde::Deserialize::deserialize(document).map_err(|error| refusal("", error))?;
    let Some(spec) = &pod.spec else { return Err(refusal("spec", "must be set")) };
    if let Some(reason) = left_alone(&pod, spec, namespace)? {
        return Ok(Decision::Leave(reason));
    }
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let mesh = mesh(labels, annotations, namespace)?;
    check_name(&pod, namespace)?;
    let zone_proxy = labels.contains_key(ZONE_PROXY);
    let mut said = annotations.clone();
    // Kuma reads it of labels.
    said.extend(
        labels.get_key_value(annotations::SPIRE).map(|(key, on)| (key.clone(), on.clone())),
    );
    let wishes = Wishes::read(&said, context.settings, context.config_map, !zone_proxy)?;
    check(spec, &wishes, context.settings)?;
    let mut warnings = wishes.warnings.clone();
    if !(context.has_mesh)(&mesh) {
        warnings.push(format!("there is no mesh {mesh} in this zone yet: the pod waits for it"));
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let native = context.settings.native_sidecars || init.iter().any(goes_on);
    warnings.extend(doubts(&pod, spec, &wishes, native));

    let mut edits = Edits::of(document);
    let intercepted = &wishes.transparent_proxy;
    let asked = match wishes.probe_port {
        0 => Asked::new(),
        port => Rewrite { transparent_proxy: intercepted, port }.all(spec, &mut edits),
    };
    let sidecar = Sidecar {
        context,
        wishes: &wishes,
        mesh: mesh.as_str(),
        namespace: &namespace.name,
        asked: &asked,
        native,
    };
    check_ports(spec, &taken(context.settings, &wishes, &asked))?;
    let patches = Patches::find(&wishes.patches, &|name| (context.patch)(&mesh, name))?;
    let mut first = Vec::new();
    if intercepted.enabled {
        let direct = direct(context.settings, &wishes, &asked);
        let init = intercepted.container(context.settings, &direct);
        first.push(patches.init(&init)?);
    }
    let container = patches.sidecar(&sidecar.container())?;
    if native {
        first.push(container);
    } else {
        edits.append(&["spec", "containers"], container);
    }
    let at = if wishes.init_first { 0 } else { place(init) };
    for (i, container) in first.into_iter().enumerate() {
        edits.insert(&["spec", "initContainers"], at + i, container);
    }
    for volume in sidecar.volumes() {
        let volume = serde_json::to_value(volume).map_err(|error| refusal("", error))?;
        edits.append(&["spec", "volumes"], volume);
    }
    for (key, value) in told(&mesh, intercepted) {
        edits.set(&["metadata", "annotations"], key, value.into());
    }
    Ok(Decision::Inject { patch: edits.done(), warnings })
}

/// What others find out about the pod.
fn told(mesh: &MeshName, intercepted: &TransparentProxy) -> Vec<(&'static str, String)> {
    let redirect = &intercepted.redirect;
    let switch = if intercepted.enabled { label::ENABLED } else { label::DISABLED };
    let mut told = vec![
        (INJECTED, "true".to_owned()),
        (label::MESH, mesh.to_string()),
        (INTERCEPTED, switch.to_owned()),
    ];
    if intercepted.enabled {
        told.push((INBOUND_PORT, redirect.inbound_port().to_string()));
        told.push((OUTBOUND_PORT, redirect.outbound_port().to_string()));
        told.push((FAMILIES, intercepted.ip_family_mode.as_str().to_owned()));
    }
    told
}

/// Whether a container of the list `initContainers` is one that goes on running.
fn goes_on(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Where ours stand among the init containers of an application: behind those that end before it
/// starts, which work without the mesh, and before the first that goes on, which waits for its probes.
fn place(init: &[Container]) -> usize {
    init.iter().position(goes_on).unwrap_or(init.len())
}

fn left_alone(pod: &Pod, spec: &PodSpec, namespace: &Namespace) -> Result<Option<Reason>, Refusal> {
    let labels = pod.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let asked = switch(label(INJECTION))
        .map_err(|reason| refusal(format!("metadata.labels[{INJECTION}]"), reason))?;
    let of_namespace = switch(namespace.labels.get(INJECTION)).unwrap_or_default();
    let proxy = label(ZONE_PROXY).is_some();
    let wanted = asked.unwrap_or_else(|| proxy || of_namespace == Some(true));
    let annotations = pod.metadata.annotations.as_ref();
    let mirrored = annotations.is_some_and(|it| it.contains_key("kubernetes.io/config.mirror"));
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    let reason = match () {
        () if asked == Some(false) => Reason::Disabled,
        () if !wanted => Reason::Unasked,
        () if containers.any(|container| container.name == SIDECAR) => Reason::Has,
        () if spec.host_network == Some(true) => Reason::HostNetwork,
        () if windows => Reason::Windows,
        () if mirrored => Reason::Static,
        () => return Ok(None),
    };
    Ok(Some(reason))
}

/// What a value of [`INJECTION`] says, in words that the webhooks are selected by.
pub(crate) fn injects(value: &str) -> Option<bool> {
    match value {
        "enabled" | "true" => Some(true),
        "disabled" | "false" => Some(false),
        _ => None,
    }
}

fn switch(value: Option<&String>) -> Result<Option<bool>, String> {
    let said = value
        .map(|it| injects(it).ok_or_else(|| format!("{it:?} is neither enabled nor disabled")));
    said.transpose()
}

/// The mesh of a pod: what is said nearest to it counts.
fn mesh(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    namespace: &Namespace,
) -> Result<MeshName, Refusal> {
    let places = [
        ("metadata.labels", labels),
        ("metadata.annotations", annotations),
        ("the namespace's labels", &namespace.labels),
        ("the namespace's annotations", &namespace.annotations),
    ];
    let said = places.iter().find_map(|(place, map)| Some((place, map.get(label::MESH)?)));
    let (place, name) = said.map_or((&"", "default"), |(place, name)| (place, name.as_str()));
    let named = MeshName::new(name);
    named.map_err(|error| refusal(format!("{place}[{}]", label::MESH), error))
}

/// Its Dataplane is named after both.
fn check_name(pod: &Pod, namespace: &Namespace) -> Result<(), Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let room = LONGEST.saturating_sub(namespace.name.len() + 1);
    if name.len() > room {
        let reason = format_args!("must have at most {room} bytes in a mesh, with its namespace");
        return Err(refusal("metadata.name", reason));
    }
    Ok(())
}

/// What cannot work with a sidecar.
fn check(spec: &PodSpec, wishes: &Wishes, settings: &Config) -> Result<(), Refusal> {
    if let Some(name) = &wishes.token_volume
        && !spec.volumes.iter().flatten().any(|volume| volume.name == *name)
    {
        let reason = format_args!("the pod has no volume {name:?}");
        return Err(annotations::refusal(TOKEN_VOLUME, reason));
    }
    if !wishes.transparent_proxy.enabled {
        return Ok(());
    }
    let uid = i64::from(settings.uid);
    let of_pod = spec.security_context.as_ref().and_then(|it| it.run_as_user);
    for (i, container) in spec.containers.iter().enumerate() {
        let own = container.security_context.as_ref().and_then(|it| it.run_as_user);
        if own.or(of_pod) == Some(uid) {
            let field = format!("spec.containers[{i}].securityContext.runAsUser");
            let reason = "is the user of the sidecar, whose traffic is not redirected";
            return Err(refusal(field, reason));
        }
    }
    Ok(())
}

/// Ports of the sidecar that kubelets call, and that are not redirected therefore.
fn direct(settings: &Config, wishes: &Wishes, asked: &Asked) -> Vec<u16> {
    let probes = (!asked.is_empty()).then_some(wishes.probe_port);
    [Some(settings.readiness_port), probes].into_iter().flatten().collect()
}

fn taken(settings: &Config, wishes: &Wishes, asked: &Asked) -> Vec<u16> {
    let mut ports = direct(settings, wishes, asked);
    ports.extend(wishes.transparent_proxy.ports());
    ports
}

/// Two programs of a pod cannot listen on one port.
fn check_ports(spec: &PodSpec, taken: &[u16]) -> Result<(), Refusal> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.filter(|(_, it)| goes_on(it)).map(|(i, it)| ("initContainers", i, it));
    let main = spec.containers.iter().enumerate().map(|(i, it)| ("containers", i, it));
    for (list, i, container) in main.chain(init) {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let number = u16::try_from(port.container_port).unwrap_or_default();
            if taken.contains(&number) {
                let field = format!("spec.{list}[{i}].ports[{j}].containerPort");
                return Err(refusal(field, format_args!("{number} is a port of the sidecar")));
            }
        }
    }
    Ok(())
}

/// What works, but not as one may think.
fn doubts(pod: &Pod, spec: &PodSpec, wishes: &Wishes, native: bool) -> Vec<String> {
    let mut doubts = Vec::new();
    let of_job = pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Job");
    if of_job && !native {
        let text = "a Job does not end while its sidecar runs: set nativeSidecars of the injector";
        doubts.push(text.to_owned());
    }
    let grace = u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or(0);
    let drain = wishes.drain_time.as_secs();
    if grace < drain {
        let text = "terminationGracePeriodSeconds is shorter than the sidecar's drain time";
        doubts.push(format!("{text} ({grace} s, {drain} s)"));
    }
    let gateway = pod.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(GATEWAY));
    if gateway && !wishes.transparent_proxy.enabled {
        doubts.push(format!("{GATEWAY} has no effect where nothing is redirected"));
    }
    doubts
}
