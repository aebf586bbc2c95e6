//! Readings of a directory that changes: what is reported, kept, withdrawn and shared.

use std::{collections::BTreeMap, fs};

use roadstead_model::{ObjectName, SliceOrigin};
use tempfile::TempDir;

use super::*;

const WEB: &str =
    "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector: {app: web}\n  ports:\n  - port: 80\n";

struct Folder {
    folder: TempDir,
    store: Store,
}

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = LoadOptions { state_dir: Some(folder.path().join("state")), ..LoadOptions::default() };
        let store = Store::new(vec![folder.path().to_owned()], options);
        let mut this = Self { folder, store };
        for (name, text) in files {
            this.write(name, text);
        }
        this.scan();
        this
    }

    fn write(&mut self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads until the directory has settled.
    fn scan(&mut self) -> bool {
        let mut changed = false;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let outcome = self.store.scan(&BTreeSet::new(), Scope::All);
            changed |= outcome.changed;
            if outcome.unsettled.is_empty() {
                return changed;
            }
            assert!(std::time::Instant::now() < deadline, "does not settle");
            std::thread::yield_now();
        }
    }

    fn problems(&self) -> Vec<String> {
        let prefix = format!("{}/", self.folder.path().display());
        self.store.snapshot.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    }

    fn services(&self) -> Vec<&str> {
        self.store.snapshot.services.keys().map(|name| &*name.name).collect()
    }
}

fn service(name: &str) -> String {
    WEB.replace("name: web", &format!("name: {name}"))
}

#[test]
fn a_broken_document_stops_no_other_and_keeps_its_last_good_version() {
    let two = format!("{WEB}---\n{}", service("api"));
    let mut folder = Folder::new(&[("a.yaml", &two), ("b.yaml", &service("db"))]);
    assert_eq!(folder.services(), ["api", "db", "web"]);
    assert_eq!(folder.problems(), [""; 0]);
    let web = Arc::clone(&folder.store.snapshot.services[&ObjectName::new("default", "web")]);

    // A wrong value: the object is named, so its last good version stays.
    folder.write("a.yaml", &two.replacen("port: 80", "port: 80000", 1));
    assert!(folder.scan());
    assert_eq!(
        folder.problems(),
        ["a.yaml:8: error: Service default/web: spec.ports[0].port: 80000 is no port, expected 1 to 65535"]
    );
    assert!(Arc::ptr_eq(&web, &folder.store.snapshot.services[&ObjectName::new("default", "web")]));

    // A wrong type, and a syntax error: neither withdraws.
    folder.write("a.yaml", &two.replacen("port: 80", "port: http", 1));
    assert!(folder.scan());
    assert!(folder.problems()[0].starts_with("a.yaml:8: error: Service default/web: spec.ports[0].port: invalid type"));
    folder.write("a.yaml", &two.replacen("selector: {", "selector: {{", 1));
    assert!(folder.scan());
    assert_eq!(
        folder.problems(),
        ["a.yaml:7: error: did not find expected ',' or '}' while parsing a flow mapping that begins on line 6"]
    );
    assert_eq!(folder.services(), ["api", "db", "web"]);

    // Another object of the same file follows its new version nonetheless.
    let other = two.replacen("port: 80", "port: 0", 1).replace("name: api", "name: api2");
    folder.write("a.yaml", &other);
    folder.scan();
    assert_eq!(folder.services(), ["api2", "db", "web"]);

    // A good version without the object does withdraw it, and so does the file's end.
    folder.write("a.yaml", &service("api"));
    folder.scan();
    assert_eq!((folder.services(), folder.problems().len()), (vec!["api", "db"], 0));
    fs::remove_file(folder.folder.path().join("b.yaml")).unwrap();
    folder.scan();
    assert_eq!(folder.services(), ["api"]);
}

