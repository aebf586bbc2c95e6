//! The agent's state and its steps: apply a snapshot, follow the devices, keep the flows in order.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use roadstead_dataplane::{
    addresses::{NodeAddresses, to_map},
    attach::{Attached, Role},
    conntrack, counters,
    frontends::{self, Frontends, NodeView},
    load::Programs,
    maps::{FlowMaps, KernelMaps},
    netns_cookie,
    pins::Pins,
    reconcile::{GRACE, Reconciler, Removal},
};
use roadstead_model::{Problem, Severity, Snapshot};
use tracing::{info, warn};

use crate::{
    cgroup,
    devices::Devices,
    flags::{RunFlags, Switch},
    metrics::Metrics,
};

/// What `run` works on.
pub(crate) struct Agent {
    flags: RunFlags,
    node_name: String,
    programs: Programs,
    reconciler: Reconciler<KernelMaps>,
    flows: FlowMaps,
    uplinks: Attached,
    internals: Attached,
    netns_cookie: u64,
    snapshot: Arc<Snapshot>,
    desired: Frontends,
    devices: Devices,
    conflicts: Vec<Problem>,
    /// The last round failed, or left something to free after the grace period.
    due: Option<Instant>,
    metrics: Metrics,
}

impl Agent {
    /// Loads the programs over what an earlier agent has pinned. Nothing is attached or changed yet.
    pub(crate) fn load(flags: RunFlags, metrics: Metrics) -> anyhow::Result<Self> {
        let pins = Pins::open(&flags.bpffs)?;
        let (programs, maps, flows) = Programs::load(pins, flags.conntrack_entries)?;
        let reconciler = Reconciler::recover(maps).context("cannot read the maps back")?;
        let devices = Devices::look(&flags.devices)?;
        let netns_cookie = netns_cookie().context("cannot learn the cookie of the network namespace")?;
        let node_name = flags.source.node_name().context("cannot learn the name of this node")?;
        Ok(Self {
            flags,
            node_name,
            programs,
            reconciler,
            flows,
            uplinks: Attached::new(Role::Uplink),
            internals: Attached::new(Role::Internal),
            netns_cookie,
            snapshot: Arc::default(),
            desired: Frontends::default(),
            devices,
            conflicts: Vec::new(),
            due: None,
            metrics,
        })
    }

    /// Attaches the programs, once the maps hold the first snapshot: a program must not meet a half-filled map.
    pub(crate) fn attach(&mut self) -> anyhow::Result<()> {
        if self.flags.socket_lb == Switch::On {
            let root = self.flags.cgroup_root.clone().map_or_else(cgroup::root, Ok)?;
            self.programs.attach_sockets(&root)?;
        } else {
            self.programs.detach_sockets(None);
        }
        self.follow_devices()?;
        self.programs.pins().remove_other_versions()?;
        Ok(())
    }

