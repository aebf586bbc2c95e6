//! Loaded programs over maps of their own, with a handful of Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use roadstead_abi::{Addr, Be16, DropReason, NodeConfig, SvcKey, ct_flags, kind, scope, svc_flags};
use roadstead_dataplane::{
    addresses::to_map,
    counters,
    frontends::{Frontend, Frontends, ServicePortName},
    load::Programs,
    maps::{FlowMaps, KernelMaps},
    pins::{Pins, remove_all},
    reconcile::{Reconciler, Removal},
};
use roadstead_model::ObjectName;

const CONNTRACK_ENTRIES: u32 = 1_024;

/// Programs, maps and pins of one test.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    flows: FlowMaps,
    reconciler: Reconciler<KernelMaps>,
    _pins: RemovedOnDrop,
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
        let node = NodeConfig {
            netns_cookie: 0,
            ipv4: addr("192.0.2.1"),
            ipv6: addr("2001:db8::1"),
            node_port_first: 30_000,
            node_port_last: 32_767,
            ..NodeConfig::default()
        };
        reconciler.apply_node(&node, &BTreeSet::from([node.ipv4, node.ipv6])).unwrap();
        reconciler.apply(&services(), Removal::Allowed, Instant::now()).unwrap();
        Some(Self { programs, flows, reconciler, _pins: pins })
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

    /// Programs other Services than [`services`].
    pub(crate) fn program(&mut self, frontends: &Frontends) {
        self.reconciler.apply(frontends, Removal::Allowed, Instant::now()).unwrap();
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
pub(crate) fn services() -> Frontends {
    let mut frontends = Frontends::default();
    let families =
        [("198.51.100.10", "127.0.0.9", scope::NODE_PORT_V4), ("2001:db8:ff::10", "::1", scope::NODE_PORT_V6)];
    for (vip, backend, node_port) in families {
        let backend = vec![(addr(backend), Be16::new(8_080))];
        let local = svc_flags::EXTERNAL_LOCAL | svc_flags::HAS_ENDPOINTS;
        let mut add = |port: u16, flags: u16, cluster: &[_], local: &[_]| {
            for proto in [6, 17] {
                let keys = [(addr(vip), port, scope::ADDRESS), (Addr::UNSPECIFIED, 30_000 + port, node_port)];
                for (addr, port, scope) in keys {
                    let key = SvcKey { addr, port: Be16::new(port), proto, scope };
                    let frontend = Frontend {
                        port: ServicePortName { service: ObjectName::new("default", "web"), port: port.to_string() },
                        kind: if scope == scope::ADDRESS { kind::LOAD_BALANCER } else { kind::NODE_PORT },
                        flags,
                        cluster: cluster.to_vec(),
                        local: local.to_vec(),
                    };
                    frontends.by_key.insert(key, frontend);
                }
            }
        };
        add(80, svc_flags::HAS_ENDPOINTS, &backend, &backend);
        add(81, 0, &[], &[]);
        add(82, local, &backend, &[]);
        frontends.vips.insert(addr(vip), kind::LOAD_BALANCER);
    }
    frontends
}
