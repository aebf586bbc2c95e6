//! An address to one holder: which Services keep what the merged map says that they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_model::ObjectName;

use super::{Assignments, Table};

/// What the map comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The addresses of each Service that has any.
    pub table: Table,
    /// Services that another goes before at an address.
    pub lost: BTreeMap<ObjectName, Lost>,
}

/// Addresses that a Service does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The addresses.
    pub ips: Vec<IpAddr>,
    /// Who keeps the first of them.
    pub to: ObjectName,
}

impl Assignments {
    /// Gives every address to one Service, or to those that may share it. Addresses that are `pinned`, asked for by the
    /// Service itself, go before others; then the lower `(epoch, namespace/name)` does. All nodes that have the same entries
    /// and the same Services come to the same answer, and whoever is in nobody's way keeps everything.
    pub fn settle(
        &self,
        pinned: impl Fn(&ObjectName, IpAddr) -> bool,
        may_share: impl Fn(&ObjectName, &ObjectName, IpAddr) -> bool,
    ) -> Settled {
        let mut wanted: BTreeMap<IpAddr, Vec<(bool, u64, &ObjectName)>> = BTreeMap::new();
        for (name, entry) in self.iter() {
            for ip in &entry.ips {
                wanted.entry(*ip).or_default().push((!pinned(name, *ip), entry.epoch, name));
            }
        }
        let mut settled = Settled::default();
        let mut refused: BTreeSet<(&ObjectName, IpAddr)> = BTreeSet::new();
        for (ip, mut wanting) in wanted.into_iter().filter(|(_, wanting)| wanting.len() > 1) {
            wanting.sort_unstable();
            let mut holders: Vec<&ObjectName> = Vec::new();
            for (_, _, name) in wanting {
                match holders.iter().find(|holder| !may_share(name, holder, ip)) {
                    None => holders.push(name),
                    Some(to) => {
                        refused.insert((name, ip));
                        let lost = || Lost { ips: Vec::new(), to: (*to).clone() };
                        settled.lost.entry(name.clone()).or_insert_with(lost).ips.push(ip);
                    }
                }
            }
        }
        for (name, entry) in self.iter() {
            let ips: Vec<IpAddr> = entry.ips.iter().filter(|ip| !refused.contains(&(name, **ip))).copied().collect();
            if !ips.is_empty() {
                settled.table.insert(name.clone(), ips);
            }
        }
        settled
    }
}
