//! A host that is as it should be, changed in one thing at a time.

use std::{fs, net::SocketAddr, path::PathBuf};

use super::{
    facts::{Facts, Mount},
    finding::{Finding, Level, print, print_json},
    listeners::{Listener, Protocol},
    processes::Process,
    rulesets::{Rulesets, Seen},
    *,
};
use crate::{
    devices::Devices,
    netlink::{Chain, Link},
};

fn mount(path: &str, kind: &str) -> Mount {
    Mount { path: PathBuf::from(path), kind: kind.to_owned() }
}

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.to_owned(), ethernet: true, up: true, master: None, kind: String::new() }
}

fn devices(names: &[&str]) -> Option<Devices> {
    let links = names.iter().zip(2..).map(|(name, index)| link(index, name)).collect();
    Some(Devices::new(links, vec![(2, "192.0.2.10".parse().unwrap())], &[2]))
}

/// `eth0` towards the network, `veth1` towards a pod.
fn good() -> Facts {
    let parameters = [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/veth1/rp_filter", "2"),
        ("net/core/bpf_jit_enable", "1"),
        ("kernel/unprivileged_bpf_disabled", "2"),
    ];
    Facts {
        release: "6.18.44-generic".to_owned(),
        tcx: Some(true),
        mounts: vec![mount("/", "ext4"), mount("/sys/fs/cgroup", "cgroup2"), mount("/sys/fs/bpf", "bpf")],
        knows_bpffs: true,
        capabilities: u64::MAX,
        parameters: parameters.map(|(path, value)| (path.to_owned(), value.to_owned())).into(),
        devices: devices(&["eth0", "veth1"]),
        ..Facts::default()
    }
}

fn purpose() -> Purpose {
    Purpose { daemons: Vec::new(), devices: Vec::new(), bpffs: PathBuf::from(DEFAULT_BPFFS), cgroup_root: None }
}

fn set(path: &'static str, value: &'static str) -> impl Fn(&mut Facts, &mut Purpose) {
    move |facts, _| drop(facts.parameters.insert(path.to_owned(), value.to_owned()))
}

fn runs(name: &'static str, argument: &'static str, shares_network: bool) -> impl Fn(&mut Facts, &mut Purpose) {
    move |facts, _| {
        let arguments = vec![argument.to_owned()];
        facts.processes.push(Process { pid: 7, name: name.to_owned(), arguments, shares_network });
    }
}

fn chains(names: &[(&str, &str, &str)]) -> Seen {
    let chain = |(family, table, name): &(&str, &str, &str)| Chain {
        family: (*family).to_owned(),
        table: (*table).to_owned(),
        name: (*name).to_owned(),
    };
    Seen::Chains(names.iter().map(chain).collect())
}

fn listens(protocol: Protocol, at: &'static str, owner: Option<&'static str>) -> impl Fn(&mut Facts, &mut Purpose) {
    move |facts, _| {
        let at: SocketAddr = at.parse().unwrap();
        facts.listeners.push(Listener { protocol, at, inode: 1, owner: owner.map(str::to_owned) });
    }
}

/// What is not `Ok` after a change.
fn amiss(change: impl Fn(&mut Facts, &mut Purpose)) -> Vec<Finding> {
    let (mut facts, mut purpose) = (good(), purpose());
    change(&mut facts, &mut purpose);
    judge(&facts, &purpose).into_iter().filter(|finding| finding.level != Level::Ok).collect()
}

/// One finding, of this check and level, that says this and what to do.
#[track_caller]
fn check(check: &str, level: Level, part: &str, change: impl Fn(&mut Facts, &mut Purpose)) {
    let found = amiss(change);
    let [finding] = found.as_slice() else { panic!("{check}: {found:?}") };
    assert_eq!((finding.check, finding.level), (check, level), "{finding:?}");
    assert!(finding.found.contains(part), "{part:?} is not in {finding:?}");
    assert!(finding.advice.len() > 10, "{finding:?}");
}

