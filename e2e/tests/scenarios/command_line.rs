//! What an operator does with `atoll`, as it is written in the documents.

use super::Scenario;
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    process::programs,
    wait,
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

pub(crate) const ALL: &[Scenario] = &[
    ("an_operator_applies_gets_and_deletes", an_operator_applies_gets_and_deletes),
    ("the_command_line_finds_the_token_of_each_control_plane_here", finds_tokens),
    ("every_token_is_minted_and_used", every_token_is_minted_and_used),
    ("a_token_with_a_role_does_what_the_role_may", a_token_with_a_role_does_what_the_role_may),
];

/// `atoll`, in a home of its own.
pub(crate) struct Atoll {
    home: PathBuf,
    address: String,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    error: String,
}

impl Atoll {
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut atoll = Command::new(programs()?.join("atoll"))
            .env_clear()
            .env("HOME", &self.home)
            .args(["--address", &self.address])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = atoll.stdin.take().context("its input is a pipe")?;
        // It may not read it.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let output = atoll.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, error) = (text(output.stdout), text(output.stderr));
        Ok(Said { code: output.status.code(), out, error })
    }

    /// What it printed; it must have succeeded.
    pub(crate) fn says(&self, arguments: &[&str], input: &str) -> Result<String> {
        let said = self.run(arguments, input)?;
        if said.code == Some(0) { Ok(said.out) } else { bail!("{arguments:?}: {said:?}") }
    }

    /// What it printed, and why it failed; it must have failed.
    pub(crate) fn fails(&self, arguments: &[&str], input: &str) -> Result<String> {
        let said = self.run(arguments, input)?;
        let Said { code, out, error } = &said;
        if *code == Some(1) {
            Ok(format!("{out}{error}"))
        } else {
            bail!("{arguments:?}: {said:?}")
        }
    }
}

/// A global control plane whose data is where `atoll` looks for it.
pub(crate) fn here(last: u8) -> Result<(tempfile::TempDir, ControlPlane, Atoll)> {
    let home = tempfile::tempdir()?;
    let address = Ipv4Addr::new(127, 77, 1, last);
    let folder = home.path().join("global");
    fs::create_dir_all(&folder)?;
    let mut global = ControlPlane::global(&folder, address)?;
    global.start()?;
    let data = home.path().join(".local/share/atoll");
    fs::create_dir_all(&data)?;
    symlink(folder.join("data"), data.join("global-cp"))?;
    let atoll = Atoll { home: home.path().to_owned(), address: format!("http://{address}:5681") };
    Ok((home, global, atoll))
}

pub(crate) fn contains(text: &str, parts: &[&str]) -> Result<()> {
    match parts.iter().find(|part| !text.contains(**part)) {
        Some(part) => bail!("{part:?} is missing in {text:?}"),
        None => Ok(()),
    }
}

/// A policy that can be applied.
pub(crate) const TIMEOUT: &str = "
type: MeshTimeout
mesh: default
name: slow
spec:
  to:
    - targetRef: {kind: Mesh}
      default: {connectionTimeout: 3s}
";

/// A file with a good resource and two bad ones: the good one is there, the others are named with
/// all that is wrong, and the exit code says that something was.
fn an_operator_applies_gets_and_deletes() -> Result<()> {
    let (home, _global, atoll) = here(1)?;
    contains(&atoll.says(&["apply", "-f", "-"], TIMEOUT)?, &["slow"])?;
    let yaml = atoll.says(&["get", "meshtimeout", "slow", "-o", "yaml"], "")?;
    contains(&yaml, &["connectionTimeout: 3s"])?;
    // What it shows can be applied again.
    atoll.says(&["apply", "-f", "-"], &yaml)?;
    let json = atoll.says(&["get", "mt", "slow", "-o", "json"], "")?;
    let json: Value = serde_json::from_str(&json)?;
    if json.get("name").and_then(Value::as_str) != Some("slow") {
        bail!("{json}");
    }

    let bad = TIMEOUT.replace("slow", "bad").replace("3s", "0s").replace("Mesh}", "Nothing}");
    let worse = TIMEOUT.replace("slow", "worse").replace("3s", "-1s");
    let folder = home.path().join("policies");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("1.yaml"), format!("{bad}\n---\n{worse}"))?;
    fs::write(folder.join("2.yaml"), TIMEOUT.replace("slow", "good"))?;
    let folder = folder.display().to_string();
    let said = atoll.fails(&["apply", "-f", &folder], "")?;
    contains(&said, &["bad", "spec.to[0].targetRef.kind", "worse", "connectionTimeout"])?;
    let table = atoll.says(&["get", "meshtimeouts"], "")?;
    contains(&table, &["NAME", "slow", "good"])?;
    if table.contains("worse") {
        bail!("{table}");
    }

    atoll.says(&["delete", "meshtimeout", "slow"], "")?;
    contains(&atoll.fails(&["get", "meshtimeout", "slow"], "")?, &["slow"])?;
    contains(&atoll.fails(&["get", "nothings"], "")?, &["nothings", "meshtimeouts"])?;
    contains(&atoll.fails(&["get", "meshtimeouts", "--mesh", "none"], "")?, &["none"])?;
    contains(&atoll.says(&["completion", "bash"], "")?, &["complete"])
}

