//! Random maps: a few addresses and ports that everything is made of, so that packets hit.

use roadstead_abi::{
    Addr, Affinity, AffinityKey, Be16, CtEntry, CtKey, EndpointSet, Network, NodeConfig, SlotRange, SvcKey, SvcValue,
    ct_flags, kind, network, node_address, node_flags, scope, svc_flags,
};
use roadstead_dataplane::{addresses::to_map, explain::MemoryView};

use super::random::Random;

/// What a family's addresses are.
pub(crate) struct Pool {
    /// Strangers, pods of this node and of another, the other node.
    pub(crate) clients: [Addr; 8],
    /// Addresses of this node; the first serves node ports.
    pub(crate) node: [Addr; 3],
    /// Addresses that Services may have; the last ones are this node's and a stranger's.
    pub(crate) services: [Addr; 6],
    /// Inside the network of cluster addresses, and no Service's.
    pub(crate) unallocated: Addr,
    /// Endpoints: pods here and there, this node, the other one, one that no route leads to, one that a route refuses.
    pub(crate) backends: [Addr; 8],
}

fn addr(text: &str) -> Addr {
    to_map(text.parse().unwrap())
}

/// The pools of both families.
pub(crate) fn pools() -> [Pool; 2] {
    let v4 = Pool {
        clients: [
            "192.0.2.9",
            "198.51.100.77",
            "203.0.113.9",
            "10.244.1.5",
            "10.244.1.6",
            "10.244.2.5",
            "192.0.2.2",
            "192.0.2.1",
        ]
        .map(addr),
        node: ["192.0.2.1", "10.244.1.1", "127.0.0.1"].map(addr),
        services: ["10.96.0.10", "10.96.0.11", "203.0.113.200", "203.0.113.201", "192.0.2.1", "198.51.100.5"].map(addr),
        unallocated: addr("10.96.0.99"),
        backends: [
            "10.244.1.5",
            "10.244.1.6",
            "10.244.2.5",
            "10.244.2.6",
            "192.0.2.1",
            "192.0.2.2",
            "198.18.0.1",
            "198.19.0.1",
        ]
        .map(addr),
    };
    let v6 = Pool {
        clients: [
            "2001:db8::9",
            "2001:db8:51::77",
            "2001:db8:203::9",
            "fd00:244:1::5",
            "fd00:244:1::6",
            "fd00:244:2::5",
            "2001:db8::2",
            "2001:db8::1",
        ]
        .map(addr),
        node: ["2001:db8::1", "fd00:244:1::1", "::1"].map(addr),
        services: [
            "fd00:96::10",
            "fd00:96::11",
            "2001:db8:77::200",
            "2001:db8:77::201",
            "2001:db8::1",
            "2001:db8:51::5",
        ]
        .map(addr),
        unallocated: addr("fd00:96::99"),
        backends: [
            "fd00:244:1::5",
            "fd00:244:1::6",
            "fd00:244:2::5",
            "fd00:244:2::6",
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8:18::1",
            "fd00:dead::1",
        ]
        .map(addr),
    };
    [v4, v6]
}

pub(crate) const SERVICE_PORTS: [u16; 3] = [80, 81, 53];
pub(crate) const NODE_PORTS: [u16; 3] = [30_080, 30_081, 30_999];
pub(crate) const BACKEND_PORTS: [u16; 2] = [8_080, 53];
pub(crate) const CLIENT_PORTS: [u16; 5] = [40_000, 40_001, 8_080, 61_000, 12_345];
/// Ids of source ranges that have entries.
const RANGES: u32 = 3;
/// Affinity that lasts, and one that is over when an entry is a little old; units of the clock.
const AFFINITIES: [u32; 2] = [1_000_000, 5];

/// Random maps at this time of the programs' clock.
pub(crate) fn random(random: &mut Random, now: u32) -> MemoryView {
    let mut state = MemoryView::default();
    (state.node, state.now) = (Some(node(random)), now);
    for pool in pools() {
        add_node(&mut state, &pool, random);
        add_networks(&mut state, &pool, random);
        let ids: Vec<u32> = pool
            .backends
            .iter()
            .flat_map(|addr| BACKEND_PORTS.map(|port| (*addr, Be16::new(port))))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(addr, port)| state.backend_id(addr, port))
            .collect();
        add_services(&mut state, &pool, &ids, random);
        add_flows(&mut state, &pool, random);
    }
    state.fill_filter();
    add_noise(&mut state, random);
    state
}

