use crate::{Config, bind};
use std::{fs, net::SocketAddr, path::Path};
use tokio::net::TcpListener;

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn config(folder: &Path) -> Config {
    let mut config = Config { data_dir: folder.to_owned(), ..Config::default() };
    config.api.http.address = any_port();
    config.api.https.address = any_port();
    config.proxies.listen = any_port();
    config.dns.listen = any_port();
    config.admin.listen = any_port();
    config
}

/// What `bind` says, and what is in the folder afterwards.
async fn refused(config: &Config) -> (String, Vec<String>) {
    let error = bind(config).await.unwrap_err();
    let files = fs::read_dir(&config.data_dir)
        .map(|files| files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect());
    (format!("{error:#}"), files.unwrap_or_default())
}

#[tokio::test]
async fn what_cannot_be_opened_is_named_and_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(any_port()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut settings = config(folder.path());
    settings.proxies.listen = address;
    let (error, files) = refused(&settings).await;
    assert!(error.starts_with(&format!("proxies.listen: cannot listen on {address}")), "{error}");
    assert_eq!(files, [""; 0]);

    let mut settings = config(folder.path());
    settings.global.address = "https://localhost:5685".into();
    settings.global.ca_file = folder.path().join("none.crt").display().to_string();
    let (error, files) = refused(&settings).await;
    let unread = format!("global.caFile: cannot read {}", settings.global.ca_file);
    assert!(error.starts_with(&unread), "{error}");
    assert_eq!(files, [""; 0]);

    let mut settings = config(folder.path());
    settings.tls.cert_file = folder.path().join("none.crt").display().to_string();
    settings.tls.key_file = folder.path().join("none.key").display().to_string();
    let (error, files) = refused(&settings).await;
    assert!(error.contains("tls.certFile") && error.contains("none.crt"), "{error}");
    assert_eq!(files, [""; 0]);

    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let (error, _) = refused(&config(&file)).await;
    assert!(error.starts_with("dataDir: the folder "), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
}

#[tokio::test]
async fn a_zone_that_stands_alone_has_a_mesh_to_begin_with() {
    use api::author::Author;
    use kinds::labels::{Env, Place};
    use resource::{Peer, ResourceKey, ZoneName};
    use std::sync::Arc;
    use store::{Backend as _, Kinds, Memory};

    let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
    let clock = daemon::Clock::system();
    let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock).unwrap();
    let zone = ZoneName::new("east").unwrap();
    let place = Place::Zone { name: zone.clone(), env: Env::Universal };
    let author = Author { kinds: Arc::new(kinds), place };
    let started = async {
        for _ in 0..2 {
            crate::defaults::ensure(&store, &author, &zone).await.unwrap();
            crate::defaults::ensure_meshes(&store, &author).await.unwrap();
        }
        let reader = store.reader();
        let names = |kind| {
            let (_, rows) = reader.rows(author.id(kind));
            rows.iter().map(|row| row.head.key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(kinds::zone::KIND), ["east"]);
        assert_eq!(names(kinds::mesh::KIND), ["default"]);
        assert_eq!(names(kinds::hostname_generator::KIND), ["local-universal-mesh-service"]);
        assert_eq!(names(kinds::mesh_identity::KIND), ["default/identity"]);
        assert_eq!(names(kinds::secret::KIND), ["default/dataplane-token-signing-key-default-1"]);
        // Who deletes it, does not want it.
        let delete = author.delete(kinds::mesh::KIND, ResourceKey::global("default"));
        store.commit(vec![delete]).await.unwrap();
        crate::defaults::ensure_meshes(&store, &author).await.unwrap();
        assert_eq!(reader.rows(author.id(kinds::mesh::KIND)).1.len(), 0);
    };
    store::conformance::while_running(writer, started).await;
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let bound = bind(&config(folder.path())).await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    shutdown.cancel();
    // A part that keeps a handle of the store would keep its writer, and so the process.
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), bound.run(shutdown));
    Box::pin(ended).await.expect("it ends").unwrap();
}