#[test]
fn what_cannot_be_read_withdraws_nothing() {
    let mut folder = Folder::new(&[("m/a.yaml", WEB)]);
    folder.store = Store::new(vec![folder.folder.path().join("m")], LoadOptions::default());
    folder.scan();
    assert_eq!(folder.services(), ["web"]);
    let (here, gone) = (folder.folder.path().join("m"), folder.folder.path().join("gone"));
    fs::rename(&here, &gone).unwrap();
    folder.scan();
    assert_eq!(folder.services(), ["web"]);
    assert!(folder.problems()[0].contains("cannot be read"), "{:?}", folder.problems());
    fs::rename(&gone, &here).unwrap();
    folder.scan();
    assert_eq!(folder.problems(), [""; 0]);

    // A link that leads nowhere is a file that cannot be read.
    fs::rename(here.join("a.yaml"), folder.folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("nowhere", here.join("a.yaml")).unwrap();
    folder.scan();
    assert_eq!((folder.services(), folder.problems().len()), (vec!["web"], 1));
    fs::remove_file(here.join("a.yaml")).unwrap();
    folder.scan();
    assert_eq!((folder.services().len(), folder.problems().len()), (0, 0));
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let mut folder = Folder::new(&[("a.yaml", WEB)]);
    let path = folder.folder.path().join("a.yaml");
    folder.write("a.yaml", "");
    let busy = BTreeSet::from([path]);
    assert_eq!(folder.store.scan(&busy, Scope::All), Outcome { changed: false, unsettled: busy.clone() });
    assert_eq!(folder.services(), ["web"]);
    folder.scan();
    assert_eq!(folder.services().len(), 0);
}

#[test]
fn a_new_file_that_is_being_written_is_not_there_yet() {
    let mut folder = Folder::new(&[("a.yaml", WEB)]);
    folder.write("b.yaml", &service("api"));
    let busy = BTreeSet::from([folder.folder.path().join("b.yaml")]);
    assert!(!folder.store.scan(&busy, Scope::All).changed);
    folder.scan();
    assert_eq!(folder.services(), ["api", "web"]);
}

#[test]
fn nothing_is_synced_before_every_path_was_listed() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    fs::create_dir(&paths[0]).unwrap();
    let mut store = Store::new(paths.to_vec(), LoadOptions::default());
    assert!(store.scan(&BTreeSet::new(), Scope::All).changed);
    assert!(!store.snapshot.synced);
    fs::create_dir(&paths[1]).unwrap();
    assert!(store.scan(&BTreeSet::new(), Scope::All).changed);
    assert!(store.snapshot.synced);
    fs::remove_dir(&paths[1]).unwrap();
    assert!(store.scan(&BTreeSet::new(), Scope::All).changed);
    assert!(store.snapshot.synced, "what was listed is kept, so it may be relied on");
}

#[test]
fn the_file_that_holds_a_name_keeps_it() {
    let mut folder = Folder::new(&[("b.yaml", WEB)]);
    folder.write("a.yaml", &WEB.replace("80", "81"));
    folder.scan();
    assert_eq!(
        folder.problems(),
        ["a.yaml:4: error: Service default/web: metadata.name: is defined already at b.yaml:1"]
    );
    assert_eq!(folder.store.snapshot.services[&ObjectName::new("default", "web")].ports[0].port.get(), 80);
    fs::remove_file(folder.folder.path().join("b.yaml")).unwrap();
    folder.scan();
    assert_eq!(folder.store.snapshot.services[&ObjectName::new("default", "web")].ports[0].port.get(), 81);
    assert_eq!(folder.problems(), [""; 0]);
}