fn node(random: &mut Random) -> NodeConfig {
    let [v4, v6] = pools();
    let flag = |on: bool, flag| if on { flag } else { 0 };
    let network = |addr: Addr, bits: u32| Network { addr, mask: mask(bits) };
    let networks = [network(addr("10.96.0.0"), 96 + 12), network(addr("fd00:96::"), 112)];
    let mut services = [Network::default(); roadstead_abi::MAX_SERVICE_NETWORKS];
    services[..2].copy_from_slice(&networks);
    NodeConfig {
        netns_cookie: 7,
        ipv4: if random.percent(95) { v4.node[0] } else { Addr::UNSPECIFIED },
        ipv6: if random.percent(95) { v6.node[0] } else { Addr::UNSPECIFIED },
        node_port_first: 30_000,
        node_port_last: 32_767,
        flags: flag(random.percent(50), node_flags::KUBE_PROXY)
            | flag(random.percent(30), node_flags::MASQUERADE_ALL)
            | flag(random.percent(60), node_flags::PODS_KNOWN)
            | flag(random.percent(5), node_flags::TAKING_OVER),
        services,
        service_networks: u32::try_from(random.below(3)).unwrap(),
        reserved: 0,
    }
}

fn mask(bits: u32) -> Addr {
    Addr::v6((!0_u128).checked_shl(128 - bits).unwrap_or(0).to_be_bytes())
}

fn add_node(state: &mut MemoryView, pool: &Pool, random: &mut Random) {
    for (index, addr) in pool.node.iter().enumerate() {
        let serves = index == 0 || random.percent(20);
        state.node_addresses.insert(*addr, if serves { node_address::SERVES_NODE_PORTS } else { 0 });
    }
}

fn add_networks(state: &mut MemoryView, pool: &Pool, random: &mut Random) {
    let bits = if pool.node[0].is_v4() { 96 + 24 } else { 64 };
    for pod in [pool.backends[0], pool.backends[2]] {
        if random.percent(80) {
            state.networks.push((and(pod, mask(bits)), bits, network::POD));
        }
    }
    for id in 1..=RANGES {
        for client in pool.clients {
            if random.percent(35) {
                let bits = random.of(&[128, bits]);
                state.ranges.push((id, and(client, mask(bits)), bits));
            }
        }
    }
}

fn and(addr: Addr, mask: Addr) -> Addr {
    let (a, m) = (addr.words(), mask.words());
    Addr::from_words([a[0] & m[0], a[1] & m[1], a[2] & m[2], a[3] & m[3]])
}

fn add_services(state: &mut MemoryView, pool: &Pool, ids: &[u32], random: &mut Random) {
    let node_scope = if pool.node[0].is_v4() { scope::NODE_PORT_V4 } else { scope::NODE_PORT_V6 };
    let mut keys = Vec::new();
    for proto in [6, 17] {
        for (index, addr) in pool.services.into_iter().enumerate() {
            let kind = [kind::CLUSTER_IP, kind::CLUSTER_IP, kind::LOAD_BALANCER][index.min(2)];
            let kind = if index > 3 { kind::EXTERNAL_IP } else { kind };
            keys.extend(SERVICE_PORTS.map(|port| (addr, port, proto, scope::ADDRESS, kind)));
        }
        keys.extend(NODE_PORTS.map(|port| (Addr::UNSPECIFIED, port, proto, node_scope, kind::NODE_PORT)));
    }
    // Endpoints that are gone, asked for by their own addresses.
    keys.extend(pool.backends.map(|addr| (addr, BACKEND_PORTS[0], 17, scope::ADDRESS, kind::TOMBSTONE)));
    for (addr, port, proto, scope, kind) in keys {
        if !random.percent(if kind == kind::TOMBSTONE { 15 } else { 60 }) {
            continue;
        }
        let key = SvcKey { addr, port: Be16::new(port), proto, scope };
        let value = service(state, &key, kind, ids, random);
        add_affinity(state, pool, &value, ids, random);
        state.services.insert(key, value);
    }
    for (index, addr) in pool.services.into_iter().take(4).enumerate() {
        if random.percent(85) {
            let kind = if index < 2 { kind::CLUSTER_IP } else { kind::LOAD_BALANCER };
            state.vips.insert(addr, kind.into());
        }
    }
}