/// On a machine with a global and a zone, each is asked with its own token; the certificate of its
/// port with TLS is known too.
fn finds_tokens() -> Result<()> {
    let (home, global, mut atoll) = here(2)?;
    let address = Ipv4Addr::new(127, 77, 1, 3);
    let east = Zone { name: "east", address, namespace: None };
    let folder = home.path().join("east");
    let mut east = ControlPlane::zone(&folder, east, &global)?;
    east.start()?;
    symlink(folder.join("data"), home.path().join(".local/share/atoll/zone-cp"))?;
    wait::until("east is online", PATIENCE, || {
        contains(&atoll.says(&["zones"], "")?, &["east", "online"])
    })?;
    // The token of the zone is good for a day.
    let expiry = atoll.fails(&["expiry", "--within", "30d"], "")?;
    contains(&expiry, &["! ", "zone token", "east", "server certificate", "admin token"])?;
    atoll.says(&["expiry", "--within", "1h"], "")?;
    atoll.address = format!("http://{address}:5681");
    contains(&atoll.fails(&["expiry", "--within", "30d"], "")?, &["own token"])?;
    contains(&atoll.says(&["get", "zones"], "")?, &["east"])?;
    // A zone's control plane has no other zone.
    let other = "{type: Zone, name: west, enabled: true}";
    contains(&atoll.fails(&["apply", "-f", "-"], other)?, &["name: must be east"])?;
    atoll.address = format!("https://{address}:5682");
    contains(&atoll.says(&["get", "zones"], "")?, &["east"])?;
    atoll.address = format!("https://{}:5682", global.address);
    contains(&atoll.says(&["get", "meshes"], "")?, &["default"])
}

/// Tokens come out alone, so that they can be written to a file; what they are not for is refused,
/// and a zone whose token is of another one says so in its log and leaves nothing on global.
fn every_token_is_minted_and_used() -> Result<()> {
    let (home, global, atoll) = here(4)?;
    let dataplane =
        atoll.says(&["token", "dataplane", "--workload", "web", "--valid-for", "1h"], "")?;
    let user = atoll.says(&["token", "user", "--name", "ann", "--valid-for", "1h"], "")?;
    let zone = atoll.says(&["token", "zone", "south", "--valid-for", "1h"], "")?;
    for token in [&dataplane, &user, &zone] {
        if token.trim().split('.').count() != 3 || token.trim().contains(char::is_whitespace) {
            bail!("{token:?} is not a token");
        }
    }
    let status = global.status("/meshes", Some(user.trim()))?.as_u16();
    let of_zone = global.status("/meshes", Some(zone.trim()))?.as_u16();
    if (status, of_zone) != (200, 401) {
        bail!("{status}, {of_zone}");
    }
    let address = Ipv4Addr::new(127, 77, 1, 5);
    let folder = home.path().join("north");
    let north = Zone { name: "north", address, namespace: None };
    let north = ControlPlane::zone(&folder, north, &global)?;
    fs::write(folder.join("token"), zone)?;
    let process = north.launch()?;
    let why = r#"client-id is "north", the credential is of "south""#;
    wait::until("the zone says why", PATIENCE, || {
        if process.said(&format!("PermissionDenied: {}", why.replace('"', "\\\""))) {
            Ok(())
        } else {
            bail!("{}", process.tail())
        }
    })?;
    let zones = atoll.says(&["zones"], "")?;
    if zones.contains("south") || zones.contains("north") {
        bail!("{zones}");
    }
    Ok(())
}

/// What a role may is done with its token, and the rest is refused by the same API.
fn a_token_with_a_role_does_what_the_role_may() -> Result<()> {
    let (home, _global, atoll) = here(6)?;
    let token = |role: &str| -> Result<String> {
        let made = ["token", "user", "--name", "ann", "--role", role, "--valid-for", "1h"];
        let file = home.path().join(role.replace([':', '*'], "-"));
        fs::write(&file, atoll.says(&made, "")?)?;
        Ok(file.display().to_string())
    };
    let [admin, writer, reader] =
        [token("admin")?, token("writer:default")?, token("reader:default")?];
    let other = token("writer:shop")?;
    let timeout = ["apply", "-f", "-"];
    let run = |token: &str, arguments: &[&str], input: &str| {
        atoll.run(&[&["--token-file", token], arguments].concat(), input)
    };
    let mesh = "{type: Mesh, name: shop}";
    for (who, arguments, input, may) in [
        (&reader, &timeout[..], TIMEOUT, false),
        (&other, &timeout[..], TIMEOUT, false),
        (&writer, &timeout[..], TIMEOUT, true),
        (&writer, &timeout[..], mesh, false),
        (&writer, &["get", "secrets"][..], "", false),
        (&reader, &["get", "meshtimeout", "slow"][..], "", true),
        (&other, &["get", "meshtimeout", "slow"][..], "", false),
        (&reader, &["delete", "meshtimeout", "slow"][..], "", false),
        (&writer, &["token", "user", "--name", "eve", "--role", "admin"][..], "", false),
        (&writer, &["delete", "meshtimeout", "slow"][..], "", true),
        (&admin, &timeout[..], mesh, true),
        (&admin, &["get", "secrets", "-o", "yaml"][..], "", true),
    ] {
        let said = run(who, arguments, input)?;
        if (said.code == Some(0)) != may {
            bail!("{who} {arguments:?}: {said:?}");
        }
        if !may {
            contains(&format!("{}{}", said.out, said.error), &["ann/", "cannot access"])?;
        }
    }
    let refused = atoll.run(&["token", "user", "--name", "ann", "--role", "owner"], "")?;
    contains(&refused.error, &["must be admin, writer:MESH or reader:MESH"])
}