    /// Brings the maps to a snapshot; whether that succeeded. What failed is tried again by [`Agent::tick`].
    pub(crate) fn apply(&mut self, snapshot: Arc<Snapshot>) -> bool {
        self.snapshot = snapshot;
        let started = Instant::now();
        match self.try_apply() {
            Ok(written) => {
                let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                if written > 0 {
                    info!(generation = self.snapshot.generation, written, micros, "programmed");
                }
                self.metrics.synced(&self.snapshot, started.elapsed(), &self.reconciler.fill());
                // Once more after the grace period, also for flows that a program has created by the old value.
                self.due = Some(Instant::now() + GRACE);
                true
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "programming failed, will be tried again");
                self.metrics.failed();
                self.due = Some(started);
                false
            }
        }
    }

    fn try_apply(&mut self) -> anyhow::Result<usize> {
        let devices = self.devices.clone();
        let node = self.node_addresses(&devices);
        let serving: BTreeSet<_> =
            node.serving_node_ports(&self.flags.node_port_networks()).into_iter().map(to_map).collect();
        let range = self.flags.source.node_port_range;
        let config = node.config(self.netns_cookie, &(range.first().get()..=range.last().get()));
        self.reconciler.apply_node(&config, &serving)?;
        let own: Vec<_> = devices.addresses.values().flatten().chain(&node.0).copied().collect();
        let view = NodeView { name: &self.node_name, addresses: &own };
        let desired = frontends::compile(&self.snapshot, view);
        self.tell_conflicts(&desired.conflicts);
        let removal = removal(&self.snapshot);
        let changes = self.reconciler.apply(&desired, removal, Instant::now());
        self.desired = desired;
        if changes.as_ref().is_ok_and(|changes| changes.frontends > 0) {
            self.collect_flows();
        }
        Ok(changes?.frontends)
    }

    /// Once a second: devices that came or went, rounds to repeat, ranges and backends to free.
    pub(crate) fn tick(&mut self) {
        if let Err(error) = self.follow_devices() {
            warn!(error = format!("{error:#}"), "attaching failed, will be tried again");
            self.metrics.failed();
        }
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            match self.try_apply() {
                Ok(written) => {
                    if written > 0 {
                        info!(generation = self.snapshot.generation, written, "programmed");
                    }
                    self.metrics.synced(&self.snapshot, Duration::ZERO, &self.reconciler.fill());
                    self.collect_flows();
                    self.due = self.reconciler.has_retired().then(|| Instant::now() + GRACE);
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), "programming failed, will be tried again");
                    self.metrics.failed();
                    self.due = Some(Instant::now());
                }
            }
        }
    }

    /// Every few seconds: expired flows, counters.
    pub(crate) fn collect(&mut self) {
        self.collect_flows();
        match counters::drops(&self.flows) {
            Ok(drops) => self.metrics.drops(&drops, |id| self.reconciler.port_name(id)),
            Err(error) => warn!(%error, "cannot read the drop counters"),
        }
    }

    fn collect_flows(&mut self) {
        let (reconciler, desired) = (&self.reconciler, &self.desired);
        let may_go_on = |port, endpoint: &_| reconciler.may_go_on(desired, port, endpoint);
        let time = match self.programs.time() {
            Ok(time) => time,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot read the programs' clock");
                return;
            }
        };
        match conntrack::collect(&mut self.flows, time, may_go_on) {
            Ok(collected) => self.metrics.conntrack(&collected),
            Err(error) => warn!(%error, "cannot collect expired flows"),
        }
    }

    fn follow_devices(&mut self) -> anyhow::Result<()> {
        let devices = Devices::look(&self.flags.devices)?;
        if devices != self.devices {
            // Addresses have come or gone, and with them node ports and the source of forwarded flows.
            self.devices = devices;
            self.due = Some(Instant::now());
        }
        let devices = &self.devices;
        let wanted = devices.uplinks(&self.flags.devices, &self.node_addresses(devices).0)?;
        let index = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).ok().map(|i| (i, name.clone()));
        let internal: std::collections::BTreeMap<u32, String> = devices
            .ethernet
            .iter()
            .filter(|name| !wanted.contains(*name) && !name.starts_with("cni"))
            .filter_map(index)
            .collect();
        let wanted: std::collections::BTreeMap<u32, String> = wanted.iter().filter_map(index).collect();
        self.internals.follow(&mut self.programs, &mut self.flows, &internal)?;
        if self.uplinks.follow(&mut self.programs, &mut self.flows, &wanted)? {
            let names: Vec<_> = self.uplinks.names().collect();
            info!(devices = names.join(","), "attached to the uplinks");
            if names.is_empty() {
                warn!(
                    "no device faces the network: give the Node an InternalIP of this host, or name one with --device"
                );
            }
        }
        Ok(())
    }

    fn node_addresses(&self, devices: &Devices) -> NodeAddresses {
        let node = self.snapshot.nodes.get(&self.node_name);
        NodeAddresses::choose(node.map(AsRef::as_ref), &devices.addresses_of(&self.flags.devices))
    }

    /// Each conflict is told once, when it appears.
    fn tell_conflicts(&mut self, conflicts: &[Problem]) {
        for conflict in conflicts.iter().filter(|conflict| !self.conflicts.contains(conflict)) {
            warn!(%conflict, "a frontend is left out");
        }
        self.conflicts = conflicts.to_vec();
    }
}

/// An object with an error is in the snapshot in its last good version, but only since this agent began: what the maps
/// hold from before may be all that is left of it.
fn removal(snapshot: &Snapshot) -> Removal {
    let has_errors = snapshot.problems.iter().any(|problem| problem.severity == Severity::Error);
    match (snapshot.synced, has_errors) {
        (false, _) => Removal::Withheld,
        (true, true) => Removal::Known,
        (true, false) => Removal::Allowed,
    }
}
