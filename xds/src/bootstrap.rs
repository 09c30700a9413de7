//! The configuration with which Envoy starts: enough to ask for the rest.
//!
//! Written as JSON, which Envoy reads as YAML. Paths are relative to the working directory, which is
//! the proxy's own.

use crate::names::{RUNTIME, SPIRE_AGENT};
use daemon::config::Secret;
use resource::{MeshName, ZoneName};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Where Envoy's admin interface is. A socket file, so that only the proxy's user gets in.
pub const ADMIN_SOCKET: &str = "envoy-admin.sock";
/// The file with the token by which Envoy identifies itself. Replaced by renaming when it is
/// renewed; each new stream takes what it then says.
pub const TOKEN_FILE: &str = "token.yaml";
/// The field of the node's metadata with the socket of the SPIRE agent beside the proxy, if there is
/// one.
pub const SPIRE_SOCKET: &str = "spireAgent.socketPath";

const ADS: &str = "system_ads";
const ADMIN: &str = "system_envoy_admin";
const READINESS: &str = "system_probe_readiness";
const TOKEN: &str = "system_token";
const CONTROL_PLANE: &str = "cp_validation_ctx";
const MEBIBYTE: u64 = 1 << 20;
const DOWNSTREAM_CONNECTIONS: u32 = 50_000;

/// What a proxy's first configuration depends on.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The mesh of the proxy.
    pub mesh: MeshName,
    /// The name of its Dataplane.
    pub name: String,
    /// The workload it belongs to, if that is known.
    pub workload: Option<String>,
    /// The zone it is in.
    pub zone: ZoneName,
    /// The Dataplane as JSON, as it is in the API.
    pub dataplane: String,
    /// Whom Envoy asks for the rest.
    pub control_plane: ControlPlane,
    /// Where Envoy itself says that it is ready, if anybody asks it: on nothing else than `/ready`.
    pub readiness: Option<SocketAddr>,
    /// What it can do, by the names that Kuma gives it.
    pub features: Vec<String>,
    /// Whatever else its program wants to read in the node's metadata.
    pub metadata: Map<String, Value>,
    /// Where the admin interface is, if not at [`ADMIN_SOCKET`].
    pub admin_socket: Option<String>,
    /// The socket of the SPIRE agent beside the proxy, if there is one.
    pub spire_socket: Option<String>,
    /// The version of the proxy's program.
    pub version: String,
    /// How much memory Envoy may take, in MiB, before it refuses connections.
    pub max_heap_mib: u32,
    /// The token by which it identifies itself.
    pub token: Token,
}

/// A token, and how it gets to the control plane.
#[derive(Clone, Debug)]
pub enum Token {
    /// In the file [`TOKEN_FILE`], so that it can be renewed.
    File(Secret),
    /// In a header of each stream, as long as Envoy runs: for programs that write no files.
    Header(Secret),
}

/// Where a control plane serves proxies.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Its name or address.
    pub host: String,
    /// The name or address that its certificate must carry.
    pub server_name: String,
    /// Its port.
    pub port: u16,
    /// Who signed its certificate, as PEM.
    pub ca_pem: String,
}

/// What Envoy is started with.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The configuration.
    pub bootstrap: String,
    /// Files that it refers to, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Files hold secrets.
impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.files.keys().collect();
        f.debug_struct("Rendered").field("files", &files).finish_non_exhaustive()
    }
}

impl Bootstrap {
    /// The configuration and its files.
    #[must_use]
    pub fn render(&self) -> Rendered {
        let files = match &self.token {
            Token::File(token) => {
                let file = token_file(token.expose()).into_bytes();
                BTreeMap::from([(TOKEN_FILE.to_owned(), file)])
            }
            Token::Header(_) => BTreeMap::new(),
        };
        Rendered { bootstrap: format!("{:#}", self.json()), files }
    }