#[test]
fn mounted_config_maps_are_followed_through_their_links() {
    let mut folder = Folder::new(&[("..1/a.yaml", WEB), ("..2/a.yaml", &service("api"))]);
    let path = folder.folder.path().to_owned();
    std::os::unix::fs::symlink("..1", path.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    folder.scan();
    assert_eq!(folder.services(), ["web"]);
    std::os::unix::fs::symlink("..2", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    folder.scan();
    assert_eq!(folder.services(), ["api"]);
}

#[test]
fn doubles_are_told_and_the_first_one_counts() {
    let mut folder = Folder::new(&[("b.yaml", &WEB.replace("80", "81")), ("a.yaml", &format!("# first\n{WEB}"))]);
    assert_eq!(
        folder.problems(),
        ["b.yaml:4: error: Service default/web: metadata.name: is defined already at a.yaml:2"]
    );
    let web = &folder.store.snapshot.services[&ObjectName::new("default", "web")];
    assert_eq!(web.ports[0].port.get(), 80);
    // Nothing changed: no new generation, whatever was read again.
    let generation = folder.store.snapshot.generation;
    folder.write("a.yaml", &format!("# first\n{WEB}"));
    assert!(!folder.scan());
    assert_eq!(folder.store.snapshot.generation, generation);
}

#[test]
fn unchanged_objects_stay_the_same_in_memory() {
    let mut folder = Folder::new(&[("a.yaml", &format!("{WEB}---\n{}", service("api")))]);
    let name = |text: &str| ObjectName::new("default", text);
    let before = Arc::clone(&folder.store.snapshot);
    folder.write("a.yaml", &format!("{WEB}---\n{}", service("api").replace("80", "81")));
    assert!(folder.scan());
    let after = &folder.store.snapshot;
    assert!(Arc::ptr_eq(&before.services[&name("web")], &after.services[&name("web")]));
    assert!(!Arc::ptr_eq(&before.services[&name("api")], &after.services[&name("api")]));
    assert_eq!(after.generation, before.generation + 1);
}

#[test]
fn endpoints_come_from_slices_then_endpoints_then_pods() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: web}}\nspec: {nodeName: n1}\nstatus: {podIP: 10.1.0.1}\n";
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets: [{addresses: [{ip: 10.2.0.1}, {ip: 'fd00::1'}], ports: [{port: 8080}]}]\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-x, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{port: 9090}]\nendpoints: [{addresses: [10.3.0.1], conditions: {ready: false}}]\n";
    let mut folder = Folder::new(&[("a.yaml", WEB), ("p.yaml", pod)]);
    let mut check = |file: &str, text: &str, origin, expected: &[(&str, u16)]| {
        folder.write(file, text);
        folder.scan();
        let slices = folder.store.snapshot.slices_of(&ObjectName::new("default", "web"));
        assert_eq!(folder.problems(), [""; 0]);
        let mut found = Vec::new();
        for slice in slices {
            assert_eq!(slice.origin, origin, "{file}");
            found.extend(slice.endpoints.iter().map(|at| (at.ip.to_string(), slice.ports[0].port.get())));
        }
        let expected: Vec<_> = expected.iter().map(|(ip, port)| ((*ip).to_owned(), *port)).collect();
        assert_eq!(found, expected, "{file}");
    };
    check("p.yaml", pod, SliceOrigin::Pods, &[("10.1.0.1", 80)]);
    check("e.yaml", endpoints, SliceOrigin::Endpoints, &[("10.2.0.1", 8080), ("fd00::1", 8080)]);
    check("s.yaml", slice, SliceOrigin::EndpointSlice, &[("10.3.0.1", 9090)]);
}

#[test]
fn pods_answer_by_condition_name_and_family() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ipFamilyPolicy: PreferDualStack\n  selector: {app: web}\n  ports: [{port: 80, targetPort: http}]\n";
    let pod = |name: &str, ips: &str, port: u16, rest: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec: {{containers: [{{name: c, \
             ports: [{{name: http, containerPort: {port}}}]}}]}}\nstatus: {{podIPs: [{ips}]{rest}}}\n"
        )
    };
    let text = [
        service.to_owned(),
        pod("a", "{ip: 10.1.0.1}, {ip: 'fd00::1'}", 8080, ""),
        pod("b", "{ip: 10.1.0.2}", 8081, ", conditions: [{type: Ready, status: 'False'}]"),
        pod("c", "{ip: 10.1.0.3}", 8080, "").replace("labels:", "deletionTimestamp: 2026-01-01T00:00:00Z, labels:"),
        pod("d", "{ip: 10.1.0.4}", 8080, ", phase: Succeeded"),
    ];
    let folder = Folder::new(&[("a.yaml", &text.concat())]);
    assert_eq!(folder.problems(), [""; 0]);
    let slices = folder.store.snapshot.slices_of(&ObjectName::new("default", "web"));
    let mut found: Vec<_> = slices
        .iter()
        .flat_map(|slice| {
            slice
                .endpoints
                .iter()
                .map(|at| (at.ip.to_string(), slice.ports[0].port.get(), at.ready, at.serving, at.terminating))
        })
        .collect();
    found.sort();
    let expected = [
        ("10.1.0.1".to_owned(), 8080, true, true, false),
        ("10.1.0.2".to_owned(), 8081, false, false, false),
        ("10.1.0.3".to_owned(), 8080, false, true, true),
        ("fd00::1".to_owned(), 8080, true, true, false),
    ];
    assert_eq!(found, expected);
}

