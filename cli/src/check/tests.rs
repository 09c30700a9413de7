use super::*;
use http::{Request, Response, header::DATE};
use identity::Authority;
use k8s_openapi::ByteString;
use kube::client::Body;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, LazyLock},
};

const NAMESPACE: &str = "/api/v1/namespaces/kuma-system";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/kuma-system/deployments/atoll-zone-cp";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NODES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kuma-system/leases/cp-leader-lease";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/kuma-system/endpointslices";
const DRY_RUN: &str = "/apis/kuma.io/v1alpha1/namespaces/kuma-system/containerpatches";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const METRICS: &str = "/api/v1/namespaces/kuma-system/pods/cp-1:5680/proxy/metrics";
const READY: &str = "/api/v1/namespaces/kuma-system/pods/cp-1:5680/proxy/ready";
const READY_2: &str = "/api/v1/namespaces/kuma-system/pods/cp-2:5680/proxy/ready";
const PODS: &str = "/api/v1/namespaces/kuma-system/pods";
const ADDRESSES: &str = "/apis/kuma.io/v1alpha1/meshzoneaddresses";

fn now() -> Timestamp {
    "2026-11-29T12:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> String {
    (now() - jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn data(pairs: &[(&str, &str)]) -> Value {
    let data = pairs.iter().map(|(key, text)| (*key, ByteString(text.as_bytes().to_vec())));
    json!({ "data": data.collect::<BTreeMap<_, _>>() })
}

fn authority(at: &str) -> String {
    let domain = "atoll.example".parse().unwrap();
    Authority::generate(&domain, at.parse().unwrap()).unwrap().certificate_pem().to_owned()
}

/// What an API server answers at each path.
struct Fake {
    date: &'static str,
    answers: BTreeMap<String, (u16, Value)>,
}

impl Fake {
    /// A cluster in which everything is well.
    fn well() -> Self {
        let ca = authority("2026-11-29T00:00:00Z");
        let mut fake = Self { date: "Sun, 29 Nov 2026 12:00:00 GMT", answers: BTreeMap::new() };
        fake.put("/version", json!({ "major": "1", "minor": "36+", "gitVersion": "v1.36.3" }));
        fake.list(NODES, vec![lease("node-1", &ago(5))]);
        fake.list(DEFINITIONS, DEFINITIONS_SERVED.clone());
        fake.control_plane();
        let bundle = json!(ByteString(ca.clone().into_bytes()));
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            let webhook = json!({ "name": "one", "clientConfig": { "caBundle": bundle } });
            fake.put(&format!("{WEBHOOKS}/{plural}/atoll"), json!({ "webhooks": [webhook] }));
            fake.list(&format!("{WEBHOOKS}/{plural}"), Vec::new());
        }
        fake.put(
            &format!("{NAMESPACE}/secrets/atoll-zone-cp-tls"),
            data(&[("ca.crt", &ca), ("tls.crt", &ca)]),
        );
        fake.list(SLICES, vec![json!({ "endpoints": [{ "addresses": ["10.0.0.1"] }] })]);
        fake.put(DRY_RUN, json!({}));
        fake.put(REVIEWS, json!({ "status": { "allowed": true } }));
        fake.list("/api/v1/namespaces", vec![
            json!({ "metadata": { "name": "shop", "labels": { "kuma.io/sidecar-injection": "enabled" } } }),
            json!({ "metadata": { "name": "other" } }),
        ]);
        fake.list("/api/v1/pods", vec![pod("web", &["app", "kuma-sidecar"], true), ingress(true)]);
        fake.list("/api/v1/services", vec![service()]);
        fake.list(
            ADDRESSES,
            vec![json!({ "metadata": {
                "namespace": "kuma-system", "name": "a", "labels": { "kuma.io/mesh": "default" },
            }})],
        );
        fake
    }

    fn control_plane(&mut self) {
        self.put(DEPLOYMENT, json!({
            "metadata": { "labels": { "app.kubernetes.io/version": env!("CARGO_PKG_VERSION") } },
            "spec": { "template": { "spec": { "volumes": [
                { "name": "global", "secret": { "secretName": "atoll-zone" } },
            ]}}},
        }));
        self.list(PODS, vec![control_plane("cp-1")]);
        self.put(
            &format!("{NAMESPACE}/secrets/atoll-zone"),
            data(&[("token", "t"), ("ca.crt", "c")]),
        );
        self.put(LEASE, lease("cp-leader-lease", &ago(3)));
        let access: Value =
            serde_saphyr::from_str(include_str!("../../../deploy/helm/atoll/access.yaml")).unwrap();
        let subjects = json!({ "subjects": [
            { "kind": "ServiceAccount", "name": "atoll-zone-cp", "namespace": "kuma-system" },
        ]});
        let own = format!("{RBAC}/namespaces/kuma-system");
        self.put(
            &format!("{RBAC}/clusterroles/atoll-zone-cp"),
            json!({ "rules": access["cluster"] }),
        );
        self.put(&format!("{RBAC}/clusterrolebindings/atoll-zone-cp"), subjects.clone());
        self.put(&format!("{own}/roles/atoll-zone-cp"), json!({ "rules": access["namespace"] }));
        self.put(&format!("{own}/rolebindings/atoll-zone-cp"), subjects);
        let settings = "global: {address: 'https://global.example:5685'}";
        self.put(
            &format!("{NAMESPACE}/configmaps/atoll-zone-cp"),
            json!({ "data": { "settings.yaml": settings } }),
        );
        self.put(METRICS, json!("# HELP x\nfreshness_seconds{stage=\"Zone\"} 3.5\n# EOF\n"));
    }

    fn put(&mut self, path: &str, answer: Value) {
        self.answers.insert(path.to_owned(), (200, answer));
    }

    fn list(&mut self, path: &str, items: Vec<Value>) {
        self.put(path, json!({ "metadata": {}, "items": items }));
    }

    fn refuse(&mut self, path: &str, code: u16, message: &str) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "message": message, "reason": "x",
        });
        self.answers.insert(path.to_owned(), (code, status));
    }

    fn remove(&mut self, path: &str) {
        assert!(self.answers.remove(path).is_some(), "{path}");
    }

    fn at(&mut self, path: &str, pointer: &str) -> &mut Value {
        self.answers.get_mut(path).unwrap().1.pointer_mut(pointer).unwrap()
    }

    fn cluster(self) -> Cluster {
        let fake = Arc::new(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = fake.answer(request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        Cluster::new(Client::new(service, "default"), "kuma-system", deadline)
    }

    fn answer(&self, path: &str) -> Response<Body> {
        let absent = json!({
            "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
            "message": format!("{path} not found"),
        });
        let (code, answer) =
            self.answers.get(path).map_or((404, &absent), |(code, answer)| (*code, answer));
        // What a pod says is text.
        let body = answer.as_str().map_or_else(|| answer.to_string(), ToOwned::to_owned);
        Response::builder()
            .status(code)
            .header(DATE, self.date)
            .body(body.into_bytes().into())
            .unwrap()
    }
}

fn lease(name: &str, renewed: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "holderIdentity": "cp-1", "renewTime": renewed, "leaseDurationSeconds": 15 },
    })
}

