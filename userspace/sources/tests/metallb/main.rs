//! MetalLB's configuration as its documentation shows it, of every kind and with every field: all of it loads unchanged,
//! and what has no effect here is named.

#![expect(clippy::unwrap_used, reason = "a test that does not find what it expects shall fail where it looks")]

use std::{collections::BTreeSet, path::Path};

use roadstead_model::{Severity, Snapshot};
use roadstead_sources::{LoadOptions, load};

fn sample(name: &str) -> Snapshot {
    load(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metallb/samples").join(name)], &LoadOptions::default())
}

/// A sample, the names of its pools, advertisements and Services, and line and field of each warning.
type Case<'a> = (&'a str, &'a [&'a str], &'a [(usize, &'a str, &'a str)]);

const CASES: [Case<'_>; 13] = [
    ("pool.yaml", &["pool lan"], &[]),
    ("pool-advertised.yaml", &["pool lan", "ad everything"], &[]),
    ("pools-by-hand.yaml", &["pool leased", "pool private"], &[]),
    ("pool-for-some.yaml", &["pool tenants"], &[]),
    ("advertisement-nodes.yaml", &["ad rack-1"], &[]),
    ("advertisement-selectors.yaml", &["ad by-label"], &[]),
    ("advertisement-preferred.yaml", &["ad edge-first"], &[]),
    (
        "bgp.yaml",
        &["pool routed"],
        &[
            (2, "kind", "is not supported yet"),
            (20, "kind", "is not supported yet"),
            (29, "kind", "is not supported yet"),
            (51, "kind", "is not supported yet"),
        ],
    ),
    ("deployment.yaml", &["pool lan", "ad everything", "service web"], &[]),
    (
        "services.yaml",
        &["service both-families", "service dns-tcp", "service dns-udp", "service one-address", "service one-pool"],
        &[],
    ),
    ("old-layer2.yaml", &["pool default", "pool leased", "ad l2advertisement1", "ad l2advertisement2"], &[]),
    (
        "old-bgp.yaml",
        &["pool routed"],
        &[
            (9, "data[config].peers[0]", "BGP is not supported"),
            (24, "data[config].bgp-communities", "BGP is not supported"),
            (27, "data[config].address-pools[0].protocol", "bgp is not supported"),
        ],
    ),
    ("excluded-interfaces.yaml", &[], &[]),
];

#[test]
fn samples_load_unchanged() {
    for (name, objects, warnings) in CASES {
        let snapshot = sample(name);
        let pools = snapshot.pools.keys().map(|name| format!("pool {}", name.name));
        let ads = snapshot.l2_advertisements.keys().map(|name| format!("ad {}", name.name));
        let services = snapshot.services.keys().map(|name| format!("service {}", name.name));
        assert_eq!(pools.chain(ads).chain(services).collect::<Vec<_>>(), objects, "{name}");
        let told: Vec<_> = snapshot.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), warnings.len(), "{name}: {told:#?}");
        for (problem, (line, field, reason)) in snapshot.problems.iter().zip(warnings) {
            assert_eq!(problem.severity, Severity::Warning, "{problem}");
            assert_eq!(problem.place.as_ref().unwrap().line, *line, "{problem}");
            assert_eq!(problem.field.as_deref(), Some(*field), "{problem}");
            assert!(problem.reason.contains(reason), "{problem}");
        }
    }
}

#[test]
fn every_sample_is_a_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metallb/samples");
    let files: BTreeSet<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, CASES.iter().map(|(name, ..)| (*name).to_owned()).collect());
}

