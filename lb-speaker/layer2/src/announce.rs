//! How an address is told unasked, and when: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! Measured on Linux clients (reference: speaker, section 2): within a second of learning an entry they ignore a
//! gratuitous reply whose target hardware address is the broadcast address, so both a request and a reply with the
//! sender's own address as target are sent; IPv6 clients move only for O=1.

mod schedule;

use std::net::IpAddr;

pub use schedule::{REFRESH, Schedule};

use crate::{
    responder::Station,
    wire::{ALL_NODES, ArpOperation, ArpPacket, Body, Frame, Mac, NeighborAdvertisement},
};

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