    fn json(&self) -> Value {
        let admin = self.admin_socket.as_deref().unwrap_or(ADMIN_SOCKET);
        let mut clusters = vec![self.control_plane.cluster(&self.token), admin_cluster(admin)];
        clusters.extend(self.spire_socket.as_deref().map(spire_cluster));
        json!({
            "node": self.node(),
            "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
            "dynamic_resources": dynamic_resources(&self.token),
            "static_resources": {
                "secrets": [self.control_plane.trust()],
                "clusters": clusters,
                "listeners": self.readiness.map(readiness).as_slice(),
            },
            "layered_runtime": {"layers": [
                {"name": "static", "static_layer": {
                    "re2.max_program_size.error_level": u32::MAX,
                    "re2.max_program_size.warn_level": 1000,
                }},
                // Withdrawn permissions. Envoy asks for nothing else until this is answered.
                {"name": RUNTIME, "rtds_layer": {"name": RUNTIME, "rtds_config": ads()}},
            ]},
            "overload_manager": overload(u64::from(self.max_heap_mib) * MEBIBYTE),
            // The tags that dashboards of the field know.
            "stats_config": {"stats_tags": [
                {"tag_name": "name", "regex": r"^grpc\.((.+)\.)"},
                {"tag_name": "status", "regex": r"^grpc.*streams_closed(_([0-9]+))"},
                {"tag_name": "worker", "regex": r"(worker_([0-9]+)\.)"},
                // Anchored, though it finds the same: Envoy compares each new statistic with it,
                // and at every place of a name that made a cluster cost 35 ms and not 3.
                {"tag_name": "listener", "regex": r"^((.+?)\.)rbac\."},
            ]},
            "default_regex_engine": {
                "name": "envoy.regex_engines.google_re2",
                "typed_config": typed("envoy.extensions.regex_engines.v3.GoogleRE2", json!({})),
            },
        })
    }

    fn node(&self) -> Value {
        let mut metadata = json!({
            "dataplane.proxyType": "dataplane",
            "dataplane.admin.socketPath": self.admin_socket.as_deref().unwrap_or(ADMIN_SOCKET),
            "dataplane.resource": self.dataplane,
            "features": self.features,
            "version": {"atoll": {"version": self.version}},
        });
        if let Some(readiness) = self.readiness {
            let port = json!(readiness.port().to_string());
            metadata = with(metadata, "dataplane.readinessReporter.port", port);
        }
        if let Some(socket) = &self.spire_socket {
            metadata = with(metadata, SPIRE_SOCKET, json!(socket));
        }
        for (field, value) in &self.metadata {
            metadata = with(metadata, field, value.clone());
        }
        json!({
            "id": format!("{}.{}", self.mesh, self.name),
            "cluster": self.workload.as_deref().unwrap_or("unknown"),
            "locality": {"zone": self.zone.as_str()},
            "metadata": metadata,
        })
    }
}

impl ControlPlane {
    /// The name, if it is an address and no name.
    fn server_ip(&self) -> Option<IpAddr> {
        self.server_name.parse().ok()
    }

    fn trust(&self) -> Value {
        let kind = if self.server_ip().is_some() { "IP_ADDRESS" } else { "DNS" };
        json!({
            "name": CONTROL_PLANE,
            "validation_context": {
                "trusted_ca": {"inline_string": self.ca_pem},
                "match_typed_subject_alt_names": [
                    {"san_type": kind, "matcher": {"exact": self.server_name}},
                ],
            },
        })
    }

    fn cluster(&self, token: &Token) -> Value {
        let address: Option<IpAddr> = self.host.parse().ok();
        let discovery = if address.is_some() { "STATIC" } else { "STRICT_DNS" };
        let sni = if self.server_ip().is_some() { "" } else { &*self.server_name };
        let filters = match token {
            Token::File(_) => json!([credentials(), {
                "name": "envoy.filters.http.upstream_codec",
                "typed_config": typed(
                    "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
                    json!({}),
                ),
            }]),
            Token::Header(_) => json!([]),
        };
        json!({
            "name": ADS,
            "type": discovery,
            "dns_lookup_family": "V4_PREFERRED",
            "connect_timeout": "1s",
            "upstream_connection_options": {"tcp_keepalive": {
                "keepalive_time": 10, "keepalive_interval": 5, "keepalive_probes": 3,
            }},
            "load_assignment": assignment(ADS, json!({"socket_address": {
                "address": self.host, "port_value": self.port,
            }})),
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": typed(
                    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    json!({
                        "sni": sni,
                        "common_tls_context": {
                            // Both: with a minimum of 1.3 alone no handshake succeeds.
                            "tls_params": {
                                "tls_minimum_protocol_version": "TLSv1_3",
                                "tls_maximum_protocol_version": "TLSv1_3",
                            },
                            "validation_context_sds_secret_config": {"name": CONTROL_PLANE},
                        },
                    }),
                ),
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    json!({
                        "http_filters": filters,
                        // A control plane that vanished sends no reset.
                        "explicit_http_config": {"http2_protocol_options": {
                            "connection_keepalive": {"interval": "10s", "timeout": "5s"},
                        }},
                    }),
                ),
            },
        })
    }
}

