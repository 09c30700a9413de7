//! Somebody who is always faster: a webhook that answers the first request of each sort as the API
//! server does when somebody else wrote the object meanwhile.

use anyhow::{Context, Result, bail};
use apiserver::Authority;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::Mutex,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// The sorts of requests that it refused.
type Refused = Arc<Mutex<BTreeSet<String>>>;

/// See the module; it ends with this value.
pub(crate) struct Rival {
    address: SocketAddr,
    authority: String,
    _runtime: Runtime,
}

impl Rival {
    pub(crate) fn start(address: SocketAddr) -> Result<Self> {
        let authority = Authority::new("rival")?;
        let pair = authority.server(&[&address.ip().to_string()])?;
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
        let chain = chain.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        runtime.spawn(serve(listener, acceptor));
        Ok(Self { address, authority: authority.certificate, _runtime: runtime })
    }

    /// What has the API server ask it about all that `user` writes.
    pub(crate) fn webhook(&self, user: &str) -> Value {
        let rule = |group: &str, version: &str, resources: &[&str], scope: &str| {
            json!({
                "apiGroups": [group], "apiVersions": [version], "resources": resources,
                "operations": ["CREATE", "UPDATE"], "scope": scope,
            })
        };
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": "rival" },
            "webhooks": [{
                "name": "rival.example.org",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "NoneOnDryRun",
                "failurePolicy": "Fail",
                "clientConfig": {
                    "url": format!("https://{}/", self.address),
                    "caBundle": STANDARD.encode(&self.authority),
                },
                "matchConditions": [
                    { "name": "user", "expression": format!("request.userInfo.username == '{user}'") },
                ],
                "rules": [
                    rule("kuma.io", "v1alpha1", &["*"], "*"),
                    rule("", "v1", &["secrets", "configmaps"], "Namespaced"),
                ],
            }],
        })
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    let (refused, mut connections) = (Refused::default(), JoinSet::new());
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, acceptor.clone(), refused.clone()));
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, refused: Refused) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| answer(request, refused.clone()));
    let builder = Builder::new(TokioExecutor::new());
    // Who asks notices.
    builder.serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(request: Request<Incoming>, refused: Refused) -> Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    let request = review.get("request").context("a request")?;
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str);
    let (Some(uid), Some(resource)) = (text("/uid"), text("/resource/resource")) else {
        bail!("no review: {review}")
    };
    let sort = format!("{} {resource}", text("/operation").unwrap_or_default());
    let allowed = !refused.lock().await.insert(sort);
    let mut response = json!({ "uid": uid, "allowed": allowed });
    if !allowed {
        let status = json!({ "code": 409, "reason": "Conflict", "message": "somebody was faster" });
        response.as_object_mut().context("an object")?.insert("status".into(), status);
    }
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    });
    let answer = Response::builder().header("content-type", "application/json");
    Ok(answer.body(Full::from(review.to_string()))?)
}
