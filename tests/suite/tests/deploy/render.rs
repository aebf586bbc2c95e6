//! Objects as kubectl and Helm render them, read as JSON.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use roadstead_suite::top;
use serde_json::Value;

/// The tool where the test cluster's programs are, then where the path leads; `None`, with a word on stderr, where it is
/// nowhere.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let folders = env::var_os("ROADSTEAD_CLUSTER_DIR").map(PathBuf::from).into_iter();
    let folders =
        folders.chain(cache.iter().flat_map(|cache| {
            ["roadstead/cluster/current", "roadstead/cluster/helm"].map(|folder| cache.join(folder))
        }));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = folders.chain(env::split_paths(&path)).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not here; \"cargo xtask test\" installs it where Go is");
    }
    found
}

/// The objects that `kubectl apply -k` of this folder would apply.
pub(crate) fn kustomize(folder: &str) -> Option<Vec<Value>> {
    let kubectl = tool("kubectl")?;
    let output = Command::new(&kubectl).arg("kustomize").arg(top().join(folder)).output().unwrap();
    assert!(output.status.success(), "{folder}: {output:?}");
    Some(objects(&kubectl, &output.stdout))
}

/// The objects of the chart, with flags of `helm template`.
pub(crate) fn chart(flags: &[&str]) -> Option<Vec<Value>> {
    let (helm, kubectl) = (tool("helm")?, tool("kubectl")?);
    let mut command = Command::new(helm);
    command.args(["template", "roadstead"]).arg(top().join("deploy/chart"));
    command.args(["--namespace", "roadstead-system", "--kube-version", "1.36"]).args(flags);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{flags:?}: {output:?}");
    Some(objects(&kubectl, &output.stdout))
}

/// YAML to JSON by kubectl, which asks no server for it.
fn objects(kubectl: &Path, yaml: &[u8]) -> Vec<Value> {
    let mut command = Command::new(kubectl);
    command.args(["patch", "--local", "-f", "-", "--type=merge", "-p", "{}", "-o", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(yaml).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(yaml));
    let read: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect();
    let mut read = read.unwrap();
    assert!(!read.is_empty(), "nothing is rendered");
    read.sort_by_key(id);
    read
}

/// Kind and name.
pub(crate) fn id(object: &Value) -> (String, String) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/kind"), text("/metadata/name"))
}

/// The object of this kind and name.
#[track_caller]
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| id(object) == (kind.to_owned(), name.to_owned()));
    found.unwrap_or_else(|| panic!("no {kind} {name} among {:?}", objects.iter().map(id).collect::<Vec<_>>()))
}

/// The strings of a list.
pub(crate) fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
