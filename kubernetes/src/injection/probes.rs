//! Probes of an application that its sidecar asks, since a kubelet has no identity of the mesh.

use super::interception::TransparentProxy;
use crate::edits::{Edits, object};
use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, HTTPGetAction, LifecycleHandler, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Map, Value, json};

/// What the sidecar is to ask, by path.
pub(super) type Asked = Map<String, Value>;

/// What a hook may take that nobody bounds.
const HOOK: i64 = 60;

/// Where questions stand in a pod, and where they go.
pub(super) struct Rewrite<'a> {
    pub(super) transparent_proxy: &'a TransparentProxy,
    /// The port of the sidecar for them.
    pub(super) port: u16,
}

impl Rewrite<'_> {
    /// Has kubelets ask the sidecar what they would ask the containers of `spec`.
    pub(super) fn all(&self, spec: &PodSpec, edits: &mut Edits<'_>) -> Asked {
        let mut asked = Asked::new();
        let grace = spec.termination_grace_period_seconds.unwrap_or(30);
        let init = spec.init_containers.iter().flatten().enumerate();
        // Others have none.
        let init = init.filter(|(_, container)| super::goes_on(container));
        let init = init.map(|(i, container)| ("initContainers", i, container));
        let main = spec.containers.iter().enumerate().map(|(i, it)| ("containers", i, it));
        for (list, index, container) in main.chain(init) {
            let index = index.to_string();
            let mut put = |field: &[&str], probe: Option<(Value, Value)>| {
                let (question, replaced) = probe?;
                let last = field.last().copied().unwrap_or_default();
                let path = format!("/{}/{last}", container.name);
                let at = [&["spec", list, &index][..], field].concat();
                edits.replace(&at, with_action(replaced, &path, self.port));
                asked.insert(path, question);
                Some(())
            };
            for (field, probe) in [
                ("livenessProbe", &container.liveness_probe),
                ("readinessProbe", &container.readiness_probe),
                ("startupProbe", &container.startup_probe),
            ] {
                put(&[field], probe.as_ref().and_then(|probe| self.probe(probe, container)));
            }
            let lifecycle = container.lifecycle.as_ref();
            for (field, hook, limit) in [
                ("postStart", lifecycle.and_then(|it| it.post_start.as_ref()), HOOK),
                ("preStop", lifecycle.and_then(|it| it.pre_stop.as_ref()), grace),
            ] {
                let hook = hook.and_then(|hook| self.hook(hook, container, limit));
                put(&["lifecycle", field], hook);
            }
        }
        asked
    }

    /// What to ask, and the probe without its action.
    fn probe(&self, probe: &Probe, container: &Container) -> Option<(Value, Value)> {
        let timeout = i64::from(probe.timeout_seconds.unwrap_or(1).max(1));
        let question = if let Some(http) = &probe.http_get {
            self.http(http, container, timeout)?
        } else if let Some(tcp) = &probe.tcp_socket {
            let port = self.port(tcp.host.as_deref(), &tcp.port, container)?;
            question(port, timeout, &json!("tcp"))
        } else {
            let grpc = probe.grpc.as_ref()?;
            let port = u16::try_from(grpc.port).ok().filter(|port| self.concerns(*port))?;
            let service = grpc.service.clone().filter(|service| !service.is_empty());
            let how = service.map_or_else(|| json!({}), |service| json!({ "service": service }));
            question(port, timeout, &json!({ "grpc": how }))
        };
        let bare = Probe { http_get: None, tcp_socket: None, grpc: None, ..probe.clone() };
        Some((question, serde_json::to_value(bare).ok()?))
    }

    fn hook(
        &self,
        hook: &LifecycleHandler,
        container: &Container,
        limit: i64,
    ) -> Option<(Value, Value)> {
        let question = self.http(hook.http_get.as_ref()?, container, limit.max(1))?;
        let bare = LifecycleHandler { http_get: None, ..hook.clone() };
        Some((question, serde_json::to_value(bare).ok()?))
    }

    fn http(&self, http: &HTTPGetAction, container: &Container, timeout: i64) -> Option<Value> {
        let port = self.port(http.host.as_deref(), &http.port, container)?;
        let path = http.path.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let tls = http.scheme.as_deref().is_some_and(|it| it.eq_ignore_ascii_case("https"));
        let headers = http.http_headers.iter().flatten();
        let headers: Vec<[&str; 2]> = headers.map(|it| [&*it.name, &*it.value]).collect();
        let how = object([
            ("path", Some(json!(format!("{slash}{path}")))),
            ("tls", tls.then(|| json!(true))),
            ("headers", (!headers.is_empty()).then(|| json!(headers))),
        ]);
        Some(question(port, timeout, &json!({ "http": how })))
    }

    /// The port, if what comes to it comes to Envoy first. Who names a host does not ask the pod.
    fn port(&self, host: Option<&str>, port: &IntOrString, container: &Container) -> Option<u16> {
        if host.is_some_and(|host| !host.is_empty()) {
            return None;
        }
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let named = |it: &&ContainerPort| it.name.as_ref() == Some(name);
                container.ports.iter().flatten().find(named)?.container_port
            }
        };
        u16::try_from(number).ok().filter(|port| self.concerns(*port))
    }

    fn concerns(&self, port: u16) -> bool {
        self.transparent_proxy.takes(port)
    }
}

/// In the form of the sidecar's settings.
fn question(port: u16, timeout: i64, how: &Value) -> Value {
    json!({ "port": port, "timeout": format!("{timeout}s"), "how": how })
}

fn with_action(mut probe: Value, path: &str, port: u16) -> Value {
    if let Value::Object(fields) = &mut probe {
        let action = json!({ "path": path, "port": port, "scheme": "HTTP" });
        fields.insert("httpGet".into(), action);
    }
    probe
}
