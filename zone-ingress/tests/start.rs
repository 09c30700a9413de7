//! What the program says when it cannot start.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const CA: &str = include_str!("ca.pem");
/// Says of itself what an Envoy says.
const ENVOY: &str = "#!/bin/sh\necho 'envoy  version: 0/1.40.0/Clean/RELEASE/BoringSSL'\n";
const DATAPLANE: &str = "
type: Dataplane
mesh: shop
name: ingress-1
networking:
  address: 127.0.0.1
  listeners: [{type: ZoneIngress, address: 127.0.0.1, port: 10001}]
";

/// A folder with everything that the program needs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("there is room"));
        for (name, content) in
            [("ca.crt", CA), ("token", "a.b.c"), ("dataplane.yaml", DATAPLANE), ("envoy", ENVOY)]
        {
            fs::write(folder.path(name), content).expect("the folder is ours");
        }
        fs::set_permissions(folder.path("envoy"), Permissions::from_mode(0o755))
            .expect("the folder is ours");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What is in it, with its content.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = fs::read_dir(self.0.path())
            .expect("the folder is ours")
            .map(|entry| entry.expect("the folder is ours").path());
        let content = |path: &Path| {
            if path.is_dir() { Vec::new() } else { fs::read(path).expect("the folder is ours") }
        };
        let mut files: Vec<_> = paths.map(|path| (path.clone(), content(&path))).collect();
        files.sort();
        files
    }

    /// Runs the program with one setting that is wrong. Its exit code, and what it says.
    fn run(&self, wrong: (&str, &str)) -> (Option<i32>, String) {
        let file = |name: &str| self.path(name).display().to_string();
        let mut settings = vec![
            ("ATOLL_ZONE_ADDRESS", "https://127.0.0.1:9".to_owned()),
            ("ATOLL_ZONE_CA_FILE", file("ca.crt")),
            ("ATOLL_TOKEN_FILE", file("token")),
            ("ATOLL_DATAPLANE", file("dataplane.yaml")),
            ("ATOLL_WORKDIR", file("workdir")),
            ("ATOLL_ENVOY_PATH", file("envoy")),
            ("ATOLL_READINESS_ADDRESS", "127.0.0.1:0".to_owned()),
            ("ATOLL_ADVERTISED_ADDRESS", "203.0.113.10".to_owned()),
        ];
        settings.push((wrong.0, wrong.1.to_owned()));
        let output = Command::new(env!("CARGO_BIN_EXE_zone-ingress"))
            .env_clear()
            .envs(settings)
            .output()
            .expect("it is built with this test");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn what_it_cannot_have_is_named_by_its_setting_and_nothing_is_changed() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nowhere = folder.path("nowhere").display().to_string();
    // A folder that nobody could make, whoever runs this.
    let below_a_file = folder.path("token").join("workdir").display().to_string();
    let not_pem = folder.path("token").display().to_string();
    let empty = folder.path("empty");
    fs::write(&empty, "").unwrap();
    let empty = empty.display().to_string();
    let before = folder.files();
    for (setting, value, said) in [
        ("READINESS_ADDRESS", &taken, format!("readiness.address: cannot listen on {taken}")),
        ("ZONE_CA_FILE", &nowhere, format!("zone.caFile: {nowhere}: No such file")),
        ("ZONE_CA_FILE", &not_pem, format!("zone.caFile: {not_pem}: ")),
        ("WORKDIR", &below_a_file, format!("workdir: {not_pem}")),
        ("ENVOY_PATH", &nowhere, format!("envoy.path: cannot run {nowhere:?}")),
        ("TOKEN_FILE", &nowhere, format!("tokenFile: {nowhere}: No such file")),
        ("TOKEN_FILE", &empty, format!("tokenFile: {empty} holds no token")),
        ("DATAPLANE", &nowhere, format!("dataplane: {nowhere}: No such file")),
    ] {
        let (code, text) = folder.run((&format!("ATOLL_{setting}"), value));
        assert!(text.contains(&said), "{setting}: {text}");
        assert_eq!(code, Some(1), "{setting}: {text}");
        assert_eq!(folder.files(), before, "{setting}");
    }
}
