//! `atoll install`: what a machine or a Kubernetes cluster needs.

mod control_plane;

use self::control_plane::ControlPlane;
use crate::{output::Output, transparent_proxy::TransparentProxy};
use anyhow::Result;
use clap::Subcommand;

/// What to install.
#[derive(Debug, Subcommand)]
pub(crate) enum Install {
    /// Hand what programs of this machine open, and what comes to it, to its sidecar. Needs root and
    /// `nft`. Connections that are open stay as they are; the rules last until the machine restarts.
    #[command(after_help = "Example: atoll install transparent-proxy --proxy-user atoll --dry-run")]
    TransparentProxy(TransparentProxy),
    /// Print the custom resource definitions of all kinds, for `kubectl`. Changes nothing.
    #[command(after_help = "Example: atoll install crds | kubectl apply --server-side -f -")]
    Crds,
    /// Print all that makes a Kubernetes cluster a zone, or runs global in one, for `kubectl`. Changes
    /// nothing.
    #[command(after_help = "Example: atoll install control-plane --set zone.name=k8s-1 \
                      --set zone.global.address=https://global.example:5685 \
                      --set zone.global.secret=atoll-zone --set meshes[0].name=default \
                      | kubectl apply --server-side -f -\n\n\
                      What can be set is a part of the values of the Helm chart, with the same names; \
                      the chart itself takes all of them.")]
    ControlPlane(ControlPlane),
}

impl Install {
    pub(crate) fn run(self, out: &mut Output<'_>) -> Result<()> {
        match self {
            Self::TransparentProxy(asked) => asked.install(out),
            Self::ControlPlane(asked) => asked.print(out),
            Self::Crds => kinds::crd::manifests().iter().try_for_each(|made| out.text(&made.yaml)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_printed_as_one_stream_of_documents() {
        let mut printed = Vec::new();
        Install::Crds.run(&mut Output::new(&mut printed)).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        let made: Vec<serde_json::Value> = serde_saphyr::from_multiple(&printed).unwrap();
        let names: Vec<_> = made.iter().map(|made| made["metadata"]["name"].clone()).collect();
        let expected: Vec<_> = kinds::crd::manifests().into_iter().map(|made| made.name).collect();
        assert_eq!(names, expected);
    }
}
