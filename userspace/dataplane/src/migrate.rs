//! Taking over from an agent of another ABI version: its Services with their ids, and its flows.
//!
//! Both versions' programs run for a while, the new ones in front. The new ones handle what they know and every new
//! connection (`node_flags::TAKING_OVER`), and leave the rest to the old ones behind them, so that no moment is without
//! somebody who knows a flow. The flows are copied before the new programs are attached, so that their source ports are
//! taken, once more when they are attached, and a last time when the old programs get nothing more. Each layout that was
//! ever shipped is read here by its offsets.

use aya::maps::{Array, HashMap, Map, MapData};
use roadstead_abi::{
    ABI_VERSION, Addr, Backend, Be16, CtEntry, CtKey, EndpointSet, Peer, SlotRange, SvcKey, SvcValue, UdpReverseKey,
    ct_flags, map_names,
};
use roadstead_datapath::select;
use tracing::{info, warn};

use crate::{
    clock::Time,
    maps::{FlowMaps, MapError, Maps},
    pins::Pins,
};

const BPF_NOEXIST: u64 = 1;

/// What an agent of another version has left, in a layout that is known.
#[derive(Debug)]
pub struct Earlier {
    layout: Layout,
    pins: Pins,
}

/// The layouts that were shipped, by ABI version. Version 3 lays out all that is read here as version 2 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    V1,
    V2,
}

impl Layout {
    fn of(version: u32) -> Option<Self> {
        match version {
            1 => Some(Self::V1),
            2 | 3 if ABI_VERSION != version => Some(Self::V2),
            _ => None,
        }
    }
}

impl Earlier {
    /// Looks for one. An unknown version, which is a later one, is told and left out: its flows end.
    #[must_use]
    pub fn find(pins: &Pins) -> Option<Self> {
        let (version, pins) = pins.other_versions().into_iter().next()?;
        let Some(layout) = Layout::of(version) else {
            warn!(version, "an agent of an unknown ABI version ran here: its flows cannot be taken over");
            return None;
        };
        info!(version, "taking over from an agent of another ABI version");
        Some(Self { layout, pins })
    }

    /// Writes the earlier agent's frontends, with their sets, backends and ids, into the new maps, so that what follows
    /// is a restart like any other.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    pub fn copy_services(&self, maps: &mut impl Maps) -> Result<(), MapError> {
        let slots: Array<MapData, u32> = self.open(map_names::SLOTS)?;
        let backends: Array<MapData, Backend> = self.open(map_names::BACKENDS)?;
        for (key, value) in self.services()? {
            for set in [value.cluster, value.local] {
                for range in [set.members, set.table] {
                    copy_range(maps, &slots, &backends, range)?;
                }
            }
            maps.put_service(&key, &value)?;
        }
        let vips: HashMap<MapData, Addr, u32> = self.open(map_names::VIPS)?;
        for (addr, kind) in vips.iter().filter_map(Result::ok) {
            maps.put_vip(&addr, kind)?;
        }
        Ok(())
    }

    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError> {
        match self.layout {
            Layout::V1 => {
                let services: HashMap<MapData, SvcKey, [u8; 24]> = self.open(map_names::SERVICES)?;
                Ok(services.iter().filter_map(Result::ok).map(|(key, bytes)| (key, service_v1(&key, &bytes))).collect())
            }
            Layout::V2 => {
                let services: HashMap<MapData, SvcKey, SvcValue> = self.open(map_names::SERVICES)?;
                Ok(services.iter().filter_map(Result::ok).collect())
            }
        }
    }

    /// Copies the flows that the new table does not hold yet, and the addresses that UDP sockets asked for; how many
    /// entries there were.
    ///
    /// # Errors
    /// When a map cannot be read. A flow that is there already, or whose source port a new one has, is left out.
    pub fn copy_flows(&self, flows: &mut FlowMaps, time: Time) -> Result<usize, MapError> {
        let copied = match self.layout {
            Layout::V1 => self.copy_entries::<56>(flows, |bytes| entry_v1(bytes, time.now)),
            Layout::V2 => self.copy_entries::<60>(flows, entry_v2),
        }?;
        let earlier: HashMap<MapData, UdpReverseKey, Peer> = self.open(map_names::UDP_REVERSE)?;
        for (key, peer) in earlier.iter().filter_map(Result::ok) {
            // Not there, or not room for it: the application sees the backend's address for one datagram.
            let _ = flows.udp_reverse.insert(key, peer, BPF_NOEXIST);
        }
        Ok(copied)
    }

    fn copy_entries<const SIZE: usize>(
        &self,
        flows: &mut FlowMaps,
        convert: impl Fn(&[u8; SIZE]) -> CtEntry,
    ) -> Result<usize, MapError> {
        let earlier: HashMap<MapData, CtKey, [u8; SIZE]> = self.open(map_names::CONNTRACK)?;
        let mut copied = 0;
        for (key, bytes) in earlier.iter().filter_map(Result::ok) {
            let entry = CtEntry { check: key.check(), ..convert(&bytes) };
            // The programs look for no flow of a client without the mark.
            if entry.flags & ct_flags::REPLY != 0 {
                let mark = select::client_mark(&key.dst, key.dport);
                flows.clients.set(mark, 1, 0).map_err(|source| MapError {
                    map: map_names::CLIENTS,
                    operation: "write",
                    source: Box::new(source),
                })?;
            }
            copied += usize::from(flows.conntrack.insert(key, entry, BPF_NOEXIST).is_ok());
        }
        Ok(copied)
    }

    fn open<T: TryFrom<Map, Error = aya::maps::MapError>>(&self, name: &'static str) -> Result<T, MapError> {
        let open = || {
            let data = MapData::from_pin(self.pins.maps().join(name))?;
            T::try_from(Map::from_map_data(data)?)
        };
        open().map_err(|source| MapError {
            map: name,
            operation: "open the earlier agent's",
            source: Box::<dyn std::error::Error + Send + Sync>::from(source),
        })
    }
}