#[test]
fn a_host_as_it_should_be_has_nothing_amiss() {
    assert_eq!(amiss(|_, _| ()), []);
    assert_eq!(amiss(runs("nginx", "", true)), [], "a web server is no rival by its name");
    assert_eq!(amiss(runs("speaker", "--music", true)), [], "nor is everything that is called speaker");
    assert_eq!(amiss(runs("kube-proxy", "", false)), [], "nor what runs in another network");
    assert_eq!(amiss(listens(Protocol::Tcp, "[::]:80", Some("roadstead-ingress"))), []);
    assert_eq!(amiss(listens(Protocol::Udp, "[::]:7946", Some("roadstead-speaker"))), []);
    assert_eq!(amiss(|facts, _| facts.release = "6.6.0".to_owned()), []);
    assert_eq!(amiss(|facts, _| facts.tcx = None), []);
    assert_eq!(amiss(|facts, _| drop(facts.parameters.remove("net/ipv6/conf/all/forwarding"))), []);
}

#[test]
fn the_kernel_and_what_it_was_built_with() {
    use Level::{Fail, Warn};
    let old = |facts: &mut Facts, _: &mut Purpose| facts.release = "6.1.0-43-amd64".to_owned();
    check("kernel", Fail, "6.1.0-43-amd64", old);
    check("kernel", Warn, "version", |facts, _| facts.release = String::new());
    check("tcx", Fail, "without tcx", |facts, _| facts.tcx = Some(false));
    let both = amiss(|facts, _| (facts.release, facts.tcx) = ("5.15.0".to_owned(), None));
    assert_eq!(both.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["kernel", "tcx"]);
    check("jit", Warn, "interpreted", set("net/core/bpf_jit_enable", "0"));
    check("jit", Warn, "hardened", set("net/core/bpf_jit_harden", "2"));
}

#[test]
fn file_systems() {
    use Level::{Fail, Warn};
    let unmounted = |facts: &mut Facts, _: &mut Purpose| facts.mounts.retain(|mount| mount.kind != "bpf");
    check("bpffs", Warn, "no BPF file system is mounted at /sys/fs/bpf", unmounted);
    check("bpffs", Fail, "/pins/roadstead is not on", |_, purpose| purpose.bpffs = PathBuf::from("/pins/roadstead"));
    check("bpffs", Fail, "is not on", |facts, _| facts.mounts.push(mount("/sys/fs/bpf/roadstead", "tmpfs")));
    check("bpffs", Fail, "knows no", |facts, _| {
        facts.mounts.retain(|mount| mount.kind != "bpf");
        facts.knows_bpffs = false;
    });
    check("cgroup2", Fail, "no cgroup2", |facts, _| facts.mounts.retain(|mount| mount.kind != "cgroup2"));
    check("cgroup2", Fail, "/tmp/x is on no", |_, purpose| purpose.cgroup_root = Some(PathBuf::from("/tmp/x")));
    check("cgroup2", Warn, "does not hold all", |facts, _| facts.cgroup_is_part = true);
}

#[test]
fn rights_are_those_of_the_daemons_that_are_asked_for() {
    let without = |bits: &'static [u32], daemons: &'static [DaemonName]| {
        move |facts: &mut Facts, purpose: &mut Purpose| {
            facts.capabilities = bits.iter().fold(u64::MAX, |rights, bit| rights & !(1 << bit));
            purpose.daemons = daemons.to_vec();
        }
    };
    check("rights", Level::Warn, "CAP_BPF, CAP_PERFMON, CAP_NET_RAW", without(&[13, 38, 39], &[]));
    check("rights", Level::Warn, "CAP_NET_BIND_SERVICE", without(&[10, 38, 39], &[DaemonName::Ingress]));
    assert_eq!(amiss(without(&[10, 12, 38, 39], &[DaemonName::Speaker])), []);
}

