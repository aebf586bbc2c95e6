//! Linux's own neighbour code and Debian's tools judge what the speakers answer and announce, in both families.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use roadstead_lab::{Place, wait_until};

use super::fixture::{LATE, SOON};
use super::segment::{FIRST, Segment, knock, lacks_tools, learn, mac_of, neighbour, run, text};

#[test]
fn arping_and_ndisc6_hear_the_owner_alone() {
    if lacks_tools() {
        return;
    }
    let Some(mut segment) = Segment::new("arping") else { return };
    segment.start_all();
    let owner = segment.wait_owner(FIRST[0]);
    let (client, mac) = (segment.lab.client(), mac_of(segment.lab.node(&owner).host()));
    let ip = FIRST[0].to_string();
    let said = text(client, "arping", &["-c", "3", "-w", "4", "-I", "eth0", &ip]);
    let macs: Vec<String> = said.lines().filter(|line| line.contains("reply from")).map(str::to_lowercase).collect();
    assert!(macs.len() == 3 && macs.iter().all(|line| line.contains(&mac)), "{said}");
    // Of these three questions one is broadcast, the others go to the owner alone, as it answered the first.
    assert!(said.contains("Sent 3 probes (1 broadcast(s))"), "{said}");
    // Duplicate address detection: whoever has the address is found.
    let detected = run(client, "arping", &["-D", "-c", "2", "-w", "3", "-I", "eth0", &ip]);
    assert_eq!(detected.status.code(), Some(1), "{detected:?}");
    let free = run(client, "arping", &["-D", "-c", "1", "-w", "1", "-I", "eth0", "192.168.77.209"]);
    assert_eq!(free.status.code(), Some(0), "{free:?}");
    // Waits for more answers, and takes announcements for some: all are of one node.
    let ip = FIRST[1].to_string();
    let owner = segment.wait_owner(FIRST[1]);
    let mac = mac_of(segment.lab.node(&owner).host());
    let said = text(client, "ndisc6", &["-n", "-m", "-r", "3", "-w", "1000", &ip, "eth0"]).to_lowercase();
    let answers: Vec<&str> = said.lines().filter(|line| line.contains("target link-layer address")).collect();
    assert!(!answers.is_empty() && answers.iter().all(|line| line.contains(&mac)), "{said}");
}

/// Waits for a client's entry to show the hardware address of a node.
fn moved(client: &Place, ip: IpAddr, mac: &str) -> bool {
    neighbour(client, ip).is_some_and(|(now, _)| now == mac)
}

/// A client that has just learnt the owner, and one that has known it for long, follow an address within a second.
/// Left alone, they would stay with the dead node for 28 to 48 seconds.
#[test]
fn fresh_and_old_entries_of_clients_follow_an_address() {
    for (case, signal, old) in [
        ("killed-fresh", Signal::SIGKILL, false),
        ("killed-old", Signal::SIGKILL, true),
        ("ended-fresh", Signal::SIGTERM, false),
        ("ended-old", Signal::SIGTERM, true),
    ] {
        let Some(mut segment) = Segment::new(case) else { return };
        segment.start_all();
        let (client, owner) = (segment.lab.client().clone(), segment.wait_owner(FIRST[0]));
        let heir = mac_of(segment.lab.node(&segment.other(&owner)).host());
        let holder = mac_of(segment.lab.node(&owner).host());
        client.ip(&["neigh flush dev eth0"]).unwrap();
        for ip in FIRST {
            assert_eq!(learn(&client, ip), holder, "{case}: both addresses are one node's");
        }
        if old {
            // Past the second for which Linux locks an entry, and used all the while.
            let learnt = Instant::now();
            wait_until(LATE, "the entries are old", || {
                FIRST.into_iter().for_each(|ip| knock(&client, ip));
                learnt.elapsed() > Duration::from_millis(1_500)
            })
            .unwrap();
        }
        let speaker = segment.take(&owner);
        speaker.signal(signal).unwrap();
        let took = wait_until(LATE, "the client follows", || {
            FIRST.into_iter().for_each(|ip| knock(&client, ip));
            FIRST.into_iter().all(|ip| moved(&client, ip, &heir))
        })
        .unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(took < SOON, "{case}: only after {took:.1?}");
    }
}

