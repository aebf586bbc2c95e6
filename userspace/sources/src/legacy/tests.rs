//! Old configuration beside what is read of it, what is told, and what it is converted to.

use super::*;
use crate::{LoadOptions, load};

/// What a directory with this file gives: pools and advertisements with their pools, and all that is told, without the path.
fn read(text: &str) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, text).unwrap();
    let snapshot = load(&[path], &LoadOptions::default());
    let pools = snapshot.pools.values().map(|pool| {
        let ranges: Vec<_> = pool.addresses.iter().map(ToString::to_string).collect();
        let flags = match (pool.auto_assign, pool.avoid_buggy_ips) {
            (true, false) => "",
            (true, true) => " avoids buggy",
            (false, false) => " by hand",
            (false, true) => " by hand, avoids buggy",
        };
        format!("{} {}{flags}", pool.meta.name, ranges.join(" "))
    });
    let all = snapshot.l2_advertisements.values();
    let advertisements = all.map(|one| format!("{} -> {}", one.meta.name, one.pools.join(" ")));
    let objects = pools.chain(advertisements).collect();
    let prefix = format!("{}/", folder.path().display());
    let told = snapshot.problems.iter().map(|problem| problem.to_string().replace(&prefix, ""));
    (objects, told.collect())
}

#[track_caller]
fn check(text: &str, objects: &[&str], told: &[&str]) {
    let (found, problems) = read(text);
    assert_eq!(found, objects);
    assert_eq!(problems.len(), told.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(told) {
        assert!(problem.contains(expected), "{problem:?} lacks {expected:?}");
    }
}

const HEAD: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config, namespace: metallb-system}\ndata:\n  config: |\n";

#[test]
fn a_layer_2_configuration_is_read_as_objects() {
    check(
        &format!(
            "{HEAD}    address-pools:\n    - name: default\n      protocol: layer2\n      addresses: [192.0.2.240-192.0.2.250, 2001:db8::/124]\n\
             \x20   - name: My_Pool\n      protocol: layer2\n      addresses:\n      - 198.51.100.0/24\n      auto-assign: false\n      avoid-buggy-ips: true\n"
        ),
        &[
            "metallb-system/default 192.0.2.240-192.0.2.250 2001:db8::-2001:db8::f",
            "metallb-system/my-pool 198.51.100.0-198.51.100.255 by hand, avoids buggy",
            "metallb-system/l2advertisement1 -> default",
            "metallb-system/l2advertisement2 -> my-pool",
        ],
        &[
            "a.yaml:10: warning: ConfigMap metallb-system/config: data[config].address-pools[1].name: \"My_Pool\" is no name",
        ],
    );
}

#[test]
fn what_asks_for_bgp_is_named() {
    check(
        &format!(
            "{HEAD}    peers:\n    - my-asn: 64512\n      peer-asn: 64512\n      peer-address: 192.0.2.1\n    bgp-communities:\n      no-ad: 65535:65282\n\
             \x20   bfd-profiles:\n    - name: fast\n    address-pools:\n    - name: b\n      protocol: bgp\n      addresses: [198.51.100.0/24]\n\
             \x20     bgp-advertisements:\n      - localpref: 100\n"
        ),
        &["metallb-system/b 198.51.100.0-198.51.100.255"],
        &[
            "a.yaml:7: warning: ConfigMap metallb-system/config: data[config].peers[0]: BGP is not supported",
            "a.yaml:11: warning: ConfigMap metallb-system/config: data[config].bgp-communities: BGP is not supported",
            "a.yaml:13: warning: ConfigMap metallb-system/config: data[config].bfd-profiles[0]: BGP is not supported",
            "a.yaml:16: warning: ConfigMap metallb-system/config: data[config].address-pools[0].protocol: bgp is not supported",
        ],
    );
}

#[test]
fn a_bad_entry_is_named_and_spoils_no_other() {
    check(
        &format!(
            "{HEAD}    address-pool: []\n    address-pools:\n    - name: a\n      protocol: layer2\n      addresses: [192.0.2.300/24]\n\
             \x20   - name: b\n      protocol: layer2\n      autoAssign: false\n      addresses: [198.51.100.0/24]\n\
             \x20   - name: \"7_\"\n      addresses: [203.0.113.0/24]\n    - nonsense\n"
        ),
        &[
            "metallb-system/b 198.51.100.0-198.51.100.255",
            "metallb-system/l2advertisement1 -> a",
            "metallb-system/l2advertisement2 -> b",
        ],
        &[
            "a.yaml:6: warning: ConfigMap metallb-system/config: data[config].address-pool: is not known",
            "a.yaml:10: error: ConfigMap metallb-system/config: data[config].address-pools[0].addresses[0]: \"192.0.2.300/24\" is neither",
            "a.yaml:13: warning: ConfigMap metallb-system/config: data[config].address-pools[1].autoAssign: is not known, so it has no effect; the field is auto-assign",
            "a.yaml:15: error: ConfigMap metallb-system/config: data[config].address-pools[2].name: \"7_\" holds no letter",
            "a.yaml:17: error: ConfigMap metallb-system/config: data[config].address-pools[3]: is no mapping",
        ],
    );
}