/// The file [`TOKEN_FILE`] that holds `token`.
#[must_use]
pub fn token_file(token: &str) -> String {
    let secret = json!({
        "name": TOKEN,
        "generic_secret": {"secret": {"inline_string": format!("Bearer {token}")}},
    });
    let secret = typed("envoy.extensions.transport_sockets.tls.v3.Secret", secret);
    format!("{:#}", json!({"resources": [secret]}))
}

/// Takes the token from its file for each new stream; `initial_metadata` would keep the first.
fn credentials() -> Value {
    let source = json!({"path_config_source": {"path": format!("./{TOKEN_FILE}")},
        "resource_api_version": "V3"});
    let generic = typed(
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        json!({"credential": {"name": TOKEN, "sds_config": source}}),
    );
    let injector = typed(
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        json!({"credential": {
            "name": "envoy.http.injected_credentials.generic", "typed_config": generic,
        }}),
    );
    json!({"name": "envoy.filters.http.credential_injector", "typed_config": injector})
}

fn dynamic_resources(token: &Token) -> Value {
    // Waits for the control plane, however long, rather than start empty.
    let patient = |source| with(source, "initial_fetch_timeout", json!("0s"));
    let mut service = json!({"envoy_grpc": {
        "cluster_name": ADS,
        // The default lets the gap between two tries grow to 18 s and more.
        "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "2s"}},
    }});
    if let Token::Header(token) = token {
        let header = json!([{"key": "authorization", "value": token.expose()}]);
        service = with(service, "initial_metadata", header);
    }
    json!({
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [service],
        },
        "lds_config": patient(ads()),
        "cds_config": patient(ads()),
    })
}

fn admin_cluster(socket: &str) -> Value {
    json!({
        "name": ADMIN,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment(ADMIN, json!({"pipe": {"path": socket}})),
    })
}

fn spire_cluster(socket: &str) -> Value {
    json!({
        "name": SPIRE_AGENT,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment(SPIRE_AGENT, json!({"pipe": {"path": socket}})),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                json!({"explicit_http_config": {"http2_protocol_options": {}}}),
            ),
        },
    })
}

/// Opens when Envoy has its first configuration, closes with a drain.
fn readiness(at: SocketAddr) -> Value {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let manager = json!({
        "stat_prefix": READINESS,
        "route_config": {
            "name": READINESS,
            "virtual_hosts": [{
                "name": READINESS,
                "domains": ["*"],
                // Nothing else of the admin interface.
                "routes": [{"match": {"path": "/ready"}, "route": {"cluster": ADMIN}}],
            }],
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    });
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        manager,
    );
    json!({
        "name": READINESS,
        "stat_prefix": READINESS,
        "enable_reuse_port": false,
        "bypass_overload_manager": true,
        "ignore_global_conn_limit": true,
        "address": {"socket_address": {
            "address": at.ip().to_string(), "port_value": at.port(),
        }},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    })
}

fn overload(max_heap: u64) -> Value {
    const HEAP: &str = "envoy.resource_monitors.fixed_heap";
    let action = |name: &str, threshold: f64| {
        let trigger = json!({"name": HEAP, "threshold": {"value": threshold}});
        json!({"name": format!("envoy.overload_actions.{name}"), "triggers": [trigger]})
    };
    json!({
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {"name": HEAP, "typed_config": typed(
                "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                json!({"max_heap_size_bytes": max_heap}),
            )},
            {"name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": typed(
                    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    json!({"max_active_downstream_connections": DOWNSTREAM_CONNECTIONS}),
                )},
        ],
        "actions": [
            action("shrink_heap", 0.9),
            action("disable_http_keepalive", 0.95),
            action("stop_accepting_connections", 0.98),
        ],
    })
}

fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

fn assignment(name: &str, address: Value) -> Value {
    let host = json!({"endpoint": {"address": address}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [host]}]})
}

fn typed(name: &str, message: Value) -> Value {
    with(message, "@type", json!(format!("type.googleapis.com/{name}")))
}

