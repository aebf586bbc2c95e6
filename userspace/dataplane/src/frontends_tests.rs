//! Which triples a Service gets, with which flags, affinity, source ranges and choice of endpoints.

use roadstead_abi::Addr;
use roadstead_model::{IngressIpMode, LoadBalancerIngress, Snapshot};

use super::*;
use crate::{
    addresses::from_map,
    fixture::{NODE, OPTIONS, balanced, ip, node, service, slice, snapshot},
};

/// All frontends and addresses of a snapshot, by a compiler that has seen no other.
fn compile(snapshot: &Snapshot) -> (Vec<(SvcKey, Frontend)>, Vec<Addr>) {
    let mut compiler = Compiler::new(OPTIONS);
    let delta = compiler.update(snapshot, NODE, std::time::Instant::now());
    let mut frontends: Vec<_> =
        delta.frontends.into_iter().filter_map(|(key, frontend)| Some((key, frontend?))).collect();
    frontends.sort_by_key(|(key, _)| *key);
    let mut vips: Vec<_> = delta.vips.into_iter().map(|(addr, _)| addr).collect();
    vips.sort_unstable();
    (frontends, vips)
}

fn of_address<'a>(frontends: &'a [(SvcKey, Frontend)], address: &str) -> &'a Frontend {
    let found = frontends.iter().find(|(key, _)| key.addr == to_map(ip(address)));
    &found.unwrap_or_else(|| panic!("no frontend at {address}")).1
}

#[test]
fn a_service_gets_its_cluster_node_port_balancer_and_external_frontends() {
    let mut web = service("web");
    web.external_ips = vec![ip("198.51.100.7"), ip("10.0.0.1")];
    web.status =
        vec![balanced("192.0.2.200"), LoadBalancerIngress { ip: ip("192.0.2.201"), mode: IngressIpMode::Proxy }];
    let (frontends, vips) = compile(&snapshot(&[web], &[slice("web", &["10.1.0.1 R here"])]));
    let mut found: Vec<String> = frontends
        .iter()
        .map(|(key, frontend)| format!("{} {} {} {}", from_map(&key.addr), key.port.get(), key.scope, frontend.kind))
        .collect();
    found.sort();
    let mut expected = vec![
        "10.96.0.10 80 0 0",
        "fd00:10:96::a 80 0 0",
        ":: 30080 1 1",
        ":: 30080 2 1",
        "192.0.2.200 80 0 2",
        "198.51.100.7 80 0 3",
        "10.0.0.1 80 0 3",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let vips: Vec<_> = vips.iter().map(|addr| from_map(addr).to_string()).collect();
    assert_eq!(vips, ["10.96.0.10", "192.0.2.200", "fd00:10:96::a"], "external addresses are somebody's own");
}

#[test]
fn a_node_whose_address_stands_in_a_status_stays_reachable() {
    let mut web = service("web");
    let addresses = ["192.0.2.200", "10.0.0.1", "10.0.0.2"];
    web.status = addresses.map(balanced).into();
    let mut snapshot = snapshot(&[web], &[]);
    snapshot.nodes.insert("other".into(), node("other", "10.0.0.2"));
    let (_, vips) = compile(&snapshot);
    assert_eq!(addresses.map(|text| vips.contains(&to_map(ip(text)))), [true, false, false]);
}

#[test]
fn services_without_anything_to_balance_get_no_frontend() {
    let mut headless = service("headless");
    headless.cluster_ips.clear();
    let mut alias = service("alias");
    alias.kind = ServiceKind::ExternalName("example.com".into());
    let mut foreign = service("foreign");
    foreign.meta.labels.insert("service.kubernetes.io/service-proxy-name".into(), "other".into());
    assert_eq!(compile(&snapshot(&[headless, alias, foreign], &[])), (vec![], vec![]));
}

#[test]
fn the_policies_decide_which_sets_are_there() {
    use TrafficPolicy::{Cluster, Local};
    const INTERNAL: u16 = svc_flags::INTERNAL_LOCAL;
    const EXTERNAL: u16 = svc_flags::EXTERNAL_LOCAL;
    // Internal and external policy, reachable from outside, then whether there are Cluster and Local sets, and flags.
    let rows = [
        (Cluster, Cluster, false, true, false, 0),
        (Cluster, Local, false, true, false, 0),
        (Local, Cluster, false, false, true, INTERNAL),
        (Local, Local, false, false, true, INTERNAL),
        (Cluster, Cluster, true, true, false, 0),
        (Cluster, Local, true, true, true, EXTERNAL),
        (Local, Cluster, true, true, true, INTERNAL),
        (Local, Local, true, true, true, INTERNAL | EXTERNAL),
    ];
    for (internal, external, exposed, cluster, local, flags) in rows {
        let mut web = service("web");
        (web.internal_policy, web.external_policy) = (internal, external);
        web.ports[0].node_port = web.ports[0].node_port.filter(|_| exposed);
        let (frontends, _) = compile(&snapshot(&[web], &[slice("web", &["10.1.0.1 R here"])]));
        let frontend = of_address(&frontends, "10.96.0.10");
        let row = format!("internal {internal:?} external {external:?} exposed {exposed}");
        assert_eq!((!frontend.cluster().is_empty(), !frontend.local().is_empty()), (cluster, local), "{row}");
        assert_eq!(frontend.port.flags, flags | svc_flags::HAS_ENDPOINTS, "{row}");
    }
}

#[test]
fn affinity_is_told_in_units_of_the_programs_clock() {
    for (seconds, units) in [(None, 0), (Some(1), 1), (Some(10_800), 10_547)] {
        let mut web = service("web");
        web.affinity_seconds = seconds;
        let (frontends, _) = compile(&snapshot(&[web], &[]));
        assert_eq!(of_address(&frontends, "10.96.0.10").port.affinity, units, "{seconds:?}");
    }
}

#[test]
fn the_service_goes_before_the_flag_in_how_endpoints_are_chosen() {
    for (own, expected) in [(None, Selection::Random), (Some(Selection::Maglev), Selection::Maglev)] {
        let mut web = service("web");
        web.selection = own;
        let (frontends, _) = compile(&snapshot(&[web], &[]));
        assert_eq!(of_address(&frontends, "10.96.0.10").port.selection, expected);
    }
}

/// Ranges, then what is admitted at the IPv4 and at the IPv6 address; nothing told is everybody.
type Guarded = (&'static [&'static str], Option<&'static [&'static str]>, Option<&'static [&'static str]>);

