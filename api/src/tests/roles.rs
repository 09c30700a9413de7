//! What each role may and may not do, on all routes.

use super::*;
use http::StatusCode;
use resource::{Access, Kind, Scope};

/// Who asks. Each string below has a letter for each: `x` may, `-` is refused.
const ROLES: [&[&str]; 9] = [
    &[],
    &["mesh:shop:reader"],
    &["mesh:shop:writer"],
    &["mesh:bank:writer", "mesh:bank:reader"],
    &["mesh:*:reader"],
    &["mesh:*:writer"],
    // Near misses.
    &["mesh:shop:admin", "mesh:sho:writer", "mesh::writer", "admin", "mesh-system:admins"],
    &["mesh:shop:Writer", "MESH-SYSTEM:ADMIN", "mesh-system:authenticated"],
    &[access::ADMIN],
];
const ALL: &str = "xxxxxxxxx";
const READERS_OF_SHOP: &str = "-xx-xx--x";
const WRITERS_OF_SHOP: &str = "--x--x--x";
const ADMINS: &str = "--------x";

struct Asker {
    cp: Cp,
    tokens: Vec<String>,
}

impl Asker {
    async fn at(place: Place) -> Self {
        let cp = Cp::at(place).await;
        let tokens = ROLES.iter().map(|groups| format!("Bearer {}", user(groups))).collect();
        Self { cp, tokens }
    }

    async fn status(&self, token: Option<&str>, method: &str, path: &str) -> StatusCode {
        let token = token.map(|token| ("authorization", token));
        let headers: Vec<_> =
            [("content-type", "application/json")].into_iter().chain(token).collect();
        let request = Cp::request(method, path, &headers).body(Body::from("{}")).unwrap();
        // Not its body: that of a watch has no end.
        self.cp.router.clone().oneshot(request).await.unwrap().status()
    }

    /// Asks as everybody: whoever may not is told so, whatever else would be wrong.
    async fn check(&self, method: &str, path: &str, who: &str) {
        assert_eq!(self.status(None, method, path).await, 401, "{method} {path} without a token");
        for ((groups, token), may) in ROLES.iter().zip(&self.tokens).zip(who.chars()) {
            let status = self.status(Some(token), method, path).await;
            let refused = status == StatusCode::FORBIDDEN;
            assert_eq!(!refused, may == 'x', "{method} {path} by {groups:?}: {status}");
            assert!(!status.is_server_error(), "{method} {path} by {groups:?}: {status}");
        }
    }
}

/// Who may read and who may write one resource, whose mesh, if it has one or is one, is `shop`.
fn rights(kind: &Kind) -> [&'static str; 2] {
    match (kind.name, kind.scope) {
        ("Secret" | "GlobalSecret", _) => [ADMINS, ADMINS],
        ("DataplaneInsight" | "ServiceInsight", _) => [READERS_OF_SHOP, ADMINS],
        ("Mesh", _) => [READERS_OF_SHOP, ADMINS],
        (_, Scope::Mesh) => [READERS_OF_SHOP, WRITERS_OF_SHOP],
        (_, Scope::Global) => [ALL, ADMINS],
    }
}

