//! What a proxy begins with: its hello, and the command line of its Envoy.

use crate::{Bound, envoy::Launch};
use proto::atoll::proxy::v1::{Address, ControlPlane, Hello};
use std::{collections::BTreeMap, path::PathBuf};

impl Bound {
    /// Applications are dead until they answered.
    pub(crate) fn unprobed(&self) -> BTreeMap<String, bool> {
        self.dataplane.probes.keys().map(|name| (name.clone(), false)).collect()
    }

    pub(crate) fn hello(&self) -> Hello {
        let target = &self.dial.target;
        Hello {
            mesh: self.dataplane.mesh.clone(),
            name: self.dataplane.name.clone(),
            dataplane: self.dataplane.json.clone(),
            binds_vips: self.settings.bind_vips,
            advertised: self.settings.advertised.as_ref().map(|advertised| Address {
                host: advertised.address.clone(),
                port: advertised.port.into(),
            }),
            version: env!("CARGO_PKG_VERSION").into(),
            envoy_version: self.envoy_version.clone(),
            wants_records: self.names.is_some(),
            state: None,
            instance: uuid::Uuid::new_v4().to_string(),
            control_plane: Some(ControlPlane {
                address: Some(Address { host: target.host.clone(), port: target.port.into() }),
                server_name: target.server_name.clone(),
                ca: self.dial.ca.clone(),
            }),
            spire_socket: self.settings.spire.socket_path.clone(),
        }
    }

    pub(crate) fn launch(&self) -> Launch {
        let envoy = &self.settings.envoy;
        let mut arguments = vec![
            "-c".into(),
            self.workdir.bootstrap().to_string_lossy().into_owned(),
            "--disable-hot-restart".into(),
            "--drain-strategy".into(),
            "immediate".into(),
            "--drain-time-s".into(),
            envoy.drain_time.as_secs().max(1).to_string(),
            "--log-level".into(),
            envoy.log_level.clone(),
        ];
        if let Some(concurrency) = envoy.concurrency {
            arguments.extend(["--concurrency".into(), concurrency.to_string()]);
        }
        Launch {
            program: envoy.path.clone(),
            arguments,
            folder: self.workdir.path().to_owned(),
            log: envoy.log_file.as_ref().map(PathBuf::from),
        }
    }
}
