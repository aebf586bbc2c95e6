//! The program itself on a directory of YAML: from manifest to answer, an edit, a dry run, SIGTERM.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    client::{exchange, get, status},
    wait_until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_roadstead-ingress");

/// A Service with these endpoints and an Ingress that leads to it. As with an API server no endpoint may be on loopback, so
/// the running program gets none here: a path that is served shows as 503, any other as 404.
fn manifest(endpoints: &str, path: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec:
  ports: [{{ port: 80 }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels: {{ kubernetes.io/service-name: web }}
addressType: IPv4
ports: [{{ name: "", port: 8080 }}]
endpoints: [{endpoints}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: web }}
spec:
  rules:
  - host: a.example
    http:
      paths:
      - path: {path}
        pathType: Prefix
        backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }}
"#
    )
}

/// Killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) http: SocketAddr,
}

impl Program {
    /// Starts it on free ports, which it logs once it serves.
    fn start(manifests: &Path, state: &Path) -> Self {
        Self::start_with(manifests, state, &[])
    }

    /// Starts it with more in its environment.
    pub(crate) fn start_with(manifests: &Path, state: &Path, environment: &[(&str, &Path)]) -> Self {
        let any = "127.0.0.1:0";
        let mut child = Command::new(PROGRAM)
            .args(["run", "--log-format", "json", "--http", any, "--https", any, "--threads", "2"])
            .args(["--publish-address", "192.0.2.10", "--manifests"])
            .arg(manifests)
            .arg("--state-dir")
            .arg(state)
            .env("RUST_LOG", "info")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let serving = lines.find(|line| line.contains("\"serving\"")).expect("it serves");
        let (_, address) = serving.split_once("\"http\":\"[").expect("its address");
        let http = address.split_once(']').unwrap().0.parse().unwrap();
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, http }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(directory: &TempDir, text: &str) {
    let staged = directory.path().join(".web.yaml.new");
    fs::write(&staged, text).unwrap();
    fs::rename(staged, directory.path().join("web.yaml")).unwrap();
}

#[tokio::test]
async fn manifests_are_served_followed_and_given_back() {
    let (manifests, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(&manifests, &manifest("", "/old"));
    let mut program = Program::start(manifests.path(), state.path());
    let ask = async |path: &str| status(&exchange(program.http, get("a.example", path)).await);
    assert_eq!((ask("/old").await, ask("/new").await), (503, 404));
    let written = fs::read_to_string(state.path().join("status/ingresses.yaml")).unwrap();
    assert!(written.contains("192.0.2.10"), "{written}");

    write(&manifests, &manifest("", "/new"));
    wait_until("the edit is served", async || ask("/new").await == 503).await;
    assert_eq!(ask("/old").await, 404);
    let told = async || {
        let events = fs::read_to_string(state.path().join("status/ingress-events.yaml")).unwrap_or_default();
        ["kind: Ingress", "reason: Sync", "component: roadstead-ingress"].iter().all(|part| events.contains(part))
    };
    wait_until("the event is told", told).await;

    let pid = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut ended = None;
    wait_until("it ends", async || {
        ended = program.child.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert!(ended.unwrap().success());
}

#[tokio::test]
async fn a_status_that_could_not_be_written_is_written_later() {
    let (manifests, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(&manifests, &manifest("", "/x"));
    let status_dir = state.path().join("status");
    fs::write(&status_dir, "in the way").unwrap();
    let _program = Program::start(manifests.path(), state.path());
    fs::remove_file(&status_dir).unwrap();
    let written =
        async || fs::read_to_string(status_dir.join("ingresses.yaml")).is_ok_and(|text| text.contains("192.0.2.10"));
    wait_until("the status is written", written).await;
}

#[test]
fn the_dry_run_reads_manifests_alone() {
    let (manifests, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(&manifests, &manifest("{ addresses: [10.0.0.1] }", "/x"));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--manifests").arg(manifests.path()).arg("--state-dir").arg(state.path());
        command.output().unwrap()
    };
    let found = run(&["route", "a.example", "/x/y", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((answer["action"].as_str(), answer["service"].as_str()), (Some("proxy"), Some("web")), "{answer}");
    assert_eq!(answer["endpoints"], serde_json::json!(["10.0.0.1:8080"]));
    assert!(found.status.success());
    let missed = run(&["route", "--https", "a.example", "/y"]);
    assert!(String::from_utf8_lossy(&missed.stdout).contains("not-found"));
    assert_eq!(missed.status.code(), Some(1));
}
