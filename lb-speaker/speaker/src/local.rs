//! Addresses of Services that this host has on interfaces of its own: there the kernel answers too, or in our place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
};

use tracing::warn;

use crate::links::Link;

/// The addresses of all interfaces.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// The interfaces that have an address, by index.
    holders: BTreeMap<IpAddr, BTreeMap<u32, String>>,
    /// What was warned about already.
    told: BTreeSet<IpAddr>,
}

impl Local {
    /// Takes the addresses that the interfaces have now.
    pub(crate) fn follow(&mut self, links: &[Link]) {
        self.holders.clear();
        for link in links {
            for ip in &link.addresses {
                self.holders.entry(*ip).or_default().insert(link.index, link.name.clone());
            }
        }
    }

    /// Whether the interface itself has the address, so that the kernel answers for it there.
    pub(crate) fn is_on(&self, ip: IpAddr, interface: u32) -> bool {
        self.holders.get(&ip).is_some_and(|holders| holders.contains_key(&interface))
    }

    /// Warns of every assigned address that the kernel answers for although perhaps another node was elected. `ports` are
    /// the interfaces in use.
    pub(crate) fn warn(&mut self, assigned: impl IntoIterator<Item = IpAddr>, ports: &BTreeMap<u32, &str>) {
        let mut wrong = BTreeSet::new();
        for ip in assigned {
            let Some(holders) = self.holders.get(&ip) else { continue };
            let names = || holders.values().map(String::as_str).collect::<Vec<_>>().join(", ");
            if holders.keys().any(|index| ports.contains_key(index)) {
                wrong.insert(ip);
                if !self.told.contains(&ip) {
                    let interface = names();
                    warn!(%ip, interface, "the interface has the address of a Service: the kernel answers for it, whoever is elected");
                }
            } else if ip.is_ipv4() && ports.values().any(|port| !ignores_others(port)) {
                wrong.insert(ip);
                if !self.told.contains(&ip) {
                    let (interface, set) = (names(), "net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
                    warn!(%ip, interface, set, "an interface has the address of a Service, for which the kernel answers on all others too");
                }
            }
        }
        self.told = wrong;
    }
}

/// Whether the kernel answers on the interface only for addresses that it has itself: for IPv6 always, for ARP by
/// `arp_ignore`, of which the greater of two counts (ip-sysctl).
fn ignores_others(interface: &str) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/arp_ignore"));
    let value = |name: &str| read(name).ok().and_then(|text| text.trim().parse::<u8>().ok()).unwrap_or(0);
    value("all").max(value(interface)) > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::tests::working;

    #[test]
    fn an_address_is_on_the_interfaces_that_have_it() {
        let mut local = Local::default();
        let (mut one, mut other) = (working("eth0", &["192.0.2.1", "2001:db8::1"]), working("ipvs", &["192.0.2.2"]));
        (one.index, other.index) = (2, 3);
        local.follow(&[one, other]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let cases = [("192.0.2.1", 2, true), ("192.0.2.1", 3, false), ("192.0.2.2", 3, true), ("192.0.2.3", 3, false)];
        for (text, interface, expected) in cases {
            assert_eq!(local.is_on(ip(text), interface), expected, "{text} {interface}");
        }
        let ports = BTreeMap::from([(2, "no such interface")]);
        local.warn(["192.0.2.1", "2001:db8::1", "192.0.2.9"].map(ip), &ports);
        assert_eq!(local.told, BTreeSet::from(["192.0.2.1", "2001:db8::1"].map(ip)));
        local.follow(&[]);
        local.warn(["192.0.2.1"].map(ip), &ports);
        assert!(local.told.is_empty(), "what was mended is told about when it comes back");
    }
}
