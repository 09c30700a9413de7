use super::*;
use crate::{Backend, Local, LocalWriter, conformance, open};
use conformance::{SAMPLES, clock, delete, kept, kinds, put, while_running};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    (folder, path)
}

fn store(path: &Path) -> (Local, LocalWriter<Embedded>) {
    open(Embedded::open(path).unwrap(), kinds(), clock()).unwrap()
}

/// A store that holds `values` of one sample, one after the other, each as a commit.
async fn written(path: &Path, values: &[&str]) {
    let (store, writer) = store(path);
    while_running(writer, async {
        for value in values {
            store.commit(vec![put("a", value)]).await.unwrap();
        }
    })
    .await;
}

fn value(path: &Path) -> String {
    let (store, _writer) = store(path);
    let row = store.reader().get(SAMPLES, &conformance::key("a")).unwrap();
    String::from_utf8(row.spec.to_vec()).unwrap()
}

fn problem(path: &Path) -> String {
    let error = anyhow_chain(&Embedded::open(path).unwrap_err());
    error.replace(&path.display().to_string(), "PATH")
}

/// An error with all that caused it, as programs print it.
fn anyhow_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn conforms() {
    let (_folder, path) = folder();
    conformance::check(Embedded::open(&path).unwrap()).await;
}

#[tokio::test]
async fn conforms_over_restarts() {
    let (_folder, path) = folder();
    conformance::check_restarts(|| Embedded::open(&path).unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn times_are_the_same_after_a_restart() {
    let (_folder, path) = folder();
    let opened = || {
        let clock = daemon::Clock::since(Timestamp::new(1, 123_456_789).unwrap());
        open(Embedded::open(&path).unwrap(), kinds(), clock).unwrap()
    };
    let times = |store: &Local| {
        let row = store.reader().get(SAMPLES, &conformance::key("a")).unwrap();
        row.head.times
    };
    let (store, writer) = opened();
    while_running(writer, async { drop(store.commit(vec![put("a", "1")]).await.unwrap()) }).await;
    let before = times(&store);
    drop(store);
    let (store, _writer) = opened();
    assert_eq!(times(&store), before);
}

#[tokio::test]
async fn two_stores_have_two_histories() {
    let ((_one, one), (_two, two)) = (folder(), folder());
    assert_ne!(Embedded::open(&one).unwrap().epoch(), Embedded::open(&two).unwrap().epoch());
}

#[tokio::test]
async fn a_store_is_for_its_owner_only_and_leaves_nothing_else_behind() {
    let (folder, path) = folder();
    written(&path, &["1s"]).await;
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name(), file.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    files.sort();
    assert_eq!(files, [("store.redb".into(), 0o600), ("store.redb.mark".into(), 0o600)]);
}

#[tokio::test]
async fn a_copy_without_its_mark_has_a_history_of_its_own() {
    let (folder, path) = folder();
    written(&path, &["1s"]).await;
    let copy = folder.path().join("copy.redb");
    fs::copy(&path, &copy).unwrap();
    let (original, copied) = (store(&path).0, store(&copy).0);
    assert_eq!(kept(&copied, SAMPLES), kept(&original, SAMPLES));
    assert_ne!(copied.epoch(), original.epoch());
    let epoch = copied.epoch();
    drop(copied);
    assert_eq!(store(&copy).0.epoch(), epoch, "drawn once");
}

#[tokio::test]
async fn a_store_that_ends_before_what_was_acknowledged_is_refused_until_somebody_decides() {
    let (folder, path) = folder();
    written(&path, &["1s"]).await;
    let older = fs::read(&path).unwrap();
    written(&path, &["2s", "3s"]).await;
    fs::write(&path, &older).unwrap();
    assert_eq!(
        problem(&path),
        "store file PATH: it ends at revision 1, but 3 was acknowledged: it is damaged, or an older \
         copy; remove PATH.mark to go on with what it holds"
    );
    assert_eq!(fs::read(&path).unwrap(), older, "left as it is");
    fs::remove_file(folder.path().join("store.redb.mark")).unwrap();
    assert_eq!(value(&path), r#"{"value":"1s"}"#);
}

#[tokio::test]
async fn a_store_that_is_gone_is_missed_until_somebody_decides() {
    let (folder, path) = folder();
    written(&path, &["1s"]).await;
    fs::remove_file(&path).unwrap();
    assert_eq!(
        problem(&path),
        "store file PATH: it is missing, but revision 1 of it was acknowledged; put it back, or \
         remove PATH.mark to begin with nothing"
    );
    assert!(!path.exists());
    fs::remove_file(folder.path().join("store.redb.mark")).unwrap();
    written(&path, &["2s"]).await;
    assert_eq!(value(&path), r#"{"value":"2s"}"#);
}

#[tokio::test]
async fn a_mark_that_was_not_written_whole_says_nothing() {
    let (folder, path) = folder();
    written(&path, &["1s"]).await;
    let epoch = store(&path).0.epoch();
    fs::write(folder.path().join("store.redb.mark"), "").unwrap();
    assert_eq!(store(&path).0.epoch(), epoch);
}

#[tokio::test]
async fn what_a_crash_left_while_the_store_was_made_does_not_matter() {
    let (folder, path) = folder();
    fs::write(folder.path().join("store.redb.new"), "half a store").unwrap();
    let mark = Mark { epoch: 7, revision: Revision(0) };
    MarkFile::set(&folder.path().join("store.redb.mark"), mark).unwrap();
    written(&path, &["1s"]).await;
    assert_eq!(value(&path), r#"{"value":"1s"}"#);
    assert!(!folder.path().join("store.redb.new").exists());
}

#[tokio::test]
async fn of_two_processes_the_second_is_told_so() {
    let (_folder, path) = folder();
    let (first, writer) = store(&path);
    assert_eq!(problem(&path), "store file PATH: another process uses it");
    drop((first, writer));
    store(&path);
}

#[test]
fn a_file_of_somebody_else_is_refused_and_kept() {
    let (_folder, path) = folder();
    fs::write(&path, "dear diary").unwrap();
    assert_eq!(problem(&path), "store file PATH: it is not a store file");
    assert_eq!(fs::read(&path).unwrap(), b"dear diary");
    fs::write(&path, "").unwrap();
    assert_eq!(
        problem(&path),
        "store file PATH: it is damaged, and was left as it is: it is empty"
    );

    fs::remove_file(&path).unwrap();
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("rows")).unwrap();
    write.commit().unwrap();
    drop(database);
    let before = fs::read(&path).unwrap();
    assert_eq!(problem(&path), "store file PATH: it is not a store file");
    assert!(fs::read(&path).unwrap() == before, "changed");
}

#[test]
fn a_store_of_another_format_is_refused_and_kept() {
    let (_folder, path) = folder();
    drop(Embedded::open(&path).unwrap());
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(FACTS).unwrap().insert(FORMAT_FACT, 9).unwrap();
    write.commit().unwrap();
    drop(database);
    let before = fs::read(&path).unwrap();
    assert_eq!(problem(&path), "store file PATH: it has format 9, and this version reads format 1");
    assert!(fs::read(&path).unwrap() == before, "changed");
}

#[test]
fn what_the_system_refuses_names_the_file() {
    let (folder, path) = folder();
    assert_eq!(
        problem(&folder.path().join("absent/store.redb")).split(": ").nth(1),
        Some("it cannot be read and written")
    );
    fs::create_dir(&path).unwrap();
    assert_eq!(
        problem(&path),
        "store file PATH: it cannot be read and written: Is a directory (os error 21)"
    );
}

#[tokio::test]
async fn a_resource_that_cannot_be_read_any_more_is_kept_and_whose_it_is_stays_known() {
    let (_folder, path) = folder();
    written(&path, &["1s"]).await;
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    let row: Row<'_> = ("{\"a\":\"b\"}", b"{\"value\":\"\"}", b"", "+east", 0, 0);
    write.open_table(ROWS).unwrap().insert(("Sample", "", "odd"), row).unwrap();
    write.commit().unwrap();
    drop(database);
    let (store, writer) = store(&path);
    let odd = store.reader().get(SAMPLES, &conformance::key("odd")).unwrap();
    assert_eq!((&*odd.spec, odd.head.unreadable), (&b"{\"value\":\"\"}"[..], true));
    // Who had it before is told when it goes, and its owner may replace it.
    let owner = ZoneName::new("east").ok();
    assert_eq!(odd.head.audience, Audience { owner, ..Audience::default() });
    assert_eq!(odd.head.labels, [("a", "b")].into_iter().collect());
    while_running(writer, store.commit(vec![delete("odd")])).await.unwrap();
}