#[test]
fn settings_and_devices() {
    use Level::{Fail, Warn};
    check("forwarding", Fail, "not forwarded", set("net/ipv4/ip_forward", "0"));
    check("forwarding6", Warn, "not forwarded", |facts, _| {
        let addresses = vec![(2, "2001:db8::10".parse().unwrap())];
        facts.devices = Some(Devices::new(vec![link(2, "eth0")], addresses, &[2]));
    });
    check("rp_filter", Warn, "veth1 drops", set("net/ipv4/conf/veth1/rp_filter", "1"));
    assert_eq!(amiss(set("net/ipv4/conf/all/rp_filter", "1")), [], "the device's own 2 is higher");
    check("rp_filter", Warn, "veth1 drops", |facts, _| {
        set("net/ipv4/conf/all/rp_filter", "1")(facts, &mut purpose());
        set("net/ipv4/conf/veth1/rp_filter", "0")(facts, &mut purpose());
    });
    check("route_localnet", Warn, "127.0.0.0/8", set("net/ipv4/conf/all/route_localnet", "1"));
    check("unprivileged_bpf", Warn, "every user", set("kernel/unprivileged_bpf_disabled", "0"));
    check("devices", Fail, "does not list", |facts, _| facts.devices = None);
    check("devices", Warn, "no device eth7", |_, purpose| purpose.devices = vec!["eth7".to_owned()]);
    check("devices", Warn, "default route", |facts, _| {
        facts.devices = Some(Devices::new(vec![link(2, "eth0")], Vec::new(), &[]));
        facts.parameters.remove("net/ipv4/conf/all/rp_filter");
    });
    check("devices", Fail, "tun0 carries no Ethernet", |facts, purpose| {
        let tunnel = Link { ethernet: false, ..link(2, "tun0") };
        facts.devices = Some(Devices::new(vec![tunnel], Vec::new(), &[2]));
        purpose.devices = vec!["tun0".to_owned()];
    });
}

#[test]
fn kube_proxy_is_named_by_its_process_and_by_its_rules() {
    use Level::{Fail, Warn};
    check("kube-proxy", Warn, "process 7", runs("kube-proxy", "--config=/x", true));
    check("kube-proxy", Warn, "left table ip kube-proxy of nftables, table ip6 kube-proxy", |facts, _| {
        let tables =
            [("ip", "kube-proxy", "services"), ("ip", "kube-proxy", "filter-input"), ("ip6", "kube-proxy", "services")];
        facts.rulesets.nftables = chains(&tables);
    });
    check("kube-proxy", Warn, "chain KUBE-SERVICES in table ip nat of nftables", |facts, _| {
        facts.rulesets.nftables = chains(&[("ip", "nat", "PREROUTING"), ("ip", "nat", "KUBE-SERVICES")]);
    });
    check("kube-proxy", Warn, "table ip6 nat of iptables-legacy", |facts, _| {
        facts.rulesets.legacy = chains(&[("ip6", "nat", "KUBE-SERVICES")]);
    });
    check("kube-proxy", Warn, "process 7), with table ip kube-proxy", |facts, purpose| {
        runs("kube-proxy", "", true)(facts, purpose);
        facts.rulesets.nftables = chains(&[("ip", "kube-proxy", "services")]);
    });
    check("kube-proxy", Warn, "not permitted", |facts, _| {
        facts.rulesets = Rulesets { nftables: Seen::Unknown("not permitted".to_owned()), legacy: Seen::default() };
    });
    assert_eq!(amiss(|facts, _| facts.rulesets.nftables = chains(&[("inet", "mine", "input")])), []);
    check("ipvs", Fail, "answers ARP", |facts, _| facts.devices = devices(&["eth0", "veth1", "kube-ipvs0"]));
    check("ipvs", Warn, "kube-ipvs0", |facts, purpose| {
        facts.devices = devices(&["eth0", "veth1", "kube-ipvs0"]);
        set("net/ipv4/conf/all/arp_ignore", "1")(facts, purpose);
    });
    check("ipvs", Warn, "3 virtual servers", |facts, _| facts.ipvs_servers = 3);
}

