//! The agent's state and its steps: apply a snapshot, follow the devices, keep the flows in order.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use roadstead_abi::node_flags;
use roadstead_dataplane::{
    attach::{Attached, Role},
    clock,
    compiler::Compiler,
    conntrack, counters,
    frontends::{NodeView, Options},
    load::Programs,
    maps::{FlowMaps, KernelMaps},
    migrate::Earlier,
    netns_cookie,
    node::{NodeAddresses, NodeSettings, NodeState},
    pins::Pins,
    reconcile::{GRACE, Reconciler, Removal},
    traffic::TrafficMaps,
};
use roadstead_model::{Problem, Severity, Snapshot};
use roadstead_telemetry::Health;
use tracing::{debug, info, warn};

use crate::{
    cgroup,
    devices::Devices,
    flags::{Masquerade, RunFlags, Switch},
    health_check::{self, HealthChecks},
    metrics::Metrics,
};

/// How long a round that failed waits, short of the tick that repeats it.
const RETRY: Duration = Duration::from_millis(500);

/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// What `run` works on.
pub(crate) struct Agent {
    flags: RunFlags,
    node_name: String,
    programs: Programs,
    /// An agent of another ABI version whose programs still run.
    earlier: Option<Earlier>,
    reconciler: Reconciler<KernelMaps>,
    flows: FlowMaps,
    traffic: TrafficMaps,
    uplinks: Attached,
    internals: Attached,
    bridges: Attached,
    /// Whether [`Agent::attach`] has come to the devices.
    attached: bool,
    /// The last look at the table found a flow that may be a healed one.
    heals: bool,
    netns_cookie: u64,
    snapshot: Arc<Snapshot>,
    compiler: Compiler,
    devices: Devices,
    /// The last look at the devices failed, or the addresses that uplinks are found by may have changed.
    look: bool,
    conflicts: Vec<Problem>,
    /// The last round failed, or left something to free after the grace period.
    due: Option<Instant>,
    unfinished: Unfinished,
    health: Health,
    health_checks: HealthChecks,
    metrics: Metrics,
}

/// What the last attempt failed to bring up to date.
#[derive(Clone, Copy, Debug, Default)]
struct Unfinished {
    devices: bool,
    maps: bool,
}

impl Agent {
    /// Loads the programs over what an earlier agent has pinned. Nothing is attached or changed yet.
    pub(crate) fn load(flags: RunFlags, metrics: Metrics, health: Health) -> anyhow::Result<Self> {
        let pins = Pins::open(&flags.bpffs)?;
        let earlier = Earlier::find(&pins);
        let (programs, mut maps, flows) = Programs::load(pins, flags.conntrack_entries)?;
        if let Some(group) = flags.speaker_group {
            programs.pins().share_speaker_maps(group).context("cannot let --speaker-group write the speaker's maps")?;
        }
        if let Some(earlier) = &earlier {
            earlier.copy_services(&mut maps).context("cannot take over the Services of an earlier agent")?;
        }
        let traffic = TrafficMaps::open(programs.pins()).context("cannot open the counters")?;
        let reconciler = Reconciler::recover(maps).context("cannot read the maps back")?;
        let devices = Devices::look(&flags.devices)?;
        let netns_cookie = netns_cookie().context("cannot learn the cookie of the network namespace")?;
        let node_name = flags.source.node_name().context("cannot learn the name of this node")?;
        let compiler = Compiler::new(Options { clock: clock::clock(), selection: flags.load_balancing.selection() });
        Ok(Self {
            flags,
            node_name,
            programs,
            earlier,
            reconciler,
            flows,
            traffic,
            uplinks: Attached::new(Role::Uplink),
            internals: Attached::new(Role::Internal),
            bridges: Attached::new(Role::Bridge),
            attached: false,
            heals: false,
            netns_cookie,
            snapshot: Arc::default(),
            compiler,
            devices,
            look: false,
            conflicts: Vec::new(),
            due: None,
            unfinished: Unfinished::default(),
            health_checks: HealthChecks::new(health.clone()),
            health,
            metrics,
        })
    }

    /// Attaches the programs, once the maps hold the first snapshot: a program must not meet a half-filled map.
    pub(crate) fn attach(&mut self) -> anyhow::Result<()> {
        self.copy_earlier_flows();
        // Packets of flows that outlived their Service must find the table too.
        self.collect_flows();
        if self.flags.socket_lb == Switch::On {
            let root = self.flags.cgroup_root.clone().map_or_else(cgroup::root, Ok)?;
            self.programs.attach_sockets(&root)?;
        } else {
            self.programs.detach_sockets(None);
            accept_own_addresses();
        }
        self.attached = true;
        self.follow_devices()?;
        if self.earlier.is_some() {
            self.copy_earlier_flows();
            let earlier = self.earlier.take();
            self.try_apply()?;
            self.earlier = earlier;
            self.copy_earlier_flows();
            self.earlier = None;
        }
        self.programs.pins().remove_other_versions()?;
        Ok(())
    }

