//! A watched directory: changes arrive by themselves, and soon.

use std::{fs, path::Path};

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    source: SourceFlags,
}

fn flags(folder: &Path) -> SourceFlags {
    let (manifests, state) = (folder.join("m"), folder.join("state"));
    let arguments = ["x", "--manifests", manifests.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    Cli::try_parse_from(arguments).unwrap().source
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n")
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.services.keys().map(|name| name.name.to_string()).collect()
}

async fn until(snapshots: &mut watch::Receiver<Arc<Snapshot>>, expected: &[&str]) {
    let found = snapshots.wait_for(|snapshot| names(snapshot) == expected);
    let waited = tokio::time::timeout(Duration::from_secs(10), found).await.map(|found| found.is_ok());
    assert_eq!(waited, Ok(true), "{expected:?}, have {:?}", names(&snapshots.borrow()));
}

#[tokio::test]
async fn changes_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("m");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("a.yaml"), service("a")).unwrap();
    let source = start(&flags(folder.path()), Interest::agent()).unwrap();
    let mut snapshots = source.snapshots();
    {
        let first = snapshots.borrow();
        assert_eq!((first.generation, first.synced, names(&first)), (1, true, vec!["a".to_owned()]));
    }
    fs::write(manifests.join("b.yaml"), service("b")).unwrap();
    until(&mut snapshots, &["a", "b"]).await;
    // As editors and `kubectl`-like tools replace files: by rename.
    fs::write(manifests.join(".a.tmp"), service("c")).unwrap();
    fs::rename(manifests.join(".a.tmp"), manifests.join("a.yaml")).unwrap();
    until(&mut snapshots, &["b", "c"]).await;
    fs::remove_file(manifests.join("b.yaml")).unwrap();
    until(&mut snapshots, &["c"]).await;
    // The whole directory goes and comes back as another one.
    fs::rename(&manifests, folder.path().join("old")).unwrap();
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("d.yaml"), service("d")).unwrap();
    until(&mut snapshots, &["d"]).await;
    fs::write(manifests.join("e.yaml"), service("e")).unwrap();
    until(&mut snapshots, &["d", "e"]).await;
    source.stop().await;
    assert!(snapshots.changed().await.is_err(), "the reader has ended");
}

#[tokio::test]
async fn a_writer_that_takes_its_time_withdraws_nothing() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("m");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("a.yaml"), format!("{}---\n{}", service("a"), service("b"))).unwrap();
    let source = start(&flags(folder.path()), Interest::agent()).unwrap();
    let mut snapshots = source.snapshots();
    let mut file = fs::File::create(manifests.join("a.yaml")).unwrap();
    // A change elsewhere makes the source read while the file is empty.
    fs::write(manifests.join("c.yaml"), service("c")).unwrap();
    until(&mut snapshots, &["a", "b", "c"]).await;
    file.write_all(service("a").as_bytes()).unwrap();
    fs::write(manifests.join("d.yaml"), service("d")).unwrap();
    until(&mut snapshots, &["a", "b", "c", "d"]).await;
    file.write_all(format!("---\n{}", service("e")).as_bytes()).unwrap();
    drop(file);
    until(&mut snapshots, &["a", "c", "d", "e"]).await;
    source.stop().await;
}

#[tokio::test]
async fn status_is_followed_from_its_first_file_on() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("m");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("a.yaml"), service("a").replace("spec: {", "spec: {type: LoadBalancer, ")).unwrap();
    let source = start(&flags(folder.path()), Interest::agent()).unwrap();
    let mut snapshots = source.snapshots();
    let name = roadstead_model::ObjectName::new("default", "a");
    let addresses = BTreeMap::from([(name.clone(), vec!["192.0.2.1".parse().unwrap()].into())]);
    StatusWriter::new(folder.path().join("state")).write_services(&addresses).unwrap();
    let found = snapshots.wait_for(|snapshot| snapshot.services[&name].captured_ips().count() == 1);
    assert!(tokio::time::timeout(Duration::from_secs(10), found).await.is_ok());
    source.stop().await;
}

#[tokio::test]
async fn wrong_flags_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut none = flags(folder.path());
    none.manifests.clear();
    assert!(matches!(start(&none, Interest::agent()), Err(SourceError::NoSource)));
    let mut twice = flags(folder.path());
    twice.service_cidrs = vec!["10.0.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
    assert!(matches!(start(&twice, Interest::agent()), Err(SourceError::ServiceCidr(_))));
}

#[tokio::test]
async fn an_idle_source_sleeps() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("m");
    fs::create_dir_all(&manifests).unwrap();
    fs::create_dir_all(folder.path().join("state/status")).unwrap();
    fs::write(manifests.join("a.yaml"), service("a")).unwrap();
    let source = start(&flags(folder.path()), Interest::agent()).unwrap();
    let read = || source.readings.load(std::sync::atomic::Ordering::Relaxed);
    // The files settle; then a whole second passes without a reading, which only the patrol may break once.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let before = read();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if read() == before {
            break;
        }
        assert!(Instant::now() < deadline, "reads on and on: {} times", read());
    }
    source.stop().await;
}

#[tokio::test]
async fn a_folder_made_anew_is_watched_and_one_that_is_missing_is_not_synced() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("m");
    let source = start(&flags(folder.path()), Interest::agent()).unwrap();
    let mut snapshots = source.snapshots();
    assert!(!snapshots.borrow().synced);
    for round in 0..3 {
        fs::create_dir(&manifests).unwrap();
        fs::write(manifests.join("a.yaml"), service(&format!("a{round}"))).unwrap();
        until(&mut snapshots, &[&format!("a{round}")]).await;
        assert!(snapshots.borrow().synced);
        fs::remove_dir_all(&manifests).unwrap();
    }
    source.stop().await;
}
