//! Parts that many resources have.

use prost_types::Any;
use proto::envoy::{
    config::{
        core::v3::{
            Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, SocketAddress,
            address, config_source::ConfigSourceSpecifier, data_source::Specifier,
            socket_address::PortSpecifier,
        },
        listener::v3::{Filter, filter},
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};
use std::{net::SocketAddr, time::Duration};

/// "On the stream on which this came."
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub(super) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    // Longer than Envoy can say is longer than anybody waits.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    prost_types::Duration::try_from(duration.min(LONGEST)).ok()
}

pub(super) fn seconds(seconds: u32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: seconds.into(), nanos: 0 })
}

/// Nothing for zero, which is how "without a limit" is said by fields whose absence means it.
pub(super) fn limit(limit: Duration) -> Option<prost_types::Duration> {
    if limit.is_zero() { None } else { duration(limit) }
}

pub(super) fn address(address: SocketAddr) -> Address {
    name_address(&address.ip().to_string(), address.port())
}

/// An address, or a name that Envoy resolves.
pub(super) fn name_address(host: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host.into(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

pub(super) fn inline(text: impl Into<String>) -> DataSource {
    let specifier = Some(Specifier::InlineString(text.into()));
    DataSource { specifier, ..DataSource::default() }
}

pub(super) fn filter(name: &str, config: Any) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

pub(super) fn exact(text: &str) -> StringMatcher {
    pattern(MatchPattern::Exact(text.into()))
}

pub(super) fn prefix(text: &str) -> StringMatcher {
    pattern(MatchPattern::Prefix(text.into()))
}

pub(super) fn pattern(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}