fn copy_range(
    maps: &mut impl Maps,
    slots: &Array<MapData, u32>,
    backends: &Array<MapData, Backend>,
    range: SlotRange,
) -> Result<(), MapError> {
    let indexes = range.base..range.base.saturating_add(range.count);
    let ids: Vec<u32> = indexes.filter_map(|index| slots.get(&index, 0).ok()).collect();
    for id in &ids {
        if let Ok(backend) = backends.get(id, 0) {
            maps.put_backend(*id, &backend)?;
        }
    }
    if ids.is_empty() { Ok(()) } else { maps.put_slots(range.base, &ids) }
}

/// Reads words from bytes of a known length at offsets that fit.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn word(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(offset))
    }

    fn port(&self, offset: usize) -> Be16 {
        Be16(u16::from_ne_bytes(self.bytes(offset)))
    }

    fn range(&self, offset: usize) -> SlotRange {
        SlotRange { base: self.word(offset), count: self.word(offset + 4) }
    }
}

/// ABI 1: service, flags, kind, then the sets of both policies, members in the order of their addresses. No affinity and
/// no ranges: the first round adds them.
fn service_v1(key: &SvcKey, bytes: &[u8; 24]) -> SvcValue {
    let words = Words(bytes);
    let set = |offset| EndpointSet { members: words.range(offset), table: SlotRange::default() };
    let [kind]: [u8; 1] = words.bytes(6);
    SvcValue {
        check: u32::from(key.check()),
        service: words.word(0),
        flags: u16::from_ne_bytes(words.bytes(4)),
        kind,
        cluster: set(8),
        local: set(16),
        ..SvcValue::default()
    }
}

/// ABI 1: addresses, ports, device, flags, service, backend, seconds. Answers that took no device of their own were
/// translated where they left.
fn entry_v1(bytes: &[u8; 56], now: u32) -> CtEntry {
    let words = Words(bytes);
    let (ifindex, flags) = (words.word(36), words.word(40));
    let at_egress = if flags & ct_flags::REPLY != 0 && ifindex == 0 { ct_flags::AT_EGRESS } else { 0 };
    CtEntry {
        ifindex,
        src: Addr::v6(words.bytes(0)),
        dst: Addr::v6(words.bytes(16)),
        sport: words.port(32),
        dport: words.port(34),
        flags: flags | at_egress,
        service: words.word(44),
        backend: words.word(48),
        last_seen: now,
        ..CtEntry::default()
    }
}

