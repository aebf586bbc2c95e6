//! Whether another host has an address: asked before it is handed out, watched for while it is announced.
//!
//! After RFC 5227 (ARP) and RFC 4862 (NDP), but for addresses that belong to no host. Before a new one is used the segment
//! is asked three times within 160 ms instead of seconds; a takeover between speakers is never asked about, as it must not
//! wait and a peer may still have the address. While an address is announced nothing makes this node give it up: anybody
//! can send a frame. A rival is told about, and answered by one announcement in ten seconds (RFC 5227, section 2.4 c).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{
    responder::Station,
    wire::{ArpOperation, ArpPacket, Body, Frame, Mac, NeighborSolicitation, solicited_node},
};

/// Questions for a new address, the time between two of them, and the wait after the last.
const QUESTIONS: u8 = 3;
const SPACING: Duration = Duration::from_millis(40);
const WAIT: Duration = Duration::from_millis(80);
/// Questions at once, and the pause after so many.
const AT_ONCE: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);
/// An address whose holder is silent for so long may be handed out again, and is asked for again.
pub const OCCUPIED_FOR: Duration = Duration::from_mins(5);

/// At most one announcement for a rival in this time (RFC 5227, section 1.1).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// A rival that was silent for so long is a new one.
const FORGET: Duration = Duration::from_mins(10);
/// Rivals of one address that are told apart. Whoever sends with ever new hardware addresses is one more, not thousands.
const RIVALS: usize = 8;

/// Which address the sender of a frame says that it has, and with which hardware address. A probe says nothing.
#[must_use]
pub fn claim(frame: &Frame) -> Option<(IpAddr, Mac)> {
    match frame.body {
        Body::Arp(arp) => (!arp.sender_ip.is_unspecified()).then_some((arp.sender_ip.into(), arp.sender_mac)),
        Body::Solicitation(asked) => {
            let mac = asked.source_mac.unwrap_or(frame.source);
            (!asked.source.is_unspecified()).then_some((asked.source.into(), mac))
        }
        Body::Advertisement(told) => Some((told.target.into(), told.target_mac.unwrap_or(frame.source))),
    }
}

/// The question of a station that does not have the address: an ARP probe, or that of duplicate address detection. It
/// changes nobody's entry.
#[must_use]
pub fn question(station: &Station, ip: IpAddr) -> Frame {
    let source = station.mac;
    match ip {
        IpAddr::V4(target_ip) => {
            let (sender_ip, target_mac) = (Ipv4Addr::UNSPECIFIED, Mac([0; 6]));
            let operation = ArpOperation::Request;
            let packet = ArpPacket { operation, sender_mac: source, sender_ip, target_mac, target_ip };
            Frame { destination: Mac::BROADCAST, source, body: Body::Arp(packet) }
        }
        IpAddr::V6(target) => {
            let (source_ip, destination) = (Ipv6Addr::UNSPECIFIED, solicited_node(target));
            let asked = NeighborSolicitation { source: source_ip, destination, target, source_mac: None };
            Frame { destination: asked.group_mac(), source, body: Body::Solicitation(asked) }
        }
    }
}

/// Addresses that are asked for, and those that were found to be another host's.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    /// Questions asked so far.
    asked: BTreeMap<IpAddr, u8>,
    queue: BTreeSet<(Duration, IpAddr)>,
    paused_until: Duration,
    occupied: BTreeMap<IpAddr, Occupant>,
}

#[derive(Clone, Copy, Debug)]
struct Occupant {
    mac: Mac,
    heard: Duration,
}

impl Probes {
    /// Begins to ask for an address; one that is asked for already goes on.
    pub fn begin(&mut self, now: Duration, ip: IpAddr) {
        if !self.asked.contains_key(&ip) && !self.occupied.contains_key(&ip) {
            self.asked.insert(ip, 0);
            self.queue.insert((now, ip));
        }
    }

    /// Asks no more for addresses that are not wanted.
    pub fn retain(&mut self, wanted: impl Fn(IpAddr) -> bool) {
        self.asked.retain(|ip, _| wanted(*ip));
        self.queue.retain(|(_, ip)| wanted(*ip));
    }

    /// Whether the address must not be announced: it is being asked for, or another host has it.
    #[must_use]
    pub fn is_barred(&self, ip: IpAddr) -> bool {
        self.asked.contains_key(&ip) || self.occupied.contains_key(&ip)
    }

    /// Whether anything is being asked for.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// What other hosts have.
    #[must_use]
    pub fn occupied(&self) -> BTreeMap<IpAddr, Mac> {
        self.occupied.iter().map(|(ip, occupant)| (*ip, occupant.mac)).collect()
    }

