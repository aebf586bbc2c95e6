//! What the speakers send, read by another implementation of the protocols: tshark finds nothing wrong with any frame.

use std::{collections::BTreeMap, path::Path, process::Command};

use roadstead_lab::{wait_until, who_has};

use super::fixture::LATE;
use super::segment::{FIRST, Segment, knock, lacks_tools, learn, mac_of, run};

/// The fields of frames that a filter of tshark lets through, a line each.
fn read(capture: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    // That an address moves from one node to another is what it is for. Checksums are verified.
    command.args(["-o", "arp.detect_duplicate_ips:FALSE", "-o", "ip.check_checksum:TRUE", "-n", "-r"]).arg(capture);
    command.args(["-Y", filter, "-T", "fields"]);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn tshark_finds_nothing_wrong_with_what_speakers_send() {
    if lacks_tools() {
        return;
    }
    let Some(mut segment) = Segment::new("tshark") else { return };
    let client = segment.lab.client().clone();
    let capture = client.capture("eth0").unwrap();
    segment.start_all();
    // Every kind of question, the answers, a rival, and a takeover with its announcements.
    for ip in FIRST {
        assert!(!who_has(&client, ip, std::time::Duration::from_millis(20)).unwrap().is_empty());
        learn(&client, ip);
        knock(&client, ip);
    }
    let [v4, v6] = FIRST.map(|ip| ip.to_string());
    let _answered = run(&client, "arping", &["-c", "2", "-w", "2", "-I", "eth0", &v4]);
    let _answered = run(&client, "arping", &["-D", "-c", "1", "-w", "1", "-I", "eth0", &v4]);
    let _answered = run(&client, "ndisc6", &["-n", "-r", "1", &v6, "eth0"]);
    let stranger = segment.lab.add_bystander().unwrap();
    let accept = "/proc/sys/net/ipv6/conf/eth0/accept_dad";
    stranger.run(|| std::fs::write(accept, "1")).unwrap().unwrap();
    stranger.ip(&[format!("addr add {v6}/64 dev eth0")]).unwrap();
    let owner = segment.wait_owner(FIRST[0]);
    let (holder, heir) = (segment.lab.node(&owner).host().clone(), segment.other(&owner));
    segment.take(&owner).terminate(LATE).unwrap();
    wait_until(LATE, "the other node answers", || FIRST.iter().all(|ip| segment.owner(*ip).as_ref() == Some(&heir)))
        .unwrap();
    let heir = segment.lab.node(&heir).host().clone();
    let nodes = [mac_of(&holder), mac_of(&heir)];
    let file = segment.lab.folder().join("all.pcap");
    capture.save(&file).unwrap();
    let ours = format!("eth.src in {{{}}} && (arp || icmpv6.type == 135 || icmpv6.type == 136)", nodes.join(", "));
    let wrong =
        read(&file, &format!("({ours}) && (_ws.malformed || _ws.expert)"), &["frame.number", "_ws.expert.message"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let bad = read(&file, &format!("({ours}) && icmpv6 && icmpv6.checksum.status != 1"), &["frame.number"]);
    assert!(bad.is_empty(), "{bad:?}");
    // All kinds were there: requests and replies, answers and announcements, of both nodes.
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for line in
        read(&file, &ours, &["eth.src", "arp.opcode", "icmpv6.type", "icmpv6.nd.na.flag.s", "icmpv6.nd.na.flag.o"])
    {
        *kinds.entry(line).or_default() += 1;
    }
    for mac in &nodes {
        for kind in ["1\t\t\t", "2\t\t\t", "\t136\t0\t1", "\t136\t1\t1"] {
            assert!(kinds.contains_key(&format!("{mac}\t{kind}")), "{mac} {kind:?}: {kinds:#?}");
        }
    }
    // Both networks' headers: an advertisement comes with hop limit 255, from the address that it tells about.
    let heads = read(
        &file,
        &format!("({ours}) && icmpv6.type == 136"),
        &["ipv6.hlim", "ipv6.src", "icmpv6.nd.na.target_address"],
    );
    let vip: Vec<&String> = heads.iter().filter(|line| line.ends_with(&v6)).collect();
    assert!(!vip.is_empty() && vip.iter().all(|line| **line == format!("255\t{v6}\t{v6}")), "{heads:?}");
}
