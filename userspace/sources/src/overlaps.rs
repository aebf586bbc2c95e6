//! Pools that have the same addresses. MetalLB refuses all of a configuration with such pools; here each goes on to serve,
//! as the allocator gives an address once whatever pools it is in, and whoever wrote the ranges is told.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use roadstead_model::{AddressRange, IpAddressPool, ObjectName};

/// A range that another pool has too.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) pool: ObjectName,
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// Each range that meets one of another pool, told of one such pool.
pub(crate) fn overlaps(pools: &BTreeMap<ObjectName, Arc<IpAddressPool>>) -> Vec<Overlap> {
    let ranges = pools.values().flat_map(|pool| {
        let ranges = pool.addresses.iter().enumerate();
        ranges.map(move |(index, range)| (*range, index, &pool.meta.name))
    });
    let mut ranges: Vec<(AddressRange, usize, &ObjectName)> = ranges.collect();
    // By family, for IPv4 sorts before IPv6, then by first address, the wider range in front.
    ranges.sort_by_key(|(range, _, name)| (range.first(), Reverse(range.last()), *name));
    let mut found = Vec::new();
    let mut furthest: Option<(AddressRange, &ObjectName)> = None;
    for (range, index, name) in ranges {
        if let Some((other, owner)) = furthest.filter(|(other, _)| other.contains(range.first())) {
            if owner != name {
                let reason = format!("{range} overlaps {other} of pool {owner}; each address is assigned once");
                found.push(Overlap { pool: name.clone(), field: format!("spec.addresses[{index}]"), reason });
            }
            if range.last() <= other.last() {
                continue;
            }
        }
        furthest = Some((range, name));
    }
    found
}

#[cfg(test)]
mod tests {
    use roadstead_model::{Labels, Metadata};

    use super::*;

    #[test]
    fn ranges_of_several_pools_are_compared() {
        let pool = |name: &str, ranges: &[&str]| {
            let name = ObjectName::new("metallb-system", name);
            let meta =
                Metadata { name: name.clone(), labels: Labels::new(), annotations: Labels::new(), created: None };
            let addresses = ranges.iter().map(|range| range.parse().unwrap()).collect();
            let pool = IpAddressPool { meta, addresses, auto_assign: true, avoid_buggy_ips: false, allocation: None };
            (name, Arc::new(pool))
        };
        type Case<'a> = (&'a [(&'a str, &'a [&'a str])], &'a [(&'a str, &'a str)]);
        let cases: [Case<'_>; 6] = [
            (&[("a", &["192.0.2.0/25"]), ("b", &["192.0.2.128/25", "2001:db8::/64"])], &[]),
            (
                &[("a", &["192.0.2.0/24"]), ("b", &["198.51.100.0/24", "192.0.2.7-192.0.2.9"])],
                &[("b", "spec.addresses[1]")],
            ),
            (&[("b", &["192.0.2.0-192.0.2.9"]), ("a", &["192.0.2.9-192.0.2.20"])], &[("a", "spec.addresses[0]")]),
            (
                &[("a", &["192.0.2.0/24"]), ("b", &["192.0.2.0/30"]), ("c", &["192.0.2.100/30"])],
                &[("b", "spec.addresses[0]"), ("c", "spec.addresses[0]")],
            ),
            (&[("a", &["192.0.2.0/30", "192.0.2.4/30"])], &[]),
            (&[("a", &["2001:db8::/32"]), ("b", &["2001:db8:1::/48"])], &[("b", "spec.addresses[0]")]),
        ];
        for (pools, expected) in cases {
            let pools = pools.iter().map(|(name, ranges)| pool(name, ranges)).collect();
            let found = overlaps(&pools);
            let found: Vec<(&str, &str)> = found.iter().map(|one| (&*one.pool.name, &*one.field)).collect();
            assert_eq!(found, expected);
        }
    }
}
