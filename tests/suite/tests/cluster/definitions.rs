//! Our own definitions of MetalLB's objects on a real API server: they are created where they are absent and never changed,
//! take what MetalLB takes, and refuse by name what could not serve. And what the chart renders is taken as well.

use super::fixture::Cluster;

/// Kind and spec of what is to be taken.
const GOOD: [(&str, &str); 6] = [
    ("IPAddressPool", "{addresses: [192.0.2.0/24, 192.0.2.10-192.0.2.20, 192.0.2.10 - 192.0.2.20]}"),
    ("IPAddressPool", "{addresses: ['2001:db8::/64', '2001:db8::1-2001:db8::ff'], autoAssign: false, avoidBuggyIPs: true}"),
    (
        "IPAddressPool",
        "{addresses: [192.0.2.0/24], serviceAllocation: {priority: 5, namespaces: [a], namespaceSelectors: [{matchLabels: {a: b}}],
        serviceSelectors: [{matchExpressions: [{key: a, operator: In, values: [b]}, {key: c, operator: Exists}]}]}}",
    ),
    ("L2Advertisement", "{}"),
    ("L2Advertisement", "{ipAddressPools: [a], nodeSelectors: [{matchLabels: {a: b}}], interfaces: [eth0, eth0.7]}"),
    ("L2Advertisement", "{preferredNodeSelectors: [{weight: 100, preference: {matchLabels: {a: b}}}], serviceSelectors: [{}]}"),
];

/// Kind and spec of what is to be refused, and what the refusal names.
const BAD: [(&str, &str, &str); 12] = [
    ("IPAddressPool", "{addresses: []}", "at least 1 items"),
    ("IPAddressPool", "{addresses: [192.0.2.0]}", "is neither a network"),
    ("IPAddressPool", "{addresses: [192.0.2.0/33]}", "is neither a network"),
    ("IPAddressPool", "{addresses: [192.0.2.1-5]}", "is no range of two addresses"),
    ("IPAddressPool", "{addresses: [192.0.2.1-192.0.2.2-192.0.2.3]}", "is no range of two addresses"),
    ("IPAddressPool", "{addresses: ['192.0.2.1-2001:db8::1']}", "of one family"),
    ("IPAddressPool", "{addresses: [192.0.2.0/24], serviceAllocation: {priority: -1}}", "serviceAllocation.priority"),
    (
        "IPAddressPool",
        "{addresses: [192.0.2.0/24], serviceAllocation: {serviceSelectors: [{matchExpressions: [{key: a, operator: In}]}]}}",
        "In and NotIn need values",
    ),
    ("L2Advertisement", "{interfaces: [eth0/1]}", "is no name of an interface"),
    ("L2Advertisement", "{interfaces: ['eth 0']}", "is no name of an interface"),
    ("L2Advertisement", "{preferredNodeSelectors: [{weight: 101, preference: {}}]}", "weight"),
    (
        "L2Advertisement",
        "{nodeSelectors: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]}",
        "Exists and DoesNotExist have none",
    ),
];

#[test]
fn definitions_are_created_once_and_judge_what_comes() {
    let Some(cluster) = Cluster::new("definitions") else { return };
    let folder = super::install::deploy().join("crds").display().to_string();
    let create = ["create", "-k", folder.as_str()];
    cluster.control.kubectl(&create).unwrap();
    let mark = ["annotate", "crd/ipaddresspools.metallb.io", "of=metallb"];
    cluster.control.kubectl(&mark).unwrap();
    let refused = cluster.control.kubectl(&create).unwrap_err();
    assert_eq!(format!("{refused:#}").matches("AlreadyExists").count(), 3, "{refused:#}");
    let still = cluster.kubectl("get crd ipaddresspools.metallb.io -o jsonpath={.metadata.annotations.of}");
    assert_eq!(still.trim(), "metallb", "what is there is left alone");
    cluster.wait("pools can be made", || cluster.control.kubectl(&["get", "ipaddresspools,l2advertisements"]).is_ok());

    let file = cluster.lab.folder().join("object.yaml");
    let apply = |documents: &[(&str, &str)]| {
        let text: Vec<String> =
            documents.iter().zip(1..).map(|((kind, spec), number)| object(kind, number, spec)).collect();
        std::fs::write(&file, text.join("---\n")).unwrap();
        cluster.control.kubectl(&["apply", "--dry-run=server", "-f", &file.display().to_string()])
    };
    apply(&GOOD).unwrap();
    for (kind, spec, part) in BAD {
        let refused = match apply(&[(kind, spec)]) {
            Ok(taken) => panic!("{kind} {spec} was taken: {taken}"),
            Err(refused) => format!("{refused:#}"),
        };
        assert!(refused.contains(part), "{kind} {spec}: {refused}");
    }
}

fn object(kind: &str, number: i32, spec: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: {kind}\nmetadata: {{name: x{number}, namespace: default}}\nspec: {spec}\n"
    )
}
