//! When and how an address is told unasked: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! Measured on Linux clients (reference: speaker, section 2): within a second of learning an entry they ignore a
//! gratuitous reply whose target hardware address is the broadcast address, so both a request and a reply with the
//! sender's own address as target are sent; IPv6 clients move only for O=1.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    responder::Station,
    wire::{ALL_NODES, ArpOperation, ArpPacket, Body, Frame, Mac, NeighborAdvertisement},
};

/// After the start of an ownership: at once, soon again for what was lost, and past the second for which old clients
/// lock an entry (metallb#172).
const BURST: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(500),
    Duration::from_millis(1100),
    Duration::from_millis(2200),
    Duration::from_millis(3300),
];

/// Then for as long as the address is owned, so that switches do not forget the port (metallb#259, #1761).
const REFRESH: Duration = Duration::from_mins(1);

/// Announcements to come, by what is announced: an address, or an address on an interface with its hardware address.
#[derive(Clone, Debug)]
pub struct Schedule<K> {
    entries: BTreeMap<K, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    started: Duration,
    next: Duration,
}

impl<K: Ord + Clone> Schedule<K> {
    /// Nothing to announce.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// Sets what is owned: what is new starts now, what is gone stops, what stays goes on undisturbed.
    pub fn own(&mut self, now: Duration, owned: &BTreeSet<K>) {
        self.entries.retain(|key, _| owned.contains(key));
        for key in owned {
            self.entries.entry(key.clone()).or_insert(Entry { started: now, next: now });
        }
    }

    /// Starts everything anew: after a partition clients may have learnt the rival.
    pub fn restart(&mut self, now: Duration) {
        self.entries.values_mut().for_each(|entry| *entry = Entry { started: now, next: now });
    }

    /// What is to be announced now. Moments that were missed are made up for by one announcement.
    pub fn due(&mut self, now: Duration) -> Vec<K> {
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.next <= now);
        due.map(|(key, entry)| {
            entry.next = entry.after(now);
            key.clone()
        })
        .collect()
    }

    /// The moment of the next announcement.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.entries.values().map(|entry| entry.next).min()
    }
}

impl<K: Ord + Clone> Default for Schedule<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    fn after(&self, now: Duration) -> Duration {
        let age = now.saturating_sub(self.started);
        let burst = BURST.into_iter().find(|offset| *offset > age);
        burst.map_or(now + REFRESH, |offset| self.started + offset)
    }
}

/// The frames of one announcement of an address by a station.
#[must_use]
pub fn frames(station: &Station, ip: IpAddr) -> Vec<Frame> {
    let mac = station.mac;
    match ip {
        IpAddr::V4(ip) => [ArpOperation::Request, ArpOperation::Reply]
            .map(|operation| {
                let packet = ArpPacket { operation, sender_mac: mac, sender_ip: ip, target_mac: mac, target_ip: ip };
                Frame { destination: Mac::BROADCAST, source: mac, body: Body::Arp(packet) }
            })
            .to_vec(),
        IpAddr::V6(ip) => {
            let told = NeighborAdvertisement {
                source: station.link_local.unwrap_or(ip),
                destination: ALL_NODES,
                target: ip,
                solicited: false,
                replaces: true,
                target_mac: Some(mac),
            };
            vec![Frame { destination: told.group_mac(), source: mac, body: Body::Advertisement(told) }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// All moments until `end` at which the schedule announces, going by its own `next`.
    fn moments(schedule: &mut Schedule<u8>, end: Duration) -> Vec<u128> {
        let mut moments = Vec::new();
        while let Some(next) = schedule.next().filter(|next| *next <= end) {
            assert!(!schedule.due(next).is_empty());
            moments.push(next.as_millis());
        }
        moments
    }

    #[test]
    fn an_owned_address_is_announced_in_a_burst_and_then_every_minute() {
        let mut schedule = Schedule::new();
        schedule.own(ms(1000), &BTreeSet::from([1]));
        let expected = [1000, 1050, 1150, 1500, 2100, 3200, 4300, 64_300, 124_300];
        assert_eq!(moments(&mut schedule, ms(130_000)), expected);
    }

    #[test]
    fn unrelated_changes_do_not_restart_it_and_loss_ends_it() {
        let mut schedule = Schedule::new();
        schedule.own(ms(0), &BTreeSet::from([1]));
        assert_eq!(schedule.due(ms(0)), [1]);
        schedule.own(ms(10), &BTreeSet::from([1, 2]));
        assert_eq!(schedule.due(ms(10)), [2]);
        assert_eq!(schedule.due(ms(49)), [0_u8; 0]);
        // Stalled over three moments: announced once, and on with the rest.
        assert_eq!(schedule.due(ms(600)), [1, 2]);
        assert_eq!(schedule.next(), Some(ms(1100)));
        schedule.own(ms(700), &BTreeSet::from([2]));
        assert_eq!(schedule.due(ms(5000)), [2]);
        schedule.restart(ms(6000));
        assert_eq!(schedule.due(ms(6000)), [2]);
        schedule.own(ms(6001), &BTreeSet::new());
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn announcements_are_byte_exact() {
        let station = Station { mac: Mac([2, 0, 0, 0, 0, 1]), link_local: Some("fe80::1".parse().unwrap()) };
        let hex = |ip: &str| -> Vec<String> {
            let frames = frames(&station, ip.parse().unwrap());
            frames.iter().map(|frame| frame.encode().iter().map(|byte| format!("{byte:02x}")).collect()).collect()
        };
        let arp = |operation: &str| {
            format!("ffffffffffff020000000001080600010800060400{operation}020000000001c0000201020000000001c0000201")
        };
        assert_eq!(hex("192.0.2.1"), [arp("01"), arp("02")]);
        let advertisement = concat!(
            "333300000001",
            "020000000001",
            "86dd",
            "6000000000203aff",
            "fe800000000000000000000000000001",
            "ff020000000000000000000000000001",
            "8800CCCC20000000",
            "20010db8000000000000000000000001",
            "0201020000000001"
        );
        // The words of the pseudo-header and of the message, one by one, the checksum itself left out.
        let sum: u32 =
            [0xfe80, 1, 0xff02, 1, 0x20, 0x3a, 0x8800, 0x2000, 0x2001, 0x0db8, 1, 0x0201, 0x0200, 0, 1].iter().sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) & 0xffff;
        assert_eq!(hex("2001:db8::1"), [advertisement.replace("CCCC", &format!("{checksum:04x}"))]);
    }
}
