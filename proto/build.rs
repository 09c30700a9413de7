//! Compiles our .proto files and those of Envoy, which come with the registry package `envoy-types`
//! and are found where cargo unpacked it. Nothing of them is copied into the repository.

use anyhow::{Context, Result, ensure};
use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "envoy-types";
const OURS: &str = "protos";

/// What we use; what these import comes along.
const ROOTS: &[&str] = &[
    "atoll/session.proto",
    "kuma/mesh/dataplane.proto",
    "kuma/mesh/dataplane_insight.proto",
    "kuma/mesh/kds.proto",
    "kuma/mesh/mesh.proto",
    "kuma/mesh/mesh_insight.proto",
    "kuma/mesh/service_insight.proto",
    "kuma/system/config.proto",
    "kuma/system/secret.proto",
    "kuma/system/zone.proto",
    "kuma/system/zone_insight.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/runtime/v3/rtds.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/filters/http/credential_injector/v3/credential_injector.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/sni_cluster/v3/sni_cluster.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/http/injected_credentials/generic/v3/generic.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/matching/common_inputs/ssl/v3/ssl_inputs.proto",
    "envoy/extensions/matching/input_matchers/ip/v3/ip.proto",
    "envoy/extensions/matching/input_matchers/runtime_fraction/v3/runtime_fraction.proto",
    "envoy/extensions/regex_engines/v3/google_re2.proto",
    "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.proto",
    "envoy/extensions/resource_monitors/fixed_heap/v3/fixed_heap.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
];

fn main() -> Result<()> {
    let mut includes = include_folders(&package_folder()?.join("proto"))?;
    includes.push(OURS.into());
    let files = compile(&includes)?;
    let descriptors = Path::new(&variable("OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, files.encode_to_vec())?;

    let mut config = tonic_prost_build::Config::new();
    config
        // Equal messages have equal bytes: a hash of the bytes is a version.
        .btree_map(["."])
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .disable_comments(["."])
        .include_file("mod.rs")
        .compile_fds_with_config(files, config)?;

    // The lock file decides which Envoy API this is.
    for path in ["build.rs", OURS, "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    Ok(())
}

/// Where cargo unpacked the package. `--locked`, so that the build never changes the lock file and
/// never asks the network.
fn package_folder() -> Result<PathBuf> {
    let cargo = variable("CARGO")?;
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("cargo metadata")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("no packages")?;
    let named = |package: &&Value| package.get("name").is_some_and(|name| name == PACKAGE);
    let manifest = packages.iter().find(named).and_then(|package| package.get("manifest_path"));
    let manifest = manifest
        .and_then(Value::as_str)
        .with_context(|| format!("{PACKAGE} is not among the dependencies"))?;
    Ok(Path::new(manifest).parent().context("a manifest lies in a folder")?.into())
}

/// The package has one folder for each project that Envoy imports from.
fn include_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root).with_context(|| root.display().to_string())?;
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    folders.sort();
    Ok(folders)
}

/// A compiler for each root: protox resolves a relative type name in the wrong package when one
/// compiler has opened certain files together.
fn compile(includes: &[PathBuf]) -> Result<FileDescriptorSet> {
    let (mut all, mut seen) = (FileDescriptorSet::default(), BTreeSet::new());
    for root in ROOTS {
        if seen.contains(*root) {
            continue;
        }
        let mut compiler = protox::Compiler::new(includes)?;
        compiler.include_imports(true).include_source_info(false).open_file(root)?;
        for file in compiler.file_descriptor_set().file {
            if seen.insert(file.name().to_owned()) {
                all.file.push(file);
            }
        }
    }
    Ok(all)
}

#[expect(clippy::disallowed_methods, reason = "cargo talks to build scripts by variables")]
fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| name.to_owned())
}
