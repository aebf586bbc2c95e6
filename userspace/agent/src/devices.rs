//! Finding the devices towards the network and the node's own addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, bail};
use nix::ifaddrs::getifaddrs;

/// The node's devices as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Addresses by device, loopback and link-local ones left out.
    pub(crate) addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Devices with a default route; not looked for where the uplinks are named.
    pub(crate) default_routes: BTreeSet<String>,
    /// Devices that carry Ethernet frames; the programs read nothing else.
    pub(crate) ethernet: BTreeSet<String>,
}

/// `ARPHRD_ETHER` (include/uapi/linux/if_arp.h).
const ARPHRD_ETHER: u16 = 1;

impl Devices {
    /// Looks at the network namespace of this process.
    ///
    /// # Errors
    /// When the kernel does not list its devices.
    pub(crate) fn look(named: &[String]) -> anyhow::Result<Self> {
        let mut devices = Self::default();
        for entry in getifaddrs().context("cannot list devices")? {
            let Some(address) = entry.address.as_ref() else { continue };
            if address.as_link_addr().is_some_and(|link| link.hatype() == ARPHRD_ETHER) {
                devices.ethernet.insert(entry.interface_name);
                continue;
            }
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())));
            if let Some(ip) = ip.filter(is_global) {
                devices.addresses.entry(entry.interface_name).or_default().push(ip);
            }
        }
        if named.is_empty() {
            let read = |path| std::fs::read_to_string(path).unwrap_or_default();
            devices.default_routes = default_routes_v4(&read("/proc/net/route"));
            devices.default_routes.extend(default_routes_v6(&read("/proc/net/ipv6_route")));
        }
        Ok(devices)
    }

    /// The devices that face the network: the named ones, else those with one of the node's addresses or a default
    /// route, if they carry Ethernet frames.
    ///
    /// # Errors
    /// When a named device carries others: its packets would be misread.
    pub(crate) fn uplinks(&self, named: &[String], node: &[IpAddr]) -> anyhow::Result<BTreeSet<String>> {
        if !named.is_empty() {
            // A device that is not there may come.
            let is_there = |name: &&String| self.addresses.contains_key(*name);
            if let Some(other) = named.iter().filter(is_there).find(|name| !self.ethernet.contains(*name)) {
                bail!("the device {other} carries no Ethernet frames, and others are not supported");
            }
            return Ok(named.iter().cloned().collect());
        }
        let has_node_address = |ips: &Vec<IpAddr>| ips.iter().any(|ip| node.contains(ip));
        let with_address = self.addresses.iter().filter(|(_, ips)| has_node_address(ips)).map(|(name, _)| name);
        let facing = with_address.chain(&self.default_routes);
        Ok(facing.filter(|name| self.ethernet.contains(*name)).cloned().collect())
    }

    /// Addresses of the given devices, or where none is given of those with a default route, in order.
    pub(crate) fn addresses_of(&self, named: &[String]) -> Vec<IpAddr> {
        let faces =
            |name: &String| if named.is_empty() { self.default_routes.contains(name) } else { named.contains(name) };
        self.addresses.iter().filter(|(name, _)| faces(name)).flat_map(|(_, ips)| ips.iter().copied()).collect()
    }
}

fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

/// `/proc/net/route`: device, destination and mask are columns 1, 2 and 8, the numbers in hexadecimal.
fn default_routes_v4(text: &str) -> BTreeSet<String> {
    let device = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (name, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        (*destination == "00000000" && *mask == "00000000").then(|| (*name).to_owned())
    };
    text.lines().skip(1).filter_map(device).collect()
}

/// `/proc/net/ipv6_route`: destination and prefix length are columns 1 and 2, the device column 10. The kernel lists a
/// reject route on `lo` as well.
fn default_routes_v6(text: &str) -> BTreeSet<String> {
    let device = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (destination, length, name) = (fields.first()?, fields.get(1)?, fields.get(9)?);
        let is_default = *length == "00" && destination.bytes().all(|byte| byte == b'0');
        (is_default && *name != "lo").then(|| (*name).to_owned())
    };
    text.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_read_from_both_tables() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let v6 = "fd770000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd770000000000000000000000000001 00000400 00000001 00000000 00000003 eth2\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n";
        assert_eq!(default_routes_v4(v4), BTreeSet::from(["eth0".to_owned()]));
        assert_eq!(default_routes_v6(v6), BTreeSet::from(["eth2".to_owned()]));
    }

    #[test]
    fn uplinks_are_named_or_have_a_node_address_or_a_default_route() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let devices = Devices {
            addresses: [
                ("eth0".to_owned(), vec![ip("192.0.2.1")]),
                ("eth1".to_owned(), vec![ip("10.0.0.1")]),
                ("cni0".to_owned(), vec![ip("10.244.0.1")]),
                ("tun0".to_owned(), vec![ip("198.51.100.1")]),
            ]
            .into(),
            default_routes: ["eth0", "tun0"].map(str::to_owned).into(),
            ethernet: ["eth0", "eth1", "cni0"].map(str::to_owned).into(),
        };
        let names = |set: anyhow::Result<BTreeSet<String>>| set.unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(names(devices.uplinks(&[], &[ip("10.0.0.1")])), ["eth0", "eth1"]);
        assert_eq!(names(devices.uplinks(&["cni0".to_owned()], &[ip("10.0.0.1")])), ["cni0"]);
        assert!(devices.uplinks(&["tun0".to_owned()], &[]).is_err());
        assert_eq!(devices.addresses_of(&["eth1".to_owned()]), [ip("10.0.0.1")]);
    }
}