    /// A host that is no speaker of ours said that it has the address; true if that is news.
    pub fn heard(&mut self, now: Duration, ip: IpAddr, mac: Mac) -> bool {
        let asked = self.asked.remove(&ip).is_some();
        if asked {
            self.queue.retain(|(_, queued)| *queued != ip);
        }
        // Of what was not asked for nothing is noted, so nobody can fill this map.
        if let Some(occupant) = self.occupied.get_mut(&ip) {
            *occupant = Occupant { mac, heard: now };
        } else if asked {
            self.occupied.insert(ip, Occupant { mac, heard: now });
        }
        asked
    }

    /// Lets time pass: the addresses to ask for now, a bounded number, and whether one has become free.
    pub fn tick(&mut self, now: Duration) -> (Vec<IpAddr>, bool) {
        let occupied = self.occupied.len();
        self.occupied.retain(|_, occupant| now < occupant.heard + OCCUPIED_FOR);
        let mut freed = self.occupied.len() < occupied;
        let mut questions = Vec::new();
        while let Some((at, ip)) = self.queue.first().copied().filter(|(at, _)| *at <= now && now >= self.paused_until)
        {
            self.queue.remove(&(at, ip));
            let asked = self.asked.get(&ip).copied().unwrap_or(QUESTIONS);
            if asked == QUESTIONS {
                self.asked.remove(&ip);
                freed = true;
                continue;
            }
            self.asked.insert(ip, asked + 1);
            self.queue.insert((now + if asked + 1 == QUESTIONS { WAIT } else { SPACING }, ip));
            questions.push(ip);
            if questions.len() == AT_ONCE {
                self.paused_until = now + PAUSE;
            }
        }
        (questions, freed)
    }

    /// The moment at which [`Self::tick`] has something to do.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let queued = self.queue.first().map(|(at, _)| self.paused_until.max(*at));
        let freed = self.occupied.values().map(|occupant| occupant.heard + OCCUPIED_FOR).min();
        queued.into_iter().chain(freed).min()
    }
}

/// Hosts that say to have an address that this node announces.
#[derive(Clone, Debug, Default)]
pub struct Rivals(BTreeMap<IpAddr, Rival>);

#[derive(Clone, Debug)]
struct Rival {
    macs: BTreeSet<Mac>,
    heard: Duration,
    defended: Option<Duration>,
}

/// What is to be done about a rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// It was not heard before.
    pub is_new: bool,
    /// The address is to be announced once.
    pub defend: bool,
}

impl Rivals {
    /// A host that is no speaker of ours said that it has an address that this node announces.
    pub fn heard(&mut self, now: Duration, ip: IpAddr, mac: Mac) -> Sighting {
        let none = || Rival { macs: BTreeSet::new(), heard: now, defended: None };
        let rival = self.0.entry(ip).or_insert_with(none);
        if now >= rival.heard + FORGET {
            rival.macs.clear();
        }
        rival.heard = now;
        let is_new = rival.macs.len() < RIVALS && rival.macs.insert(mac);
        let defend = rival.defended.is_none_or(|defended| now >= defended + DEFEND_INTERVAL);
        if defend {
            rival.defended = Some(now);
        }
        Sighting { is_new, defend }
    }