fn service(state: &mut MemoryView, key: &SvcKey, kind: u8, ids: &[u32], random: &mut Random) -> SvcValue {
    let affinity = if random.percent(25) { random.of(&AFFINITIES) } else { 0 };
    let cluster = set(state, ids, random);
    let local = if random.percent(30) { EndpointSet::default() } else { set(state, ids, random) };
    let has_endpoints = cluster.members.count > 0 || random.percent(30);
    let flag = |on: bool, flag| if on { flag } else { 0 };
    let flags = flag(random.percent(30), svc_flags::INTERNAL_LOCAL)
        | flag(random.percent(40), svc_flags::EXTERNAL_LOCAL)
        | flag(has_endpoints, svc_flags::HAS_ENDPOINTS);
    // An element that another key has taken over is no frontend of this one.
    let recycled = u16::from(random.percent(2));
    SvcValue {
        check: u32::from(key.check() ^ recycled) | 3 << 16,
        service: u32::try_from(1 + random.below(30)).unwrap(),
        flags,
        kind,
        reserved: 0,
        affinity,
        ranges: if random.percent(20) { u32::try_from(1 + random.below(4)).unwrap() } else { 0 },
        cluster,
        local,
    }
}

fn set(state: &mut MemoryView, ids: &[u32], random: &mut Random) -> EndpointSet {
    let share = random.of(&[0, 10, 20, 40, 80]);
    let mut members: Vec<u32> = ids.iter().copied().filter(|_| random.percent(share)).collect();
    members.sort_unstable();
    if members.is_empty() {
        return EndpointSet::default();
    }
    let table: Vec<u32> = (0..7 + random.below(24)).map(|_| random.of(&members)).collect();
    let members = state.add_slots(&members);
    let table = if random.percent(40) { state.add_slots(&table) } else { SlotRange::default() };
    EndpointSet { members, table }
}

fn add_affinity(state: &mut MemoryView, pool: &Pool, value: &SvcValue, ids: &[u32], random: &mut Random) {
    for client in pool.clients {
        if value.affinity != 0 && random.percent(40) {
            let key = AffinityKey { client, service: value.service };
            let last_seen = state.now - random.of(&[0, 100]);
            state.affinities.insert(key, Affinity { backend: random.of(ids), last_seen });
        }
    }
}

/// Flows from before: to endpoints that are or are not, open and closed, whole and halved.
fn add_flows(state: &mut MemoryView, pool: &Pool, random: &mut Random) {
    for _ in 0..random.below(12) {
        let key = CtKey {
            src: random.of(&pool.clients),
            dst: random.of(&pool.services),
            sport: Be16::new(random.of(&CLIENT_PORTS)),
            dport: Be16::new(random.of(&SERVICE_PORTS)),
            proto: random.of(&[6, 17]),
            reserved: [0; 3],
        };
        let masked = random.percent(40);
        let state_flags = random.of(&[0, 0, ct_flags::FIN, ct_flags::RST]);
        let forward = CtEntry {
            check: key.check(),
            ifindex: if masked { 2 } else { 0 },
            src: if masked { pool.node[0] } else { key.src },
            dst: random.of(&pool.backends),
            sport: if masked { Be16::new(61_000) } else { key.sport },
            dport: Be16::new(random.of(&BACKEND_PORTS)),
            flags: ct_flags::SEEN | state_flags,
            service: 9,
            backend: u32::try_from(random.below(state.backends.len())).unwrap(),
            last_seen: state.now,
        };
        let back = forward.reverse_key(key.proto);
        let reply = CtEntry {
            check: back.check(),
            src: key.dst,
            dst: key.src,
            sport: key.dport,
            dport: key.sport,
            flags: ct_flags::REPLY | if masked { 0 } else { ct_flags::AT_EGRESS } | random.of(&[0, ct_flags::FIN]),
            ..forward
        };
        state.flows.insert(key, forward);
        if random.percent(85) {
            state.flows.insert(back, reply);
        }
    }
}

/// Bits for addresses that are nobody's: they cost a lookup and change nothing.
fn add_noise(state: &mut MemoryView, random: &mut Random) {
    let mut noise = MemoryView::default();
    for pool in pools() {
        for addr in pool.clients.into_iter().chain(pool.backends).chain([pool.unallocated]) {
            if random.percent(15) {
                noise.vips.insert(addr, 0);
            }
        }
    }
    noise.fill_filter();
    for (index, word) in noise.filter {
        *state.filter.entry(index).or_default() |= word;
    }
}