#[test]
fn source_ranges_guard_load_balancer_addresses_alone() {
    const V4: &str = "192.0.2.200";
    const V6: &str = "2001:db8::200";
    #[rustfmt::skip]
    let rows: &[Guarded] = &[
        (&[],                                None,                                         None),
        (&["203.0.113.0/25"],                Some(&["203.0.113.0/25"]),                    None),
        (&["203.0.113.0/25", "::/0"],        Some(&["203.0.113.0/25"]),                    Some(&["::/0"])),
        (&["203.0.113.9/25", "10.0.0.0/8"],  Some(&["203.0.113.0/25", "10.0.0.0/8", "192.0.2.200/32"]), None),
    ];
    for (ranges, v4, v6) in rows {
        let mut web = service("web");
        web.external_ips = vec![ip("198.51.100.7")];
        web.status = vec![balanced(V4), balanced(V6)];
        web.load_balancer.source_ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        let (frontends, _) = compile(&snapshot(&[web], &[]));
        for (address, expected) in [(V4, v4), (V6, v6), ("10.96.0.10", &None), ("198.51.100.7", &None)] {
            let expected = expected.map(|texts| {
                let mut list: Vec<_> = texts.iter().map(|text| Prefix::of(&text.parse().unwrap())).collect();
                list.sort_unstable();
                list
            });
            let found = of_address(&frontends, address).ranges().map(|ranges| ranges.to_vec());
            assert_eq!(found, expected, "{ranges:?} at {address}");
        }
        assert!(frontends.iter().filter(|(_, f)| f.kind == kind::NODE_PORT).all(|(_, f)| f.ranges().is_none()));
    }
}
