//! Files that are broken, half written or swapped: what was good stays, what becomes good is followed.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    process::Command,
    time::Duration,
};

use roadstead_lab::{Lab, Probe, Program, demo::Cluster, program, wait_until};

use super::fixture::{
    LATE, PAIR, READY, SOON, WEB, answers_are, assert_answered, at, edit, followed, https, lab, needs_files, served_for,
};

/// No YAML parser takes it: its third line breaks off.
const BROKEN: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: [broken\n";
/// How long a slow writer pauses; what stays as it is for two seconds is meant.
const PAUSE: Duration = Duration::from_millis(1_200);

#[test]
fn a_broken_file_harms_nobody() {
    if needs_files("broken and half written files are the subject") {
        return;
    }
    let Some(lab) = lab("broken") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let [node_port, _] = at(lab.node("node-a").host(), 30900);
    let [secure, _] = Cluster::at(cluster.ingress, 443);
    let (at_port, at_ingress) = (Probe::tcp(node_port), https(&cluster, "/api", secure));
    let served = || {
        assert_answered(lab.client(), &at_port, &WEB);
        assert_answered(lab.client(), &at_ingress, &["api-1"]);
    };

    lab.apply("broken.yaml", BROKEN).unwrap();
    reported(&cluster, "broken.yaml:");
    served();
    assert_check_names(&lab, "broken.yaml:");
    lab.delete("broken.yaml").unwrap();

    // Files that were good: the Service, a pod, the Ingress.
    for file in ["web.yaml", "pod-web-2.yaml", "shop.yaml"] {
        let good = fs::read_to_string(lab.manifests().join(file)).unwrap();
        lab.apply(file, &good.replace("kind: ", "kind: [")).unwrap();
        reported(&cluster, &format!("{file}:"));
        served();
        assert_check_names(&lab, &format!("{file}:"));
        lab.apply(file, &good).unwrap();
    }
    served();
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    if needs_files("broken and half written files are the subject") {
        return;
    }
    let Some(lab) = lab("writing") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let (client, file) = (lab.client(), lab.manifests().join("web.yaml"));
    let [old, _] = at(lab.node("node-a").host(), 30900);
    let [new, _] = at(lab.node("node-a").host(), 30902);
    let load = client.load(old, 100).unwrap();
    let good = fs::read_to_string(&file).unwrap();

    // Truncated, left like that for long, then written in two halves.
    let mut writer = File::create(&file).unwrap();
    served_for(PAUSE, client, &Probe::tcp(old), &WEB);
    let (head, tail) = good.split_at(good.len() / 2);
    writer.write_all(head.as_bytes()).unwrap();
    served_for(PAUSE, client, &Probe::tcp(old), &WEB);
    writer.write_all(tail.as_bytes()).unwrap();
    drop(writer);
    served_for(SOON / 2, client, &Probe::tcp(old), &WEB);
    let report = load.finish().unwrap();
    assert!(report.failed == 0 && report.answered > 100, "{report:?}");

    let moved = || answers_are(client, &Probe::tcp(new), &WEB);
    let back = || answers_are(client, &Probe::tcp(old), &WEB);
    let elsewhere = good.replace("nodePort: 30900", "nodePort: 30902");
    followed("a change in place", || fs::write(&file, &elsewhere).unwrap(), moved);
    followed("a change by rename", || edit(&lab, "web.yaml", "nodePort: 30902", "nodePort: 30900"), back);
    mount(&lab, "web.yaml", "1", &good);
    served_for(SOON / 2, client, &Probe::tcp(old), &WEB);
    followed("a change as of a mounted ConfigMap", || mount(&lab, "web.yaml", "2", &elsewhere), moved);
    drop(cluster);
}

#[test]
fn daemons_start_beside_a_broken_file() {
    if needs_files("broken and half written files are the subject") {
        return;
    }
    let Some(lab) = lab("start-broken") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let node = lab.node("node-a");
    let [node_port, _] = at(node.host(), 30900);
    let [secure, _] = at(node.host(), 443);
    // A Service, and the endpoints of another.
    lab.apply("api.yaml", BROKEN).unwrap();
    lab.apply(PAIR.0, PAIR.1).unwrap();
    let far = Probe::tcp(at(node.host(), 30902)[0]);
    wait_until(LATE, "the Service is served", || answers_are(lab.client(), &far, &["web-2"])).unwrap();
    edit(&lab, PAIR.0, "kind: EndpointSlice", "kind: [EndpointSlice");
    for file in ["api.yaml:", "pair.yaml:"] {
        reported(&cluster, file);
    }
    for program in Program::ALL {
        cluster.kill(node, program).unwrap();
        cluster.restart(node, program).unwrap();
    }
    for (probe, names) in [(Probe::tcp(node_port), &WEB), (https(&cluster, "/", secure), &WEB)] {
        assert_answered(lab.client(), &probe, names);
    }
    // What the maps hold of the unreadable files is not known to be undesired.
    let cluster_ip = Probe::http("http://10.96.0.20/");
    assert_answered(cluster.pod("web-1").unwrap(), &cluster_ip, &["api-1"]);
    assert_answered(lab.client(), &far, &["web-2"]);
    lab.delete(PAIR.0).unwrap();
    lab.apply("api.yaml", include_str!("../../../lab/demo/api.yaml")).unwrap();
    let serves = || answers_are(lab.client(), &https(&cluster, "/api", secure), &["api-1"]);
    wait_until(READY, "the mended file is served", serves).unwrap();
    let gone = || lab.client().probe_once(&far).unwrap().error.as_deref() == Some("ECONNREFUSED");
    wait_until(LATE, "what nobody asks for goes", gone).unwrap();
}

fn reported(cluster: &Cluster<'_>, text: &str) {
    wait_until(LATE, &format!("every daemon reports {text}"), || cluster.all_have_logged(text)).unwrap();
}

/// `roadstead check` fails and names the file and a line.
#[track_caller]
fn assert_check_names(lab: &Lab, file: &str) {
    let output = Command::new(program("roadstead").unwrap()).arg("check").arg(lab.manifests()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said.split(file).nth(1).map(|after| after.chars().take_while(char::is_ascii_digit).count());
    assert!(line.is_some_and(|digits| digits > 0), "no {file}LINE in\n{said}");
}

/// As a kubelet does: a folder of a new name, and one rename of the link `..data` that all files go through.
fn mount(lab: &Lab, file: &str, version: &str, text: &str) {
    let (folder, fresh) = (lab.manifests(), format!("..{version}"));
    fs::create_dir(folder.join(&fresh)).unwrap();
    fs::write(folder.join(&fresh).join(file), text).unwrap();
    symlink(&fresh, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if !folder.join(file).is_symlink() {
        symlink(format!("..data/{file}"), folder.join(".link")).unwrap();
        fs::rename(folder.join(".link"), folder.join(file)).unwrap();
    }
}
