//! Sets of networks, for who may come: parsed once, asked per request.

use std::net::IpAddr;

/// A set of addresses, as the ranges of its networks: sorted, without overlaps. An IPv4 address is the same whether it is
/// written as itself or mapped into IPv6; `::/0` is all of IPv6 and none of IPv4, as in nginx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// The bits of a mapped address before the IPv4 one.
const MAPPED_BITS: u8 = 96;

impl Networks {
    /// The networks, each an address with the length of its prefix.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        let mut set = Self::default();
        for (address, length) in networks {
            match (address, address.to_canonical()) {
                (IpAddr::V6(_), IpAddr::V4(mapped)) if length >= MAPPED_BITS => {
                    set.v4.push(range_v4(mapped.to_bits(), length - MAPPED_BITS));
                }
                (IpAddr::V4(address), _) => set.v4.push(range_v4(address.to_bits(), length)),
                (IpAddr::V6(address), _) => set.v6.push(range_v6(address.to_bits(), length)),
            }
        }
        merge(&mut set.v4);
        merge(&mut set.v6);
        set
    }

    /// Whether no address is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in one of the networks.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }
}

fn range_v4(bits: u32, length: u8) -> (u32, u32) {
    let hosts = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    (bits & !hosts, bits | hosts)
}

fn range_v6(bits: u128, length: u8) -> (u128, u128) {
    let hosts = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    (bits & !hosts, bits | hosts)
}

/// Sorts, and joins ranges that overlap.
fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).and_then(|place| ranges.get(place)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::network;

    fn check(networks: &[&str], inside: &[&str], outside: &[&str]) {
        let set = Networks::new(networks.iter().map(|text| network(text).unwrap()));
        for address in inside {
            assert!(set.contains(address.parse().unwrap()), "{address} in {networks:?}");
        }
        for address in outside {
            assert!(!set.contains(address.parse().unwrap()), "{address} not in {networks:?}");
        }
    }

    #[test]
    fn addresses_are_in_their_networks_alone() {
        check(&[], &[], &["10.0.0.1", "::1"]);
        check(&["10.0.0.0/8"], &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["9.255.255.255", "11.0.0.0"]);
        check(&["10.1.2.3/8"], &["10.200.0.1"], &["11.0.0.0"]);
        check(&["192.0.2.7"], &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]);
        check(&["0.0.0.0/0"], &["0.0.0.0", "255.255.255.255"], &["::1"]);
        check(&["::/0"], &["::1", "2001:db8::1"], &["10.0.0.1", "::ffff:10.0.0.1"]);
        check(&["::ffff:10.0.0.0/104"], &["10.1.2.3"], &["11.0.0.1"]);
        check(&["::ffff:0:0/96"], &["10.1.2.3"], &["::1"]);
        check(&["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/8", "10.0.1.0/24"], &["10.0.1.9", "10.9.9.9"], &["11.0.0.0"]);
        check(&["2001:db8::/32", "10.0.0.1", "10.0.0.3"], &["2001:db8:1::", "10.0.0.3"], &["2001:db9::", "10.0.0.2"]);
    }
}