#[tokio::test(start_paused = true)]
async fn each_role_may_do_to_each_kind_what_the_table_says() {
    for place in [global(), east()] {
        let asker = Asker::at(place).await;
        let mut kinds = 0;
        for kind in kinds::all().filter(|kind| !kind.path.is_empty()) {
            let [read, write] = rights(&kind);
            let path = kind.path;
            let list = match kind.scope {
                Scope::Mesh => format!("/meshes/shop/{path}"),
                Scope::Global => format!("/{path}"),
            };
            // A list of all meshes has what its reader may see: secrets are refused, the rest is less.
            let lists = if kind.access == Access::Admins { ADMINS } else { ALL };
            asker.check("GET", &format!("/{path}"), lists).await;
            let listed = if kind.scope == Scope::Mesh { read } else { lists };
            asker.check("GET", &list, listed).await;
            asker.check("GET", &format!("{list}?watch=true"), listed).await;
            // Not a resource of the store, so that nothing is deleted for those after.
            let one = format!("{list}/{}", if kind.name == "Mesh" { "shop" } else { "none" });
            asker.check("GET", &one, read).await;
            asker.check("GET", &format!("{one}?format=k8s"), read).await;
            asker.check("GET", &format!("{one}/_propagation"), read).await;
            asker.check("PUT", &one, write).await;
            asker.check("PUT", &format!("{one}?dryRun=true"), write).await;
            asker.check("DELETE", &format!("{one}?dryRun=true"), write).await;
            if kind.name != "Mesh" {
                asker.check("DELETE", &one, write).await;
            }
            kinds += 1;
        }
        assert!(kinds > 30, "{kinds}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_role_may_ask_what_the_table_says() {
    for place in [global(), east()] {
        let asker = Asker::at(place).await;
        for (method, path, who) in [
            ("POST", "/tokens/user", ADMINS),
            ("POST", "/tokens/zone", ADMINS),
            ("POST", "/tokens/dataplane", ADMINS),
            ("GET", "/config", ADMINS),
            ("GET", "/_global", ADMINS),
            ("GET", "/_global/difference", ADMINS),
            ("POST", "/_global/adopt", ADMINS),
            ("GET", "/meshes/shop/dataplanes/d/xds", ADMINS),
            ("GET", "/meshes/shop/dataplanes/d/stats", ADMINS),
            ("GET", "/meshes/shop/dataplanes/d/clusters", ADMINS),
            ("GET", "/meshes/shop/dataplanes/_overview", READERS_OF_SHOP),
            ("GET", "/meshes/shop/dataplanes+insights", READERS_OF_SHOP),
            ("GET", "/meshes/shop/dataplanes/d/_overview", READERS_OF_SHOP),
            // It shows those that the reader may see.
            ("GET", "/dataplanes/_overview", ALL),
            ("GET", "/zones/_overview", ALL),
            ("GET", "/zones/east/_overview", ALL),
            ("GET", "/who-am-i", ALL),
            ("GET", "/global-insight", ALL),
            ("GET", "/_resources", ALL),
            ("GET", "/policies", ALL),
            // Who may not read it is told that it is not there.
            ("GET", "/_kri/kri_mt_shop___t1_", ALL),
        ] {
            asker.check(method, path, who).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_all_meshes_has_what_its_reader_may_see() {
    let cp = Cp::at(global()).await;
    cp.put("/meshes/bank", json!({"type": "Mesh", "name": "bank"})).await;
    cp.put(&format!("{TIMEOUTS}/t1"), timeout("t1", &[])).await;
    let path = "/meshes/bank/meshtimeouts/t2";
    let mut other = timeout("t2", &[]);
    other["mesh"] = json!("bank");
    assert_eq!(cp.put(path, other).await.status, 201);
    let seen = async |groups: &[&str], path: &str| {
        let list = cp.as_user(groups, "GET", path, None).await.json();
        assert_eq!(list["total"], list["items"].as_array().unwrap().len());
        names(&list).join(" ")
    };
    for (groups, meshes, timeouts) in [
        (&[][..], "", ""),
        (&["mesh:shop:reader"][..], "shop", "t1"),
        (&["mesh:bank:writer"][..], "bank", "t2"),
        (&["mesh:*:reader"][..], "bank shop", "t2 t1"),
    ] {
        assert_eq!(seen(groups, "/meshes").await, meshes, "{groups:?}");
        assert_eq!(seen(groups, "/meshtimeouts").await, timeouts, "{groups:?}");
        assert_eq!(seen(groups, "/meshtimeouts?name=t").await, timeouts, "{groups:?}");
        let kri = cp.as_user(groups, "GET", "/_kri/kri_mt_bank___t2_", None).await.status;
        assert_eq!(kri, if timeouts.contains("t2") { 200 } else { 404 }, "{groups:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_of_what_its_reader_may_see_and_asked_for() {
    let cp = Cp::at(global()).await;
    let mesh = |name: &str| json!({"type": "Mesh", "name": name});
    cp.put("/meshes/bank", mesh("bank")).await;
    let put = async |mesh: &str, name: &str| {
        let mut body = timeout(name, &[]);
        body["mesh"] = json!(mesh);
        let status = cp.put(&format!("/meshes/{mesh}/meshtimeouts/{name}"), body).await.status;
        assert_eq!(status, 201);
    };
    put("bank", "t1").await;
    put("shop", "t2").await;
    let open = async |groups: &[&str], path: &str| {
        let token = format!("Bearer {}", user(groups));
        let path = format!("{path}?watch=true");
        let request = Cp::request("GET", &path, &[("authorization", &token)]).body(Body::empty());
        cp.router.clone().oneshot(request.unwrap()).await.unwrap().into_body()
    };
    let (shop, all) = (["mesh:shop:reader"], ["mesh:*:reader"]);
    let mut of_shop = open(&shop, "/meshtimeouts").await;
    let mut of_all = open(&all, "/meshtimeouts").await;
    let mut within = open(&all, "/meshes/shop/meshtimeouts").await;
    let mut meshes = open(&shop, "/meshes").await;
    assert_eq!(next(&mut of_shop).await, ["put t2", "bookmark"]);
    assert_eq!(next(&mut of_all).await, ["put t1", "put t2", "bookmark"]);
    assert_eq!(next(&mut within).await, ["put t2", "bookmark"]);
    assert_eq!(next(&mut meshes).await, ["put shop", "bookmark"]);

    put("bank", "t3").await;
    put("shop", "t4").await;
    for (mesh, name) in [("bank", "t1"), ("shop", "t2")] {
        cp.delete(&format!("/meshes/{mesh}/meshtimeouts/{name}")).await;
    }
    cp.put("/meshes/park", mesh("park")).await;
    assert_eq!(next(&mut of_shop).await, ["delete t2", "put t4", "bookmark"]);
    let both = ["delete t1", "put t3", "delete t2", "put t4", "bookmark"];
    assert_eq!(next(&mut of_all).await, both);
    assert_eq!(next(&mut within).await, ["delete t2", "put t4", "bookmark"]);
    assert_eq!(next(&mut meshes).await, ["bookmark"]);
}