    /// Forgets the rivals of addresses that this node no longer announces.
    pub fn retain(&mut self, announced: impl Fn(IpAddr) -> bool) {
        self.0.retain(|ip, _| announced(*ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announce::frames, responder::respond, wire::NeighborAdvertisement};

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn station(mac: Mac) -> Station {
        Station { mac, link_local: Some("fe80::9".parse().unwrap()) }
    }

    #[test]
    fn questions_are_answered_by_whoever_has_the_address_and_claim_nothing() {
        for address in ["192.0.2.1", "2001:db8::1"].map(ip) {
            let asked = question(&station(OURS), address);
            assert_eq!(Frame::parse(&asked.encode()), Ok(asked));
            assert_eq!(claim(&asked), None);
            let reply = respond(&station(OTHER), &BTreeSet::from([address]), &asked.encode()).unwrap();
            assert_eq!(claim(&reply.frame), Some((address, OTHER)));
        }
        let hex: String =
            question(&station(OURS), ip("192.0.2.1")).encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "ffffffffffff02000000000108060001080006040001020000000001\
                         00000000000000000000c0000201"
        );
    }

    #[test]
    fn whoever_uses_an_address_claims_it() {
        for address in ["192.0.2.1", "2001:db8::1"].map(ip) {
            for frame in frames(&station(OTHER), address) {
                assert_eq!(claim(&frame), Some((address, OTHER)));
            }
        }
        let source = "2001:db8::1".parse().unwrap();
        let asked = NeighborSolicitation {
            source,
            destination: "ff02::1:ff00:2".parse().unwrap(),
            target: "2001:db8::2".parse().unwrap(),
            source_mac: None,
        };
        let frame = |body| Frame { destination: OURS, source: OTHER, body };
        assert_eq!(claim(&frame(Body::Solicitation(asked))), Some((source.into(), OTHER)));
        let told = NeighborAdvertisement {
            source: "fe80::9".parse().unwrap(),
            destination: "fe80::1".parse().unwrap(),
            target: source,
            solicited: true,
            replaces: false,
            target_mac: None,
        };
        assert_eq!(claim(&frame(Body::Advertisement(told))), Some((source.into(), OTHER)));
    }

    #[test]
    fn three_questions_in_160_ms_and_silence_make_an_address_free() {
        let (mut probes, one) = (Probes::default(), ip("192.0.2.1"));
        probes.begin(ms(1000), one);
        let mut asked = Vec::new();
        while let Some(next) = probes.next() {
            assert!(probes.is_barred(one) && probes.is_asking());
            probes.begin(next, one);
            let (questions, freed) = probes.tick(next);
            assert_eq!(freed, next == ms(1160));
            asked.extend(questions.iter().map(|_| next.as_millis()));
        }
        assert_eq!(asked, [1000, 1040, 1080]);
        assert!(!probes.is_barred(one) && !probes.is_asking());
    }

    #[test]
    fn an_answer_bars_the_address_for_as_long_as_its_holder_is_heard() {
        let (mut probes, one, other) = (Probes::default(), ip("192.0.2.1"), ip("192.0.2.2"));
        probes.begin(ms(0), one);
        assert_eq!(probes.tick(ms(0)), (vec![one], false));
        assert!(!probes.heard(ms(1), other, OTHER), "nobody asked for it");
        assert!(probes.heard(ms(1), one, OTHER));
        assert!(!probes.heard(ms(2), one, OURS), "told once");
        assert_eq!(probes.occupied(), BTreeMap::from([(one, OURS)]));
        assert!(probes.is_barred(one) && !probes.is_asking());
        probes.begin(ms(3), one);
        assert!(!probes.is_asking(), "what is occupied is not asked for again");
        assert_eq!(probes.next(), Some(ms(2) + OCCUPIED_FOR));
        assert_eq!(probes.tick(ms(2) + OCCUPIED_FOR), (Vec::new(), true));
        assert!(!probes.is_barred(one));
    }

    #[test]
    fn what_is_no_longer_wanted_is_not_asked_for() {
        let (mut probes, one, other) = (Probes::default(), ip("192.0.2.1"), ip("192.0.2.2"));
        [one, other].iter().for_each(|ip| probes.begin(ms(0), *ip));
        probes.retain(|ip| ip == other);
        assert_eq!(probes.tick(ms(0)), (vec![other], false));
        assert!(!probes.is_barred(one));
    }

    #[test]
    fn thousands_are_asked_for_in_portions() {
        let mut probes = Probes::default();
        (0..5000_u32).for_each(|number| probes.begin(ms(0), IpAddr::V4(number.into())));
        let (mut now, mut asked) = (ms(0), 0);
        while probes.is_asking() {
            let (questions, _) = probes.tick(now);
            assert!(questions.len() <= AT_ONCE);
            asked += questions.len();
            now = probes.next().unwrap_or(now);
        }
        assert_eq!(asked, 15_000);
        assert!(now < ms(800), "{now:?}");
    }

    #[test]
    fn a_rival_is_told_once_and_answered_every_ten_seconds() {
        let (mut rivals, one) = (Rivals::default(), ip("192.0.2.1"));
        let mut check = |now, mac, is_new, defend| {
            assert_eq!(rivals.heard(now, one, mac), Sighting { is_new, defend }, "{now:?} {mac}");
        };
        check(ms(0), OTHER, true, true);
        check(ms(1), OTHER, false, false);
        check(ms(9_999), OURS, true, false);
        check(ms(10_000), OTHER, false, true);
        check(ms(20_000) + FORGET, OTHER, true, true);
        // A sender that invents hardware addresses.
        let news = (0..200_u8).filter(|last| {
            let sighting = rivals.heard(ms(20_001) + FORGET, one, Mac([2, 0, 0, 0, 1, *last]));
            assert!(!sighting.defend);
            sighting.is_new
        });
        assert_eq!(news.count(), RIVALS - 1);
        rivals.retain(|ip| ip != one);
        assert_eq!(rivals.heard(ms(20_002) + FORGET, one, OTHER), Sighting { is_new: true, defend: true });
    }
}
