//! Asking the segment who has an address, as a host does before its first packet: ARP (RFC 826) and neighbour
//! solicitation (RFC 4861). Unlike the kernel's own question, this one hears every answer, not only the first.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::frames;
use crate::place::Place;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Every station.
    const BROADCAST: Self = Self([0xff; 6]);

    /// The lab gives each device the hardware address that spells its IPv4 address, so that captures read well.
    #[must_use]
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Asks once on the place's `eth0` and hears answers for as long as the window is open. Tells who answered, and after
/// which time first.
///
/// # Errors
///
/// Where the question cannot be sent.
pub fn who_has(place: &Place, address: IpAddr, window: Duration) -> Result<BTreeMap<Mac, Duration>> {
    let (asker, v4, v6) = (Mac::of(place.v4()), place.v4(), place.v6());
    let (protocol, question) = match address {
        IpAddr::V4(address) => (frames::ARP, arp_request(asker, v4, address)),
        IpAddr::V6(address) => (frames::IPV6, neighbour_solicitation(asker, v6, address)),
    };
    place.run(|| {
        let socket = frames::open("eth0", protocol)?;
        let asked = Instant::now();
        frames::send(&socket, &question).context("the question was not sent")?;
        let (mut answers, mut buffer) = (BTreeMap::new(), vec![MaybeUninit::uninit(); 2048]);
        loop {
            let left = window.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Ok(answers);
            }
            socket.set_read_timeout(Some(left))?;
            let Some(frame) = frames::receive(&socket, &mut buffer) else { continue };
            let answer = match address {
                IpAddr::V4(address) => arp_answer(frame, address),
                IpAddr::V6(address) => neighbour_answer(frame, address),
            };
            if let Some(mac) = answer {
                answers.entry(mac).or_insert_with(|| asked.elapsed());
            }
        }
    })?
}

pub(crate) fn arp_request(asker: Mac, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let ethernet = ethernet(Mac::BROADCAST, asker, frames::ARP);
    let head = [0, 1, 0x08, 0, 6, 4, 0, 1];
    [&ethernet, head.as_slice(), &asker.0, &from.octets(), &[0; 6], &to.octets()].concat()
}

pub(crate) fn arp_answer(frame: &[u8], asked: Ipv4Addr) -> Option<Mac> {
    const REPLY: [u8; 2] = [0, 2];
    let arp = frame.get(14..)?;
    let is_answer = frame.get(12..14)? == frames::ARP.to_be_bytes()
        && arp.get(6..8)? == REPLY
        && arp.get(14..18)? == asked.octets();
    if is_answer { mac(arp.get(8..14)?) } else { None }
}

pub(crate) fn neighbour_solicitation(asker: Mac, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = to.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let mut message = [[135, 0, 0, 0, 0, 0, 0, 0].as_slice(), &to.octets(), &[1, 1], &asker.0].concat();
    let sum = icmpv6_checksum(from, group, &message).to_be_bytes();
    message.splice(2..4, sum);
    let ethernet = ethernet(Mac([0x33, 0x33, 0xff, x, y, z]), asker, frames::IPV6);
    let ip = [0x60, 0, 0, 0, 0, 32, 58, 255];
    [ethernet.as_slice(), &ip, &from.octets(), &group.octets(), &message].concat()
}

pub(crate) fn neighbour_answer(frame: &[u8], asked: Ipv6Addr) -> Option<Mac> {
    const ADVERTISEMENT: u8 = 136;
    const TARGET_OPTION: [u8; 2] = [2, 1];
    let ip = frame.get(14..)?;
    let message = ip.get(40..)?;
    let is_answer = frame.get(12..14)? == frames::IPV6.to_be_bytes()
        && ip.get(6..8)? == [58, 255]
        && *message.first()? == ADVERTISEMENT
        && message.get(8..24)? == asked.octets();
    if !is_answer {
        return None;
    }
    // Hosts believe the option; without it, an answer to one host may leave it out, and then the sender is meant.
    let told = message.get(24..26).filter(|option| *option == TARGET_OPTION).and_then(|_| mac(message.get(26..32)?));
    told.or_else(|| mac(frame.get(6..12)?))
}

fn ethernet(to: Mac, from: Mac, protocol: u16) -> Vec<u8> {
    [to.0.as_slice(), &from.0, &protocol.to_be_bytes()].concat()
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

/// RFC 4443, section 2.3: over the pseudo-header and the message.
fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let all = [from.octets().as_slice(), &to.octets(), &length, &[0, 0, 0, 58], message].concat();
    let words = all.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Mac = Mac([2, 0, 192, 168, 77, 100]);

    #[test]
    fn the_arp_question_is_as_on_the_wire() {
        let frame = arp_request(ASKER, Ipv4Addr::new(192, 168, 77, 100), Ipv4Addr::new(192, 168, 77, 200));
        let expected = "ffffffffffff0200c0a84d640806000108000604000102\
                        00c0a84d64c0a84d64000000000000c0a84dc8";
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn the_neighbour_question_sums_to_zero() {
        let (from, to) = ("fd77::100".parse().unwrap(), "fd77::200".parse().unwrap());
        let frame = neighbour_solicitation(ASKER, from, to);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(hex(&frame[..6]), "3333ff000200");
        assert_eq!(icmpv6_checksum(from, "ff02::1:ff00:200".parse().unwrap(), &frame[54..]), 0);
    }

    #[test]
    fn only_answers_for_the_address_count() {
        let owner = Mac([2, 0, 192, 168, 77, 11]);
        let address = Ipv4Addr::new(192, 168, 77, 200);
        let mut reply = arp_request(owner, address, Ipv4Addr::new(192, 168, 77, 100));
        assert_eq!(arp_answer(&reply, address), None, "a request is no answer");
        reply[21] = 2;
        let cases = [(address, Some(owner)), (Ipv4Addr::new(192, 168, 77, 201), None)];
        for (asked, expected) in cases {
            assert_eq!(arp_answer(&reply, asked), expected, "{asked}");
        }
        assert_eq!(arp_answer(&reply[..20], address), None, "a short frame is no answer");
    }

    #[test]
    fn an_advertisement_names_its_owner_in_the_option_or_as_its_sender() {
        let (sender, owner) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let address: Ipv6Addr = "fd77::200".parse().unwrap();
        let head = [&[0x60, 0, 0, 0, 0, 32, 58, 255], [0; 32].as_slice()].concat();
        let body = [[136, 0, 0, 0, 0x60, 0, 0, 0].as_slice(), &address.octets()].concat();
        let bare = [ethernet(ASKER, sender, frames::IPV6), head, body].concat();
        let told = [bare.as_slice(), &[2, 1], &owner.0].concat();
        assert_eq!(neighbour_answer(&bare, address), Some(sender));
        assert_eq!(neighbour_answer(&told, address), Some(owner));
        assert_eq!(neighbour_answer(&told, "fd77::201".parse().unwrap()), None);
        assert_eq!(neighbour_answer(&told[..60], address), None);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
