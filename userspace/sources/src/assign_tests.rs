//! Assignment is a pure function of the set of Services: these are its properties.

use proptest::prelude::*;
use roadstead_model::{LoadBalancerSpec, Metadata, ServicePort, TargetPort};

use super::*;

fn draft(name: &str, ports: &[(Protocol, u16)]) -> Draft {
    let port = |number: u16| Port::new(number).unwrap();
    let ports = ports.iter().map(|(protocol, number)| ServicePort {
        name: format!("{protocol}-{number}").to_lowercase(),
        protocol: *protocol,
        port: port(*number),
        target: TargetPort::Number(port(*number)),
        node_port: None,
        app_protocol: None,
    });
    let name = ObjectName::new("default", name);
    let meta = Metadata { name, labels: BTreeMap::new(), annotations: BTreeMap::new(), created: None };
    Draft {
        service: Arc::new(Service {
            meta,
            kind: ServiceKind::NodePort,
            selector: BTreeMap::new(),
            cluster_ips: Vec::new(),
            ip_families: Vec::new(),
            family_policy: FamilyPolicy::SingleStack,
            ports: ports.collect(),
            external_ips: Vec::new(),
            external_policy: TrafficPolicy::Cluster,
            internal_policy: TrafficPolicy::Cluster,
            affinity_seconds: None,
            publish_not_ready: false,
            traffic_distribution: None,
            selection: None,
            load_balancer: LoadBalancerSpec::default(),
            status: Vec::new(),
        }),
        headless: false,
        allocate_node_ports: true,
    }
}

/// The Service of a draft, to change.
fn of(draft: &mut Draft) -> &mut Service {
    Arc::make_mut(&mut draft.service)
}

fn run(drafts: &[Draft], options: &LoadOptions) -> (BTreeMap<ObjectName, Service>, Vec<Conflict>) {
    complete(drafts, options, &BTreeMap::new())
}

fn complete(
    drafts: &[Draft],
    options: &LoadOptions,
    last: &BTreeMap<ObjectName, Arc<Service>>,
) -> (BTreeMap<ObjectName, Service>, Vec<Conflict>) {
    let drafts: BTreeMap<_, _> = drafts.iter().map(|draft| (draft.service.meta.name.clone(), draft)).collect();
    let (assigned, conflicts) = assign(&drafts, options, last);
    let services = assigned.into_iter().map(|(name, assigned)| {
        let service = assigned.clone().complete(drafts[&name]);
        assert!(assigned.are_those_of(&service));
        (name, service)
    });
    (services.collect(), conflicts)
}

fn options(cidrs: &[&str], range: &str) -> LoadOptions {
    LoadOptions {
        service_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        node_port_range: range.parse().unwrap(),
        ..LoadOptions::default()
    }
}

proptest! {
    #[test]
    fn no_doubles_inside_the_ranges_and_only_collisions_move(
        names in proptest::collection::btree_set("[a-z]{1,3}", 2..40),
        extra in "[a-z]{4}",
    ) {
        let options = options(&["10.0.0.0/25", "fd00::/121"], "30000-30100");
        let mut drafts: Vec<_> = names.iter().map(|name| draft(name, &[(Protocol::Tcp, 80)])).collect();
        for draft in &mut drafts {
            of(draft).family_policy = FamilyPolicy::PreferDualStack;
        }
        let (before, conflicts) = run(&drafts, &options);
        prop_assert_eq!(conflicts, vec![]);
        let ips: Vec<_> = before.values().flat_map(|service| service.cluster_ips.clone()).collect();
        let ports: Vec<_> = before.values().filter_map(|service| service.ports[0].node_port).collect();
        prop_assert_eq!(ips.iter().collect::<HashSet<_>>().len(), drafts.len() * 2);
        prop_assert_eq!(ports.iter().collect::<HashSet<_>>().len(), drafts.len());
        for ip in ips {
            prop_assert!(options.service_cidrs.iter().any(|cidr| cidr.contains(&ip) && cidr.network() != ip));
            prop_assert!(!ip.is_ipv4() || options.service_cidrs[0].broadcast() != ip);
        }
        prop_assert!(ports.iter().all(|port| options.node_port_range.contains(*port)));

        // The order in which Services are met says nothing.
        drafts.reverse();
        prop_assert_eq!(&run(&drafts, &options).0, &before);

        // Who moves when one is added, moves because his place was taken.
        drafts.push(draft(&extra, &[(Protocol::Tcp, 80)]));
        let (after, _) = run(&drafts, &options);
        let taken: HashSet<_> = after.values().flat_map(|service| service.cluster_ips.clone()).collect();
        let taken_ports: HashSet<_> = after.values().filter_map(|service| service.ports[0].node_port).collect();
        for (name, old) in &before {
            let new = &after[name];
            for ip in old.cluster_ips.iter().filter(|ip| !new.cluster_ips.contains(ip)) {
                prop_assert!(taken.contains(ip), "{} left {} free", name, ip);
            }
            if old.ports[0].node_port != new.ports[0].node_port {
                prop_assert!(taken_ports.contains(&old.ports[0].node_port.unwrap()));
            }
        }
    }
}

