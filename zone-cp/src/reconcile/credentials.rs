//! Certificates as proxies get them, from the zone's issuer.

use super::{Credential, Identities, Renewed};
use crate::{
    generate::Trust,
    identities::{Changes, Dirty, Issuer},
};
use futures::Stream;
use resource::{Labels, MeshName, ResourceKey};
use std::sync::Arc;

impl Identities for Issuer {
    fn credential(&self, proxy: &ResourceKey, labels: &Labels) -> Option<Arc<Credential>> {
        match self.svid(proxy, labels) {
            Ok(issued) => Some(Arc::new(Credential {
                identity: (*issued.identity).clone(),
                chain_pem: issued.svid.chain_pem.clone(),
                key_pem: issued.svid.key_pem.to_string(),
            })),
            Err(reason) => {
                tracing::warn!(dataplane = %proxy, %reason, "a proxy has no certificate");
                None
            }
        }
    }

    fn trust(&self, mesh: &MeshName) -> Arc<Trust> {
        Self::trust(self, mesh)
    }

    fn forget(&self, proxy: &ResourceKey) {
        Self::forget(self, proxy);
    }
}

/// What the tables have to look at again, as the issuer tells it.
pub fn renewed(changes: Changes) -> impl Stream<Item = Renewed> + Send {
    futures::stream::unfold(changes, |mut changes| async move {
        let Dirty { trust, proxies } = changes.next().await;
        Some((Renewed { trust, proxies }, changes))
    })
}