    /// Takes over flows that programs of another ABI version have created up to now.
    fn copy_earlier_flows(&mut self) {
        let Some(earlier) = &self.earlier else { return };
        let copied = self
            .programs
            .time()
            .map_err(anyhow::Error::from)
            .and_then(|time| Ok(earlier.copy_flows(&mut self.flows, time)?));
        match copied {
            Ok(entries) => info!(entries, "took over flows of an earlier agent"),
            Err(error) => warn!(error = format!("{error:#}"), "cannot take over the flows of an earlier agent"),
        }
    }

    /// Brings the maps to a snapshot; whether that succeeded. What failed is tried again by [`Agent::tick`].
    pub(crate) fn apply(&mut self, snapshot: Arc<Snapshot>) -> bool {
        self.snapshot = snapshot;
        // The Node's addresses say which devices are uplinks.
        self.look = true;
        let outcome = self.try_apply();
        self.tell_health(Unfinished { maps: outcome.is_err(), ..self.unfinished });
        match outcome {
            Ok((written, took)) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                if written > 0 {
                    info!(generation = self.snapshot.generation, written, micros, "programmed");
                }
                self.metrics.synced(&self.snapshot, took, &self.reconciler.fill());
                if written > 0 {
                    self.collect_flows();
                }
                // Once more after the grace period, also for flows that a program has created by the old value.
                self.due = Some(Instant::now() + GRACE);
                true
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "programming failed, will be tried again");
                self.metrics.failed();
                self.due = Some(Instant::now());
                false
            }
        }
    }

    /// How many frontends were written, and how long that took.
    fn try_apply(&mut self) -> anyhow::Result<(usize, Duration)> {
        let now = Instant::now();
        let node = self.node_addresses(&self.devices);
        let own: Vec<_> = self.devices.addresses().collect();
        let state = self.node_state(&node, &own);
        let node_written = self.reconciler.apply_node(&state);
        let own: Vec<_> = own.into_iter().chain(node.0.iter().copied()).collect();
        let view = NodeView { name: &self.node_name, addresses: &own, primary: &node.primary() };
        let mut delta = self.compiler.update(&self.snapshot, view, now);
        let conflicts = std::mem::take(&mut delta.conflicts);
        let changes = self.reconciler.apply(delta, removal(&self.snapshot), now);
        let took = now.elapsed();
        // Packets see the change by now; the rest can wait.
        let bridged = self.follow_bridges();
        self.tell_conflicts(&conflicts);
        let serving = state.serving_node_ports();
        self.health_checks.follow(health_check::wanted(&self.snapshot, &self.node_name, &serving));
        // One failure keeps no other part from being programmed.
        node_written?;
        bridged?;
        Ok((changes?.frontends, took))
    }

    /// What the programs shall know about the node.
    fn node_state(&self, node: &NodeAddresses, own: &[IpAddr]) -> NodeState {
        let told = &self.flags.pod_cidrs;
        let pods: Vec<IpNet> = if told.is_empty() {
            self.snapshot.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied()).collect()
        } else {
            told.clone()
        };
        let flag = |bit: u32, set: bool| if set { bit } else { 0 };
        let range = self.flags.source.node_port_range;
        node.state(&NodeSettings {
            netns_cookie: self.netns_cookie,
            own,
            node_ports: range.first().get()..=range.last().get(),
            node_port_networks: &self.flags.node_port_networks(),
            pods: &pods,
            services: &self.flags.source.service_cidrs,
            flags: flag(node_flags::KUBE_PROXY, self.flags.masquerade == Masquerade::KubeProxy)
                | flag(node_flags::MASQUERADE_ALL, self.flags.masquerade_all)
                | flag(node_flags::TAKING_OVER, self.earlier.is_some()),
        })
    }

    /// The next moment at which something is to be done without news: the end of a grace period or of a tombstone.
    fn next_round(&self) -> Option<Instant> {
        let retired = self.reconciler.has_retired().then(|| Instant::now() + GRACE);
        retired.into_iter().chain(self.compiler.due()).min()
    }

    /// Follows the devices, and whatever depends on their addresses: called when they may have changed.
    pub(crate) fn devices_changed(&mut self) {
        let outcome = self.follow_devices();
        self.look = outcome.is_err();
        self.tell_health(Unfinished { devices: outcome.is_err(), ..self.unfinished });
        if let Err(error) = outcome {
            warn!(error = format!("{error:#}"), "attaching failed, will be tried again");
            self.metrics.failed();
        }
        self.round_if_due();
    }

    /// Once a second: what failed before, rounds to repeat, ranges and backends to free.
    pub(crate) fn tick(&mut self) {
        if self.look {
            self.devices_changed();
        } else {
            self.round_if_due();
        }
        self.health_checks.retry();
    }

    fn round_if_due(&mut self) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        let outcome = self.try_apply();
        self.tell_health(Unfinished { maps: outcome.is_err(), ..self.unfinished });
        match outcome {
            Ok((written, _)) => {
                if written > 0 {
                    info!(generation = self.snapshot.generation, written, "programmed");
                }
                self.metrics.synced(&self.snapshot, Duration::ZERO, &self.reconciler.fill());
                self.collect_flows();
                self.due = self.next_round();
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "programming failed, will be tried again");
                self.metrics.failed();
                // Not before the next tick: news of devices may come many times a second.
                self.due = Some(Instant::now() + RETRY);
            }
        }
    }

    /// The one place that says how healthy this proxy is; load balancers shall leave a node that is about to go (KEP-3836).
    fn tell_health(&mut self, unfinished: Unfinished) {
        self.unfinished = unfinished;
        self.health.set_pending(unfinished.devices || unfinished.maps);
        let is_going = self.snapshot.nodes.get(&self.node_name).is_some_and(|node| node.is_going);
        self.health.set_eligible(!is_going);
    }

    /// Closes the sockets; programs and maps stay.
    pub(crate) async fn stop(self) {
        self.health_checks.stop().await;
    }

    /// Every few seconds: expired flows, counters.
    pub(crate) fn collect(&mut self) {
        self.collect_flows();
        match counters::drops(&self.flows) {
            Ok(drops) => self.metrics.drops(&drops, |id| self.reconciler.port_name(id)),
            Err(error) => warn!(%error, "cannot read the drop counters"),
        }
        if let Err(error) = self.metrics.traffic(&self.traffic, &self.reconciler) {
            warn!(error = format!("{:#}", anyhow::Error::from(error)), "cannot read the traffic counters");
        }
    }

    fn collect_flows(&mut self) {
        let reconciler = &self.reconciler;
        let may_go_on = |port, endpoint: &_| reconciler.may_go_on(port, endpoint);
        let time = match self.programs.time() {
            Ok(time) => time,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot read the programs' clock");
                return;
            }
        };
        match conntrack::collect(&mut self.flows, time, may_go_on) {
            Ok(collected) => {
                self.metrics.conntrack(&collected);
                self.heals = collected.sends_datagrams;
                if let Err(error) = self.follow_bridges() {
                    warn!(error = format!("{error:#}"), "cannot attach to the bridges of pods");
                }
                if let Err(error) = self.reconciler.rebuild_filter(collected.frontends, collected.backends) {
                    warn!(error = format!("{error:#}"), "cannot write the filter");
                }
            }
            Err(error) => warn!(%error, "cannot collect expired flows"),
        }
    }

    /// A bridge carries a program of its own only while it may be needed, since every packet of its pods would meet it:
    /// where a process of this node may send to an endpoint that is gone, for which no port is left, and where the
    /// bridge has ports without programs.
    fn follow_bridges(&mut self) -> anyhow::Result<()> {
        if !self.attached {
            return Ok(());
        }
        let devices = &self.devices;
        let uplinks = devices.uplinks(&self.flags.devices, &self.node_addresses(devices).0)?;
        let bridges = devices.bridges(&uplinks);
        let heals = self.heals || self.compiler.has_tombstones();
        let wanted = if heals { bridges } else { devices.mixed(&bridges, &devices.pods(&uplinks), &uplinks) };
        self.bridges.follow(&mut self.programs, &mut self.flows, &wanted)?;
        Ok(())
    }

    fn follow_devices(&mut self) -> anyhow::Result<()> {
        let devices = Devices::look(&self.flags.devices)?;
        if !devices.has_addresses_of(&self.devices) {
            // Addresses have come or gone, and with them node ports and the source of forwarded flows.
            self.due = Some(Instant::now());
        }
        self.devices = devices;
        let devices = &self.devices;
        let wanted = devices.uplinks(&self.flags.devices, &self.node_addresses(devices).0)?;
        let mut internal = devices.pods(&wanted);
        if self.flags.socket_lb == Switch::Off {
            // What this node's own processes send to its node ports.
            internal.insert(LOOPBACK, "lo".to_owned());
        }
        if self.internals.follow(&mut self.programs, &mut self.flows, &internal)? {
            debug!(devices = ?internal, "attached to the devices of pods");
        }
        self.follow_bridges()?;
        let index = |name: &String| if_nametoindex(name.as_str()).ok().map(|index| (index, name.clone()));
        let wanted = wanted.iter().filter_map(index).collect();
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

/// Without the socket programs an answer to a process that asked for a node port of its own node comes in on the loopback
/// device with that node's address as its source, which Linux takes for forged unless told otherwise.
fn accept_own_addresses() {
    let path = "/proc/sys/net/ipv4/conf/lo/accept_local";
    if let Err(error) = std::fs::write(path, "1") {
        warn!(path, %error, "cannot write 1: this node does not reach its own node ports over IPv4");
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
