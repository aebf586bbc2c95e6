//! What the manifests ask of this node, for the commands that need no daemon: frontends compiled once, and the names of
//! Service ports and devices, which the maps know by number only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use nix::net::if_::if_indextoname;
use roadstead_abi::{Addr, SvcKey, SvcValue};
use roadstead_dataplane::{
    clock,
    compiler::Compiler,
    explain::Row,
    frontends::{NodeView, Options, ServicePortName},
    maps::{KernelMaps, Maps as _},
    pins::Pins,
};
use roadstead_model::{Selection, Snapshot};
use roadstead_sources::{Interest, SourceFlags};

/// The names that the source gives to the ids in the pinned maps; none without a source.
pub(crate) fn names(from: &SourceFlags, pins: &Pins) -> anyhow::Result<BTreeMap<u32, PortName>> {
    if !from.name_a_source() {
        return Ok(BTreeMap::new());
    }
    let snapshot = match roadstead_sources::read(from, Interest::agent()) {
        Ok(snapshot) => snapshot,
        // Numbers are better than nothing while the API server is away.
        Err(error) if from.name_a_server() => {
            eprintln!("Services have no names: {error}");
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error.into()),
    };
    let view = NodeView { name: &from.node_name()?, addresses: &[], primary: &[] };
    let desired = Desired::of(&snapshot, view, Selection::Random);
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
    compiler: Compiler,
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
    /// Compiles a snapshot for a node with these addresses.
    pub(crate) fn of(snapshot: &'a Snapshot, node: NodeView<'_>, selection: Selection) -> Self {
        let mut compiler = Compiler::new(Options { clock: clock::clock(), selection });
        // What changes from nothing is not asked for, but what there is then.
        let _ = compiler.update(snapshot, node, Instant::now());
        Self { snapshot, compiler }
    }

    /// Shows every frontend; equal names have equal ids, which begin at 1.
    pub(crate) fn each(&self, mut show: impl FnMut(&Row<'_>)) {
        let names: BTreeSet<&ServicePortName> =
            self.compiler.frontends().map(|(_, frontend)| &frontend.port.name).collect();
        let ids: BTreeMap<&ServicePortName, u32> = names.into_iter().zip(1..).collect();
        for (key, frontend) in self.compiler.frontends() {
            show(&Row {
                key: *key,
                service: ids.get(&frontend.port.name).copied().unwrap_or_default(),
                kind: frontend.kind,
                flags: frontend.port.flags,
                affinity: frontend.port.affinity,
                cluster: frontend.cluster(),
                local: frontend.local(),
                ranges: frontend.ranges().map(AsRef::as_ref),
                maglev: frontend.port.selection == Selection::Maglev,
            });
        }
    }

    /// Addresses that belong to Services alone, with their kinds.
    pub(crate) fn vips(&self) -> impl Iterator<Item = (Addr, u32)> {
        self.compiler.vips().map(|(addr, kind)| (*addr, u32::from(kind)))
    }

    /// Names by the ids that these frontends have in the maps. Where the maps and the manifests differ, the name of an id
    /// is that of most of its frontends.
    pub(crate) fn names<'b>(
        &self,
        programmed: impl Iterator<Item = (SvcKey, &'b SvcValue)>,
    ) -> BTreeMap<u32, PortName> {
        let by_key: HashMap<SvcKey, &ServicePortName> =
            self.compiler.frontends().map(|(key, frontend)| (*key, &frontend.port.name)).collect();
        let mut votes: BTreeMap<u32, BTreeMap<&ServicePortName, usize>> = BTreeMap::new();
        for (key, value) in programmed {
            if let Some(name) = by_key.get(&key) {
                *votes.entry(value.service).or_default().entry(name).or_default() += 1;
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
