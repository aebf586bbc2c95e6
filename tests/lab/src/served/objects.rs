//! Manifests as objects. The lab knows no YAML: kubectl reads it, each text once in the life of the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde_json::{Deserializer, Value};

use super::kinds::Kind;
use crate::cluster::ControlPlane;

/// An object of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// All of it, its status too.
    pub(super) value: Value,
}

impl Object {
    pub(super) fn new(value: Value) -> Result<Self> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = Kind::find(&text("/kind").context("an object without a kind")?)?;
        let name = text("/metadata/name").context("an object without a name")?;
        let namespace = text("/metadata/namespace").filter(|_| kind.is_namespaced()).unwrap_or_default();
        Ok(Self { kind, namespace, name, value })
    }

    /// Whether both are the same object, whatever they hold.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.kind, &self.namespace, &self.name) == (other.kind, &other.namespace, &other.name)
    }

    pub(super) fn path(&self) -> String {
        self.kind.one(&self.namespace, &self.name)
    }

    /// What the object's own path takes; status has a path of its own.
    pub(super) fn without_status(&self) -> Value {
        let mut value = self.value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("status");
        }
        value
    }

    pub(super) fn status(&self) -> Option<&Value> {
        self.value.get("status")
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// The objects of a text, in order.
pub(super) fn read(control: &ControlPlane, text: &str) -> Result<Vec<Object>> {
    static KNOWN: Mutex<Option<HashMap<String, Vec<Object>>>> = Mutex::new(None);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(objects) = known().as_ref().and_then(|known| known.get(text)) {
        return Ok(objects.clone());
    }
    // As `create` would send them, with the namespace that it gives to those that name none.
    let ask = ["create", "--dry-run=client", "--validate=false", "--output=json", "--filename", "-"];
    let answer = control.kubectl_with(&ask, text)?;
    let mut objects = Vec::new();
    for value in Deserializer::from_str(&answer).into_iter::<Value>() {
        let mut value = value.context("kubectl's answer is no JSON")?;
        match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => objects.extend(items),
            _ => objects.push(value),
        }
    }
    let objects = objects.into_iter().map(Object::new).collect::<Result<Vec<_>>>()?;
    known().get_or_insert_default().insert(text.to_owned(), objects.clone());
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_known_by_kind_namespace_and_name() {
        let object = |kind: &str, namespace: &str, spec: u8| {
            let value =
                json!({"kind": kind, "metadata": {"namespace": namespace, "name": "web"}, "spec": spec, "status": 1});
            Object::new(value).unwrap()
        };
        let service = object("Service", "shop", 1);
        assert_eq!(service.path(), "/api/v1/namespaces/shop/services/web");
        assert!(service.is(&object("Service", "shop", 2)) && !service.is(&object("Service", "other", 1)));
        assert!(!service.is(&object("Pod", "shop", 1)));
        assert_eq!((service.status(), service.without_status().get("status")), (Some(&json!(1)), None));
        assert_eq!(object("Node", "ignored", 1).path(), "/api/v1/nodes/web");
        assert!(Object::new(json!({"kind": "Deployment", "metadata": {"name": "web"}})).is_err());
    }
}
