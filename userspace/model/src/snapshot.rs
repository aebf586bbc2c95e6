//! A snapshot: everything that is desired at one moment.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ConfigMap, EndpointSlice, Ingress, IngressClass, IpAddressPool, L2Advertisement, L2Exclusion, Namespace, Node,
    ObjectName, Problem, Secret, Service,
};

/// All objects at one moment. Consumers compare it with what they have programmed, never with the snapshot before it.
///
/// Objects are shared: an object that did not change is the same `Arc` in two snapshots that follow each other, so
/// `Arc::ptr_eq` is a cheap "unchanged".
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up with every change; 0 is the empty one before the first reading.
    pub generation: u64,
    /// Every source has been read in full at least once; before that nothing may be removed.
    pub synced: bool,
    /// Services by name.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// Slices by the Service that they belong to, in order of their own names.
    pub slices: BTreeMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Ingresses by name.
    pub ingresses: BTreeMap<ObjectName, Arc<Ingress>>,
    /// Classes by name.
    pub ingress_classes: BTreeMap<String, Arc<IngressClass>>,
    /// Secrets by name.
    pub secrets: BTreeMap<ObjectName, Arc<Secret>>,
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<ObjectName, Arc<ConfigMap>>,
    /// Address pools by name.
    pub pools: BTreeMap<ObjectName, Arc<IpAddressPool>>,
    /// Layer-2 advertisements by name.
    pub l2_advertisements: BTreeMap<ObjectName, Arc<L2Advertisement>>,
    /// Interfaces that nothing is announced on, by the ConfigMap that says so.
    pub l2_exclusions: BTreeMap<ObjectName, Arc<L2Exclusion>>,
    /// What is wrong with the sources now, in order of file and line.
    pub problems: Vec<Problem>,
}

impl Snapshot {
    /// The slices of a Service; none is an empty slice.
    #[must_use]
    pub fn slices_of(&self, service: &ObjectName) -> &[Arc<EndpointSlice>] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
    }

    /// The patterns of interfaces that nothing is announced on; `None` where no ConfigMap names any.
    #[must_use]
    pub fn excluded_interfaces(&self) -> Option<Vec<String>> {
        let all = self.l2_exclusions.values().flat_map(|exclusion| exclusion.patterns.iter().cloned());
        (!self.l2_exclusions.is_empty()).then(|| all.collect())
    }
}
