//! The connection with global.

use crate::{Config, config::Global};
use anyhow::{Context, Result};
use api::expiry::{Holder, TokenFile};
use daemon::{Clock, ready::Guard};
use identity::tls::{Alpn, ClientFiles, ClientTls};
use kds::{
    admin::Answerer,
    dialect::Introduction,
    zone::{Client, Handle, Settings, tls},
};
use proto::kuma::system::v1alpha1::KumaCpVersion;
use resource::ZoneName;
use std::{fs, sync::Arc};
use store::{Kinds, Local};
use tokio_util::sync::CancellationToken;

/// Says which file of the connection with global cannot be used.
pub(crate) fn check(config: &Config) -> Result<()> {
    let alone = config.global.address.is_empty();
    if alone { Ok(()) } else { credentials(&config.global).map(drop) }
}

/// Whom the zone trusts to be global, and how it shows who it is.
fn credentials(global: &Global) -> Result<ClientTls> {
    let identity = (!global.cert_file.is_empty())
        .then(|| (global.cert_file.as_str().into(), global.key_file.as_str().into()));
    let files = ClientFiles { ca: global.ca_file.as_str().into(), identity };
    let tls = ClientTls::open("global", &files, Alpn::Grpc)?;
    if !global.token_file.is_empty() {
        let file = &global.token_file;
        let read = fs::read_to_string(file);
        read.with_context(|| format!("global.tokenFile: cannot read {file}"))?;
    }
    Ok(tls)
}

/// What of that expires.
pub(crate) fn expiring(config: &Config) -> Result<Vec<Arc<dyn Holder>>> {
    let global = &config.global;
    if global.address.is_empty() {
        return Ok(Vec::new());
    }
    let mut holders: Vec<Arc<dyn Holder>> = vec![Arc::new(credentials(global)?)];
    if !global.token_file.is_empty() {
        holders.push(TokenFile::own("global.tokenFile", &global.token_file, &config.zone.name));
    }
    Ok(holders)
}

/// The client that keeps `store` in step with global; `None` if the zone stands alone. Global is told
/// which process this is, and where it keeps its resources.
pub(crate) fn client(
    config: &Config,
    (store, kinds): (&Local, &Arc<Kinds>),
    (instance, home): (&str, Option<String>),
    answerer: Arc<dyn Answerer>,
    clock: &Clock,
) -> Result<Option<Client<Local>>> {
    let global = &config.global;
    let Some((host, port)) = global.target().map_err(anyhow::Error::msg)? else { return Ok(None) };
    let credentials = credentials(global)?;
    let zone = ZoneName::new(&config.zone.name).context("zone.name")?;
    let token_file = global.token_file.clone();
    let token = Arc::new(move || {
        if token_file.is_empty() {
            return None;
        }
        match fs::read_to_string(&token_file) {
            Ok(token) => Some(token.trim().to_owned()),
            Err(error) => {
                tracing::error!(file = token_file, %error, "the zone token cannot be read");
                None
            }
        }
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let introduction = Introduction {
        features: kds::dialect::own_features(),
        version: KumaCpVersion { version, ..KumaCpVersion::default() },
        config: shown_config(config),
        instance: instance.to_owned(),
    };
    let settings = Settings { home, ..Settings::new(zone, token, introduction) };
    let dial = tls(move || credentials.current(), host, port);
    let client =
        Client::new((store.clone(), kinds.clone()), settings, dial, answerer, clock.clone())?;
    Ok(Some(client))
}

/// What global is told of our settings; it looks at `store.type`.
fn shown_config(config: &Config) -> String {
    serde_json::to_string(config).expect("settings are plain data")
}

/// Holds `guard` until the zone knows everything that matters, from global or from its store.
pub(crate) async fn complete(handle: Handle, guard: Guard, stop: CancellationToken) -> Result<()> {
    after(Some(handle), stop.clone(), async move {
        drop(guard);
        stop.cancelled().await;
        Ok(())
    })
    .await
}

/// Runs `part` once the zone knows everything that matters: at once if it has no global. Before
/// that, what is missing may only be late.
pub(crate) async fn after(
    handle: Option<Handle>,
    stop: CancellationToken,
    part: impl Future<Output = Result<()>>,
) -> Result<()> {
    if let Some(handle) = handle {
        let mut state = handle.state();
        // The client lives as long as the program, which ends otherwise.
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            known = state.wait_for(|state| state.complete_once) => drop(known?),
        }
    }
    part.await
}
