//! kube-proxy's verdicts beside the matrix, each as a row: nobody serves, source ranges, addresses of node ports, ports
//! and cluster addresses that are nobody's, external addresses.
//!
//! In both families, over TCP and UDP, in the socket path and in the packet path, in masquerade mode `kube-proxy`.

use std::net::{IpAddr, SocketAddr};

use roadstead_lab::EchoPorts;

use super::{
    expect::Seen,
    rows::{Row, Verdict, check},
    services::{Service, TCP, UDP, Via},
    stage::{ALLOWED, BLOCKED, From, Path, SECONDARY, Stage},
};

const EVERYBODY: [From; 3] = [From::Pod, From::Node, From::External];
const MODE: [&str; 2] = ["--masquerade", "kube-proxy"];

/// Both protocols' and families' addresses of a Service.
fn to(stage: &Stage, service: &Service, via: Via) -> [[SocketAddr; 2]; 2] {
    let node = stage.node();
    [[0, 1].map(|family| service.tcp(via, node, family)), [0, 1].map(|family| service.udp(via, node, family))]
}

/// The same port of both protocols at these addresses.
fn at(ips: [IpAddr; 2], [tcp, udp]: [u16; 2]) -> [[SocketAddr; 2]; 2] {
    [tcp, udp].map(|port| ips.map(|ip| SocketAddr::new(ip, port)))
}

/// Runs the rows in both paths.
fn hold(stage: &mut Stage, title: &str, flags: &[&str], rows: impl Fn(&Stage, Path) -> Vec<Row<'static>>) {
    let mut faults = 0;
    for path in Path::BOTH {
        stage.start_afresh(&[&MODE, flags, &path.flags()].concat());
        faults += check(stage, path, title, &rows(stage, path));
    }
    assert_eq!(faults, 0, "rows differ, see the tables above");
}

#[test]
fn without_endpoints_every_address_refuses() {
    let Some(mut stage) = Stage::new("no-endpoints", &["l"], &[]) else { return };
    let service = Service::new("none", 11).spec(&external_ips());
    stage.serve(&service);
    hold(&mut stage, "No endpoints", &[], |stage, _| {
        let ways = [
            ("ClusterIP", to(stage, &service, Via::ClusterIp)),
            ("NodePort", to(stage, &service, Via::NodePort)),
            ("LB IP", to(stage, &service, Via::Balancer)),
            ("external IP", at(SECONDARY, [TCP, UDP])),
        ];
        let row = |from| ways.map(|(name, to)| Row::new(name, from, to, Verdict::Reject));
        EVERYBODY.into_iter().flat_map(row).collect()
    });
}

#[test]
fn source_ranges_bound_the_balancers_address_only() {
    let Some(mut stage) = Stage::new("ranges", &["l"], &["r"]) else { return };
    // The node's own addresses are in it, as the range of a node's network; white space is no error.
    let node = "192.168.77.11/32, \"fd77::11/128\", \"fd77::21/128\"";
    let ranges = format!("loadBalancerSourceRanges: [{node}, \" 203.0.113.0/25 \", \"fd99::/112\"]");
    let service = Service::new("bounded", 12).spec(&ranges).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&service);
    let forward = Verdict::Forward(&["l", "r"], Seen::Node);
    hold(&mut stage, "Source ranges", &[], |stage, _| {
        let [balancer, node_port] = [Via::Balancer, Via::NodePort].map(|via| to(stage, &service, via));
        let cluster = to(stage, &service, Via::ClusterIp);
        vec![
            Row::new("LB IP", From::External, balancer, forward.clone()).own(ALLOWED),
            Row::new("LB IP", From::External, balancer, Verdict::Drop).own(BLOCKED),
            Row::new("LB IP", From::External, balancer, Verdict::Drop),
            Row::new("LB IP", From::Pod, balancer, Verdict::Drop),
            Row::new("LB IP", From::Node, balancer, forward.clone()),
            Row::new("NodePort", From::External, node_port, forward.clone()).own(BLOCKED),
            Row::new("NodePort", From::Pod, node_port, forward.clone()),
            Row::new("ClusterIP", From::Pod, cluster, Verdict::Forward(&["l", "r"], Seen::Client)),
        ]
    });
    // The node holds the address itself, as keepalived would have it: its packets to it have it as their source too.
    let [v4, v6] = service.balancer();
    stage.node().ip(&[format!("addr add {v4}/32 dev lo"), format!("addr add {v6}/128 dev lo nodad")]).unwrap();
    hold(&mut stage, "Source ranges, address on lo", &[], |stage, _| {
        vec![Row::new("LB IP", From::Node, to(stage, &service, Via::Balancer), forward.clone())]
    });
}

#[test]
fn node_ports_are_served_at_the_chosen_addresses() {
    let Some(mut stage) = Stage::new("node-ports", &["l"], &["r"]) else { return };
    let service = Service::new("ports", 14).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&service);
    // Where no node port is, the node's own server answers.
    let [tcp, udp] = service.node_ports();
    let _own = stage.node().start_echo(EchoPorts { http: 8080, tcp, udp }).unwrap();
    let primary = super::fixture::ips(stage.node());
    let forward = Verdict::Forward(&["l", "r"], Seen::Node);
    let others = Verdict::Forward(&["node-a"], Seen::Client);
    let rows = |primary_is: Verdict<'static>, secondary_is: Verdict<'static>| {
        let ports = [tcp, udp];
        let row = move |from| {
            [
                Row::new("primary", from, at(primary, ports), primary_is.clone()),
                Row::new("secondary", from, at(SECONDARY, ports), secondary_is.clone()),
            ]
        };
        [From::External, From::Pod].into_iter().flat_map(row).collect::<Vec<_>>()
    };
    hold(&mut stage, "Node ports: primary", &[], |_, _| rows(forward.clone(), others.clone()));
    let listed = ["--nodeport-addresses", "192.168.77.21/32,fd77::21/128"];
    hold(&mut stage, "Node ports: listed", &listed, |_, _| rows(others.clone(), forward.clone()));
    let all = ["--nodeport-addresses", "192.168.77.0/24,fd77::/64"];
    hold(&mut stage, "Node ports: a network", &all, |_, _| rows(forward.clone(), forward.clone()));
}