/// Made once: it takes a while.
static DEFINITIONS_SERVED: LazyLock<Vec<Value>> = LazyLock::new(definitions);

fn definitions() -> Vec<Value> {
    let made = kinds::all().filter_map(|kind| kinds::crd::definition(&kind));
    let as_served = made.map(|mut definition| {
        definition["status"] =
            json!({ "conditions": [{ "type": "Established", "status": "True" }] });
        definition
    });
    let mut all: Vec<Value> = as_served.collect();
    all.sort_by_key(|definition| definition["metadata"]["name"].to_string());
    all
}

fn pod(name: &str, containers: &[&str], ready: bool) -> Value {
    let named = |name| json!({ "name": name, "ready": ready });
    let containers: Vec<_> = containers.iter().map(named).collect();
    json!({
        "metadata": { "namespace": "shop", "name": name, "labels": {} },
        "spec": { "containers": containers },
        "status": {
            "phase": "Running", "containerStatuses": containers,
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        },
    })
}

/// A control plane that works.
fn control_plane(name: &str) -> Value {
    let mut pod = pod(name, &["zone-cp"], true);
    pod["metadata"]["labels"] = json!({ "atoll.io/active": "true" });
    pod
}

fn ingress(ready: bool) -> Value {
    let mut pod = pod("ingress-1", &["kuma-sidecar"], ready);
    pod["metadata"]["namespace"] = json!("kuma-system");
    pod["metadata"]["labels"] =
        json!({ "part": "ingress", "kuma.io/sidecar-injection": "disabled" });
    pod
}