/// ABI 2: check word and device, addresses, ports, flags, service, backend, units of the clock.
fn entry_v2(bytes: &[u8; 60]) -> CtEntry {
    let words = Words(bytes);
    CtEntry {
        ifindex: words.word(4),
        src: Addr::v6(words.bytes(8)),
        dst: Addr::v6(words.bytes(24)),
        sport: words.port(40),
        dport: words.port(42),
        flags: words.word(44),
        service: words.word(48),
        backend: words.word(52),
        last_seen: words.word(56),
        ..CtEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use roadstead_abi::{kind, proto, scope};

    use super::*;

    fn v1(flags: u32, ifindex: u32) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..16].copy_from_slice(&Addr::v4([192, 0, 2, 1]).octets());
        bytes[16..32].copy_from_slice(&Addr::v4([10, 244, 1, 5]).octets());
        bytes[32..34].copy_from_slice(&40_000_u16.to_be_bytes());
        bytes[34..36].copy_from_slice(&8_080_u16.to_be_bytes());
        for (offset, word) in [(36, ifindex), (40, flags), (44, 3), (48, 7), (52, 1_234)] {
            bytes[offset..offset + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn entries_of_version_1_become_entries_of_this_one() {
        use ct_flags::{AT_EGRESS, REPLY, SEEN};
        let cases = [(SEEN, 0, SEEN), (REPLY | SEEN, 0, REPLY | SEEN | AT_EGRESS), (REPLY | SEEN, 4, REPLY | SEEN)];
        for (flags, ifindex, expected) in cases {
            let entry = entry_v1(&v1(flags, ifindex), 99);
            assert_eq!((entry.flags, entry.ifindex, entry.last_seen), (expected, ifindex, 99));
            assert_eq!((entry.service, entry.backend), (3, 7));
            assert_eq!((entry.src, entry.sport.get()), (Addr::v4([192, 0, 2, 1]), 40_000));
            assert_eq!((entry.dst, entry.dport.get()), (Addr::v4([10, 244, 1, 5]), 8_080));
        }
    }

    #[test]
    fn entries_of_version_2_keep_every_field() {
        let mut bytes = [0; 60];
        let words = [(0, 5_u32), (4, 4), (44, ct_flags::REPLY), (48, 3), (52, 7), (56, 1_234)];
        for (offset, word) in words {
            bytes[offset..offset + 4].copy_from_slice(&word.to_ne_bytes());
        }
        let (src, dst) = (Addr::v4([192, 0, 2, 1]), Addr::v4([10, 244, 1, 5]));
        bytes[8..24].copy_from_slice(&src.octets());
        bytes[24..40].copy_from_slice(&dst.octets());
        bytes[40..42].copy_from_slice(&40_000_u16.to_be_bytes());
        bytes[42..44].copy_from_slice(&8_080_u16.to_be_bytes());
        let entry = entry_v2(&bytes);
        assert_eq!((entry.src, entry.dst, entry.sport.get(), entry.dport.get()), (src, dst, 40_000, 8_080));
        assert_eq!((entry.ifindex, entry.flags, entry.service), (4, ct_flags::REPLY, 3));
        assert_eq!((entry.backend, entry.last_seen), (7, 1_234));
    }

    #[test]
    fn frontends_of_version_1_keep_their_ids_and_sets() {
        let key =
            SvcKey { addr: Addr::v4([10, 96, 0, 10]), port: Be16::new(80), proto: proto::TCP, scope: scope::ADDRESS };
        let mut bytes = [0; 24];
        for (offset, word) in [(0, 17_u32), (8, 100), (12, 3), (16, 200), (20, 1)] {
            bytes[offset..offset + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[4..6].copy_from_slice(&4_u16.to_ne_bytes());
        bytes[6] = kind::LOAD_BALANCER;
        let value = service_v1(&key, &bytes);
        assert_eq!((value.service, value.flags, value.kind), (17, 4, kind::LOAD_BALANCER));
        assert_eq!(value.cluster.members, SlotRange { base: 100, count: 3 });
        assert_eq!(value.local.members, SlotRange { base: 200, count: 1 });
        assert_eq!(value.check, u32::from(key.check()));
    }
}