fn with(mut message: Value, field: &str, value: Value) -> Value {
    if let Some(fields) = message.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap(host: &str) -> Bootstrap {
        Bootstrap {
            mesh: "shop".parse().unwrap(),
            name: "web-1".into(),
            workload: Some("web".into()),
            zone: "west".parse().unwrap(),
            dataplane: r#"{"type":"Dataplane","mesh":"shop","name":"web-1"}"#.into(),
            control_plane: ControlPlane {
                host: host.into(),
                server_name: host.into(),
                port: 5678,
                ca_pem: "CA".into(),
            },
            readiness: Some("127.1.0.5:29902".parse().unwrap()),
            features: Vec::new(),
            metadata: Map::new(),
            admin_socket: None,
            spire_socket: Some("/run/spire/sockets/socket".into()),
            version: "0.1.0".into(),
            max_heap_mib: 512,
            token: Token::File("a.b.c".to_owned().into()),
        }
    }

    #[test]
    fn a_proxy_starts_with_what_the_golden_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/bootstrap.yaml");
        let made = serde_saphyr::to_string(&bootstrap("cp.west.example").json()).unwrap();
        if bless() {
            std::fs::write(path, &made).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        assert!(made == golden, "{path} is not what is generated:\n{made}");
    }

    #[expect(clippy::disallowed_methods, reason = "a test, and `make` says so by a variable")]
    fn bless() -> bool {
        std::env::var("BLESS").is_ok()
    }

    #[test]
    fn an_address_is_neither_looked_up_nor_asked_for_by_name() {
        let control_plane = bootstrap("fd00::1").control_plane;
        assert_eq!(
            control_plane.trust()["validation_context"]["match_typed_subject_alt_names"],
            json!([{"san_type": "IP_ADDRESS", "matcher": {"exact": "fd00::1"}}])
        );
        let cluster = control_plane.cluster(&Token::File(Secret::default()));
        assert_eq!(cluster["type"], "STATIC");
        assert_eq!(cluster["transport_socket"]["typed_config"]["sni"], "");
    }

    #[test]
    fn a_server_may_have_another_name_than_its_host() {
        let mut control_plane = bootstrap("127.0.0.1").control_plane;
        control_plane.server_name = "cp.west.example".into();
        assert_eq!(
            control_plane.trust()["validation_context"]["match_typed_subject_alt_names"],
            json!([{"san_type": "DNS", "matcher": {"exact": "cp.west.example"}}])
        );
        let cluster = control_plane.cluster(&Token::File(Secret::default()));
        assert_eq!(cluster["type"], "STATIC");
        assert_eq!(cluster["transport_socket"]["typed_config"]["sni"], "cp.west.example");
    }

    #[test]
    fn a_program_that_writes_no_files_gets_the_token_in_a_header() {
        let token = Token::Header("a.b.c".to_owned().into());
        let bootstrap = Bootstrap { token, readiness: None, ..bootstrap("cp.west.example") };
        let json = bootstrap.json();
        let service = &json["dynamic_resources"]["ads_config"]["grpc_services"][0];
        let header = json!([{"key": "authorization", "value": "a.b.c"}]);
        assert_eq!(service["initial_metadata"], header);
        assert_eq!(json["static_resources"]["listeners"], json!([]));
        assert!(!json.to_string().contains(TOKEN_FILE));
        assert_eq!(bootstrap.render().files, BTreeMap::new());
    }

    #[test]
    fn the_token_is_in_its_file_and_nowhere_else() {
        let bootstrap = bootstrap("cp.west.example");
        let rendered = bootstrap.render();
        let token = &rendered.files[TOKEN_FILE];
        let file: Value = serde_json::from_slice(token).unwrap();
        assert_eq!(
            file["resources"][0]["generic_secret"]["secret"]["inline_string"],
            "Bearer a.b.c"
        );
        let shown = format!("{} {bootstrap:?} {rendered:?}", rendered.bootstrap);
        assert!(!shown.contains("a.b.c"), "{shown}");
    }

    #[test]
    fn a_proxy_without_a_spire_agent_knows_none() {
        let json = Bootstrap { spire_socket: None, ..bootstrap("cp.west.example") }.json();
        let text = json.to_string();
        assert!(!text.contains(SPIRE_AGENT) && !text.contains(SPIRE_SOCKET), "{text}");
    }
}
