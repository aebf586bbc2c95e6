//! The kinds that manifests hold and daemons write, and where the API serves them.

use anyhow::{Context as _, Result};

/// A kind of objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    name: &'static str,
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    root: &'static str,
    resource: &'static str,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Namespaced,
    Cluster,
}

const fn namespaced(name: &'static str, root: &'static str, resource: &'static str) -> Kind {
    Kind { name, root, resource, scope: Scope::Namespaced }
}

const fn of_cluster(name: &'static str, root: &'static str, resource: &'static str) -> Kind {
    Kind { name, root, resource, scope: Scope::Cluster }
}

const CORE: &str = "/api/v1";
const NETWORKING: &str = "/apis/networking.k8s.io/v1";
const METALLB: &str = "/apis/metallb.io/v1beta1";

/// Those of MetalLB.
pub(super) static CUSTOM: [Kind; 3] = [
    namespaced("IPAddressPool", METALLB, "ipaddresspools"),
    namespaced("L2Advertisement", METALLB, "l2advertisements"),
    namespaced("ServiceL2Status", METALLB, "servicel2statuses"),
];

/// Those that go with a lab, in an order in which no controller makes again what is gone already.
static BUILT_IN: [Kind; 12] = [
    namespaced("Service", CORE, "services"),
    namespaced("Pod", CORE, "pods"),
    namespaced("Endpoints", CORE, "endpoints"),
    namespaced("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices"),
    namespaced("Ingress", NETWORKING, "ingresses"),
    of_cluster("IngressClass", NETWORKING, "ingressclasses"),
    namespaced("ConfigMap", CORE, "configmaps"),
    namespaced("Secret", CORE, "secrets"),
    namespaced("Lease", "/apis/coordination.k8s.io/v1", "leases"),
    namespaced("Event", CORE, "events"),
    of_cluster("Node", CORE, "nodes"),
    of_cluster("Namespace", CORE, "namespaces"),
];

impl Kind {
    /// All kinds.
    pub(super) fn all() -> impl Iterator<Item = &'static Self> {
        BUILT_IN.iter().chain(&CUSTOM)
    }

    pub(super) fn find(name: &str) -> Result<&'static Self> {
        Self::all().find(|kind| kind.name == name).with_context(|| format!("the lab serves no {name}"))
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Namespaces stay where they were made: nobody runs who could take them away.
    pub(super) fn is_kept(&self) -> bool {
        self.name == "Namespace"
    }

    pub(super) fn is_pod(&self) -> bool {
        self.name == "Pod"
    }

    pub(super) fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The path of all objects of the kind.
    pub(super) fn everywhere(&self) -> String {
        format!("{}/{}", self.root, self.resource)
    }

    /// The path of one.
    pub(super) fn one(&self, namespace: &str, name: &str) -> String {
        match self.scope {
            Scope::Namespaced => format!("{}/namespaces/{namespace}/{}/{name}", self.root, self.resource),
            Scope::Cluster => format!("{}/{}/{name}", self.root, self.resource),
        }
    }
}
