use super::*;
use std::net::SocketAddr;

const PLAIN: &[(&str, &str)] = &[];

fn request(target: &str, local: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get("/meshes").header(header::HOST, target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let local: SocketAddr = local.parse().unwrap();
    let connection = Connection { peer: local, local, tls: false };
    request.extension(connection).body(()).unwrap().into_parts().0
}

fn entry() -> Entry {
    Entry {
        hosts: vec!["mesh.example.com".into(), "203.0.113.9".into()],
        origins: vec!["https://gui.example.com".into()],
        localhost_is_admin: true,
    }
}

fn status(target: &str, local: &str, headers: &[(&str, &str)]) -> Result<Option<String>, u16> {
    let origin = addressed(&request(target, local, headers), &entry());
    let text = |value: HeaderValue| value.to_str().unwrap().to_owned();
    origin.map(|origin| origin.map(text)).map_err(|problem| problem.status().as_u16())
}

#[test]
fn a_request_must_be_addressed_to_this_server() {
    for (target, local) in [
        ("localhost:5681", "127.0.0.1:5681"),
        ("127.0.0.1:5681", "127.0.0.1:5681"),
        ("[::1]:5681", "[::1]:5681"),
        ("10.0.0.7:5682", "10.0.0.7:5682"),
        ("Mesh.Example.com.", "10.0.0.7:5682"),
        ("203.0.113.9:443", "10.0.0.7:5682"),
    ] {
        assert_eq!(status(target, local, PLAIN), Ok(None), "{target}");
    }
    for (target, local) in [
        ("rebound.example.org:5681", "127.0.0.1:5681"),
        ("localhost:5682", "10.0.0.7:5682"),
        ("10.0.0.8:5682", "10.0.0.7:5682"),
        ("localhost.example.org", "127.0.0.1:5681"),
    ] {
        assert_eq!(status(target, local, PLAIN), Err(421), "{target}");
    }
}

#[test]
fn a_foreign_web_page_is_refused() {
    let from = |origin| status("localhost:5681", "127.0.0.1:5681", &[("origin", origin)]);
    assert_eq!(from("http://localhost:5681"), Ok(None));
    assert_eq!(from("https://gui.example.com"), Ok(Some("https://gui.example.com".into())));
    for foreign in [
        "http://localhost:9999",
        "http://evil.example",
        "null",
        "https://gui.example.com.evil.example",
    ] {
        assert_eq!(from(foreign), Err(403), "{foreign}");
    }
}

#[test]
fn a_program_of_this_machine_is_told_from_a_browser_and_from_a_proxy() {
    let local = |headers: &[(&str, &str)]| {
        from_localhost(&request("localhost:5681", "127.0.0.1:5681", headers))
    };
    assert!(local(PLAIN));
    for (name, value) in [
        ("origin", "http://localhost:5681"),
        ("sec-fetch-site", "none"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "a"),
        ("forwarded", "for=a"),
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.1 proxy"),
    ] {
        assert!(!local(&[(name, value)]), "{name}");
    }
    assert!(!from_localhost(&request("mesh.example.com", "127.0.0.1:5681", PLAIN)));
    assert!(!from_localhost(&request("localhost", "10.0.0.7:5681", PLAIN)));
}

fn member(groups: &[&str]) -> User {
    User::authenticated("ann".into(), groups.iter().map(|group| (*group).into()).collect())
}

#[test]
fn groups_give_rights_in_one_mesh() {
    let [policy, secret, mesh, zone] =
        [kinds::mesh_timeout::KIND.kind, kinds::secret::KIND, kinds::mesh::KIND, kinds::zone::KIND];
    let shop = MeshName::new("shop").unwrap();
    let bank = MeshName::new("bank").unwrap();
    let may = |user: &User, kind: &Kind, key: &ResourceKey| {
        (user.reads(kind, key), user.writes(kind, key))
    };
    let rights = |groups: &[&str]| {
        let user = member(groups);
        [
            may(&user, &policy, &ResourceKey::in_mesh(&shop, "a")),
            may(&user, &policy, &ResourceKey::in_mesh(&bank, "a")),
            may(&user, &secret, &ResourceKey::in_mesh(&shop, "a")),
            may(&user, &mesh, &ResourceKey::global("shop")),
            may(&user, &zone, &ResourceKey::global("east")),
        ]
    };
    let (nothing, read, all) = ((false, false), (true, false), (true, true));
    assert_eq!(rights(&[]), [nothing, nothing, nothing, nothing, read]);
    assert_eq!(rights(&["mesh:shop:reader"]), [read, nothing, nothing, read, read]);
    assert_eq!(rights(&["mesh:shop:writer"]), [all, nothing, nothing, read, read]);
    assert_eq!(rights(&["mesh:*:reader"]), [read, read, nothing, read, read]);
    assert_eq!(
        rights(&["mesh:sho:writer", "mesh:shop:owner", "shop:writer"]),
        [nothing, nothing, nothing, nothing, read]
    );
    assert_eq!(rights(&["mesh-system:admin"]), [all; 5]);
}
