//! A zone that is a cluster without nodes: an API server alone, where everything is installed as
//! `atoll` prints it, and the control plane as a process beside it, with the rights that it has in a
//! cluster. What it asks of the API server is written down.

use crate::{
    control_plane::{ADMISSION, ControlPlane, POD, Zone},
    process::{programs, run},
};
use anyhow::{Context, Result};
use apiserver::{ApiServer, Kubeconfig, Options};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The namespace of the control plane.
pub const SYSTEM: &str = "kuma-system";

/// The ServiceAccount of the control plane.
const ACCOUNT: &str = "atoll-zone-cp";

/// See the module; it ends with this value.
#[derive(Debug)]
pub struct Clustered {
    /// The control plane, which is not started.
    pub control_plane: ControlPlane,
    /// The API server.
    pub server: ApiServer,
    audit: PathBuf,
    folder: TempDir,
}

/// A request of the control plane that the API server answered, or a watch that it began.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Empty: the core of Kubernetes.
    pub group: String,
    /// The plural of a kind; behind it, after a `/`, a part of the object, if it is about one.
    pub resource: String,
    /// What was to be done.
    pub verb: String,
    /// The status of the answer.
    pub code: u64,
}

impl Clustered {
    /// Installs a zone, which is alone or has a global.
    pub fn new(zone: Zone<'_>, global: Option<&ControlPlane>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let (policy, audit) = (at("policy.json"), at("audit.log"));
        fs::write(&policy, what_is_written_down().to_string())?;
        let flags = vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", audit.display()),
        ];
        let server = ApiServer::start_with(Options { flags, ..Options::default() })?;
        install(&server, zone, &at("manifests.json"))?;
        let words = ["create", "token", ACCOUNT, "--namespace", SYSTEM, "--duration=24h"];
        let token = server.kubectl(&words)?.trim().to_owned();
        let kubeconfig = at("kubeconfig");
        Kubeconfig { token, ..server.config() }.write(&kubeconfig)?;
        let control_plane =
            ControlPlane::of_cluster(&at("control-plane"), zone, &kubeconfig, global)?;
        let this = Self { control_plane, server, audit, folder };
        this.create(&own_pod())?;
        Ok(this)
    }

    /// A folder that ends with this value.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that the control plane asked of the API server so far.
    pub fn asked(&self) -> Result<Vec<Asked>> {
        let log = fs::read_to_string(&self.audit).unwrap_or_default();
        // The last line may be half of one.
        let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let read = |line: &str| asked(&serde_json::from_str(line).context(line.to_owned())?);
        lines.filter_map(|line| read(line).transpose()).collect()
    }

    /// Makes objects of manifests.
    pub fn create(&self, manifests: &Value) -> Result<()> {
        let file = self.folder.path().join("objects.json");
        fs::write(&file, manifests.to_string())?;
        self.server.kubectl(&["create", "-f", &file.display().to_string()]).map(drop)
    }
}

/// What the control plane takes for its own pod. It never runs.
fn own_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": POD, "namespace": SYSTEM },
        "spec": {
            "serviceAccountName": ACCOUNT,
            "containers": [{ "name": "zone-cp", "image": "zone-cp" }],
        },
    })
}

/// Only what the control plane asks.
fn what_is_written_down() -> Value {
    let user = format!("system:serviceaccount:{SYSTEM}:{ACCOUNT}");
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata", "users": [user] }, { "level": "None" }],
    })
}

/// `None` for the end of what was counted when it began.
fn asked(event: &Value) -> Result<Option<Asked>> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let code = event.pointer("/responseStatus/code").and_then(Value::as_u64).context("a status")?;
    let (verb, stage) = (text("/verb"), text("/stage"));
    if verb == "watch" && stage == "ResponseComplete" && code == 200 {
        return Ok(None);
    }
    let (mut resource, part) =
        (text("/objectRef/resource").to_owned(), text("/objectRef/subresource"));
    if !part.is_empty() {
        resource = format!("{resource}/{part}");
    }
    let (group, verb) = (text("/objectRef/apiGroup").to_owned(), verb.to_owned());
    Ok(Some(Asked { group, resource, verb, code }))
}

/// Applies what `atoll install control-plane` prints. There is no network of services: that of the
/// webhooks is another name for where the process is.
fn install(server: &ApiServer, zone: Zone<'_>, file: &Path) -> Result<()> {
    let atoll = programs()?.join("atoll").display().to_string();
    // What is said of global goes into the settings of a pod, and none runs.
    let global =
        ["zone.global.address=https://global.example:5685", "zone.global.secret=atoll-zone"];
    let name = format!("zone.name={}", zone.name);
    let said = [name.as_str()].into_iter().chain(global).flat_map(|it| ["--set", it]);
    let words: Vec<&str> = [&*atoll, "install", "control-plane"].into_iter().chain(said).collect();
    let printed = run(&words)?;
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&printed)?;
    for object in &mut objects {
        let is = |kind: &str| object.get("kind").is_some_and(|it| it == kind);
        let named = |name: &str| object.pointer("/metadata/name").is_some_and(|it| it == name);
        if is("Service") && named("atoll-admission") {
            let elsewhere =
                json!({ "type": "ExternalName", "externalName": zone.address.to_string() });
            object.as_object_mut().context("an object")?.insert("spec".into(), elsewhere);
        }
        let webhooks = object.get_mut("webhooks").and_then(Value::as_array_mut);
        for webhook in webhooks.into_iter().flatten() {
            let service = webhook.pointer_mut("/clientConfig/service");
            let service = service.and_then(Value::as_object_mut).context("a service")?;
            service.insert("port".into(), ADMISSION.into());
        }
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    fs::write(file, list.to_string())?;
    server.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    server.kubectl(&established).map(drop)
}
