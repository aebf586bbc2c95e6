//! Objects into the API server and out of it, such that it holds what a directory with the manifests would.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::objects::Object;
use crate::cluster::{ControlPlane, refused};
use crate::wait::wait_until;

/// Who applies: what it no longer names goes.
const MANAGER: &str = "fieldManager=lab&force=true";
/// How often a status is written that somebody else changes meanwhile.
const TRIES: usize = 20;
/// How long the controller may take to notice a change.
const NOTICED: Duration = Duration::from_secs(10);
/// At once, without a kubelet that would have to agree.
const AT_ONCE: &str = "gracePeriodSeconds=0&propagationPolicy=Background";

/// Makes the object what it shall be, with its status.
pub(super) fn object(control: &ControlPlane, object: &Object, former: Option<&Object>) -> Result<()> {
    let path = format!("{}?{MANAGER}", object.path());
    let wanted = object.without_status();
    let put = match control.apply_patch(&path, &wanted) {
        // Some fields cannot be changed: a directory of files knows no such thing.
        Err(error) if refused(&error) == Some(422) && former.is_some() => {
            remove(control, object)?;
            control.apply_patch(&path, &wanted)?
        }
        // A directory of files knows no namespaces that are not there, either.
        Err(error) if refused(&error) == Some(404) && object.kind.is_namespaced() => {
            namespace(control, &object.namespace)?;
            control.apply_patch(&path, &wanted)?
        }
        put => put?,
    };
    match object.status() {
        Some(wanted) => status(control, object, put, wanted),
        None if former.is_some_and(|former| former.status().is_some()) => status(control, object, put, &json!({})),
        None => Ok(()),
    }
}

fn status(control: &ControlPlane, object: &Object, mut present: Value, wanted: &Value) -> Result<()> {
    let path = format!("{}/status", object.path());
    for _ in 0..TRIES {
        if let Some(fields) = present.as_object_mut() {
            fields.insert("status".to_owned(), wanted.clone());
        }
        match control.replace(&path, &present) {
            Err(error) if refused(&error) == Some(409) => present = control.get(&object.path())?,
            written => return written.map(drop),
        }
    }
    bail!("the status of {object} is always another's")
}

/// Makes a namespace where there is none.
pub(super) fn namespace(control: &ControlPlane, name: &str) -> Result<()> {
    let wanted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    match control.create(&Kind::find("Namespace")?.everywhere(), &wanted) {
        Err(error) if refused(&error) == Some(409) => Ok(()),
        made => made.map(drop),
    }
}

/// Removes the object, or of a namespace what was applied to it.
pub(super) fn remove(control: &ControlPlane, object: &Object) -> Result<()> {
    if object.kind.is_kept() {
        let bare = json!({"apiVersion": "v1", "kind": object.kind.name(), "metadata": {"name": object.name}});
        return control.apply_patch(&format!("{}?{MANAGER}", object.path()), &bare).map(drop);
    }
    if object.kind.is_pod() {
        end(control, object)?;
    }
    delete(control, &object.path())
}

/// A pod ends as a kubelet tells it, and is no endpoint any more. Were it deleted at once, the API would tell the controller
/// of two changes in a row, of which that puts off the second by a second, since it has not seen its own answer to the first.
fn end(control: &ControlPlane, pod: &Object) -> Result<()> {
    let conditions = json!([{"type": "Ready", "status": "False", "reason": "PodFailed"}]);
    let failed = json!({"status": {"phase": "Failed", "conditions": conditions}});
    match control.patch(&format!("{}/status", pod.path()), &failed) {
        Err(error) if refused(&error) == Some(404) => return Ok(()),
        patched => patched?,
    };
    let slices = Kind::find("EndpointSlice")?.everywhere();
    wait_until(NOTICED, &format!("{pod} is no endpoint any more"), || {
        control.get(&slices).is_ok_and(|slices| !names(&slices, pod))
    })
    .map(drop)
}

/// Whether a list of slices has the pod as an endpoint.
fn names(slices: &Value, pod: &Object) -> bool {
    let items = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let is_pod = |endpoint: &Value| {
        let text = |field: &str| endpoint.pointer(&format!("/targetRef/{field}")).and_then(Value::as_str);
        (text("namespace"), text("name")) == (Some(&pod.namespace), Some(&pod.name))
    };
    items(slices, "items").iter().any(|slice| items(slice, "endpoints").iter().any(is_pod))
}

fn delete(control: &ControlPlane, path: &str) -> Result<()> {
    match control.delete(&format!("{path}?{AT_ONCE}")) {
        Err(error) if refused(&error) == Some(404) => Ok(()),
        deleted => deleted,
    }
}

/// Removes all that a lab and its daemons may have left; how many objects those were.
pub(super) fn empty(control: &ControlPlane) -> Result<usize> {
    let mut removed = 0;
    for kind in Kind::all().filter(|kind| !kind.is_kept()) {
        let list = control.get(&kind.everywhere())?;
        for found in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
            if !is_servers(namespace, name) {
                delete(control, &kind.one(namespace, name))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// What the control plane has for itself: its Service, its Leases.
fn is_servers(namespace: &str, name: &str) -> bool {
    namespace.starts_with("kube-") || (namespace, name) == ("default", "kubernetes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> Object {
        Object::new(json!({"kind": "Pod", "metadata": {"namespace": namespace, "name": name}})).unwrap()
    }

    #[test]
    fn a_pod_is_an_endpoint_by_name_and_namespace() {
        let endpoint = |name: &str| json!({"targetRef": {"kind": "Pod", "namespace": "shop", "name": name}});
        let slices = json!({"items": [{"endpoints": [endpoint("web-1")]}, {}, {"endpoints": [{}, endpoint("web-2")]}]});
        let cases =
            [("shop", "web-1", true), ("shop", "web-2", true), ("shop", "web-3", false), ("other", "web-1", false)];
        for (namespace, name, expected) in cases {
            assert_eq!(names(&slices, &pod(namespace, name)), expected, "{namespace}/{name}");
        }
    }

    #[test]
    fn what_the_control_plane_has_is_left_to_it() {
        let cases =
            [("default", "kubernetes", true), ("kube-system", "apiserver-1", true), ("shop", "kubernetes", false)];
        for (namespace, name, expected) in cases {
            assert_eq!(is_servers(namespace, name), expected, "{namespace}/{name}");
        }
    }
}
