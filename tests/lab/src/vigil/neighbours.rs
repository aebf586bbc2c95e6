//! Questions as ARP requests and neighbour solicitations. Each comes from another address, so that an answer, which goes
//! to that address, tells its question; all of them from one hardware address.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use socket2::Socket;

use super::{PAUSE, Shared};
use crate::frames;
use crate::lab::Lab;
use crate::neighbour::{Mac, arp_answer, arp_request, neighbour_answer, neighbour_solicitation};
use crate::place::Place;
use crate::topology;

/// The first number on the segment that questions come from, and how many there are: nobody else has these.
const FIRST: u16 = 120;
const SENDERS: u64 = 64;

pub(super) struct Asker {
    socket: Socket,
    mac: Mac,
    of: IpAddr,
}

pub(super) struct Hearer {
    socket: Socket,
    of: IpAddr,
    nodes: BTreeMap<Mac, Arc<str>>,
}

impl Asker {
    pub(super) fn open(place: &Place, of: IpAddr) -> Result<Self> {
        let protocol = match of {
            IpAddr::V4(_) => frames::ARP,
            IpAddr::V6(_) => frames::IPV6,
        };
        let socket = place.run(|| frames::open("eth0", protocol))??;
        socket.set_read_timeout(Some(PAUSE))?;
        Ok(Self { socket, mac: Mac::of(place.v4()), of })
    }

    pub(super) fn hearer(&self, lab: &Lab) -> Result<Hearer> {
        let node = |node: &crate::node::Node| (Mac::of(node.host().v4()), Arc::from(node.name()));
        Ok(Hearer { socket: self.socket.try_clone()?, of: self.of, nodes: lab.nodes().iter().map(node).collect() })
    }

    pub(super) fn ask(&self, number: u64) {
        let sender = sender(number);
        let question = match self.of {
            IpAddr::V4(of) => arp_request(self.mac, topology::number_v4(sender), of),
            IpAddr::V6(of) => neighbour_solicitation(self.mac, topology::number_v6(sender), of),
        };
        // What is not sent is not answered, and that is what counts.
        let _sent = frames::send(&self.socket, &question);
    }
}

impl Hearer {
    pub(super) fn hear(&self, shared: &Shared) {
        let mut buffer = vec![MaybeUninit::uninit(); 2048];
        let Some(frame) = frames::receive(&self.socket, &mut buffer) else { return };
        let now = Instant::now();
        let answer = match self.of {
            IpAddr::V4(of) => arp_answer(frame, of).zip(arp_asker(frame)),
            IpAddr::V6(of) => neighbour_answer(frame, of).zip(neighbour_asker(frame)),
        };
        let Some((mac, remainder)) = answer else { return };
        let who = self.nodes.get(&mac).cloned().unwrap_or_else(|| Arc::from(mac.to_string()));
        let mut log = shared.log();
        if let Some(number) = log.latest(remainder, SENDERS) {
            log.answer(number, &who, now);
        }
    }
}

/// The number of the sender of a question.
fn sender(question: u64) -> u16 {
    FIRST + u16::try_from(question % SENDERS).unwrap_or_default()
}

/// Which of the senders an ARP answer is for.
fn arp_asker(frame: &[u8]) -> Option<u64> {
    let target: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
    (0..SENDERS).find(|number| topology::number_v4(sender(*number)) == Ipv4Addr::from(target))
}

/// Which of the senders an advertisement is for. One to all nodes is for none of them.
fn neighbour_asker(frame: &[u8]) -> Option<u64> {
    let destination: [u8; 16] = frame.get(38..54)?.try_into().ok()?;
    (0..SENDERS).find(|number| topology::number_v6(sender(*number)) == Ipv6Addr::from(destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_its_question() {
        let (owner, vip) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(192, 168, 77, 200));
        for number in [0, 1, 63, 64, 130] {
            let asker = topology::number_v4(sender(number));
            let mut reply = arp_request(owner, vip, asker);
            reply[21] = 2;
            assert_eq!((arp_answer(&reply, vip), arp_asker(&reply)), (Some(owner), Some(number % SENDERS)));
            let asker = topology::number_v6(sender(number));
            let frame = [[0; 38].as_slice(), &asker.octets(), &[0; 32]].concat();
            assert_eq!(neighbour_asker(&frame), Some(number % SENDERS));
        }
        let others: Vec<Ipv4Addr> = (0..SENDERS).map(|number| topology::number_v4(sender(number))).collect();
        assert!(others.iter().all(|other| other.octets()[3] > 110 && other.octets()[3] < 200));
    }

    #[test]
    fn the_senders_addresses_are_nobodys() {
        let stations = [topology::CLIENT, topology::BYSTANDER, topology::CONTROL];
        let numbers = stations.map(|(_, number)| number).into_iter().chain((1..=5).map(|node| 10 + node));
        for number in numbers {
            assert!((0..SENDERS).all(|question| sender(question) != number), "{number}");
        }
    }
}
