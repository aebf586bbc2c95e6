//! Hints for `trafficDistribution`: the cases of the endpoint slice controller, and what it would never see.

use std::fmt::Write as _;

use roadstead_model::{ObjectName, Snapshot};

use super::*;
use crate::LoadOptions;

const NODES: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\n---\n\
                     apiVersion: v1\nkind: Node\nmetadata: {name: n2}\n";

fn load(text: &str) -> Snapshot {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), text).unwrap();
    let snapshot = crate::load(&[folder.path().to_owned()], &LoadOptions::default());
    assert_eq!(snapshot.problems, []);
    snapshot
}

/// Address, zones and nodes of each endpoint of the Service `web`, as `1 z1 n1`.
fn hints(snapshot: &Snapshot) -> Vec<String> {
    let slices = snapshot.slices_of(&ObjectName::new("default", "web"));
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let text = |at: &Endpoint| {
        let last = at.ip.to_string().replace("10.0.0.", "");
        format!("{last} [{}] [{}]", at.zone_hints.join(","), at.node_hints.join(","))
    };
    endpoints.map(text).collect()
}

fn service(distribution: &str) -> String {
    format!(
        "{NODES}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: web}}, ports: \
         [{{port: 80}}], {distribution}}}\n"
    )
}

fn check(distribution: &str, endpoints: &[&str], expected: &[&str]) {
    let mut text = service(distribution);
    text.push_str(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, labels: \
         {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints:\n",
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        let _ = writeln!(text, "- {{addresses: [10.0.0.{}], {endpoint}}}", index + 1);
    }
    assert_eq!(hints(&load(&text)), expected, "{distribution} {endpoints:?}");
}

#[test]
fn slices_without_hints_get_those_of_the_traffic_distribution() {
    let endpoints = [
        "zone: z9, nodeName: n1",
        "nodeName: n1",
        "nodeName: n2",
        "nodeName: unknown",
        "zone: z1",
        "zone: z1, nodeName: n1, conditions: {ready: false}",
        "hostname: a",
    ];
    check("", &endpoints, &["1 [] []", "2 [] []", "3 [] []", "4 [] []", "5 [] []", "6 [] []", "7 [] []"]);
    for word in ["PreferClose", "PreferSameZone"] {
        check(
            &format!("trafficDistribution: {word}"),
            &endpoints,
            &["1 [z9] []", "2 [z1] []", "3 [] []", "4 [] []", "5 [z1] []", "6 [] []", "7 [] []"],
        );
    }
    check(
        "trafficDistribution: PreferSameNode",
        &endpoints,
        &["1 [z9] [n1]", "2 [z1] [n1]", "3 [] [n2]", "4 [] [unknown]", "5 [z1] []", "6 [] []", "7 [] []"],
    );
}

#[test]
fn slices_with_hints_are_left_alone() {
    let endpoints = ["zone: z1, hints: {forZones: [{name: z2}, {name: z3}]}", "zone: z1"];
    let expected = ["1 [z2,z3] []", "2 [] []"];
    check("", &endpoints, &expected);
    check("trafficDistribution: PreferSameNode", &endpoints, &expected);
    let by_node = ["nodeName: n1, hints: {forNodes: [{name: n7}]}"];
    check("trafficDistribution: PreferSameZone", &by_node, &["1 [] [n7]"]);
}

#[test]
fn pods_and_mirrored_endpoints_get_zones_and_hints() {
    let pod = |number: u8, rest: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, labels: {{app: web}}}}\nspec: {{nodeName: \
             n{number}}}\nstatus: {{podIP: 10.0.0.{number}{rest}}}\n"
        )
    };
    let pods = [pod(1, ""), pod(2, ""), pod(3, ", conditions: [{type: Ready, status: 'False'}]")].concat();
    let snapshot = load(&format!("{}{pods}", service("trafficDistribution: PreferSameNode")));
    assert_eq!(hints(&snapshot), ["1 [z1] [n1]", "2 [] [n2]", "3 [] []"]);
    let slices = snapshot.slices_of(&ObjectName::new("default", "web"));
    let zones: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).map(|at| at.zone.as_deref()).collect();
    assert_eq!(zones, [Some("z1"), None, None]);
    let ready =
        load(&format!("{}{pods}", service("trafficDistribution: PreferSameNode, publishNotReadyAddresses: true")));
    assert_eq!(hints(&ready), ["1 [z1] [n1]", "2 [] [n2]", "3 [] [n3]"]);
    let endpoints = "---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets: [{addresses: [{ip: 10.0.0.1, \
                     nodeName: n1}, {ip: 10.0.0.2}], ports: [{port: 80}]}]\n";
    let mirrored = load(&format!("{}{endpoints}", service("trafficDistribution: PreferSameZone")));
    assert_eq!(hints(&mirrored), ["1 [z1] []", "2 [] []"]);
}
