//! Answers questions for the addresses that this node announces: a received frame in, a reply or a reason out.
//!
//! The rules are the reference's (speaker, sections 2 and 6): probes and rivals' announcements are answered, unicast
//! solicitations and those without a source address option too, and duplicate address detection is defended.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use crate::wire::{
    ALL_NODES, ArpOperation, ArpPacket, Body, Frame, FrameError, Mac, NeighborAdvertisement, NeighborSolicitation,
};

/// What a reply needs to know of the interface that a question came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// The interface's own hardware address.
    pub mac: Mac,
    /// The interface's link-local address, the source of advertisements; without one the address told about is used.
    pub link_local: Option<Ipv6Addr>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The address asked for.
    pub ip: IpAddr,
    /// The frame to send on the interface that the question came in on.
    pub frame: Frame,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// The bytes are no question.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An ARP reply or a neighbour advertisement.
    #[error("the frame is no question")]
    NotRequest,
    /// The Ethernet destination is another station's.
    #[error("the frame is addressed to another station")]
    NotForUs,
    /// The asker gives a group as its hardware address, so a reply would go to many.
    #[error("the asker's hardware address is a group")]
    GroupSender,
    /// This node does not announce the address here.
    #[error("address {0} is not announced here")]
    NotAnnounced(IpAddr),
}

/// Answers one received frame for the addresses `announced` on the interface.
///
/// # Errors
/// The reason why the frame gets no answer.
pub fn respond(station: &Station, announced: &BTreeSet<IpAddr>, frame: &[u8]) -> Result<Reply, Ignored> {
    answer(station, announced, &Frame::parse(frame)?)
}

/// As [`respond`], for a frame that was read already.
///
/// # Errors
/// The reason why the frame gets no answer.
pub fn answer(station: &Station, announced: &BTreeSet<IpAddr>, frame: &Frame) -> Result<Reply, Ignored> {
    match &frame.body {
        Body::Arp(arp) if arp.operation == ArpOperation::Request => answer_arp(station, announced, frame, arp),
        Body::Solicitation(asked) => answer_ndp(station, announced, frame, asked),
        Body::Arp(_) | Body::Advertisement(_) => Err(Ignored::NotRequest),
    }
}

fn answer_arp(
    station: &Station,
    announced: &BTreeSet<IpAddr>,
    frame: &Frame,
    asked: &ArpPacket,
) -> Result<Reply, Ignored> {
    if frame.destination != Mac::BROADCAST && frame.destination != station.mac {
        return Err(Ignored::NotForUs);
    }
    if asked.sender_mac.is_group() {
        return Err(Ignored::GroupSender);
    }
    let ip = IpAddr::V4(asked.target_ip);
    if !announced.contains(&ip) {
        return Err(Ignored::NotAnnounced(ip));
    }
    let body = Body::Arp(ArpPacket {
        operation: ArpOperation::Reply,
        sender_mac: station.mac,
        sender_ip: asked.target_ip,
        target_mac: asked.sender_mac,
        target_ip: asked.sender_ip,
    });
    Ok(Reply { ip, frame: Frame { destination: asked.sender_mac, source: station.mac, body } })
}

