//! What speakers tell beside the Services' addresses: who announces, why an address is lacking, how full pools are. What this
//! node's speaker tells stands in the status files, who announces in a cluster in its objects; else nothing is known.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_model::ObjectName;
use serde_json::Value;

/// By Service or pool.
#[derive(Debug, Default)]
pub(super) struct Told {
    nodes: BTreeMap<ObjectName, Vec<String>>,
    reasons: BTreeMap<ObjectName, String>,
    pools: BTreeMap<ObjectName, Value>,
}

impl Told {
    pub(super) fn new(objects: &[Value]) -> Self {
        let mut told = Self::default();
        for object in objects {
            told.read(object);
        }
        told
    }

    fn read(&mut self, object: &Value) -> Option<()> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let name = |namespace, name| Some(ObjectName::new(text(namespace)?, text(name)?));
        match text("/kind")? {
            "ServiceL2Status" => {
                let service = name("/status/serviceNamespace", "/status/serviceName")?;
                self.nodes.entry(service).or_default().push(text("/status/node")?.to_owned());
            }
            "Service" => {
                let message = text("/status/conditions/0/message")?;
                self.reasons.insert(name("/metadata/namespace", "/metadata/name")?, message.to_owned());
            }
            "IPAddressPool" => {
                let status = object.get("status")?.clone();
                self.pools.insert(name("/metadata/namespace", "/metadata/name")?, status);
            }
            _ => {}
        }
        Some(())
    }

    /// The nodes that announce an address of the Service: all of a cluster, without one as far as this node knows, itself.
    pub(super) fn nodes(&self, service: &ObjectName) -> String {
        let nodes = self.nodes.get(service).into_iter().flatten().map(String::as_str);
        nodes.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
    }

    /// Why the Service lacks an address.
    pub(super) fn reason(&self, service: &ObjectName) -> String {
        self.reasons.get(service).cloned().unwrap_or_default()
    }

    /// `status` of an IPAddressPool.
    pub(super) fn pool(&self, pool: &ObjectName) -> Option<&Value> {
        self.pools.get(pool)
    }
}
