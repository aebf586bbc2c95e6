//! Hosts outside the cluster that have an address of a pool: before it is handed out, and while it is announced.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use roadstead_lab::{Mac, Place, wait_until, who_has};

use super::fixture::LATE;
use super::segment::{FIRST, SECOND, Segment};

fn take_addresses(host: &Place) {
    host.ip(&[format!("addr add {}/24 dev eth0", FIRST[0]), format!("addr add {}/64 dev eth0 nodad", FIRST[1])])
        .unwrap();
}

/// The host sends from an address to the client, for which it asks the segment: in that question it claims the address.
fn use_address(host: &Place, from: IpAddr, to: IpAddr) {
    host.ip(&["neigh flush dev eth0"]).unwrap();
    let sent = host.run(|| UdpSocket::bind((from, 0)).and_then(|socket| socket.send_to(b"mine", (to, 9)))).unwrap();
    sent.unwrap();
}

fn macs(segment: &Segment, ip: IpAddr) -> Vec<Mac> {
    who_has(segment.lab.client(), ip, Duration::from_millis(200)).unwrap().into_keys().collect()
}

#[test]
fn an_address_that_another_host_has_is_not_handed_out() {
    let Some(mut segment) = Segment::new("occupied") else { return };
    let stranger = segment.lab.add_bystander().unwrap();
    take_addresses(&stranger);
    let capture = segment.lab.client().capture("eth0").unwrap();
    for node in ["node-a", "node-b"] {
        segment.start(node, &[]);
    }
    segment.wait_owned(SECOND);
    for node in ["node-a", "node-b"] {
        let status = || segment.lab.addresses(segment.lab.node(node), "front", "web").unwrap();
        let told = || SECOND.iter().all(|next| status().contains(next));
        wait_until(LATE, "the agents are told", told).unwrap_or_else(|error| panic!("{error}: {:?}", status()));
        for occupied in FIRST {
            assert!(!status().contains(&occupied), "{:?}", status());
        }
    }
    // The first node assigns, and asks before it does; the second has nothing to ask.
    assert_eq!(segment.counter("node-a", "roadstead_speaker_addresses_occupied"), 2);
    let log = segment.speaker("node-a").log();
    assert_eq!(log.matches("not handed out: another host has the address").count(), 2, "{log}");
    for ip in FIRST {
        assert_eq!(macs(&segment, ip), [Mac::of(stranger.v4())], "{ip}");
    }
    // Nobody else ever claimed them, not for a moment.
    let claims = capture.frames().into_iter().filter(|frame| {
        let bytes = &frame.bytes;
        let [v4, v6] = FIRST.map(|ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        });
        let arp = bytes.get(12..14) == Some(&[8, 6]) && bytes.get(28..32) == Some(&v4);
        let advertisement = bytes.get(54) == Some(&136) && bytes.get(62..78) == Some(&v6);
        (arp || advertisement) && bytes.get(6..12) != Some(&Mac::of(stranger.v4()).0)
    });
    assert_eq!(claims.count(), 0);
}

#[test]
fn a_rival_is_told_about_and_the_address_is_kept_without_a_fight() {
    let Some(mut segment) = Segment::new("rival") else { return };
    for node in ["node-a", "node-b"] {
        segment.start(node, &["--announce-interval", "0", "--realtime-priority", "10"]);
    }
    segment.wait_owned(FIRST);
    let (owner, client) = (segment.wait_owner(FIRST[0]), segment.lab.client().clone());
    let of = |name: &str, ip: IpAddr| format!("{name}{{ip=\"{ip}\"}}");
    let sent = |ip: IpAddr| segment.counter(&owner, &of("metallb_layer2_gratuitous_sent", ip));
    segment.wait_quiet();
    let [arp, ndp] = FIRST.map(sent);
    let rival = segment.lab.add_bystander().unwrap();
    take_addresses(&rival);
    let targets: [IpAddr; 2] = [client.v4().into(), client.v6().into()];
    for _ in 0..10 {
        FIRST.iter().zip(targets).for_each(|(ip, to)| use_address(&rival, *ip, to));
    }
    let rivals = |ip: IpAddr| segment.counter(&owner, &of("roadstead_speaker_rivals_total", ip));
    wait_until(LATE, "the claims are counted", || FIRST.iter().all(|ip| rivals(*ip) >= 10)).unwrap();
    let log = segment.speaker(&owner).log();
    assert_eq!(log.matches("which this node announces").count(), 2, "once for each address:\n{log}");
    assert!(log.contains(&Mac::of(rival.v4()).to_string()), "{log}");
    // It said so once in each family, however often the rival did.
    wait_until(LATE, "the addresses are defended", || FIRST.map(sent) == [arp + 2, ndp + 1]).unwrap();
    for ip in FIRST {
        assert_eq!(macs(&segment, ip).len(), 2, "{ip}: both answer, as neither can know who is right");
    }
    rival.ip(&[format!("addr del {}/24 dev eth0", FIRST[0]), format!("addr del {}/64 dev eth0", FIRST[1])]).unwrap();
    for ip in FIRST {
        assert_eq!(segment.owner(ip).as_deref(), Some(&*owner), "{ip} was never given up");
    }
    assert_eq!(FIRST.map(sent), [arp + 2, ndp + 1]);
}