#[test]
fn what_is_nobodys_in_the_service_network_is_refused_or_dropped() {
    let Some(mut stage) = Stage::new("nobodys", &["l"], &[]) else { return };
    let service = Service::new("some", 15).endpoints(stage.ready(&["l"]));
    stage.serve(&service);
    hold(&mut stage, "Ports and addresses of nobody", &[], |_, _| {
        let wrong_port = at(service.cluster(), [81, 81]);
        let unallocated = at(Service::new("no-service", 99).cluster(), [TCP, UDP]);
        let row = |from| {
            [
                Row::new("another port", from, wrong_port, Verdict::Reject),
                Row::new("no ClusterIP", from, unallocated, Verdict::Drop),
            ]
        };
        EVERYBODY.into_iter().flat_map(row).collect()
    });
}

#[test]
fn external_addresses_are_served_like_a_balancers() {
    let Some(mut stage) = Stage::new("external", &["l"], &["r"]) else { return };
    let service = Service::new("external", 16).spec(&external_ips()).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&service);
    hold(&mut stage, "External addresses", &[], |_, _| {
        let forward = Verdict::Forward(&["l", "r"], Seen::Node);
        let row = |from| Row::new("external IP", from, at(SECONDARY, [TCP, UDP]), forward.clone());
        EVERYBODY.map(row).into()
    });
}

fn external_ips() -> String {
    let [v4, v6] = SECONDARY;
    format!("externalIPs: [{v4}, \"{v6}\"]")
}

/// Policy Local: from a pod to the cluster address, and from outside to the balancer's.
#[test]
fn terminating_endpoints_serve_where_no_other_does() {
    let Some(mut stage) = Stage::new("terminating", &["l1", "l2", "l3"], &["r1"]) else { return };
    for path in Path::BOTH {
        stage.start_afresh(&[MODE, path.flags()].concat());
        let faults = local_rows(&stage, path) + cluster_rows(&stage, path);
        assert_eq!(faults, 0, "rows differ, see the tables above");
    }
}

fn local_rows(stage: &Stage, path: Path) -> usize {
    use Verdict::{Drop, Forward, Reject};
    let service = Service::new("local", 17).external_local();
    let inside = |names: &'static [&'static str]| Forward(names, Seen::Client);
    let outside = inside;
    let [l1, l2, l3, r1] = ["l1", "l2", "l3", "r1"].map(|name| stage.endpoint(name));
    let rows = [
        (
            "2 local ready, 1 local terminating, 1 remote ready",
            Some(vec![l1.clone(), l2.clone(), l3.clone().terminating(), r1.clone()]),
            inside(&["l1", "l2", "r1"]),
            outside(&["l1", "l2"]),
        ),
        (
            "1 local terminating, 1 remote ready",
            Some(vec![l3.clone().terminating(), r1.clone()]),
            inside(&["r1"]),
            outside(&["l3"]),
        ),
        ("1 remote terminating", Some(vec![r1.clone().terminating()]), inside(&["r1"]), Drop),
        ("none serving", Some(vec![l1.ended(), r1.ended()]), Reject, Reject),
        ("slices deleted", None, Reject, Reject),
    ];
    let rows = rows.into_iter().map(|(name, endpoints, inside, outside)| {
        match endpoints {
            Some(endpoints) => stage.serve(&service.clone().endpoints(endpoints)),
            None => stage.apply("local.yaml", &service.object()),
        }
        let table = [
            Row::new("ClusterIP", From::Pod, to(stage, &service, Via::ClusterIp), inside),
            Row::new("LB IP", From::External, to(stage, &service, Via::Balancer), outside),
        ];
        check(stage, path, &format!("Policy Local: {name}"), &table)
    });
    rows.sum()
}

fn cluster_rows(stage: &Stage, path: Path) -> usize {
    use Verdict::{Forward, Reject};
    let service = Service::new("anywhere", 18);
    let [l1, l2, r1] = ["l1", "l2", "r1"].map(|name| stage.endpoint(name));
    let forward = |names: &'static [&'static str]| [Forward(names, Seen::Client), Forward(names, Seen::Node)];
    let rows = [
        ("ready and terminating", vec![l1.clone(), l2.clone().terminating(), r1.clone()], forward(&["l1", "r1"])),
        (
            "only terminating",
            vec![l1.clone().terminating(), l2.clone().ended(), r1.clone().terminating()],
            forward(&["l1", "r1"]),
        ),
        ("none serving", vec![l1.ended(), l2.ended(), r1.ended()], [Reject, Reject]),
    ];
    let rows = rows.into_iter().map(|(name, endpoints, [inside, outside])| {
        stage.serve(&service.clone().endpoints(endpoints));
        let table = [
            Row::new("ClusterIP", From::Pod, to(stage, &service, Via::ClusterIp), inside),
            Row::new("LB IP", From::External, to(stage, &service, Via::Balancer), outside),
        ];
        check(stage, path, &format!("Policy Cluster: {name}"), &table)
    });
    rows.sum()
}
