//! MetalLB's objects: address pools and their announcement on a segment.
//!
//! Source: <https://metallb.io/apis/>.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::{IpFamily, LabelSelector, Metadata, Service};

/// One IPAddressPool (metallb.io/v1beta1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAddressPool {
    /// Name, labels (for selectors of advertisements).
    pub meta: Metadata,
    /// `spec.addresses`, in the order written.
    pub addresses: Vec<AddressRange>,
    /// `spec.autoAssign`: serves Services that name no pool.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`: leaves out IPv4 addresses that end in .0 or .255.
    pub avoid_buggy_ips: bool,
    /// `spec.serviceAllocation`.
    pub allocation: Option<ServiceAllocation>,
}

/// `spec.serviceAllocation`: who may have addresses of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// Lower goes first; 0 is last.
    pub priority: u32,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by label; any of the selectors suffices.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services by label; any of the selectors suffices.
    pub service_selectors: Vec<LabelSelector>,
}

/// Consecutive addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// A range from its ends.
    ///
    /// # Errors
    /// When the ends are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, AddressRangeError> {
        if first.is_ipv4() != last.is_ipv4() {
            return Err(AddressRangeError::MixedFamilies);
        }
        if first > last {
            return Err(AddressRangeError::Reversed);
        }
        Ok(Self { first, last })
    }

    /// The lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of both ends.
    #[must_use]
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.first)
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && self.first <= ip && ip <= self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Why a text is no address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// One end is IPv4, the other IPv6.
    #[error("the ends of an address range must be of one family")]
    MixedFamilies,
    /// The first address is above the last.
    #[error("the first address of a range must not be above the last")]
    Reversed,
    /// Neither `CIDR` nor `first-last`.
    #[error("{0:?} is neither a CIDR nor a range first-last")]
    Syntax(String),
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    /// Reads `192.0.2.0/24` or `192.0.2.10-192.0.2.20`, spaces around the dash allowed. As MetalLB, a CIDR's first and
    /// last address belong to it.
    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let syntax = || AddressRangeError::Syntax(text.to_owned());
        if let Some((first, last)) = text.split_once('-') {
            let first = first.trim().parse().map_err(|_| syntax())?;
            let last = last.trim().parse().map_err(|_| syntax())?;
            return Self::new(first, last);
        }
        let net: IpNet = text.trim().parse().map_err(|_| syntax())?;
        Self::new(net.network(), net.broadcast())
    }
}

/// One L2Advertisement (metallb.io/v1beta1): which nodes may announce which pools by ARP and NDP, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2Advertisement {
    /// Name.
    pub meta: Metadata,
    /// `spec.ipAddressPools` by name; with no name and no selector, all pools.
    pub pools: Vec<String>,
    /// `spec.ipAddressPoolSelectors`.
    pub pool_selectors: Vec<LabelSelector>,
    /// `spec.nodeSelectors`.
    pub nodes: NodeChoice,
    /// `spec.preferredNodeSelectors`: which of these nodes should rather announce.
    pub preferences: Vec<NodePreference>,
    /// `spec.serviceSelectors`: Services by label, any of the selectors suffices; none at all means every Service. A Service
    /// with a sharing key is announced by no advertisement that has some, as it might share with one that it does not name.
    pub service_selectors: Vec<LabelSelector>,
    /// `spec.interfaces`; empty means every interface.
    pub interfaces: Vec<String>,
}

impl L2Advertisement {
    /// Whether the advertisement covers the pool.
    #[must_use]
    pub fn covers(&self, pool: &IpAddressPool) -> bool {
        let all = self.pools.is_empty() && self.pool_selectors.is_empty();
        all || self.pools.iter().any(|name| **name == *pool.meta.name.name)
            || self.pool_selectors.iter().any(|selector| selector.matches(&pool.meta.labels))
    }

    /// Whether addresses of the Service are among what the advertisement is for.
    #[must_use]
    pub fn serves(&self, service: &Service) -> bool {
        let selects = |selector: &LabelSelector| selector.matches(&service.meta.labels);
        let alone = service.load_balancer.sharing_key.is_none();
        self.service_selectors.is_empty() || alone && self.service_selectors.iter().any(selects)
    }
}

/// Nodes by label: any of the selectors suffices, none at all means every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChoice(pub Vec<LabelSelector>);

impl NodeChoice {
    /// Whether a node with these labels is chosen.
    #[must_use]
    pub fn matches(&self, labels: &crate::Labels) -> bool {
        self.0.is_empty() || self.0.iter().any(|selector| selector.matches(labels))
    }
}

/// One entry of `spec.preferredNodeSelectors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePreference {
    /// 1 to 100; a node's score is the sum over the selectors that match it, and the highest score goes before the hash.
    pub weight: u8,
    /// Nodes by label; an empty selector matches every node.
    pub selector: LabelSelector,
}

/// The ConfigMap `metallb-excludel2`: interfaces that nothing is announced on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2Exclusion {
    /// Regular expressions that are searched in an interface's name; each has been compiled once without tables of Unicode.
    pub patterns: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_metallb_reads_them() {
        let cases = [
            ("192.0.2.0/30", Some(("192.0.2.0", "192.0.2.3"))),
            ("192.0.2.10-192.0.2.20", Some(("192.0.2.10", "192.0.2.20"))),
            ("192.0.2.10 - 192.0.2.20", Some(("192.0.2.10", "192.0.2.20"))),
            ("2001:db8::/126", Some(("2001:db8::", "2001:db8::3"))),
            ("192.0.2.20-192.0.2.10", None),
            ("192.0.2.1-2001:db8::1", None),
            ("192.0.2.1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let range = text.parse::<AddressRange>().ok();
            let ends = expected.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap()));
            assert_eq!(range.map(|range| (range.first(), range.last())), ends, "{text}");
        }
    }
}