#[test]
fn a_text_that_cannot_be_read_and_texts_of_others() {
    check(
        &format!("{HEAD}    address-pools:\n    - [\n"),
        &[],
        &["error: ConfigMap metallb-system/config: data[config]: "],
    );
    check(&HEAD.replace("config: |\n", "config: 'x: [1'\n"), &[], &[]);
    check(&format!("{HEAD}    some: thing\n"), &[], &[]);
    check(&format!("{HEAD}    not yaml: [\n"), &[], &[]);
    check(&format!("{HEAD}    address-pools: []\n").replace("name: config", "name: other"), &[], &[]);
    // In quotes the lines of the text are not those of the file.
    let quoted = HEAD.replace("config: |\n", "config: \"address-pools: [{name: a,\\n addresses: [x]}]\"\n");
    check(
        &quoted,
        &[],
        &[
            "a.yaml:5: warning: ConfigMap metallb-system/config: data[config].address-pools[0].protocol: is missing",
            "a.yaml:5: error",
        ],
    );
}

#[test]
fn an_address_pool_is_a_pool_and_its_advertisement() {
    let pool = |spec: &str| {
        format!(
            "apiVersion: metallb.io/v1beta1\nkind: AddressPool\nmetadata: {{name: old, namespace: metallb-system}}\nspec: {{{spec}}}\n"
        )
    };
    check(
        &pool("protocol: layer2, addresses: [192.0.2.0/24], autoAssign: false"),
        &["metallb-system/old 192.0.2.0-192.0.2.255 by hand", "metallb-system/old -> old"],
        &[],
    );
    check(
        &pool("protocol: bgp, addresses: [192.0.2.0/24], bgpAdvertisements: [{localPref: 1}], extra: 1"),
        &["metallb-system/old 192.0.2.0-192.0.2.255"],
        &[
            "spec.bgpAdvertisements: BGP is not supported",
            "spec.extra: is not known",
            "spec.protocol: bgp is not supported",
        ],
    );
    check(
        &pool("protocol: layer2, addresses: [x]"),
        &["metallb-system/old -> old"],
        &["AddressPool metallb-system/old: spec.addresses[0]: \"x\""],
    );
}

#[test]
fn a_conversion_writes_what_is_read() {
    let text = format!(
        "{HEAD}    peers:\n    - my-asn: 64512\n      peer-asn: 64512\n      peer-address: 192.0.2.1\n      bfd-profile: Fast_1\n\
         \x20     node-selectors:\n      - match-labels: {{rack: a}}\n    address-pools:\n    - name: l2\n      protocol: layer2\n      addresses: [192.0.2.0/24]\n\
         \x20   - name: b\n      protocol: bgp\n      addresses: [198.51.100.0/24]\n    bfd-profiles:\n    - name: Fast_1\n      receive-interval: 380\n\
         \x20   bgp-communities: {{b: \"65535:1\", a: \"65535:2\"}}\n"
    );
    let converted = convert_old(Path::new("c.yaml"), &text);
    let expected = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata:\n  name: peer1\n  namespace: metallb-system\nspec:\n  myASN: 64512\n  peerASN: 64512\n  peerAddress: 192.0.2.1\n  bfdProfile: fast-1\n  nodeSelectors:\n  - matchLabels:\n      rack: a\n  holdTime: 1m30s\n\
        ---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: l2\n  namespace: metallb-system\nspec:\n  addresses:\n  - 192.0.2.0/24\n\
        ---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: b\n  namespace: metallb-system\nspec:\n  addresses:\n  - 198.51.100.0/24\n\
        ---\napiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\nmetadata:\n  name: bgpadvertisement1\n  namespace: metallb-system\nspec:\n  ipAddressPools:\n  - b\n\
        ---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata:\n  name: l2advertisement1\n  namespace: metallb-system\nspec:\n  ipAddressPools:\n  - l2\n\
        ---\napiVersion: metallb.io/v1beta1\nkind: BFDProfile\nmetadata:\n  name: fast-1\n  namespace: metallb-system\nspec:\n  receiveInterval: 380\n\
        ---\napiVersion: metallb.io/v1beta1\nkind: Community\nmetadata:\n  name: communities\n  namespace: metallb-system\nspec:\n  communities:\n  - name: a\n    value: 65535:2\n  - name: b\n    value: 65535:1\n";
    assert_eq!(converted.yaml, expected);
    assert_eq!(converted.objects, 7);
    // Both ways lead to the same pools and advertisements.
    assert_eq!(read(&converted.yaml).0, read(&text).0);
    // The text alone, as it stood in the ConfigMap.
    let inner: String = text.lines().skip(5).filter_map(|line| line.get(4..)).map(|line| format!("{line}\n")).collect();
    assert_eq!(convert_old(Path::new("c.yaml"), &inner).yaml, expected);
    // Nothing to convert is an error.
    for text in
        ["a: b\n", "kind: Service\napiVersion: v1\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", "["]
    {
        let converted = convert_old(Path::new("c.yaml"), text);
        assert_eq!(
            converted.problems.iter().filter(|problem| problem.severity == Severity::Error).count(),
            1,
            "{text}"
        );
    }
}

#[test]
fn names_are_made_as_the_generator_makes_them() {
    let long = "a".repeat(70);
    let cases = [
        ("default", Some("default")),
        ("My_Pool", Some("my-pool")),
        ("1st-pool", Some("st-pool")),
        ("a", Some("a")),
        ("-x-", Some("x-")),
        (long.as_str(), Some(&long[..63])),
        ("123", None),
        ("", None),
    ];
    for (old, expected) in cases {
        let config = format!("{{address-pools: [{{name: \"{old}\"}}]}}");
        let tree: Value = serde_yaml::from_str(&config).unwrap();
        let made = from_config(&tree, "n", &mut Vec::new());
        let found = made.first().map(|made| made.name.name.to_string());
        assert_eq!(found.as_deref(), expected, "{old}");
    }
}
