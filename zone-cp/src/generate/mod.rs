//! From a destination, an inbound or an identity to an Envoy resource. Pure.
//!
//! Equal input gives equal bytes, so that what did not change is not sent. What may stand in which
//! resource follows from what its change costs: a listener that changes drains its connections, so
//! permissions, routes and trust stand in resources of their own.

mod cluster;
mod common;
mod endpoint;
mod http;
mod listener;
mod matcher;
mod passthrough;
mod permission;
mod redirect;
mod route;
mod secret;
#[cfg(test)]
mod tests;
mod tls;
mod value;

pub use self::{
    cluster::{cluster, direct_cluster, inbound_cluster, ingress_cluster, outside_cluster},
    endpoint::load_assignment,
    listener::{direct_listener, inbound_listener, ingress_listener, outbound_listener},
    passthrough::{arriving_listener, leaving_listener},
    permission::{inbound_permissions, runtime},
    redirect::{Arriving, Family, Hosts, Leaving, Outside, Part, Redirection},
    route::{direct_route, inbound_route, outbound_route, outside_route},
    secret::{identity_secret, inbound_secret, trust_secret},
    value::{
        Credentials, Destination, Endpoint, Inbound, IngressListener, IngressService, Outbound,
        SpireAgent, TcpPermissions, Trust, Withdrawn,
    },
};