#[test]
fn status_reaches_the_objects() {
    let own = format!(
        "{}status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.1}}]}}}}\n",
        WEB.replace("spec:\n", "spec:\n  type: LoadBalancer\n")
    );
    let mut folder = Folder::new(&[("a.yaml", &own)]);
    let name = ObjectName::new("default", "web");
    let found = |folder: &Folder| {
        folder.store.snapshot.services[&name].status.iter().map(|entry| entry.ip.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(&folder), ["192.0.2.1"]);
    let writer = crate::StatusWriter::new(folder.folder.path().join("state"));
    writer.write_services(&BTreeMap::from([(name.clone(), vec!["192.0.2.7".parse().unwrap()].into())])).unwrap();
    folder.scan();
    assert_eq!(found(&folder), ["192.0.2.7"]);
    folder.write("state/status/services.yaml", "kind: [");
    folder.scan();
    assert_eq!((found(&folder), folder.problems().len()), (vec!["192.0.2.7".to_owned()], 1));
    writer.write_services(&BTreeMap::new()).unwrap();
    folder.scan();
    assert_eq!((found(&folder), folder.problems().len()), (vec!["192.0.2.1".to_owned()], 0));
}

#[test]
fn unchanged_documents_are_reused_and_know_their_new_lines() {
    let mut folder = Folder::new(&[("a.yaml", &format!("{}---\n{WEB}", service("api")))]);
    let web = ObjectName::new("default", "web");
    let before = Arc::clone(&folder.store.snapshot.services[&web]);
    folder.write("a.yaml", &format!("# a\n# b\n{}---\n{WEB}", service("other")));
    folder.write("b.yaml", WEB);
    assert!(folder.scan());
    assert_eq!(folder.services(), ["other", "web"]);
    assert!(Arc::ptr_eq(&before, &folder.store.snapshot.services[&web]));
    assert_eq!(
        folder.problems(),
        ["b.yaml:4: error: Service default/web: metadata.name: is defined already at a.yaml:12"]
    );
}

#[test]
fn only_the_files_that_events_name_are_looked_at() {
    let mut folder = Folder::new(&[("a.yaml", WEB), ("b.yaml", &service("api"))]);
    folder.write("a.yaml", &service("other"));
    fs::remove_file(folder.folder.path().join("b.yaml")).unwrap();
    folder.write("c.txt", &service("none"));
    let named = |names: &[&str]| names.iter().map(|name| folder.folder.path().join(name)).collect::<BTreeSet<_>>();
    let (nothing, removed, all) = (named(&["c.txt"]), named(&["b.yaml"]), named(&["a.yaml", "b.yaml"]));
    assert_eq!(folder.store.scan(&BTreeSet::new(), Scope::Files(&nothing)), Outcome::default());
    assert!(folder.store.scan(&BTreeSet::new(), Scope::Files(&removed)).changed);
    assert_eq!(folder.services(), ["web"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !folder.store.scan(&BTreeSet::new(), Scope::Files(&all)).unsettled.is_empty() {
        assert!(std::time::Instant::now() < deadline, "does not settle");
        std::thread::yield_now();
    }
    assert_eq!(folder.services(), ["other"]);
}