#[test]
fn a_full_range_is_a_conflict_and_every_address_is_used() {
    let options = options(&["10.0.0.0/28"], "30000-32767");
    let drafts: Vec<_> = (0..15).map(|index| draft(&format!("s{index}"), &[])).collect();
    let (services, conflicts) = run(&drafts, &options);
    assert_eq!((services.len(), conflicts.len()), (14, 1));
    assert!(conflicts[0].reason.contains("no IPv4 address"), "{conflicts:?}");
}

#[test]
fn explicit_ones_go_first_and_the_first_of_two_wins() {
    let options = LoadOptions::default();
    let mut by_hand = draft("z", &[(Protocol::Tcp, 80)]);
    // What `a` would get by its hash.
    let (free, _) = run(&[draft("a", &[(Protocol::Tcp, 80)])], &options);
    let free = free.values().next().unwrap();
    of(&mut by_hand).cluster_ips.clone_from(&free.cluster_ips);
    of(&mut by_hand).ip_families = vec![IpFamily::V4];
    of(&mut by_hand).ports[0].node_port = free.ports[0].node_port;
    let (services, conflicts) = run(&[draft("a", &[(Protocol::Tcp, 80)]), by_hand.clone()], &options);
    assert_eq!(conflicts, []);
    let [a, z] = ["a", "z"].map(|name| &services[&ObjectName::new("default", name)]);
    assert_eq!(z.cluster_ips, free.cluster_ips);
    assert_ne!(a.cluster_ips, free.cluster_ips);
    assert_ne!(a.ports[0].node_port, free.ports[0].node_port);

    let mut double = by_hand.clone();
    of(&mut double).meta.name = ObjectName::new("default", "y");
    let (services, conflicts) = run(&[by_hand.clone(), double.clone()], &options);
    assert_eq!(services.keys().map(|name| &*name.name).collect::<Vec<_>>(), ["y"]);
    let fields: Vec<_> = conflicts.iter().map(|conflict| conflict.field.as_str()).collect();
    assert_eq!(fields, ["spec.clusterIP", "spec.ports[0].nodePort"]);
    assert!(conflicts.iter().all(|conflict| &*conflict.service.name == "z"));
}

#[test]
fn a_newcomer_throws_nothing_out() {
    let named = |name: &str, created| {
        let mut draft = draft(name, &[(Protocol::Tcp, 80)]);
        of(&mut draft).ports[0].node_port = Port::new(30080);
        of(&mut draft).meta.created = created;
        draft
    };
    let check = |running: &Draft, newcomer: &Draft, expected: &str| {
        let options = LoadOptions::default();
        let (before, _) = run(std::slice::from_ref(running), &options);
        let last = before.into_iter().map(|(name, service)| (name, Arc::new(service))).collect();
        let (services, conflicts) = complete(&[running.clone(), newcomer.clone()], &options, &last);
        assert_eq!(services.keys().map(|name| &*name.name).collect::<Vec<_>>(), [expected]);
        assert_eq!(conflicts.len(), 1);
    };
    check(&named("m", None), &named("a", None), "m");
    check(&named("m", Some(5)), &named("a", Some(5)), "m");
    check(&named("m", Some(5)), &named("a", None), "m");
    // Age tells more than who was met first.
    check(&named("m", Some(5)), &named("a", Some(4)), "a");
}

