//! Random packets: new flows, more of flows that are there, answers to them, errors about them, and what is none of it.

use roadstead_abi::{Be16, CtEntry, CtKey, DropReason};
use roadstead_dataplane::explain::{Form, Hook, MemoryView, Packet};

use super::{
    ground::Devices,
    random::Random,
    state::{BACKEND_PORTS, CLIENT_PORTS, NODE_PORTS, Pool, SERVICE_PORTS, pools},
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A packet and where it is met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) hook: Hook,
    pub(crate) packet: Packet,
}

/// The source of packets for one state.
pub(crate) struct Packets {
    pools: [Pool; 2],
    /// Tuples that have led to an entry, with the tuple they left with.
    flows: Vec<(CtKey, CtKey)>,
}

impl Packets {
    pub(crate) fn new(state: &MemoryView) -> Self {
        let flows = state.flows.iter().map(|(key, entry)| (*key, left_with(key, entry))).collect();
        Self { pools: pools(), flows }
    }

    pub(crate) fn next(&mut self, random: &mut Random, devices: Devices) -> Sent {
        let key = self.key(random);
        let (hook, ifindex) = random.of(&[
            (Hook::UplinkIn, devices.uplink),
            (Hook::UplinkIn, devices.uplink),
            (Hook::IntIn, devices.pod),
            (Hook::IntIn, 1),
            (Hook::UplinkOut, devices.uplink),
            (Hook::IntOut, devices.pod),
        ]);
        let form = match random.below(100) {
            0..3 => Form::Other(DropReason::UnknownProtocol),
            3..6 => Form::Other(DropReason::Fragment),
            6..14 => Form::Error,
            _ => Form::Whole,
        };
        let tcp_flags = random.of(&[SYN, SYN, SYN, SYN | ACK, ACK, FIN | ACK, RST]);
        let tcp_flags = if form == Form::Whole && key.proto == 6 { tcp_flags } else { 0 };
        let hops = if random.percent(4) { 1 } else { 61 };
        Sent { hook, packet: Packet { key, form, tcp_flags, hops, ifindex, any_port: false } }
    }

    /// The packet was forwarded by this entry: more may follow.
    pub(crate) fn learn(&mut self, sent: &Sent, entry: Option<CtEntry>) {
        if let Some(entry) = entry {
            self.flows.push((sent.packet.key, left_with(&sent.packet.key, &entry)));
        }
    }

    fn key(&self, random: &mut Random) -> CtKey {
        if !self.flows.is_empty() && random.percent(45) {
            let (key, left) = self.flows[random.below(self.flows.len())];
            // Once more, its answer, or what a later hook sees of it.
            return random.of(&[key, left.reversed(), left.reversed(), left]);
        }
        let pool = &self.pools[random.below(2)];
        let (dst, ports): (_, &[u16]) = match random.below(100) {
            0..55 => (random.of(&pool.services), &SERVICE_PORTS),
            55..75 => (random.of(&pool.node), &NODE_PORTS),
            75..80 => (pool.unallocated, &SERVICE_PORTS),
            80..90 => (random.of(&pool.backends), &BACKEND_PORTS),
            90..95 => (random.of(&pool.services), &[443]),
            _ => (random.of(&pool.clients), &CLIENT_PORTS),
        };
        let src = if random.percent(10) { random.of(&pool.node) } else { random.of(&pool.clients) };
        let sport = if random.percent(50) { random.of(&CLIENT_PORTS) } else { random.of(&BACKEND_PORTS) };
        CtKey {
            src,
            dst,
            sport: Be16::new(sport),
            dport: Be16::new(random.of(ports)),
            proto: random.of(&[6, 17]),
            reserved: [0; 3],
        }
    }
}

fn left_with(key: &CtKey, entry: &CtEntry) -> CtKey {
    CtKey { src: entry.src, dst: entry.dst, sport: entry.sport, dport: entry.dport, ..*key }
}