#[test]
fn the_other_rivals() {
    use Level::{Fail, Warn};
    check("metallb", Warn, "process 7", runs("speaker", "--port=7472", true));
    check("membership", Fail, "in use by speaker", listens(Protocol::Udp, "192.0.2.10:7946", Some("speaker")));
    check("membership", Fail, "cannot be seen", listens(Protocol::Udp, "[::]:7946", None));
    check("ingress-nginx", Warn, "process 7", runs("nginx-ingress-controller", "", false));
    check("ports", Fail, "0.0.0.0:443 is in use by nginx", listens(Protocol::Tcp, "0.0.0.0:443", Some("nginx")));
    check("cilium", Warn, "process 7", runs("cilium-agent", "", true));
    check("cilium", Warn, "has left", |facts, _| facts.cilium_pins = true);
    check("cilium", Warn, "has left", |facts, _| facts.devices = devices(&["eth0", "veth1", "cilium_host"]));
    let only_agent = amiss(|facts, purpose| {
        purpose.daemons = vec![DaemonName::Agent];
        listens(Protocol::Tcp, "0.0.0.0:443", Some("nginx"))(facts, purpose);
        listens(Protocol::Udp, "[::]:7946", None)(facts, purpose);
    });
    assert_eq!(only_agent, [], "ports of daemons that are not to run here are nobody's concern");
}

#[test]
fn facts_are_read_below_a_root() {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &[u8]| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("proc/sys/kernel/osrelease", b"6.18.44\n");
    put("proc/sys/net/ipv4/ip_forward", b"1\n");
    put("proc/sys/net/ipv4/conf/veth1/rp_filter", b"1\n");
    put("proc/sys/net/ipv4/conf/eth0/rp_filter", b"1\n");
    put("proc/filesystems", b"nodev\tproc\nnodev\tbpf\n\text4\n");
    put("proc/self/mounts", b"none /sys/fs/cgroup/unified cgroup2 rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n");
    put("proc/self/status", b"Name:\tx\nCapEff:\t000000c000001000\n");
    put(
        "proc/self/net/ip_vs",
        b"IP Virtual Server\nProt\n  -> Remote\nTCP  0A600001:0050 rr\n  -> 0AF40001:0050 Masq\n",
    );
    put("proc/self/net/tcp", b"  sl\n 0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 42 1\n");
    put("sys/fs/cgroup/unified/cgroup.type", b"domain\n");
    put("sys/kernel/btf/vmlinux", b"\x9f\xeb\0tcx_uninstall\0tcx_prog_attach\0x\0");
    put("sys/fs/bpf/cilium/devices/x", b"");
    let facts = Facts::read(folder.path(), &purpose(), devices(&["eth0", "veth1"]));
    assert_eq!((facts.release.as_str(), facts.tcx, facts.knows_bpffs), ("6.18.44", Some(true), true));
    assert_eq!(facts.capabilities, 0xc0_0000_1000);
    assert_eq!(facts.mounts, [mount("/sys/fs/cgroup/unified", "cgroup2"), mount("/sys/fs/bpf", "bpf")]);
    assert!(facts.cgroup_is_part && facts.cilium_pins);
    assert_eq!((facts.ipvs_servers, facts.listeners.len()), (1, 1));
    let read: Vec<_> = facts.parameters.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
    assert_eq!(read, [("net/ipv4/conf/veth1/rp_filter", "1"), ("net/ipv4/ip_forward", "1")], "eth0 is no pod's");

    let nothing = Facts::read(&folder.path().join("nothing"), &purpose(), None);
    let findings = judge(&nothing, &purpose());
    assert!(findings.iter().any(|finding| finding.level == Level::Fail), "{findings:?}");
}

#[test]
fn findings_are_shown_with_what_to_do() {
    let findings = [Finding::ok("kernel", "Linux 6.18"), Finding::fail("forwarding", "off", "turn it on")];
    let mut text = Vec::new();
    print(&findings, &mut text).unwrap();
    let expected = "\
ok     kernel       Linux 6.18
fail   forwarding   off
                    -> turn it on
1 ok, 0 to look at, 1 in the way
";
    assert_eq!(String::from_utf8(text).unwrap(), expected);
    let mut json = Vec::new();
    print_json(&findings, &mut json).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let expected = serde_json::json!([
        {"check": "kernel", "status": "ok", "found": "Linux 6.18", "advice": null},
        {"check": "forwarding", "status": "fail", "found": "off", "advice": "turn it on"},
    ]);
    assert_eq!(read, expected);
}
