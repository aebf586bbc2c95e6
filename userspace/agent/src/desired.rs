//! What the manifests ask of this node, for the commands that need no daemon: frontends compiled once, and the names of
//! Service ports and devices, which the maps know by number only.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use nix::net::if_::if_indextoname;
use roadstead_abi::{Addr, SvcKey, SvcValue};
use roadstead_dataplane::{
    clock,
    compiler::Compiler,
    explain::Row,
    frontends::{Frontend, NodeView, Options, ServicePortName},
    maps::{KernelMaps, Maps as _},
    pins::Pins,
};
use roadstead_model::{Selection, Snapshot};
use roadstead_sources::SourceFlags;

/// The names that the manifests give to the ids in the pinned maps; none without manifests.
pub(crate) fn names(from: &SourceFlags, pins: &Pins) -> anyhow::Result<BTreeMap<u32, PortName>> {
    if from.manifests.is_empty() {
        return Ok(BTreeMap::new());
    }
    let snapshot = roadstead_sources::load(&from.manifests, &from.options());
    let desired = Desired::of(&snapshot, NodeView { name: &from.node_name()?, addresses: &[], primary: &[] });
    let programmed = KernelMaps::open(pins)?.0.services()?;
    Ok(desired.names(programmed.iter().map(|(key, value)| (*key, value))))
}

/// The name of a device of this network namespace.
pub(crate) fn device_name(index: u32) -> Option<String> {
    // For a device that is not there the answer is an empty name.
    if_indextoname(index).ok()?.into_string().ok().filter(|name| !name.is_empty())
}

/// The compiled frontends.
pub(crate) struct Desired<'a> {
    snapshot: &'a Snapshot,
    frontends: BTreeMap<SvcKey, Frontend>,
    vips: Vec<(Addr, u8)>,
}

/// A Service's port as people call it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortName {
    /// Namespace and name of the Service.
    pub(crate) service: String,
    /// The port's name, or its number where it has none.
    pub(crate) port: String,
}

impl std::fmt::Display for PortName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl<'a> Desired<'a> {
    /// Compiles a snapshot for a node.
    pub(crate) fn of(snapshot: &'a Snapshot, node: NodeView<'_>) -> Self {
        // Without the maps' tables every endpoint of a set may be chosen.
        let mut compiler = Compiler::new(Options { clock: clock::clock(), selection: Selection::Random });
        let _everything = compiler.update(snapshot, node, Instant::now());
        let frontends = compiler.frontends().map(|(key, frontend)| (*key, frontend.clone())).collect();
        Self { snapshot, frontends, vips: compiler.vips().map(|(addr, kind)| (*addr, kind)).collect() }
    }

    /// Shows every frontend; equal names have equal ids, which begin at 1.
    pub(crate) fn each(&self, mut show: impl FnMut(&Row<'_>)) {
        let names: BTreeSet<&ServicePortName> = self.frontends.values().map(|frontend| &frontend.port.name).collect();
        let ids: BTreeMap<&ServicePortName, u32> = names.into_iter().zip(1..).collect();
        for (key, frontend) in &self.frontends {
            let ranges: Option<Vec<_>> =
                frontend.ranges().map(|list| list.iter().map(|prefix| (prefix.addr, prefix.bits)).collect());
            show(&Row {
                key: *key,
                service: ids.get(&frontend.port.name).copied().unwrap_or_default(),
                kind: frontend.kind,
                flags: frontend.port.flags,
                affinity: frontend.port.affinity,
                cluster: frontend.cluster(),
                local: frontend.local(),
                ranges: ranges.as_deref(),
            });
        }
    }

    /// Addresses that belong to Services alone, with their kinds.
    pub(crate) fn vips(&self) -> impl Iterator<Item = (Addr, u32)> {
        self.vips.iter().map(|(addr, kind)| (*addr, u32::from(*kind)))
    }

    /// Names by the ids that these frontends have in the maps. Where the maps and the manifests differ, the name of an id
    /// is that of most of its frontends.
    pub(crate) fn names<'b>(
        &self,
        programmed: impl Iterator<Item = (SvcKey, &'b SvcValue)>,
    ) -> BTreeMap<u32, PortName> {
        let mut votes: BTreeMap<u32, BTreeMap<&ServicePortName, usize>> = BTreeMap::new();
        for (key, value) in programmed {
            if let Some(frontend) = self.frontends.get(&key) {
                *votes.entry(value.service).or_default().entry(&frontend.port.name).or_default() += 1;
            }
        }
        let named = votes.into_iter().filter_map(|(id, votes)| {
            let (name, _) = votes.into_iter().max_by_key(|(_, count)| *count)?;
            Some((id, self.name(name)))
        });
        named.collect()
    }

    fn name(&self, name: &ServicePortName) -> PortName {
        let number = || {
            let service = self.snapshot.services.get(&name.service)?;
            service.ports.iter().find(|port| *port.name == *name.port).map(|port| port.port.to_string())
        };
        let port = if name.port.is_empty() { number().unwrap_or_default() } else { name.port.to_string() };
        PortName { service: name.service.to_string(), port }
    }
}