/// A client that goes on sending probes its entry by unicast questions (RFC 4861, section 7.3) and must be answered:
/// routers that are not forget their neighbours every half an hour (metallb#2920).
#[test]
fn entries_in_use_are_confirmed_by_unicast_questions() {
    let Some(mut segment) = Segment::alone("probes") else { return };
    segment.start_all();
    let (client, mac) = (segment.lab.client(), mac_of(segment.lab.node("node-a").host()));
    for family in ["ipv4", "ipv6"] {
        let set = |name: &str, value: &str| {
            client.run(|| std::fs::write(format!("/proc/sys/net/{family}/neigh/eth0/{name}"), value)).unwrap().unwrap();
        };
        set("base_reachable_time_ms", "400");
        set("delay_first_probe_time", "1");
        set("retrans_time_ms", "200");
    }
    client.ip(&["neigh flush dev eth0"]).unwrap();
    for ip in FIRST {
        assert_eq!(learn(client, ip), mac);
    }
    let capture = client.capture("eth0").unwrap();
    let mut seen = [Vec::new(), Vec::new()];
    let confirmed = |seen: &Vec<String>| {
        let probed = seen.iter().position(|state| state == "PROBE" || state == "DELAY");
        probed.is_some_and(|at| seen[at..].contains(&"REACHABLE".to_owned()))
    };
    wait_until(Duration::from_secs(20), "both entries are probed and confirmed", || {
        for (ip, seen) in FIRST.into_iter().zip(&mut seen) {
            knock(client, ip);
            let (now, state) = neighbour(client, ip).unwrap();
            assert_eq!(now, mac, "{ip} {state}");
            assert!(state != "FAILED" && state != "INCOMPLETE", "{ip}: {seen:?} {state}");
            seen.push(state);
        }
        seen.iter().all(confirmed)
    })
    .unwrap_or_else(|error| panic!("{error}: {seen:?}"));
    // The questions went to the owner alone.
    let owner = Mac6::parse(&mac);
    let frames = capture.frames();
    let asks = |kind: &dyn Fn(&[u8]) -> bool| {
        frames.iter().any(|frame| frame.bytes.starts_with(&owner.0) && kind(&frame.bytes))
    };
    assert!(asks(&|bytes| bytes.get(12..14) == Some(&[8, 6]) && bytes.get(21) == Some(&1)), "a unicast ARP request");
    assert!(asks(&|bytes| bytes.get(20) == Some(&58) && bytes.get(54) == Some(&135)), "a unicast solicitation");
}

struct Mac6([u8; 6]);

impl Mac6 {
    fn parse(text: &str) -> Self {
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Self(bytes.try_into().unwrap())
    }
}

/// A host that wants an announced address finds that somebody has it, and Linux does not use it (RFC 4862, section 5.4).
#[test]
fn a_host_that_wants_an_announced_address_does_not_get_it() {
    let Some(mut segment) = Segment::new("detection") else { return };
    segment.start_all();
    let client = segment.lab.client();
    for name in ["all", "eth0"] {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
        client.run(|| std::fs::write(path, "1")).unwrap().unwrap();
    }
    client.ip(&[format!("addr add {}/64 dev eth0", FIRST[1]), "addr add fd77::999/64 dev eth0".to_owned()]).unwrap();
    let shown = || text(client, "ip", &["-6", "addr", "show", "dev", "eth0"]);
    let line = |ip: &str| shown().lines().find(|line| line.contains(ip)).unwrap_or_default().to_owned();
    let ends = |ip: &str| {
        wait_until(LATE, "detection ends", || !line(ip).contains("tentative") || line(ip).contains("dadfailed"))
    };
    for ip in [FIRST[1].to_string(), "fd77::999".to_owned()] {
        ends(&format!("{ip}/64")).unwrap();
    }
    assert!(line("fd77::200/64").contains("dadfailed"), "{}", shown());
    assert!(!line("fd77::999/64").contains("dadfailed"), "{}", shown());
    // It was neither given up nor fought over.
    assert!(segment.owner(FIRST[1]).is_some());
}
