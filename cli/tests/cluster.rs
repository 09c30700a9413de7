//! What is printed for a cluster, and how one is looked at, with a real API server. It has no nodes,
//! so no pod runs.

use anyhow::{Context, Result, ensure};
use apiserver::{ApiServer, Options, trial};
use libtest_mimic::Arguments;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};
use tempfile::TempDir;

fn main() -> ExitCode {
    let trials = vec![
        trial(
            "what_is_printed_is_installed_and_looked_at_and_goes_again",
            what_is_printed_is_installed_and_looked_at_and_goes_again,
        ),
        trial("who_may_not_install_is_told_so", who_may_not_install_is_told_so),
        trial("examples_of_the_documentation_are_taken", examples_of_the_documentation_are_taken),
    ];
    let mut arguments = Arguments::from_args();
    // One server after the other: a small machine takes minutes to start several at once.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

const VALUES: &str = "
zone: {name: k8s-1, global: {address: 'https://192.0.2.1:5685', secret: atoll-zone}}
meshes: [{name: default, ingress: {service: {type: NodePort}}}]
";

/// What `atoll` prints, and whether it ends well.
fn atoll(words: &[&str]) -> Result<(bool, String)> {
    let said = Command::new(env!("CARGO_BIN_EXE_atoll")).args(words).output().context("atoll")?;
    let text = if said.stdout.is_empty() { said.stderr } else { said.stdout };
    Ok((said.status.success(), String::from_utf8(text)?))
}

fn check(kubeconfig: &Path, more: &[&str]) -> Result<(bool, String)> {
    let kubeconfig = kubeconfig.to_str().context("a path of text")?;
    atoll(&[&["check", "--kubeconfig", kubeconfig], more].concat())
}

/// A file with this text, and its path.
fn file(text: &str) -> Result<(TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file.yaml");
    fs::write(&path, text)?;
    let path = path.to_str().context("a path of text")?.to_owned();
    Ok((folder, path))
}

/// A check, its outcome, and what was found.
type Finding = (String, String, String);

fn look(server: &ApiServer) -> Result<Vec<Finding>> {
    let (well, text) = check(&server.kubeconfig(), &["--output", "json"])?;
    let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(report.get("well") == Some(&well.into()), "{text}");
    let groups = report.get("groups").and_then(Value::as_array).context("groups")?.iter();
    let checks = groups
        .flat_map(|group| group.get("checks").and_then(Value::as_array).into_iter().flatten());
    let text = |check: &Value, field: &str| {
        check.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    Ok(checks.map(|it| (text(it, "check"), text(it, "outcome"), text(it, "found"))).collect())
}

fn expect(found: &[Finding], check: &str, outcome: &str, what: &str) -> Result<()> {
    let entry = found.iter().find(|(name, ..)| name == check);
    let (_, said, why) = entry.with_context(|| format!("no {check:?} in {found:?}"))?;
    ensure!(said == outcome && why.contains(what), "{check}: {said}, {why}");
    Ok(())
}

fn what_is_printed_is_installed_and_looked_at_and_goes_again() -> Result<()> {
    let server = ApiServer::start_with(Options { controllers: true, ..Options::default() })?;
    let (well, text) = check(&server.kubeconfig(), &["--pre"])?;
    ensure!(well && text.ends_with("Everything is well.\n"), "{text}");

    let (_values, values) = file(VALUES)?;
    let (printed, text) = atoll(&["install", "control-plane", "--values", &values])?;
    ensure!(printed, "{text}");
    let (_manifests, manifests) = file(&text)?;
    server.kubectl(&["apply", "--server-side", "-f", &manifests])?;
    server.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    is_as_installed(&look(&server)?)?;

    let less = r#"[{"op": "remove", "path": "/rules/0"}]"#;
    server.kubectl(&["patch", "clusterrole", "atoll-zone-cp", "--type=json", "--patch", less])?;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/mesh";
    let other = format!(r#"[{{"op": "add", "path": "{path}", "value": {{"type": "string"}}}}]"#);
    server.kubectl(&["patch", "crd", "zones.kuma.io", "--type=json", "--patch", &other])?;
    let found = look(&server)?;
    expect(&found, "It may do what it must", "failure", "clusterroles/atoll-zone-cp is another")?;
    expect(&found, "They are of this version", "failure", "zones.kuma.io")?;

    server.kubectl(&["delete", "-f", &manifests, "--timeout=120s"])?;
    let kinds = "crd,clusterrole,clusterrolebinding,mutatingwebhookconfiguration,\
                 validatingwebhookconfiguration,namespace";
    let left = server.kubectl(&["get", kinds, "--output=name"])?;
    ensure!(!left.contains("atoll") && !left.contains("kuma"), "{left}");
    Ok(())
}

fn is_as_installed(found: &[Finding]) -> Result<()> {
    for check in [
        "It answers",
        "It is Kubernetes 1.30 or newer",
        "This machine has the same time",
        "All are there",
        "They are of this version",
        "They are served",
        "It is of the version of this program",
        "It may do what it must",
    ] {
        expect(found, check, "fine", "")?;
    }
    // Nothing runs here.
    expect(found, "It is ready", "failure", "")?;
    let secret = "The Secret atoll-zone has what it needs for global";
    expect(found, secret, "failure", "no such Secret")?;
    expect(found, "One is active", "failure", "there is no Lease")?;
    let webhooks = "mutatingwebhookconfigurations/atoll is there and trusts the control plane";
    expect(found, webhooks, "failure", "namespace.inject.kuma.io, pod.inject.kuma.io")?;
    expect(found, "The API server reaches it", "failure", "failed calling webhook")?;
    let ingress = "Other zones get into the mesh default by kuma-system/atoll-ingress-default";
    expect(found, ingress, "failure", "")
}

fn who_may_not_install_is_told_so() -> Result<()> {
    let server = ApiServer::start()?;
    let ann = server.kubeconfig_of("ann", &["system:authenticated"])?;
    let (well, text) = check(&ann, &["--pre"])?;
    ensure!(!well, "{text}");
    let expected = "
  × You may create all that is installed
      you may not create configmaps, serviceaccounts, services, deployments, \
                    horizontalpodautoscalers and 10 more
      Install as somebody with the ClusterRole cluster-admin.
";
    ensure!(text.contains(expected), "{text}");
    // What she may not read is said, and is no failure of the cluster.
    ensure!(text.contains("  ‼ No other control plane\n"), "{text}");
    ensure!(text.ends_with("\n1 failure, 4 warnings.\n"), "{text}");
    Ok(())
}

fn examples_of_the_documentation_are_taken() -> Result<()> {
    let server = ApiServer::start()?;
    let (printed, text) = atoll(&["install", "crds"])?;
    ensure!(printed, "{text}");
    let (_definitions, definitions) = file(&text)?;
    server.kubectl(&["apply", "--server-side", "-f", &definitions])?;
    server.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    server.kubectl(&["create", "namespace", "kuma-system"])?;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kubernetes.md");
    let page = fs::read_to_string(page)?;
    let examples = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut count = 0;
    for example in examples {
        let (_example, path) = file(example)?;
        server.kubectl(&["apply", "-f", &path]).with_context(|| example.to_owned())?;
        count += 1;
    }
    ensure!(count >= 5, "only {count} examples");
    Ok(())
}