/// O is set even in the solicited reply: a client that missed the unsolicited advertisement after a failover would
/// otherwise keep the dead node's hardware address (RFC 4861, section 7.2.5).
fn answer_ndp(
    station: &Station,
    announced: &BTreeSet<IpAddr>,
    frame: &Frame,
    asked: &NeighborSolicitation,
) -> Result<Reply, Ignored> {
    let to_group = matches!(frame.destination, Mac([0x33, 0x33, ..]));
    if !to_group && frame.destination != station.mac {
        return Err(Ignored::NotForUs);
    }
    let asker = asked.source_mac.unwrap_or(frame.source);
    if asker.is_group() {
        return Err(Ignored::GroupSender);
    }
    let ip = IpAddr::V6(asked.target);
    if !announced.contains(&ip) {
        return Err(Ignored::NotAnnounced(ip));
    }
    let detection = asked.source.is_unspecified();
    let told = NeighborAdvertisement {
        source: station.link_local.unwrap_or(asked.target),
        destination: if detection { ALL_NODES } else { asked.source },
        target: asked.target,
        solicited: !detection,
        replaces: true,
        target_mac: Some(station.mac),
    };
    let destination = if detection { told.group_mac() } else { asker };
    Ok(Reply { ip, frame: Frame { destination, source: station.mac, body: Body::Advertisement(told) } })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::wire::solicited_node;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ASKER: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn station() -> Station {
        Station { mac: OURS, link_local: Some("fe80::1".parse().unwrap()) }
    }

    fn announced() -> BTreeSet<IpAddr> {
        ["192.0.2.1", "2001:db8::1:2345"].iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn arp(destination: Mac, operation: ArpOperation, sender_ip: [u8; 4], target: [u8; 4]) -> Frame {
        let packet = ArpPacket {
            operation,
            sender_mac: ASKER,
            sender_ip: sender_ip.into(),
            target_mac: Mac([0; 6]),
            target_ip: target.into(),
        };
        Frame { destination, source: ASKER, body: Body::Arp(packet) }
    }

    #[test]
    fn arp_questions_are_answered_as_metallb_answers_them() {
        use ArpOperation::{Reply, Request};
        let (client, vip) = ([192, 0, 2, 9], [192, 0, 2, 1]);
        let cases = [
            (arp(Mac::BROADCAST, Request, client, vip), Ok(client)),
            (arp(OURS, Request, client, vip), Ok(client)),
            (arp(Mac::BROADCAST, Request, [0; 4], vip), Ok([0; 4])),
            (arp(Mac::BROADCAST, Request, vip, vip), Ok(vip)),
            (arp(OTHER, Request, client, vip), Err(Ignored::NotForUs)),
            (arp(Mac::BROADCAST, Reply, client, vip), Err(Ignored::NotRequest)),
            (
                arp(Mac::BROADCAST, Request, client, [192, 0, 2, 2]),
                Err(Ignored::NotAnnounced(Ipv4Addr::new(192, 0, 2, 2).into())),
            ),
        ];
        for (question, expected) in cases {
            let got = respond(&station(), &announced(), &question.encode());
            let expected = expected.map(|target_ip| Frame {
                destination: ASKER,
                source: OURS,
                body: Body::Arp(ArpPacket {
                    operation: Reply,
                    sender_mac: OURS,
                    sender_ip: vip.into(),
                    target_mac: ASKER,
                    target_ip: target_ip.into(),
                }),
            });
            assert_eq!(got.map(|reply| reply.frame), expected, "{question:?}");
        }
    }

    struct Question {
        ethernet: Mac,
        source: &'static str,
        destination: &'static str,
        target: &'static str,
        option: Option<Mac>,
    }

    fn ask(question: &Question) -> Result<Reply, Ignored> {
        let asked = NeighborSolicitation {
            source: question.source.parse().unwrap(),
            destination: question.destination.parse().unwrap(),
            target: question.target.parse().unwrap(),
            source_mac: question.option,
        };
        let frame = Frame { destination: question.ethernet, source: ASKER, body: Body::Solicitation(asked) };
        respond(&station(), &announced(), &frame.encode())
    }

    #[test]
    fn solicitations_are_answered_unicast_and_detection_is_defended_to_all() {
        let (vip, group) = ("2001:db8::1:2345", "ff02::1:ff01:2345");
        let group_mac = Mac([0x33, 0x33, 0xff, 0x01, 0x23, 0x45]);
        assert_eq!(solicited_node(vip.parse().unwrap()), group.parse::<Ipv6Addr>().unwrap());
        let asked =
            |ethernet, source, destination, option| Question { ethernet, source, destination, target: vip, option };
        let elsewhere = Mac([2, 0, 0, 0, 0, 8]);
        let cases = [
            (asked(group_mac, "fe80::9", group, Some(ASKER)), ASKER, "fe80::9", true),
            (asked(group_mac, "fe80::9", group, Some(elsewhere)), elsewhere, "fe80::9", true),
            (asked(OURS, "2001:db8::9", vip, None), ASKER, "2001:db8::9", true),
            (asked(group_mac, "::", group, None), Mac([0x33, 0x33, 0, 0, 0, 1]), "ff02::1", false),
        ];
        for (question, ethernet, destination, solicited) in cases {
            let reply = ask(&question).unwrap();
            assert_eq!(reply.frame.destination, ethernet, "{destination}");
            let Body::Advertisement(told) = reply.frame.body else { panic!("{reply:?}") };
            let expected = NeighborAdvertisement {
                source: "fe80::1".parse().unwrap(),
                destination: destination.parse().unwrap(),
                target: vip.parse().unwrap(),
                solicited,
                replaces: true,
                target_mac: Some(OURS),
            };
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn other_solicitations_are_refused_by_name() {
        let (vip, group) = ("2001:db8::1:2345", "ff02::1:ff01:2345");
        let group_mac = Mac([0x33, 0x33, 0xff, 0x01, 0x23, 0x45]);
        let asked =
            |ethernet, source, target, option| Question { ethernet, source, destination: group, target, option };
        let foreign = "2001:db8::2:2345";
        let cases = [
            (asked(OTHER, "fe80::9", vip, Some(ASKER)), Ignored::NotForUs),
            (asked(group_mac, "fe80::9", foreign, Some(ASKER)), Ignored::NotAnnounced(foreign.parse().unwrap())),
            (asked(group_mac, "::", vip, Some(ASKER)), Ignored::Frame(FrameError::InvalidNdp)),
            (asked(group_mac, "fe80::9", "ff02::1", Some(ASKER)), Ignored::Frame(FrameError::InvalidNdp)),
            (asked(group_mac, "fe80::9", vip, Some(group_mac)), Ignored::GroupSender),
        ];
        for (question, expected) in cases {
            assert_eq!(ask(&question).err(), Some(expected), "{}", question.target);
        }
    }
}
