//! The volumes of a pod as folders of the host, made anew for each pod.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use super::spec::{Pod, list};
use super::{Shared, environment};
use crate::cluster::JSON;

/// Makes a volume of the pod below the folder; tells where it is on the host.
pub(super) async fn volume(shared: &Shared, pod: &Pod, volume: &Value, folder: &Path) -> Result<PathBuf> {
    let name = volume.get("name").and_then(Value::as_str).context("a volume without a name")?;
    if let Some(path) = volume.pointer("/hostPath/path").and_then(Value::as_str) {
        return of_the_node(shared, path, volume);
    }
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    if volume.get("emptyDir").is_some() {
        // As the kubelet makes it: for whatever user the containers have.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        return Ok(folder);
    }
    let (files, mode) = files(shared, pod, volume).await.with_context(|| format!("volume {name}"))?;
    let group = pod.0.pointer("/spec/securityContext/fsGroup").and_then(Value::as_u64);
    for (file, content) in files {
        write(&folder.join(file), &content, mode, group.and_then(|group| u32::try_from(group).ok()))?;
    }
    Ok(folder)
}

/// Puts a new token into every projected volume of a pod below the folder, as a kubelet does when four fifths of its life
/// are over.
pub(super) async fn renew_tokens(shared: &Shared, pod: &Pod, folder: &Path) -> Result<()> {
    for volume in list(pod.0.get("spec").unwrap_or(&Value::Null), "volumes") {
        if volume.get("projected").is_some() {
            self::volume(shared, pod, volume, folder).await?;
        }
    }
    Ok(())
}

/// A path of the node: what all nodes of the lab have on one kernel stands in a place of the node's own.
fn of_the_node(shared: &Shared, path: &str, volume: &Value) -> Result<PathBuf> {
    let node = &shared.node;
    let lock = node.folder().join(format!("{}-xtables.lock", node.name()));
    let of_its_own = [
        ("/sys/fs/bpf", node.bpffs()),
        ("/sys/fs/cgroup", node.cgroup_root()),
        ("/var/lib/roadstead", node.state_dir()),
        ("/run/xtables.lock", &lock),
    ];
    let below = |(theirs, own): &(&str, &Path)| {
        Path::new(path)
            .strip_prefix(theirs)
            .ok()
            .map(|rest| if rest.as_os_str().is_empty() { own.to_path_buf() } else { own.join(rest) })
    };
    let own = match of_its_own.iter().find_map(below) {
        Some(own) => own,
        None if ["/lib/modules", "/sys", "/proc"].contains(&path) => return Ok(path.into()),
        None => bail!("the lab's kubelet does not know the node's {path}"),
    };
    match volume.pointer("/hostPath/type").and_then(Value::as_str) {
        Some("DirectoryOrCreate") => fs::create_dir_all(&own)?,
        Some("FileOrCreate") => drop(fs::OpenOptions::new().append(true).create(true).open(&own)?),
        _ => {}
    }
    Ok(own)
}

type Files = BTreeMap<String, Vec<u8>>;

/// What a volume of files holds, and with which permissions.
async fn files(shared: &Shared, pod: &Pod, volume: &Value) -> Result<(Files, u32)> {
    let (mut files, source) =
        (Files::new(), ["secret", "configMap", "projected"].iter().find_map(|kind| volume.get(kind)));
    let source = source.context("the lab's kubelet does not know its kind")?;
    if volume.get("projected").is_some() {
        for one in list(source, "sources") {
            files.append(&mut projected(shared, pod, one).await?);
        }
    } else {
        let kind = if volume.get("secret").is_some() { "secrets" } else { "configmaps" };
        files.append(&mut chosen(environment::data(shared, pod, kind, source).await?.unwrap_or_default(), source));
    }
    let mode = source.get("defaultMode").and_then(Value::as_u64).and_then(|mode| u32::try_from(mode).ok());
    Ok((files, mode.unwrap_or(0o644)))
}

async fn projected(shared: &Shared, pod: &Pod, source: &Value) -> Result<Files> {
    if let Some(token) = source.get("serviceAccountToken") {
        let path = token.get("path").and_then(Value::as_str).context("a token without a path")?;
        return Ok(Files::from([(path.to_owned(), self::token(shared, pod, token).await?.into_bytes())]));
    }
    if let Some(downward) = source.get("downwardAPI") {
        let mut files = Files::new();
        for item in list(downward, "items") {
            let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let value = environment::downward(shared, pod, text("/fieldRef/fieldPath"))?;
            files.insert(text("/path").to_owned(), value.into_bytes());
        }
        return Ok(files);
    }
    let (kind, source) = match (source.get("configMap"), source.get("secret")) {
        (Some(source), _) => ("configmaps", source),
        (None, Some(source)) => ("secrets", source),
        (None, None) => bail!("the lab's kubelet does not know {source}"),
    };
    Ok(chosen(environment::data(shared, pod, kind, source).await?.unwrap_or_default(), source))
}

/// All entries, or those that `items` names, under the paths given there.
fn chosen(mut data: Files, source: &Value) -> Files {
    if source.get("items").is_none() {
        return data;
    }
    let items = list(source, "items").filter_map(|item| {
        let text = |field: &str| item.get(field).and_then(Value::as_str).unwrap_or_default();
        Some((text("path").to_owned(), data.remove(text("key"))?))
    });
    items.collect()
}

/// A token of the pod's account, which ends with the pod.
async fn token(shared: &Shared, pod: &Pod, source: &Value) -> Result<String> {
    let account = pod.text("/spec/serviceAccountName");
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", pod.namespace());
    let mut request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "expirationSeconds": source.get("expirationSeconds"),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid()},
        },
    });
    if let (Some(audience), Some(spec)) =
        (source.get("audience"), request.get_mut("spec").and_then(Value::as_object_mut))
    {
        spec.insert("audiences".to_owned(), json!([audience]));
    }
    let answer = shared.api.call(Method::POST, &path, JSON, Some(&request)).await?;
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    token.map(str::to_owned).context("no token in the answer")
}

/// Whole or not at all, as the kubelet's own writer does.
fn write(file: &Path, content: &[u8], mode: u32, group: Option<u32>) -> Result<()> {
    let failed = || format!("could not write {}", file.display());
    let fresh = file.with_extension("new");
    fs::create_dir_all(file.parent().unwrap_or(file)).with_context(failed)?;
    fs::write(&fresh, content).with_context(failed)?;
    // A volume with a group is readable by it.
    let mode = if group.is_some() { mode | 0o440 } else { mode };
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).with_context(failed)?;
    chown(&fresh, None, group).with_context(failed)?;
    fs::rename(&fresh, file).with_context(failed)
}