fn service() -> Value {
    json!({
        "metadata": { "namespace": "kuma-system", "name": "in", "labels": { "kuma.io/mesh": "default" } },
        "spec": { "type": "LoadBalancer", "selector": { "part": "ingress" } },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } },
    })
}

async fn run(fake: Fake, pre: bool, output: Format) -> (ExitCode, String) {
    let check = Check {
        pre,
        namespace: "kuma-system".into(),
        kubeconfig: None,
        kube_context: None,
        timeout: Duration::from_secs(30),
        output,
    };
    let mut text = Vec::new();
    let code = check.report(&fake.cluster(), now(), &mut Output::new(&mut text)).await.unwrap();
    (code, String::from_utf8(text).unwrap())
}

/// All that is not fine: outcome, check, and what was found.
async fn findings(fake: Fake, pre: bool) -> Vec<(String, String, String)> {
    let (code, text) = run(fake, pre, Format::Json).await;
    let report: Value = serde_json::from_str(&text).unwrap();
    let groups = report["groups"].as_array().unwrap().iter();
    let checks = groups.flat_map(|group| group["checks"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found: Vec<_> = checks
        .filter(|check| check["outcome"] != "fine")
        .map(|check| {
            assert!(!text(&check["todo"]).is_empty(), "{check}");
            (text(&check["outcome"]), text(&check["check"]), text(&check["found"]))
        })
        .collect();
    let failed = found.iter().any(|(outcome, ..)| outcome == "failure");
    assert_eq!(report["well"], !failed);
    let expected = if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    assert_eq!(format!("{code:?}"), format!("{expected:?}"));
    found
}

/// One thing is spoilt, and exactly that is found.
async fn spoilt(pre: bool, spoil: impl FnOnce(&mut Fake), outcome: &str, check: &str, what: &str) {
    let mut fake = Fake::well();
    spoil(&mut fake);
    let found = findings(fake, pre).await;
    let [(said, named, why)] = found.as_slice() else { panic!("{check}: {found:?}") };
    assert_eq!((said.as_str(), named.as_str()), (outcome, check));
    assert!(why.contains(what), "{check}: {what:?} in {why:?}");
}

#[tokio::test]
async fn a_cluster_in_which_all_is_well_is_said_to_be() {
    for pre in [false, true] {
        assert_eq!(findings(Fake::well(), pre).await, []);
        let (_, text) = run(Fake::well(), pre, Format::Table).await;
        assert!(text.ends_with("\nEverything is well.\n"), "{text}");
        assert!(!text.contains('×') && !text.contains('‼'), "{text}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let mut fake = Fake::well();
    fake.remove(DEPLOYMENT);
    fake.list(DEFINITIONS, Vec::new());
    let (_, text) = run(fake, false, Format::Table).await;
    let expected = "
Custom resource definitions
  × All are there
      missing: containerpatches.kuma.io, dataplaneinsights.kuma.io, dataplanes.kuma.io, \
         hostnamegenerators.kuma.io, meshaccesslogs.kuma.io and 28 more
      Run: atoll install crds | kubectl apply --server-side --force-conflicts -f -
  ✓ They are of this version
  ✓ They are served

Control plane
  × The Deployment atoll-zone-cp is there
      the namespace kuma-system has none
      Install it (docs/kubernetes.md), or say its namespace by --namespace.
";
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("Webhooks"), "{text}");
    assert!(text.ends_with("\n2 failures, 0 warnings.\n"), "{text}");
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_ends_it() {
    let mut fake = Fake::well();
    fake.answers.clear();
    let found = findings(fake, false).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].1, "It answers");
    assert!(found[0].2.starts_with("what answers is no API server: "), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_says_nothing_is_left_in_time() {
    let silent = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    });
    let deadline = Instant::now() + Duration::from_secs(3);
    let cluster = Cluster::new(Client::new(silent, "default"), "kuma-system", deadline);
    let refusal = cluster.version().await.unwrap_err();
    assert_eq!(refusal.to_string(), "no answer in the time of --timeout");
    assert_eq!(Instant::now(), deadline);
}

#[test]
fn causes_that_are_said_already_are_left_out() {
    let inner = anyhow::anyhow!("refused").context("connect").context("service: connect");
    assert_eq!(cluster::joined(inner).to_string(), "service: connect: refused");
}

#[tokio::test]
async fn time_and_version_of_the_cluster_are_looked_at() {
    let old = |fake: &mut Fake| *fake.at("/version", "/minor") = json!("29");
    spoilt(false, old, "failure", "It is Kubernetes 1.30 or newer", "v1.36.3").await;
    let mut fake = Fake::well();
    fake.date = "Sun, 29 Nov 2026 11:59:30 GMT";
    let found = findings(fake, false).await;
    assert_eq!(found[0].2, "they differ by 30s");
    // The cluster's clock is what nodes are compared with.
    let nodes = |age| move |fake: &mut Fake| fake.list(NODES, vec![lease("node-1", &ago(age))]);
    let check = "Nodes have the same time";
    spoilt(false, nodes(-20), "failure", check, "node-1 are ahead").await;
    spoilt(false, nodes(300), "warning", check, "node-1 are away").await;
}

#[tokio::test]
async fn definitions_of_another_version_are_named() {
    let other = |fake: &mut Fake| {
        *fake.at(DEFINITIONS, "/items/0/spec/versions/0/schema") = json!({});
    };
    let check = "They are of this version";
    spoilt(false, other, "failure", check, "containerpatches.kuma.io").await;
    let check = "No definitions of kuma.io of another version";
    spoilt(true, other, "warning", check, "containerpatches.kuma.io").await;
    let lost = |fake: &mut Fake| *fake.at(DEFINITIONS, "/items/1/status/conditions") = json!([]);
    spoilt(false, lost, "failure", "They are served", "dataplaneinsights.kuma.io").await;
}

#[tokio::test]
async fn before_an_installation_rights_and_others_are_looked_at() {
    let denied = |fake: &mut Fake| *fake.at(REVIEWS, "/status/allowed") = json!(false);
    let check = "You may create all that is installed";
    spoilt(true, denied, "failure", check, "configmaps, serviceaccounts").await;
    let kuma = |fake: &mut Fake| {
        let webhook = json!({ "metadata": { "name": "kuma-admission-mutating" } });
        fake.list(&format!("{WEBHOOKS}/mutatingwebhookconfigurations"), vec![webhook]);
    };
    spoilt(true, kuma, "failure", "No other control plane", "kuma-admission-mutating").await;
    let going =
        |fake: &mut Fake| fake.put(NAMESPACE, json!({ "status": { "phase": "Terminating" } }));
    spoilt(true, going, "failure", "The namespace kuma-system is free", "deleted").await;
}

#[tokio::test]
async fn the_control_plane_says_why_it_is_not_ready() {
    async fn first(spoil: impl FnOnce(&mut Fake)) -> (String, String, String) {
        let mut fake = Fake::well();
        *fake.at(PODS, "/items/0/status/conditions/0/status") = json!("False");
        spoil(&mut fake);
        findings(fake, false).await.remove(0)
    }
    let failure = |why: &str| ("failure".into(), "It is ready".into(), why.into());
    let asked = |fake: &mut Fake| {
        fake.answers.insert(READY.into(), (503, json!("not ready: kds\n")));
    };
    assert_eq!(first(asked).await, failure("cp-1: not ready: kds"));
    let waiting = |fake: &mut Fake| {
        let state =
            json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
        fake.at(PODS, "/items/0/status/containerStatuses/0")["state"] = state;
    };
    assert_eq!(first(waiting).await, failure("cp-1: ImagePullBackOff: no such image"));
    let unscheduled = |fake: &mut Fake| {
        *fake.at(PODS, "/items/0/status/conditions/0") =
            json!({ "type": "PodScheduled", "status": "False", "message": "0/3 nodes" });
    };
    assert_eq!(first(unscheduled).await, failure("cp-1: it has no node: 0/3 nodes"));
    let none = |fake: &mut Fake| fake.list(PODS, Vec::new());
    assert_eq!(first(none).await, failure("there is no pod"));
    // Nobody gets to one that stands by.
    let stands_by = |fake: &mut Fake| {
        let mut pod = pod("cp-1", &["zone-cp"], true);
        pod["metadata"]["labels"] = json!({});
        fake.list(PODS, vec![pod]);
        fake.put(READY, json!("ready\nlease: stands by: cp-2 works\n"));
    };
    assert_eq!(first(stands_by).await, failure("cp-1: ready\nlease: stands by: cp-2 works"));
}

#[tokio::test]
async fn who_stands_by_is_missed_before_it_is_needed() {
    let broken = |fake: &mut Fake| {
        fake.list(PODS, vec![control_plane("cp-1"), pod("cp-2", &["zone-cp"], false)]);
        fake.put(READY_2, json!("not ready: store\n"));
    };
    spoilt(false, broken, "warning", "It is ready", "cp-2: not ready: store").await;
    let mut fake = Fake::well();
    fake.list(PODS, vec![pod("cp-2", &["zone-cp"], true), control_plane("cp-1")]);
    assert_eq!(findings(fake, false).await, []);
}

#[tokio::test]
async fn what_the_control_plane_needs_is_looked_at() {
    let version = |fake: &mut Fake| {
        fake.at(DEPLOYMENT, "/metadata/labels")["app.kubernetes.io/version"] = json!("0.0.9");
    };
    spoilt(false, version, "warning", "It is of the version of this program", "it is 0.0.9").await;
    let secret = format!("{NAMESPACE}/secrets/atoll-zone");
    let check = "The Secret atoll-zone has what it needs for global";
    spoilt(false, |fake| fake.remove(&secret), "failure", check, "no such Secret").await;
    let partly = |fake: &mut Fake| fake.put(&secret, data(&[("ca.crt", "c")]));
    spoilt(false, partly, "failure", check, "it has no token").await;
    let nobody = |fake: &mut Fake| *fake.at(LEASE, "/spec/holderIdentity") = json!("");
    spoilt(false, nobody, "failure", "One is active", "nobody holds").await;
    let stale = |fake: &mut Fake| *fake.at(LEASE, "/spec/renewTime") = json!(ago(16));
    spoilt(false, stale, "failure", "One is active", "does not renew").await;
    spoilt(false, |fake| fake.remove(LEASE), "failure", "One is active", "there is no Lease").await;
    let role = format!("{RBAC}/clusterroles/atoll-zone-cp");
    let less = |fake: &mut Fake| *fake.at(&role, "/rules/0/verbs") = json!(["list"]);
    spoilt(
        false,
        less,
        "failure",
        "It may do what it must",
        "clusterroles/atoll-zone-cp is another",
    )
    .await;
    let binding = format!("{RBAC}/namespaces/kuma-system/rolebindings/atoll-zone-cp");
    let gone = |fake: &mut Fake| fake.remove(&binding);
    spoilt(
        false,
        gone,
        "failure",
        "It may do what it must",
        "rolebindings/atoll-zone-cp is missing",
    )
    .await;
}

#[tokio::test]
async fn webhooks_must_trust_and_reach_the_control_plane() {
    let mutating = format!("{WEBHOOKS}/mutatingwebhookconfigurations/atoll");
    let check = "mutatingwebhookconfigurations/atoll is there and trusts the control plane";
    spoilt(false, |fake| fake.remove(&mutating), "failure", check, "missing").await;
    let untrusting = |fake: &mut Fake| {
        *fake.at(&mutating, "/webhooks/0/clientConfig") = json!({});
    };
    spoilt(false, untrusting, "failure", check, "one").await;
    let other = |fake: &mut Fake| {
        let other = ByteString(authority("2026-11-29T00:00:00Z").into_bytes());
        *fake.at(&mutating, "/webhooks/0/clientConfig/caBundle") = json!(other);
    };
    spoilt(false, other, "failure", check, "one").await;
    let unreached = |fake: &mut Fake| *fake.at(SLICES, "/items/0/endpoints") = json!([]);
    spoilt(false, unreached, "failure", "The Service atoll-admission leads to it", "no endpoints")
        .await;
    let reason = "Internal error occurred: failed calling webhook \"default.kuma.io\": dial";
    let broken = |fake: &mut Fake| fake.refuse(DRY_RUN, 500, reason);
    spoilt(false, broken, "failure", "The API server reaches it", "failed calling webhook").await;
    // Who refuses has answered.
    let mut fake = Fake::well();
    fake.refuse(DRY_RUN, 403, "admission webhook \"validate.kuma.io\" denied the request");
    assert_eq!(findings(fake, false).await, []);
}

#[tokio::test]
async fn a_certificate_that_ends_is_named() {
    let path = format!("{NAMESPACE}/secrets/atoll-zone-cp-tls");
    let old = authority("2000-01-01T00:00:00Z");
    let ended = |fake: &mut Fake| {
        fake.at(&path, "/data")["tls.crt"] = data(&[("x", &old)])["data"]["x"].clone()
    };
    let check = "The certificate of the control plane is valid";
    spoilt(false, ended, "failure", check, "it ended at").await;
    let broken = |fake: &mut Fake| fake.at(&path, "/data")["tls.crt"] = json!("bm8=");
    spoilt(false, broken, "failure", check, "has no certificates").await;
    spoilt(false, |fake| fake.remove(&path), "failure", check, "no Secret").await;
}

#[tokio::test]
async fn what_comes_from_global_has_an_age() {
    let check = "Something comes from it";
    let late =
        |fake: &mut Fake| fake.put(METRICS, json!("freshness_seconds{stage=\"Zone\"} 75.2\n"));
    spoilt(false, late, "failure", check, "nothing for 1m15s").await;
    let never = |fake: &mut Fake| fake.put(METRICS, json!("# EOF\n"));
    spoilt(false, never, "warning", check, "nothing has come yet").await;
    let unseen = |fake: &mut Fake| fake.refuse(METRICS, 403, "no");
    spoilt(false, unseen, "warning", check, "may not be asked").await;
    let alone = |fake: &mut Fake| {
        *fake.at(&format!("{NAMESPACE}/configmaps/atoll-zone-cp"), "/data/settings.yaml") =
            json!("{}");
        fake.remove(METRICS);
    };
    let mut fake = Fake::well();
    alone(&mut fake);
    assert_eq!(findings(fake, false).await, []);
}

#[tokio::test]
async fn pods_without_a_sidecar_are_named_and_no_others() {
    let check = "Pods of namespaces in the mesh have a sidecar";
    let bare = |pods: Vec<Value>| {
        move |fake: &mut Fake| fake.list("/api/v1/pods", [vec![ingress(true)], pods].concat())
    };
    spoilt(false, bare(vec![pod("bare", &["app"], true)]), "warning", check, "shop/bare").await;
    let labelled = |name: &str, label: &str| {
        let mut pod = pod(name, &["app"], true);
        pod["metadata"]["labels"] = json!({ "kuma.io/sidecar-injection": label });
        pod
    };
    let mut wanted = labelled("wanted", "enabled");
    wanted["metadata"]["namespace"] = json!("other");
    spoilt(false, bare(vec![wanted]), "warning", check, "other/wanted").await;
    let (mut elsewhere, mut done) = (pod("elsewhere", &["app"], true), pod("done", &["app"], true));
    let (mut on_node, mut leaving) =
        (pod("on-node", &["app"], true), pod("leaving", &["app"], true));
    elsewhere["metadata"]["namespace"] = json!("other");
    done["status"]["phase"] = json!("Succeeded");
    on_node["spec"]["hostNetwork"] = json!(true);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-29T11:59:59Z");
    let mut fake = Fake::well();
    bare(vec![labelled("no", "disabled"), elsewhere, done, on_node, leaving])(&mut fake);
    assert_eq!(findings(fake, false).await, []);
    let unready = bare(vec![pod("web", &["app", "kuma-sidecar"], false)]);
    spoilt(false, unready, "warning", "Sidecars are ready", "shop/web").await;
}

#[tokio::test]
async fn an_ingress_must_be_ready_and_have_an_address() {
    let check = "Other zones get into the mesh default by kuma-system/in";
    let unready = |fake: &mut Fake| fake.list("/api/v1/pods", vec![ingress(false)]);
    spoilt(false, unready, "failure", check, "ingress-1 is not ready").await;
    spoilt(false, |fake| fake.list("/api/v1/pods", Vec::new()), "failure", check, "no pod").await;
    let unknown = |fake: &mut Fake| fake.list(ADDRESSES, Vec::new());
    spoilt(false, unknown, "failure", check, "no MeshZoneAddress").await;
    let pending = |fake: &mut Fake| {
        unknown(fake);
        *fake.at("/api/v1/services", "/items/0/status/loadBalancer") = json!({});
    };
    spoilt(false, pending, "failure", check, "no address yet").await;
    let none = |fake: &mut Fake| fake.list("/api/v1/services", Vec::new());
    spoilt(false, none, "warning", "Other zones get in", "no Service").await;
}

#[tokio::test]
async fn what_may_not_be_read_is_no_failure() {
    let hidden = |fake: &mut Fake| fake.refuse("/api/v1/pods", 403, "pods is forbidden");
    let mut fake = Fake::well();
    hidden(&mut fake);
    let found = findings(fake, false).await;
    assert!(found.iter().all(|(outcome, ..)| outcome == "warning"), "{found:?}");
    assert_eq!(found[0].2, "pods is forbidden");
}