#[test]
fn families_follow_the_policy() {
    use FamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
    use IpFamily::{V4, V6};
    let (dual, six_first) = (["10.0.0.0/16", "fd00::/112"], ["fd00::/112", "10.0.0.0/16"]);
    type Case<'a> = (&'a [&'a str], FamilyPolicy, &'a [IpFamily], Option<&'a [IpFamily]>);
    let cases: [Case<'_>; 9] = [
        (&dual, SingleStack, &[], Some(&[V4])),
        (&dual, SingleStack, &[V6], Some(&[V6])),
        (&six_first, SingleStack, &[], Some(&[V6])),
        (&dual, PreferDualStack, &[], Some(&[V4, V6])),
        (&dual, PreferDualStack, &[V6], Some(&[V6, V4])),
        (&dual, RequireDualStack, &[], Some(&[V4, V6])),
        (&["10.0.0.0/16"], PreferDualStack, &[], Some(&[V4])),
        (&["10.0.0.0/16"], RequireDualStack, &[], None),
        (&["10.0.0.0/16"], SingleStack, &[V6], None),
    ];
    for (cidrs, policy, written, expected) in cases {
        let mut draft = draft("a", &[]);
        of(&mut draft).family_policy = policy;
        of(&mut draft).ip_families = written.to_vec();
        let (services, conflicts) = run(&[draft], &options(cidrs, "1-2"));
        let found = services.values().next();
        assert_eq!(found.map(|service| &*service.ip_families), expected, "{cidrs:?} {policy:?} {written:?}");
        assert_eq!(conflicts.is_empty(), expected.is_some());
        if let Some(service) = found {
            let of_ips: Vec<_> = service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect();
            assert_eq!(of_ips, service.ip_families);
        }
    }
}

#[test]
fn node_ports_by_type_and_policy() {
    let both = [(Protocol::Tcp, 53), (Protocol::Udp, 53)];
    let one = |draft: Draft| run(&[draft], &LoadOptions::default()).0.into_values().next().unwrap();
    let shared = one(draft("dns", &both));
    assert!(shared.ports[0].node_port.is_some());
    assert_eq!(shared.ports[0].node_port, shared.ports[1].node_port, "TCP and UDP share");

    let mut balanced = draft("lb", &both);
    of(&mut balanced).kind = ServiceKind::LoadBalancer;
    of(&mut balanced).external_policy = TrafficPolicy::Local;
    let with = one(balanced.clone());
    assert!(with.ports[0].node_port.is_some() && with.load_balancer.health_check_node_port.is_some());
    balanced.allocate_node_ports = false;
    of(&mut balanced).external_policy = TrafficPolicy::Cluster;
    let without = one(balanced.clone());
    assert_eq!((without.ports[0].node_port, without.load_balancer.health_check_node_port), (None, None));

    let mut headless = draft("h", &both);
    headless.headless = true;
    of(&mut headless).kind = ServiceKind::ClusterIp;
    let headless = one(headless);
    assert_eq!((headless.cluster_ips.len(), headless.ports[0].node_port), (0, None));
}

#[test]
fn health_check_ports_take_no_other_port() {
    let local = |name: &str, node_port: Option<u16>, health: Option<u16>| {
        let mut draft = draft(name, &[(Protocol::Tcp, 80)]);
        of(&mut draft).kind = ServiceKind::LoadBalancer;
        of(&mut draft).external_policy = TrafficPolicy::Local;
        of(&mut draft).ports[0].node_port = node_port.and_then(Port::new);
        of(&mut draft).load_balancer.health_check_node_port = health.and_then(Port::new);
        draft
    };
    let options = options(&["10.96.0.0/12"], "30000-30005");
    // Six ports, and what is named goes first, whatever the others' hashes point to.
    let drafts = [local("a", None, None), local("b", None, Some(30003)), local("c", Some(30001), None)];
    let (services, conflicts) = run(&drafts, &options);
    assert_eq!(conflicts, []);
    let ports = services.values().flat_map(|service| {
        [service.ports[0].node_port.unwrap().get(), service.load_balancer.health_check_node_port.unwrap().get()]
    });
    let mut ports: Vec<_> = ports.collect();
    assert_eq!((ports[3], ports[4]), (30003, 30001));
    ports.sort_unstable();
    assert_eq!(ports, [30000, 30001, 30002, 30003, 30004, 30005]);
    assert_eq!(run(&drafts, &options).0, services, "the same set gives the same ports");

    let check = |drafts: &[Draft], reason: &str| {
        let (_, conflicts) = run(drafts, &options);
        let found: Vec<_> = conflicts.iter().map(|at| (at.field.as_str(), at.reason.as_str())).collect();
        assert_eq!(found, [("spec.healthCheckNodePort", reason)]);
    };
    check(&[local("a", Some(30001), Some(30001))], "30001/TCP is given twice");
    check(&[local("a", Some(30001), None), local("b", None, Some(30001))], "30001/TCP belongs to another Service");
    check(&[local("a", None, Some(80))], "80 lies outside --node-port-range 30000-30005");
}
