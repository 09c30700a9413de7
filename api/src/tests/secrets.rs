//! What is secret, and to whom it is shown.

use super::*;

#[tokio::test(start_paused = true)]
async fn secrets_are_for_administrators() {
    let cp = Cp::at(global()).await;
    let writer = ["mesh:shop:writer"];
    let body = || json!({"type": "Secret", "mesh": "shop", "name": "s", "data": "dGhyb3c="});
    for (method, path) in [
        ("GET", "/meshes/shop/secrets/s"),
        ("GET", "/meshes/shop/secrets"),
        ("GET", "/secrets"),
        ("GET", "/secrets?watch=true"),
        ("GET", "/globalsecrets"),
        ("PUT", "/meshes/shop/secrets/s"),
        ("DELETE", "/meshes/shop/secrets/s"),
    ] {
        let answer = cp.as_user(&writer, method, path, Some(body())).await;
        assert_eq!(answer.status, 403, "{method} {path}");
    }
    assert_eq!(cp.put("/meshes/shop/secrets/s", body()).await.status, 201);
    assert_eq!(cp.get("/meshes/shop/secrets/s").await.json()["data"], "dGhyb3c=");
    // Whoever looks at a list, or keeps it, need not have what it is about.
    let listed = json!({
        "type": "Secret", "mesh": "shop", "name": "s", "creationTime": NOW,
        "modificationTime": NOW, "labels": cp.get("/meshes/shop/secrets/s").await.json()["labels"],
    });
    for list in ["/meshes/shop/secrets", "/secrets", "/secrets?name=s"] {
        let expected = json!({"total": 1, "items": [listed], "next": null});
        assert_eq!(cp.get(list).await.json(), expected, "{list}");
    }
    let admin = format!("Bearer {}", user(&[access::ADMIN]));
    let watch = Cp::request("GET", "/secrets?watch=true", &[("authorization", &admin)]);
    let watch = cp.router.clone().oneshot(watch.body(Body::empty()).unwrap()).await.unwrap();
    let first = watch.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let first: Value =
        serde_json::from_slice(first.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(first, json!({"event": "put", "resource": listed}));
    let mut nothing = listed.clone();
    nothing["data"] = Value::Null;
    for empty in [listed, nothing] {
        let back = cp.put("/meshes/shop/secrets/s", empty).await;
        let field = back.json()["invalid_parameters"][0]["field"].clone();
        assert_eq!((back.status, field), (400, json!("data")));
    }
    assert_eq!(cp.get("/meshes/shop/secrets/s").await.json()["data"], "dGhyb3c=", "not wiped");
    let mut broken = body();
    broken["data"] = json!("!secret!");
    let refused = cp.put("/meshes/shop/secrets/s", broken).await;
    assert_eq!(refused.status, 400);
    assert!(!refused.text.contains("!secret!"), "{}", refused.text);
    assert_eq!(refused.json()["invalid_parameters"][0]["field"], "data");
}
