//! What a daemon needs of an API server, so that it asks for nothing else: the agent never sees a Secret.

use std::{collections::BTreeSet, fmt};

use roadstead_model::{References, Snapshot};

use super::writer::Author;
use crate::object::Kind;

/// Where MetalLB lives, whose ConfigMaps are taken too.
const METALLB: &str = "metallb-system";

/// Kinds, and what of them.
pub struct Interest {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) nodes: Nodes,
    /// ConfigMaps by namespace and name.
    pub(crate) config_maps: Vec<(String, String)>,
    /// Says which Secrets and ConfigMaps the other objects name; without it there is no Secret.
    pub(crate) references: Option<Referrer>,
    pub(crate) detail: Detail,
    /// Who writes, if anything is written.
    pub(crate) author: Option<Author>,
}

/// How much of each object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What traffic is led by.
    Traffic,
    /// What addresses are given by, too: the labels and annotations of Services.
    Addresses,
    /// What a person may want to see.
    Shown,
}

/// Which Nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nodes {
    All,
    /// This node's own.
    Own,
}

/// Finds the references in a snapshot. Secrets of type kubernetes.io/tls come without being named.
pub(crate) type Referrer = Box<dyn Fn(&Snapshot) -> References + Send>;

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

impl Interest {
    fn new(kinds: &[Kind], nodes: Nodes) -> Self {
        let kinds = kinds.to_vec();
        Self { kinds, nodes, config_maps: Vec::new(), references: None, detail: Detail::Traffic, author: None }
    }

    /// Of the node agent: Services, their endpoints, Nodes.
    #[must_use]
    pub fn agent() -> Self {
        Self::new(&[Kind::Service, Kind::EndpointSlice, Kind::Node], Nodes::All)
    }

    /// Of the proxy: Ingresses and what they lead to; of Secrets and ConfigMaps, besides certificates, those that
    /// `references` finds in a snapshot.
    #[must_use]
    pub fn proxy(references: impl Fn(&Snapshot) -> References + Send + 'static) -> Self {
        let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Ingress, Kind::IngressClass];
        Self { references: Some(Box::new(references)), ..Self::new(&kinds, Nodes::Own) }
    }

    /// Of the speaker: Services, their endpoints, Nodes, Namespaces, pools and advertisements; and MetalLB's ConfigMaps in the
    /// speaker's namespace and in MetalLB's own. Whoever may write a ConfigMap elsewhere must not hand out addresses.
    #[must_use]
    pub fn speaker(namespace: &str) -> Self {
        let kinds = [
            Kind::Service,
            Kind::EndpointSlice,
            Kind::Node,
            Kind::Namespace,
            Kind::IpAddressPool,
            Kind::L2Advertisement,
        ];
        let namespaces = BTreeSet::from([namespace.to_owned(), METALLB.to_owned()]);
        let named = namespaces
            .iter()
            .flat_map(|namespace| ["config", "metallb-excludel2"].map(|name| (namespace.clone(), name.to_owned())));
        Self { config_maps: named.collect(), detail: Detail::Addresses, ..Self::new(&kinds, Nodes::All) }
    }

    /// Statuses and events are written too, under this name, which is also that of the Lease by which one process leads; the
    /// namespace is that of the Lease.
    #[must_use]
    pub fn written_by(self, name: &str, namespace: &str, node: &str) -> Self {
        let announces = self.kinds.contains(&Kind::IpAddressPool);
        let (name, namespace, node) = (name.to_owned(), namespace.to_owned(), node.to_owned());
        Self { author: Some(Author { name, namespace, node, announces }), ..self }
    }

    /// With all that a person may want to see of each object.
    #[must_use]
    pub fn in_full(self) -> Self {
        Self { detail: Detail::Shown, ..self }
    }

    /// Of `roadstead get`: all but Secrets and ConfigMaps.
    #[must_use]
    pub fn overview() -> Self {
        let kinds = [
            Kind::Service,
            Kind::EndpointSlice,
            Kind::Node,
            Kind::Namespace,
            Kind::Ingress,
            Kind::IngressClass,
            Kind::IpAddressPool,
            Kind::L2Advertisement,
        ];
        Self::new(&kinds, Nodes::All).in_full()
    }
}
