//! Loaded programs over maps of their own, with a handful of Services.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use roadstead_abi::{Addr, Be16, DropReason, SvcKey, ct_flags, kind, scope, svc_flags};
use roadstead_dataplane::{
    addresses::to_map,
    counters,
    frontends::{Delta, Frontend, Port, ServicePortName},
    load::Programs,
    maps::{FlowMaps, KernelMaps},
    node::{NodeAddresses, NodeSettings},
    pins::{Pins, remove_all},
    reconcile::{Reconciler, Removal},
    responder::Responder,
    topology::EndpointSets,
};
use roadstead_model::{IpFamily, ObjectName, Protocol, Selection};

const CONNTRACK_ENTRIES: u32 = 1_024;

/// Programs, maps and pins of one test.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    flows: FlowMaps,
    reconciler: Reconciler<KernelMaps>,
    pins: RemovedOnDrop,
}

struct RemovedOnDrop(PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        remove_all(&self.0).unwrap();
    }
}

impl Bench {
    /// `None`, with a word on stderr, where programs cannot be loaded.
    pub(crate) fn open() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: loading BPF programs needs root");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = Path::new("/sys/fs/bpf").join(format!("roadstead-packets-{}-{number}", std::process::id()));
        let pins = RemovedOnDrop(root.clone());
        let (programs, maps, flows) = Programs::load(Pins::open(&root).unwrap(), CONNTRACK_ENTRIES).unwrap();
        let mut reconciler = Reconciler::recover(maps).unwrap();
        let ips = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let pods = ["10.244.0.0/16", "fd00:10:244::/48"].map(|network| network.parse().unwrap());
        let networks = ["10.96.0.0/12", "fd00:10:96::/112"].map(|network| network.parse().unwrap());
        let settings = NodeSettings {
            netns_cookie: 0,
            own: &[],
            node_ports: 30_000..=32_767,
            node_port_networks: &[],
            pods: &pods,
            services: &networks,
            flags: 0,
        };
        reconciler.apply_node(&NodeAddresses(ips.to_vec()).state(&settings)).unwrap();
        reconciler.apply(services(), Removal::Allowed, Instant::now()).unwrap();
        Some(Self { programs, flows, reconciler, pins })
    }

    /// The speaker's side of the programs' responder.
    pub(crate) fn responder(&self) -> Responder {
        Responder::open(&self.pins.0).unwrap()
    }

    /// Lets the programs take a device for an uplink.
    pub(crate) fn add_uplink(&mut self, ifindex: u32) {
        self.flows.uplinks.insert(ifindex, 1, 0).unwrap();
    }

    /// Drop counters by reason.
    pub(crate) fn drops(&mut self) -> BTreeMap<DropReason, u64> {
        let mut sums = BTreeMap::new();
        for drop in counters::drops(&self.flows).unwrap() {
            *sums.entry(drop.reason).or_default() += drop.count;
        }
        sums
    }

    /// The reasons whose counters have moved by exactly one; any other move fails the test.
    pub(crate) fn drops_since(&mut self, before: &BTreeMap<DropReason, u64>) -> Vec<DropReason> {
        let mut moved = Vec::new();
        for (reason, count) in self.drops() {
            match count - before.get(&reason).copied().unwrap_or(0) {
                0 => {}
                1 => moved.push(reason),
                more => panic!("{} moved by {more}", reason.as_str()),
            }
        }
        moved
    }

    /// Programs a change of [`services`].
    pub(crate) fn program(&mut self, delta: Delta) {
        self.reconciler.apply(delta, Removal::Allowed, Instant::now()).unwrap();
    }

    /// The flags of all conntrack entries, sorted: those of forward entries first.
    pub(crate) fn conntrack_flags(&self) -> Vec<u32> {
        let mut flags: Vec<_> = self.flows.conntrack.iter().map(|element| element.unwrap().1.flags).collect();
        flags.sort_by_key(|flags| (flags & ct_flags::REPLY, *flags));
        flags
    }

    /// Entries in the conntrack map.
    pub(crate) fn conntrack_entries(&mut self) -> usize {
        self.flows.conntrack.keys().count()
    }
}

fn addr(text: &str) -> Addr {
    to_map(text.parse::<IpAddr>().unwrap())
}

/// Port 80 has a backend on the loopback device, 81 has none, 82 only one elsewhere under policy Local; TCP and UDP, both
/// families, and the node ports 30080 and 30081.
pub(crate) fn services() -> Delta {
    let mut delta = Delta::default();
    let families = [("198.51.100.10", "127.0.0.9", IpFamily::V4), ("2001:db8:ff::10", "::1", IpFamily::V6)];
    for (vip, backend, family) in families {
        let backend = [(addr(backend), Be16::new(8_080))];
        let local = svc_flags::EXTERNAL_LOCAL | svc_flags::HAS_ENDPOINTS;
        let mut add = |port: u16, flags: u16, cluster: &[_], local: &[_]| {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let shared = Arc::new(Port {
                    name: ServicePortName {
                        service: ObjectName::new("default", "web"),
                        port: format!("{port}-{protocol}").into(),
                    },
                    protocol,
                    family,
                    flags,
                    affinity: 0,
                    ranges: None,
                    selection: Selection::Random,
                    sets: EndpointSets { cluster: cluster.into(), local: local.into(), ..EndpointSets::default() },
                });
                for (key, kind) in keys(vip, port, protocol) {
                    delta.frontends.push((key, Some(Frontend { kind, port: shared.clone() })));
                }
            }
        };
        add(80, svc_flags::HAS_ENDPOINTS, &backend, &backend);
        add(81, 0, &[], &[]);
        add(82, local, &backend, &[]);
        delta.vips.push((addr(vip), Some(kind::LOAD_BALANCER)));
    }
    delta
}

/// The port at the Service's address and its node port, with their kinds.
fn keys(vip: &str, port: u16, protocol: Protocol) -> [(SvcKey, u8); 2] {
    let vip = addr(vip);
    let node_port = if vip.is_v4() { scope::NODE_PORT_V4 } else { scope::NODE_PORT_V6 };
    let key = |addr, port, scope| SvcKey { addr, port: Be16::new(port), proto: protocol.number(), scope };
    [
        (key(vip, port, scope::ADDRESS), kind::LOAD_BALANCER),
        (key(Addr::UNSPECIFIED, 30_000 + port, node_port), kind::NODE_PORT),
    ]
}
