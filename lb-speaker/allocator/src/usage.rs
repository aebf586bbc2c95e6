//! How full pools are, family by family.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_model::{AddressRange, IpAddressPool, IpFamily, ObjectName};

use crate::{Allocation, pools::number};

/// How full a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Its IPv4 addresses.
    pub v4: FamilyUsage,
    /// Its IPv6 addresses.
    pub v6: FamilyUsage,
}

/// How full the addresses of one family in a pool are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyUsage {
    /// Addresses that may be assigned; saturates for huge IPv6 ranges.
    pub capacity: u128,
    /// Addresses that are assigned, shared ones counted once.
    pub in_use: u128,
}

impl FamilyUsage {
    /// Addresses that nobody has.
    #[must_use]
    pub fn available(&self) -> u128 {
        self.capacity.saturating_sub(self.in_use)
    }
}

impl PoolUsage {
    /// Addresses of both families that may be assigned.
    #[must_use]
    pub fn capacity(&self) -> u128 {
        self.v4.capacity.saturating_add(self.v6.capacity)
    }

    /// Addresses of both families that are assigned.
    #[must_use]
    pub fn in_use(&self) -> u128 {
        self.v4.in_use.saturating_add(self.v6.in_use)
    }
}

pub(crate) fn usage<'a>(
    pools: impl Iterator<Item = &'a IpAddressPool>,
    allocation: &Allocation,
) -> BTreeMap<ObjectName, PoolUsage> {
    let mut held: BTreeMap<&ObjectName, BTreeSet<IpAddr>> = BTreeMap::new();
    for assignment in allocation.services.values() {
        if let Some(pool) = &assignment.pool {
            held.entry(pool).or_default().extend(&assignment.ips);
        }
    }
    let family = |pool: &IpAddressPool, family: IpFamily| {
        let of_family = |ip: &&IpAddr| IpFamily::of(**ip) == family;
        let in_use = held.get(&pool.meta.name).map_or(0, |ips| ips.iter().filter(of_family).count() as u128);
        FamilyUsage { capacity: capacity(pool, family), in_use }
    };
    let usage = |pool: &'a IpAddressPool| {
        (pool.meta.name.clone(), PoolUsage { v4: family(pool, IpFamily::V4), v6: family(pool, IpFamily::V6) })
    };
    pools.map(usage).collect()
}

/// Addresses of the family that may be assigned; the ranges of one pool do not overlap.
fn capacity(pool: &IpAddressPool, family: IpFamily) -> u128 {
    let size = |range: &AddressRange| {
        let all = (number(range.last()) - number(range.first())).saturating_add(1);
        all - if pool.avoid_buggy_ips { buggy_count(range) } else { 0 }
    };
    pool.addresses.iter().filter(|range| range.family() == family).map(size).fold(0, u128::saturating_add)
}

fn buggy_count(range: &AddressRange) -> u128 {
    if range.family() == IpFamily::V6 {
        return 0;
    }
    // Numbers below `end` whose last byte is 0, and those whose last byte is 255.
    let below = |end: u128| end.div_ceil(256) + end / 256;
    below(number(range.last()) + 1) - below(number(range.first()))
}
