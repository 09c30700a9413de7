use super::*;
use serde::Deserialize;
use std::{collections::BTreeMap, net::SocketAddr};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Zone {
    zone: String,
    kds: Kds,
    apexes: Vec<String>,
    labels: BTreeMap<String, String>,
    password: Secret,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Kds {
    listen: SocketAddr,
    limit: u16,
    burst: Option<u16>,
    #[serde(with = "crate::duration")]
    patience: Duration,
    tls: Tls,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Tls {
    enabled: bool,
    cert_file: String,
    key_password: Option<Secret>,
}

impl Default for Kds {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 5685)),
            limit: 10,
            burst: None,
            patience: Duration::from_secs(5),
            tls: Tls::default(),
        }
    }
}

impl Config for Zone {
    fn check(&self, problems: &mut Problems) {
        if self.zone.is_empty() {
            problems.add("zone", "must be set");
        }
        problems.at("kds", |problems| {
            if self.kds.limit == 0 {
                problems.add("limit", "must be at least 1");
            }
            problems.at("tls", |problems| {
                if self.kds.tls.enabled && self.kds.tls.cert_file.is_empty() {
                    problems.add("certFile", "must be set when kds.tls.enabled");
                }
            });
        });
    }
}

fn zone(file: &str, env: &[(&str, &str)]) -> Result<Zone, ConfigError> {
    load(Some(file), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn problems(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    match zone(file, env) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(Problem::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_broken_rule_is_reported_at_once_with_its_path() {
    let file = "
        kds:
          listen: nowhere
          limit: 0
          patience: 5
          tls: {enabled: yes please}
          tsl: {certFile: a.pem}
        apexes: [a, {b: c}, 3]
        zoen: east";
    assert_eq!(
        problems(file, &[("ATOLL_KDS_TLS_ENABLED", "true"), ("ATOLL_KDS_BURST", "many")]),
        [
            "apexes[1]: invalid type: map, expected a string",
            r#"kds.burst: ATOLL_KDS_BURST: invalid type: string "many", expected u16"#,
            "kds.limit: must be at least 1",
            "kds.listen: invalid socket address syntax",
            "kds.patience: invalid type: integer `5`, expected a string",
            "kds.tls.certFile: must be set when kds.tls.enabled",
            "kds.tsl: no such setting",
            "zoen: no such setting",
            "zone: must be set",
        ]
    );
    let error = zone("{zoen: east}", &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid configuration: zoen: no such setting; zone: must be set"
    );
}

#[test]
fn the_environment_wins_over_the_file_which_wins_over_the_default() {
    let file = "{zone: east, kds: {limit: 20, tls: {certFile: a.pem}, listen: '[::1]:1'}}";
    let env = [
        ("ATOLL_KDS_TLS_CERT_FILE", "b.pem"),
        ("ATOLL_KDS_LIMIT", "30"),
        ("ATOLL_KDS_BURST", "40"),
        ("ATOLL_KDS_PATIENCE", "1h30m"),
        ("ATOLL_APEXES", "[mesh.local, '12']"),
        ("ATOLL_LABELS", "{tier: edge}"),
        ("ATOLL_PASSWORD", "0123"),
        ("ATOLL_KDS_TLS_KEY_PASSWORD", "0456"),
        ("PATH", "/bin"),
    ];
    let config = zone(file, &env).unwrap();
    assert_eq!(config.password.expose(), "0123");
    assert_eq!(config.kds.tls.key_password.as_ref().map(Secret::expose), Some("0456"));
    let expected = "zone: east
kds:
  listen: '[::1]:1'
  limit: 30
  burst: 40
  patience: 1h30m
  tls:
    enabled: false
    certFile: b.pem
    keyPassword: '[redacted]'
apexes:
- mesh.local
- '12'
labels:
  tier: edge
password: '[redacted]'
";
    assert_eq!(print(&config).replace('"', "'"), expected);
}

#[test]
fn what_kubernetes_tells_of_a_service_is_no_setting() {
    let told = [
        ("ATOLL_ZONE_CP_SERVICE_HOST", "10.0.0.1"),
        ("ATOLL_ZONE_CP_SERVICE_PORT", "5678"),
        ("ATOLL_ZONE_CP_PORT_5678_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(zone("zone: east", &told).is_ok());
    let of_no_service = [("ATOLL_ZONE_CP_SERVICE_PORT", "5678")];
    let expected = ["ATOLL_ZONE_CP_SERVICE_PORT: no setting has this name"];
    assert_eq!(problems("zone: east", &of_no_service), expected);
}

#[test]
fn an_unknown_variable_is_a_problem() {
    assert_eq!(
        problems("zone: east", &[("ATOLL_KDS_LIMT", "1"), ("ATOLL_KDS", "{}"), ("ATOLL_", "")]),
        [
            "ATOLL_: no setting has this name",
            "ATOLL_KDS: no setting has this name",
            "ATOLL_KDS_LIMT: no setting has this name",
        ]
    );
}

#[test]
fn a_secret_is_never_printed() {
    let shown = |config: &Zone| format!("{config:?} {} {}", print(config), config.password);
    let config = zone("{zone: east, password: hunter2}", &[]).unwrap();
    assert!(!shown(&config).contains("hunter2"), "{}", shown(&config));

    for file in [
        "{zone: east, password: 70013}",
        "{zone: east, password: 70.013}",
        "{zone: east, password: [70013]}",
        "{zone: east, password: {70013: x}}",
    ] {
        let error = zone(file, &[]).unwrap_err();
        assert!(error.to_string().starts_with("invalid configuration: password: "), "{error}");
        assert!(!format!("{error} {error:?}").contains("013"), "{error:?}");
    }
    let error = zone("{zone: east, password: hunter2", &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Malformed(_)));
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_file_without_settings_is_the_default() {
    let env = [("ATOLL_ZONE", "east")];
    for file in ["", "# nothing\n", "kds:\n", "kds: {tls: }", "---\n"] {
        assert_eq!(zone(file, &env).unwrap().kds.limit, 10, "{file:?}");
    }
    assert_eq!(
        problems("[zone, east]", &env),
        ["the file must hold settings, such as `log: {level: info}`"]
    );
    assert!(matches!(zone("zone: a\nzone: b", &[]), Err(ConfigError::Malformed(_))), "twice");
}
