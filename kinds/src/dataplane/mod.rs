//! Dataplane: where a proxy is and what it serves.

#[cfg(test)]
mod tests;
mod validate;

use crate::protobuf::{self, Protobuf};
use proto::kuma::mesh::v1alpha1::{
    Dataplane as Message,
    dataplane::{
        Networking,
        networking::{Inbound, Listener, inbound::State, listener},
    },
};
use resource::{CustomResource, Flow, Kind, NoStatus, Scope, Spec, Violations};
use std::borrow::Cow;
use xds::Protocol;

/// See [`Dataplane`].
pub const KIND: Kind = Kind::of::<Dataplane>();

protobuf::spec! {
    /// A proxy: beside a workload, or at the edge of a zone.
    Dataplane(Message)
}

impl Spec for Dataplane {
    type Encoding = Protobuf<Message>;
    type Status = NoStatus;

    const KIND: &'static str = "Dataplane";
    const PLURAL: &'static str = "dataplanes";
    const SHORT: &'static str = "dp";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::ZoneToGlobal;
    const CUSTOM: Option<CustomResource> =
        Some(CustomResource { names_mesh: true, ..CustomResource::NAMESPACED });

    fn validate(&self, violations: &mut Violations) {
        validate::validate(self, violations);
    }
}

impl Dataplane {
    fn networking(&self) -> Option<&Networking> {
        self.0.networking.as_ref()
    }

    /// What it serves to the mesh.
    #[must_use]
    pub fn inbounds(&self) -> &[Inbound] {
        self.networking().map_or(&[], |networking| &networking.inbound)
    }

    /// What it serves as the proxy of a zone.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        self.networking().map_or(&[], |networking| &networking.listeners)
    }

    /// Whether it is a gateway that somebody else runs.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.networking().is_some_and(|networking| networking.gateway.is_some())
    }

    /// The tag `key` of a gateway.
    #[must_use]
    pub fn gateway_tag(&self, key: &str) -> Option<&str> {
        self.networking()?.gateway.as_ref()?.tags.get(key).map(String::as_str)
    }

    /// Whether one of its listeners is of the sort `wanted`.
    #[must_use]
    pub fn has_listener(&self, wanted: listener::Type) -> bool {
        self.listeners().iter().any(|listener| listener.r#type() == wanted)
    }
}

/// How a proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is not connected, or serves nothing of what it should.
    Offline,
    /// It serves some of what it should.
    PartiallyDegraded,
    /// It serves all it should.
    Online,
}

impl Dataplane {
    /// What it should serve and does not, as a person calls it.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let inbounds = self.called().filter(|inbound| !is_healthy(inbound));
        let listeners = self.listeners().iter().filter(|listener| !is_ready(listener));
        let inbounds = inbounds.map(|inbound| format!("inbound {}", section(inbound)));
        let listeners = listeners.map(|listener| match &*listener.name {
            "" => format!("listener {}", listener.port),
            name => format!("listener {name}"),
        });
        inbounds.chain(listeners).collect()
    }

    /// The inbounds that somebody calls: those that no Service selects are no concern of anybody.
    fn called(&self) -> impl Iterator<Item = &Inbound> {
        self.inbounds().iter().filter(|inbound| inbound.state() != State::Ignored)
    }

    /// How it does, if it is `connected` to a control plane. A proxy that only calls serves nothing,
    /// and is online while it is connected.
    #[must_use]
    pub fn presence(&self, connected: bool) -> Presence {
        let inbounds = self.called().map(is_healthy);
        let serving: Vec<bool> = inbounds.chain(self.listeners().iter().map(is_ready)).collect();
        if !connected || (!serving.is_empty() && !serving.contains(&true)) {
            Presence::Offline
        } else if serving.contains(&false) && !self.is_gateway() {
            Presence::PartiallyDegraded
        } else {
            Presence::Online
        }
    }
}

fn is_ready(listener: &Listener) -> bool {
    // A state that is not known here is not ready.
    listener.state == listener::State::Ready as i32
}

/// Whether traffic may be sent to `inbound`.
#[must_use]
pub fn is_healthy(inbound: &Inbound) -> bool {
    // A state that is not known here is not ready.
    inbound.state == State::Ready as i32
        && inbound.health.as_ref().is_none_or(|health| health.ready)
}

/// The name of `inbound` in KRIs and policies: its name wherever it has one, else its port.
#[must_use]
pub fn section(inbound: &Inbound) -> Cow<'_, str> {
    if inbound.name.is_empty() {
        Cow::Owned(inbound.port.to_string())
    } else {
        Cow::Borrowed(&inbound.name)
    }
}

/// What is spoken on `inbound`; bytes if that is not known here.
#[must_use]
pub fn protocol(inbound: &Inbound) -> Protocol {
    inbound.protocol.parse().unwrap_or_default()
}
