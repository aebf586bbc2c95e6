//! A container that is no echo server: a program of an image, with exactly the user, capabilities, environment and volumes
//! that the pod's spec asks for.
//!
//! Programs lie in one folder whatever their image is called, and are found by their name. An image that has a folder of
//! its own there holds all that is in it, beside one another, and starts the program that is called as itself where the
//! spec names none.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::spec::{Pod, list};
use super::{Shared, environment, volumes};
use crate::container::{Capability, Container, Mount};

/// Makes the folder of a pod and describes its only container. The folder is removed with the pod.
pub(super) async fn describe(shared: &Shared, pod: &Pod, folder: &Path) -> Result<Container> {
    let [container] = pod.containers() else { bail!("a pod of programs has one container here") };
    let root = folder.join("root");
    fs::create_dir_all(&root)?;
    let variables = environment::variables(shared, pod, container).await?;
    let words = |field: &str| list(container, field).filter_map(Value::as_str);
    let entry = if words("command").next().is_none() {
        own_folder(shared, container).map(|folder| entry_point(&folder))
    } else {
        None
    };
    let words = words("command").chain(words("args")).map(|word| environment::expand(word, &variables));
    let command: Vec<String> = entry.into_iter().chain(words).collect();
    let mut mounts = image(shared, container, &command)?;
    let spec = pod.0.get("spec").unwrap_or(&Value::Null);
    for mount in list(container, "volumeMounts") {
        let text = |field: &str| mount.get(field).and_then(Value::as_str).unwrap_or_default();
        let volume = list(spec, "volumes").find(|volume| volume.get("name") == mount.get("name"));
        let volume = volume.with_context(|| format!("no volume {}", text("name")))?;
        let source = volumes::volume(shared, pod, volume, &folder.join("volumes")).await?;
        mounts.push(Mount {
            // An empty path would make a folder of a file.
            source: if text("subPath").is_empty() { source } else { source.join(text("subPath")) },
            target: text("mountPath").into(),
            read_only: mount.get("readOnly") == Some(&true.into()),
        });
    }
    let context = Security { pod: spec.get("securityContext"), container: container.get("securityContext") };
    Ok(Container {
        root,
        mounts,
        command,
        environment: variables,
        user: context.number("runAsUser").unwrap_or(0),
        groups: context.groups(),
        capabilities: context.capabilities()?,
        no_new_privileges: context.is("allowPrivilegeEscalation", false),
        read_only_root: context.is("readOnlyRootFilesystem", true),
    })
}

/// Whether the pod's containers are programs: on the node's network all are, elsewhere those of known images.
pub(super) fn is_program(shared: &Shared, pod: &Pod) -> bool {
    pod.is_on_the_nodes_network() || pod.containers().iter().any(|container| own_folder(shared, container).is_some())
}

/// The programs of an image, at their places in the root.
fn image(shared: &Shared, container: &Value, command: &[String]) -> Result<Vec<Mount>> {
    let named = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let program = Path::new(command.first().context("a container without a command")?);
    let images = shared.images.as_ref().with_context(|| format!("no image {named}"))?;
    let (name, beside) = (program.file_name().unwrap_or_default(), program.parent().unwrap_or(Path::new("/")));
    let own = own_folder(shared, container);
    let file = own.as_deref().unwrap_or(images).join(name);
    if !file.is_file() {
        bail!("no {} in image {named}", program.display());
    }
    let mount = |source: PathBuf, name: &OsStr| Mount { source, target: beside.join(name), read_only: true };
    let Some(own) = own else { return Ok(vec![mount(file, name)]) };
    let mut mounts = Vec::new();
    for entry in fs::read_dir(&own)? {
        let entry = entry?;
        // A link leads to what the host has.
        mounts.push(mount(fs::canonicalize(entry.path())?, &entry.file_name()));
    }
    Ok(mounts)
}

/// The folder of the container's image, where it has one: `kube-proxy` for `registry.k8s.io/kube-proxy:v1.36.3`.
fn own_folder(shared: &Shared, container: &Value) -> Option<PathBuf> {
    let named = container.get("image").and_then(Value::as_str)?;
    let name = named.rsplit('/').next()?.split([':', '@']).next()?;
    Some(shared.images.as_ref()?.join(name)).filter(|folder| folder.is_dir())
}

/// The program that an image with a folder of its own starts.
fn entry_point(folder: &Path) -> String {
    format!("/{}", folder.file_name().unwrap_or_default().to_string_lossy())
}

/// What the container says goes before what its pod says.
struct Security<'a> {
    pod: Option<&'a Value>,
    container: Option<&'a Value>,
}

impl Security<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.container.and_then(|own| own.get(field)).or_else(|| self.pod.and_then(|pod| pod.get(field)))
    }

    fn number(&self, field: &str) -> Option<u32> {
        self.get(field).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
    }

    fn is(&self, field: &str, expected: bool) -> bool {
        self.get(field) == Some(&expected.into())
    }

    /// The own group first.
    fn groups(&self) -> Vec<u32> {
        let more = self.pod.map(|pod| list(pod, "supplementalGroups")).into_iter().flatten();
        let more = more.filter_map(Value::as_u64).filter_map(|group| u32::try_from(group).ok());
        [self.number("runAsGroup").unwrap_or(0)].into_iter().chain(self.number("fsGroup")).chain(more).collect()
    }

    fn capabilities(&self) -> Result<Vec<Capability>> {
        let names = |field: &str| {
            let all = self.container.and_then(|own| own.pointer(&format!("/capabilities/{field}")));
            let all = all.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            all.map(str::to_owned).collect::<Vec<_>>()
        };
        if self.is("privileged", true) {
            return Capability::all();
        }
        let dropped = names("drop");
        let mut kept = Capability::usual();
        if dropped.iter().any(|name| name.eq_ignore_ascii_case("all")) {
            kept.clear();
        }
        for name in dropped.iter().filter(|name| !name.eq_ignore_ascii_case("all")) {
            let gone = Capability::named(name)?;
            kept.retain(|one| *one != gone);
        }
        for name in names("add") {
            kept.push(Capability::named(&name)?);
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_gets_what_it_asks_for() {
        let named = |names: &[&str]| names.iter().map(|name| Capability::named(name).unwrap()).collect::<Vec<_>>();
        let of = |own: Value| Security { pod: None, container: Some(&own) }.capabilities().unwrap();
        let asked = json!({"capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN"]}});
        assert_eq!(of(asked), named(&["BPF", "NET_ADMIN"]));
        assert_eq!(of(json!({})), Capability::usual());
        assert_eq!(of(json!({"privileged": true})), Capability::all().unwrap());
        let without = of(json!({"capabilities": {"drop": ["NET_RAW"]}}));
        assert_eq!(without.len() + 1, Capability::usual().len());
        let (pod, own) = (json!({"fsGroup": 3, "runAsUser": 1}), json!({"runAsUser": 2, "runAsGroup": 4}));
        let context = Security { pod: Some(&pod), container: Some(&own) };
        assert_eq!((context.number("runAsUser"), context.groups()), (Some(2), vec![4, 3]));
    }
}