#[test]
fn every_field_reaches_the_model() {
    let snapshot = sample("pool-for-some.yaml");
    let pool = snapshot.pools.values().next().unwrap();
    let allocation = pool.allocation.as_ref().unwrap();
    assert!(pool.auto_assign && pool.avoid_buggy_ips);
    assert_eq!((allocation.priority, allocation.namespaces.len()), (50, 2));
    assert_eq!((allocation.namespace_selectors.len(), allocation.service_selectors.len()), (1, 1));

    let snapshot = sample("advertisement-preferred.yaml");
    let ad = snapshot.l2_advertisements.values().next().unwrap();
    assert_eq!(ad.preferences.iter().map(|preference| preference.weight).collect::<Vec<_>>(), [100, 50]);

    let snapshot = sample("advertisement-selectors.yaml");
    let ad = snapshot.l2_advertisements.values().next().unwrap();
    assert_eq!((ad.pool_selectors.len(), ad.service_selectors.len()), (1, 1));

    let snapshot = sample("advertisement-nodes.yaml");
    let ad = snapshot.l2_advertisements.values().next().unwrap();
    assert_eq!((ad.nodes.0.len(), ad.interfaces.as_slice()), (2, ["eth0".to_owned()].as_slice()));

    assert_eq!(sample("excluded-interfaces.yaml").excluded_interfaces().unwrap().len(), 5);
}

/// What `check` says of a pool with these fields.
fn told(spec: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, spec).unwrap();
    let prefix = format!("{}/", folder.path().display());
    let snapshot = load(&[path], &LoadOptions::default());
    snapshot.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

#[test]
fn unknown_and_bad_fields_are_named() {
    let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: p, namespace: m}\n";
    let ad = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: a, namespace: m}\n";
    let cases: [(String, &[&str]); 7] = [
        (
            format!("{pool}spec:\n  addresses: [192.0.2.0/24]\n  auto-assign: false\n"),
            &[
                "a.yaml:6: warning: IPAddressPool m/p: spec.auto-assign: is not known, so it has no effect; the field is autoAssign",
            ],
        ),
        (
            format!("{pool}spec:\n  addresses: [192.0.2.0/24]\n  protocol: layer2\nextra: 1\n"),
            &[
                "a.yaml:6: warning: IPAddressPool m/p: spec.protocol: is not known",
                "a.yaml:7: warning: IPAddressPool m/p: extra: is not",
            ],
        ),
        (
            format!(
                "{pool}spec:\n  addresses: [192.0.2.0/24]\n  serviceAllocation:\n    serviceSelectors:\n    - matchLabel: {{a: b}}\n"
            ),
            &[
                "a.yaml:8: warning: IPAddressPool m/p: spec.serviceAllocation.serviceSelectors[0].matchLabel: is not known",
            ],
        ),
        (
            format!("{pool}spec:\n  addresses:\n  - 192.0.2.0/24\n  - 192.0.2.7-192.0.2.9\n"),
            &[
                "a.yaml:7: error: IPAddressPool m/p: spec.addresses[1]: 192.0.2.7-192.0.2.9 overlaps 192.0.2.0-192.0.2.255 of the same pool",
            ],
        ),
        (
            format!(
                "{pool}spec: {{addresses: [192.0.2.0/24]}}\n---\n{}spec:\n  addresses:\n  - 192.0.2.128/25\n",
                pool.replace("name: p", "name: q")
            ),
            &[
                "a.yaml:11: warning: IPAddressPool m/q: spec.addresses[0]: 192.0.2.128-192.0.2.255 overlaps 192.0.2.0-192.0.2.255 of pool m/p",
            ],
        ),
        (
            format!("{ad}spec:\n  nodeSelector:\n  - matchLabels: {{a: b}}\n  ipAddressPool: [p]\n"),
            &[
                "a.yaml:6: warning: L2Advertisement m/a: spec.nodeSelector: is not known",
                "a.yaml:7: warning: L2Advertisement m/a: spec.ipAddressPool: is",
            ],
        ),
        (
            format!(
                "{ad}spec:\n  preferredNodeSelectors:\n  - weight: 101\n    preference: {{}}\n  - weight: 1\n    preference: {{matchLabels: {{a: b}}}}\n    extra: 1\n"
            ),
            &[
                "a.yaml:6: error: L2Advertisement m/a: spec.preferredNodeSelectors[0].weight: must be 1 to 100",
                "a.yaml:10: warning: L2Advertisement m/a: spec.preferredNodeSelectors[1].extra: is not known",
            ],
        ),
    ];
    for (text, expected) in cases {
        let told = told(&text);
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (found, expected) in told.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found:?} is not {expected:?}");
        }
    }
}
